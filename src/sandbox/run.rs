//! RunPodSandbox: plan, act under one undo, commit.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cricket_proto::records;
use cricket_proto::runtime::{
    ContainerEventType, NamespaceMode, NamespaceOption, PodSandboxConfig, RunPodSandboxRequest, RunPodSandboxResponse,
};
use protobuf::MessageField;

use crate::call::Call;
use crate::clock;
use crate::config::Handler;
use crate::error::{Context, Error, Idempotent, Result};
use crate::ids::SandboxId;
use crate::oci;
use crate::oci::facts::{Namespaces, SandboxFiles};
use crate::oci::users::Users;
use crate::runtime::Runtime;
use crate::sandbox::{files, network, pins, process, sysctl, teardown};
use crate::store::record::{self, Durability};
use crate::store::sandbox::{namespace_options, reserved_name};
use crate::store::{Reservation, Sandbox, SandboxState};

/// Longest host name the kernel takes, in bytes.
const MAX_HOSTNAME: usize = 64;

/// What will be made, computed and not begun.
struct Plan {
    record: records::Sandbox,
    id: SandboxId,
    config: PodSandboxConfig,
    hostname: String,
    pins: Namespaces,
    files: SandboxFiles,
    sysctls: Vec<(PathBuf, String)>,
    users: Option<Users>,
}

/// Makes a pod sandbox: pinned namespaces, its files, its network, and a process if it needs one. Blocks for the CNI
/// plugins and the OCI runtime. An equal request meanwhile gets the same sandbox; so does one that comes afterwards, as
/// long as nothing shows that the answer was heard. When nobody waits for it any more, it is undone.
///
/// # Errors
/// `InvalidArgument` and `Unimplemented` before anything happens; `AlreadyExists` for a name in use; otherwise what
/// failed, and nothing of the sandbox is left. If its network could not be given back either, the sandbox stays, not
/// ready, for StopPodSandbox to try again.
pub fn run(rt: &Runtime, call: &Call, request: RunPodSandboxRequest) -> Result<RunPodSandboxResponse> {
    let config = request.config.as_ref().ok_or_else(|| Error::invalid("request has no pod sandbox config"))?;
    let name = reserved_name(config)?;
    let made = rt.running_sandboxes.join(call, &name, request, |call, request| match unheard(rt, &name, request) {
        Some(sandbox) => {
            log::info!("pod sandbox {name} is there already, with id {}: the request is the same", sandbox.id);
            Ok(sandbox.id.to_string())
        }
        None => make(rt, call, &name, request),
    });
    Ok(RunPodSandboxResponse { pod_sandbox_id: made?, ..Default::default() })
}

/// The sandbox that this very request has made, if the answer may have been lost on its way: nobody has put a container
/// into it.
fn unheard(rt: &Runtime, name: &str, request: &RunPodSandboxRequest) -> Option<Arc<Sandbox>> {
    let sandbox = rt.sandboxes.named(name)?;
    let same = sandbox.config == *request.config && sandbox.runtime_handler == request.runtime_handler;
    let used = || rt.containers.list().iter().any(|container| container.sandbox_id == sandbox.id);
    (same && sandbox.is_open() && !used()).then_some(sandbox)
}

fn make(rt: &Runtime, call: &Call, name: &str, request: &RunPodSandboxRequest) -> Result<String> {
    let plan = Plan::new(rt, request.config.clone().unwrap_or_default(), request.runtime_handler.clone())?;
    let slot = rt.sandboxes.reserve(name, plan.id.as_str())?;
    call.check()?;
    // The last look at whether anybody waits: from there on it is theirs.
    match plan.act(rt, call).and_then(|sandbox| call.check().map(|()| sandbox)) {
        Ok(sandbox) => {
            let sandbox = slot.fill(sandbox);
            rt.tell(ContainerEventType::CONTAINER_CREATED_EVENT, sandbox.id.as_str(), &sandbox.id);
            rt.tell(ContainerEventType::CONTAINER_STARTED_EVENT, sandbox.id.as_str(), &sandbox.id);
            if sandbox.process {
                // Its end would have found no sandbox until now.
                if let Err(e) = process::reconcile(rt, call, &sandbox) {
                    log::warn!("{e}");
                }
            }
            Ok(sandbox.id.to_string())
        }
        Err(e) => {
            plan.undo(rt, slot);
            Err(e.context(format_args!("run pod sandbox {name}")))
        }
    }
}

impl Plan {
    fn new(rt: &Runtime, config: PodSandboxConfig, runtime_handler: String) -> Result<Plan> {
        let handler = rt.handler(&runtime_handler)?;
        let options = namespace_options(&config);
        check_namespaces(&options)?;
        let users = oci::users::of(&config)?;
        if users.is_some() {
            check_users(rt, handler, &options)?;
        }
        network::check(&config)?;
        let process = process::wanted(rt, &config);
        if process {
            oci::sandbox::check(&config, rt.systemd_cgroup(handler))?;
        }
        let id = SandboxId::random()?;
        let pins = rt.layout.pins(&id, &options, process);
        let hostname = match config.hostname.as_str() {
            "" => rt.host.hostname.clone(),
            own if own.len() > MAX_HOSTNAME => {
                return Err(Error::invalid(format!("hostname {own:?} is longer than {MAX_HOSTNAME} bytes")));
            }
            own => own.to_owned(),
        };
        refuse_control_characters(&config, &hostname)?;
        let asked = config.linux.sysctls.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let defaults = sysctl::Defaults { ports: rt.config.unprivileged_ports, ping: rt.config.unprivileged_ping };
        let sysctls = sysctl::plan(asked, pins::own(&pins), defaults)?;
        let record = records::Sandbox {
            id: id.to_string(),
            config: MessageField::some(config.clone()),
            runtime_handler,
            created_at: clock::now(),
            netns_path: pins.net.as_deref().map(Path::to_string_lossy).unwrap_or_default().into_owned(),
            process,
            ..Default::default()
        };
        Ok(Plan { files: rt.layout.sandbox_files(&id, &options), record, id, config, hostname, pins, sysctls, users })
    }

    /// Makes it all. The record comes first, so that a daemon that is killed midway knows what to undo.
    fn act(&self, rt: &Runtime, call: &Call) -> Result<Sandbox> {
        let (root, state) = (rt.layout.sandbox_root(&self.id), rt.layout.sandbox_state(&self.id));
        // What is in the state directory is for containers only, its world-writable /dev/shm before all.
        for (dir, mode) in [(&root, 0o711), (&state, 0o700)] {
            let made = fs::DirBuilder::new().mode(mode).recursive(true).create(dir);
            made.with_context(|| format!("make {}", dir.display()))?;
        }
        // A power cut takes the namespaces with it; the network's own cache on disk remembers the addresses.
        record::write(&rt.layout.sandbox_record(&self.id), &self.record, Durability::Memory)?;
        let users = self.users.as_ref();
        pins::create(&self.pins, users, &self.hostname, &self.sysctls)?;
        files::write(&self.files, &self.hostname, self.config.dns_config.as_ref(), users)?;
        if self.pins.ipc.is_some() {
            files::mount_shm(rt, &self.id, users)?;
        }
        call.check()?;
        let ips = match &self.pins.net {
            Some(netns) => network::attach(rt, call, &self.id, &self.config, netns)?,
            None => Vec::new(),
        };
        if self.record.process {
            call.check()?;
            process::start(rt, call, &self.record, &self.pins).context("start the process of the sandbox")?;
        }
        let record = records::Sandbox {
            phase: records::sandbox::Phase::READY.into(),
            ips: ips.iter().map(ToString::to_string).collect(),
            ..self.record.clone()
        };
        record::write(&rt.layout.sandbox_record(&self.id), &record, Durability::Disk)?;
        Ok(Sandbox::ready(&record))
    }

    fn undo(&self, rt: &Runtime, slot: Reservation<'_, Sandbox>) {
        let sandbox = Sandbox::from_record(&self.record, SandboxState::NotReady);
        let gone = teardown::teardown(rt, &Call::undo(), &sandbox)
            .and_then(|()| fs::remove_dir_all(rt.layout.sandbox_root(&self.id)).or_gone());
        if let Err(e) = gone {
            log::warn!("pod sandbox {} is kept, not ready, until it can be stopped: {e}", self.id);
            slot.fill(sandbox);
        }
    }
}

/// Refuses strings that would add lines to the pod's hostname or resolv.conf.
fn refuse_control_characters(config: &PodSandboxConfig, hostname: &str) -> Result<()> {
    let dns = config.dns_config.clone().unwrap_or_default();
    let mut all = [&dns.servers, &dns.searches, &dns.options].into_iter().flatten().map(String::as_str);
    match all.find(|text| text.contains(char::is_control)).or(Some(hostname).filter(|h| h.contains(char::is_control))) {
        Some(text) => {
            Err(Error::invalid(format!("{text:?} in host name or DNS configuration holds a control character")))
        }
        None => Ok(()),
    }
}

/// Refuses what no sandbox can do.
fn check_namespaces(options: &NamespaceOption) -> Result<()> {
    for (what, mode) in [("the network", options.network), ("ipc", options.ipc)] {
        if !matches!(mode.enum_value(), Ok(NamespaceMode::POD | NamespaceMode::NODE)) {
            return Err(Error::invalid(format!("namespace mode of {what}: must be POD or NODE")));
        }
    }
    if matches!(options.pid.enum_value(), Ok(NamespaceMode::TARGET) | Err(_)) {
        return Err(Error::invalid("namespace mode of pid: a sandbox has no target, must be POD, CONTAINER or NODE"));
    }
    Ok(())
}

/// Refuses a user namespace where its containers could not live.
fn check_users(rt: &Runtime, handler: &Handler, options: &NamespaceOption) -> Result<()> {
    if options.network == NamespaceMode::NODE.into() {
        return Err(Error::invalid("a pod in the node's network cannot have users of its own: use hostUsers: true"));
    }
    rt.learn_features();
    let lacks = rt.lacks_for_users(handler);
    match lacks {
        None => Ok(()),
        Some(lacks) => Err(Error::precondition(format!("user namespaces need {lacks}: use hostUsers: true"))),
    }
}
