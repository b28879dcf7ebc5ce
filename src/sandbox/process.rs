//! The process of a sandbox that has one: cricket's own binary as `pause`, in a container without an image.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use cricket_proto::records;
use cricket_proto::runtime::{ContainerEventType, NamespaceMode, PodSandboxConfig};

use crate::call::Call;
use crate::config::{Handler, SandboxProcess};
use crate::container;
use crate::containerd::{Any, NewTask, Record, TaskState};
use crate::error::{Context, Error, Idempotent, Kind, Result};
use crate::ids::{random_hex, SandboxId};
use crate::oci::facts::Namespaces;
use crate::oci::sandbox::{MOUNT_POINTS, PROGRAM};
use crate::oci::{self, labels};
use crate::runtime::Runtime;
use crate::sandbox::save::save;
use crate::store::Sandbox;
use crate::sys::namespace::{self, Namespace};
use crate::sys::tree;

/// Marks containerd's record of a sandbox's process as ours.
pub const PROCESS_TYPE: &str = "cricket.v1.Sandbox";
/// What runs, whatever becomes of the file that we were started from.
const OURSELVES: &str = "/proc/self/exe";

/// Whether a sandbox gets a process: with a shared PID namespace somebody must be its first process.
pub fn wanted(rt: &Runtime, config: &PodSandboxConfig) -> bool {
    // Without any options, crictl and other simple clients get a PID namespace for each container.
    let options = config.linux.security_context.namespace_options.as_ref();
    let shared = options.is_some_and(|o| o.pid == NamespaceMode::POD.into());
    shared || rt.config.sandbox_process == SandboxProcess::Always
}

/// Starts the process of a sandbox whose namespaces are pinned, and pins its PID namespace if containers join it.
/// Returns its pid. Blocks for the OCI runtime. The undo is [`remove`].
pub fn start(rt: &Runtime, call: &Call, sandbox: &records::Sandbox, pins: &Namespaces) -> Result<u32> {
    let record = record(rt, sandbox, pins)?;
    rt.containerd.create_container(call, &record).context("create containerd record")?;
    let task = NewTask { id: record.id.clone(), options: record.runtime_options, ..NewTask::default() };
    let pid = rt.containerd.create_task(call, &task).context("create task")?;
    if let Some(path) = &pins.pid {
        // Before it is started it cannot end, and its pid be given to another.
        namespace::pin_of(Namespace::Pid, pid, path)?;
    }
    rt.containerd.start_task(call, &record.id, None).context("start task")?;
    Ok(pid)
}

/// Ends the process of a sandbox, with whatever else lives in its PID namespace, and removes its record. Idempotent.
pub fn remove(rt: &Runtime, call: &Call, id: &str) -> Result<()> {
    container::destroy(&*rt.containerd, call, id, None)?;
    rt.containerd.delete_container(call, id).or_gone().context("delete containerd record")
}

/// The process of a sandbox has ended: the sandbox is not ready any more, as after a stop. Its containers see to
/// themselves, and StopPodSandbox does the rest.
pub fn ended(rt: &Runtime, sandbox: &Sandbox) {
    if !sandbox.lose() {
        return;
    }
    log::warn!("pod sandbox {} is not ready any more: its process has ended", sandbox.id);
    let written = save(rt, sandbox);
    if let Err(e) = written {
        log::warn!("pod sandbox {} lost its process, which a restart of cricket has to find out: {e}", sandbox.id);
    }
    rt.tell(ContainerEventType::CONTAINER_STOPPED_EVENT, sandbox.id.as_str(), &sandbox.id);
}

/// Asks containerd whether the process of a ready sandbox lives, for events that nobody could hear.
pub fn reconcile(rt: &Runtime, call: &Call, sandbox: &Sandbox) -> Result<()> {
    match rt.containerd.task(call, sandbox.id.as_str(), None) {
        Ok(task) if task.state != TaskState::Stopped => {
            sandbox.set_pid(task.pid);
            Ok(())
        }
        Err(e) if e.kind() != Kind::NotFound => {
            Err(e.context(format_args!("ask for the process of pod sandbox {}", sandbox.id)))
        }
        _ => {
            ended(rt, sandbox);
            Ok(())
        }
    }
}

fn record(rt: &Runtime, sandbox: &records::Sandbox, pins: &Namespaces) -> Result<Record> {
    let handler: &Handler = rt.handler(&sandbox.runtime_handler)?;
    let facts = rt.handler_facts(handler);
    let users = oci::users::of(&sandbox.config)?;
    let root = root(rt).context("make the root directory of sandbox processes")?;
    let spec = oci::sandbox::spec(&oci::sandbox::Input {
        config: &sandbox.config,
        id: &SandboxId::from_record(&sandbox.id),
        namespaces: pins,
        host: &rt.host.facts,
        handler: &facts,
        root: &root,
    })?;
    let spec = serde_json::to_vec(&spec);
    Ok(Record {
        id: sandbox.id.clone(),
        labels: labels::of_sandbox(&sandbox.config.labels),
        runtime: rt.shim(handler, users.is_some())?,
        runtime_options: container::runtime_options(handler, facts.systemd_cgroup, users.as_ref())?,
        spec: spec.map_err(|e| Error::caused(Kind::Internal, "encode the runtime spec", e))?,
        extensions: BTreeMap::from([(
            PROCESS_TYPE.to_owned(),
            Any { type_url: PROCESS_TYPE.to_owned(), value: Vec::new() },
        )]),
        ..Record::default()
    })
}

/// The root directory of sandbox processes, made if this version has none yet: nothing but a copy of this binary and
/// the directories that the runtime mounts something on. A copy, so that neither a running pod holds the installed file
/// nor can anything that reaches into the directory change it.
fn root(rt: &Runtime) -> Result<PathBuf> {
    let root = rt.layout.pause_roots().join(version()?);
    let program = root.join(PROGRAM);
    if program.exists() {
        return Ok(root);
    }
    for dir in MOUNT_POINTS {
        let dir = root.join(dir);
        let made = DirBuilder::new().mode(0o755).recursive(true).create(&dir);
        made.with_context(|| format!("make {}", dir.display()))?;
    }
    // Two pods may come here at once: each makes its own file, and one of them stays.
    let new = root.join(format!("{PROGRAM}.{}", &random_hex()?[..16]));
    let copied = fs::copy(OURSELVES, &new)
        .and_then(|_| fs::set_permissions(&new, Permissions::from_mode(0o555)))
        .and_then(|()| fs::rename(&new, &program));
    if copied.is_err() {
        fs::remove_file(&new).ok(); // the copy's own failure is what matters
    }
    copied.with_context(|| format!("copy {OURSELVES} to {}", program.display()))?;
    Ok(root)
}

/// What tells this binary from its earlier versions: when it was written, and its size.
fn version() -> Result<String> {
    let ours = fs::metadata(OURSELVES).with_context(|| format!("look at {OURSELVES}"))?;
    Ok(format!("{:x}-{:x}-{:x}", ours.mtime(), ours.mtime_nsec(), ours.len()))
}

/// Removes the root directories of other versions, and copies that a killed daemon did not finish. Only at start. A
/// process that runs from one goes on: it has the file.
pub fn sweep(rt: &Runtime) -> Result<()> {
    let (all, ours) = (rt.layout.pause_roots(), version()?);
    for entry in list(&all)? {
        if !entry.ends_with(&ours) {
            fs::remove_dir_all(&entry).or_gone().with_context(|| format!("remove {}", entry.display()))?;
        }
    }
    for file in list(&all.join(ours))? {
        let unfinished = file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("pause."));
        if unfinished {
            fs::remove_file(&file).or_gone().with_context(|| format!("remove {}", file.display()))?;
        }
    }
    Ok(())
}

fn list(dir: &Path) -> Result<Vec<PathBuf>> {
    tree::entries(dir).with_context(|| format!("read {}", dir.display()))
}
