//! Everything a verb is given: configuration, the outside world, the stores.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use cricket_proto::runtime::{ContainerEventType, CreateContainerRequest, RunPodSandboxRequest};
use serde_json::Value;

use crate::call::Call;
use crate::clock;
use crate::cni::Cni;
use crate::config::{CgroupDriver, Config, Handler, Shim, ShimScope, UnsetSeccomp};
use crate::containerd::Containerd;
use crate::error::{Error, Result};
use crate::flights::Flights;
use crate::host::features::{self, Features};
use crate::host::{self, Host};
use crate::ids::SandboxId;
use crate::layout::Layout;
use crate::oci::facts::{CgroupMode, HandlerFacts};
use crate::shipped::Shipped;
use crate::stdio::Hub;
use crate::store::events::{Event, Events};
use crate::store::fs_usage::FsUsage;
use crate::store::image::ImageStore;
use crate::store::later::Later;
use crate::store::pulls::Pulls;
use crate::store::sessions::Sessions;
use crate::store::{Container, Sandbox, Store};
use crate::sync::{Condvar, Mutex};
use crate::workers::{Size, Workers};

/// Exits that are settled at the same time; more wait, none is refused.
const SETTLING: Size = Size { bound: 8, kept: 0, limit: usize::MAX };

/// The daemon's state, shared by every verb.
pub struct Runtime {
    /// As checked at start.
    pub config: Config,
    /// Where everything is on disk.
    pub layout: Layout,
    /// Facts of this machine.
    pub host: Host,
    /// The base specs of the handlers, by the path that the configuration names.
    pub base_specs: BTreeMap<PathBuf, Value>,
    /// containerd, or a fake of it.
    pub containerd: Arc<dyn Containerd>,
    /// The pod network.
    pub cni: Cni,
    /// Container output.
    pub hub: Hub,
    /// Our shim.
    pub shipped: Shipped,
    /// Threads for what no client waits for: settling exits.
    pub workers: Workers,
    /// A thread for images that changed in containerd.
    pub refresher: Workers,
    /// RunPodSandbox requests under way, by the name they reserve; of one that succeeds comes the id.
    pub running_sandboxes: Flights<String, RunPodSandboxRequest, String>,
    /// CreateContainer requests under way, likewise.
    pub creating_containers: Flights<String, CreateContainerRequest, String>,
    /// Pod sandboxes.
    pub sandboxes: Store<Sandbox>,
    /// Containers.
    pub containers: Store<Container>,
    /// Images.
    pub images: ImageStore,
    /// Clients that are told what happens.
    pub events: Events,
    /// Streaming sessions that wait for their client.
    pub sessions: Sessions,
    /// Pulls in progress.
    pub pulls: Arc<Pulls>,
    /// What the snapshots of each snapshotter take, as last measured.
    fs_usage: BTreeMap<String, FsUsage>,
    /// What could not be done at once.
    pub later: Later,
    /// Why requests cannot be served yet.
    not_ready: Mutex<Option<String>>,
    became_ready: Condvar,
    /// Whether containerd answers.
    connected: AtomicBool,
    clamp_noted: AtomicBool,
    /// By the binary of the OCI runtime, `None` for the shim's own choice.
    features: OnceLock<Vec<(Option<PathBuf>, Features)>>,
    /// Snapshotters that give files other owners.
    remapping: Mutex<BTreeSet<String>>,
    tasks_dir: Mutex<Option<PathBuf>>,
}

/// The parts a [`Runtime`] is put together from.
pub struct Parts {
    /// As checked at start.
    pub config: Config,
    /// Facts of this machine.
    pub host: Host,
    /// containerd, or a fake of it.
    pub containerd: Arc<dyn Containerd>,
    /// Container output.
    pub hub: Hub,
    /// What `host::base_spec::read_all` read.
    pub base_specs: BTreeMap<PathBuf, Value>,
}

impl Runtime {
    /// A runtime that is not ready until [`Runtime::set_ready`].
    pub fn new(parts: Parts) -> Self {
        let Parts { config, host, containerd, hub, base_specs } = parts;
        let cni =
            Cni::new(&config.cni.conf_dir, config.cni.bin_dirs.clone(), &config.cni.cache_dir, config.cni.timeout);
        let layout = Layout::new(&config);
        Runtime {
            shipped: Shipped::new(layout.shim(), config.containerd.address.clone()),
            layout,
            cni,
            hub,
            host,
            base_specs,
            containerd,
            workers: Workers::new(SETTLING),
            refresher: Workers::new(Size { bound: 1, ..SETTLING }),
            running_sandboxes: Flights::default(),
            creating_containers: Flights::default(),
            sandboxes: Store::new("pod sandbox"),
            containers: Store::new("container"),
            images: ImageStore::with_pins(&config.image.pinned),
            pulls: Arc::new(Pulls::new(config.image.max_downloads)),
            sessions: Sessions::default(),
            events: Events::default(),
            fs_usage: config.snapshotters().into_iter().map(|name| (name.to_owned(), FsUsage::default())).collect(),
            later: Later::default(),
            not_ready: Mutex::new(Some(format!("waiting for containerd at {}", config.containerd.address.display()))),
            became_ready: Condvar::new(),
            connected: AtomicBool::new(false),
            clamp_noted: AtomicBool::new(false),
            features: OnceLock::new(),
            remapping: Mutex::default(),
            tasks_dir: Mutex::default(),
            config,
        }
    }

    /// Tells those who listen that this happened to a container, or to the sandbox itself.
    pub fn tell(&self, kind: ContainerEventType, id: &str, sandbox: &SandboxId) {
        // A pod is there as long as anything happens in it.
        if let Some(sandbox) = self.sandboxes.exact(sandbox.as_str()) {
            self.events.tell(&Event { id: id.to_owned(), kind, at: clock::now(), sandbox });
        }
    }

    /// Whether containerd answered last time; the RuntimeReady condition.
    pub fn connected(&self) -> bool {
        self.connected.load(Ordering::Acquire)
    }

    /// See [`Runtime::connected`].
    pub fn set_connected(&self, connected: bool) {
        self.connected.store(connected, Ordering::Release);
    }

    /// Requests are served from now on.
    pub fn set_ready(&self) {
        *self.not_ready.lock() = None;
        self.became_ready.notify_all();
    }

    /// What keeps requests from being served, if they are not served yet.
    pub fn set_not_ready_because(&self, why: &Error) {
        if let Some(reason) = &mut *self.not_ready.lock() {
            *reason = why.to_string();
        }
    }

    /// Blocks until requests are served.
    ///
    /// # Errors
    /// When `call` is over before that.
    pub fn await_ready(self: &Arc<Self>, call: &Call) -> Result<()> {
        let own = Arc::downgrade(self);
        let _watch = call.on_cancel(move || {
            if let Some(rt) = own.upgrade() {
                // With the lock, or it may come between our look and our sleep.
                drop(rt.not_ready.lock());
                rt.became_ready.notify_all();
            }
        });
        let mut not_ready = self.not_ready.lock();
        while not_ready.is_some() {
            call.check()?;
            not_ready = self.became_ready.wait_until(not_ready, call.deadline());
        }
        Ok(())
    }

    /// Why requests cannot be served yet, if so.
    pub fn not_ready(&self) -> Option<String> {
        self.not_ready.lock().clone()
    }

    /// The runtime handler of this name; "" is the default one.
    ///
    /// # Errors
    /// `InvalidArgument` for an unknown name, with the names there are.
    pub fn handler(&self, name: &str) -> Result<&Handler> {
        let name = if name.is_empty() { &self.config.default_runtime } else { name };
        self.config.runtimes.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.config.runtimes.keys().map(String::as_str).collect();
            Error::invalid(format!("runtime handler {name:?} is not configured (there are: {})", known.join(", ")))
        })
    }

    /// Whether systemd makes the cgroups of this handler's containers.
    pub fn systemd_cgroup(&self, handler: &Handler) -> bool {
        handler.systemd_cgroup.unwrap_or(match self.config.cgroup_driver {
            CgroupDriver::Systemd => true,
            CgroupDriver::Cgroupfs => false,
            CgroupDriver::Auto => self.host.systemd && self.host.facts.cgroups == CgroupMode::V2,
        })
    }

    /// Asks every OCI runtime what it can do. Blocks for them, once.
    pub fn learn_features(&self) {
        self.features.get_or_init(|| {
            let mut known: Vec<(Option<PathBuf>, Features)> = Vec::new();
            for handler in self.config.runtimes.values().filter(|h| h.is_runc()) {
                if known.iter().any(|(binary, _)| *binary == handler.binary) {
                    continue;
                }
                let asked = features::ask(handler.binary.as_deref(), &self.host.kernel);
                let answer = asked.unwrap_or_else(|e| {
                    log::info!("no recursive read-only mounts, mapped mounts or user namespaces: {e}");
                    Features::default()
                });
                known.push((handler.binary.clone(), answer));
            }
            known
        });
    }

    /// What the OCI runtime of a handler can do; nothing until it is known, and for those that we cannot ask.
    pub fn features(&self, handler: &Handler) -> Features {
        let known = self.features.get().into_iter().flatten();
        let of_binary = known.filter(|(binary, _)| handler.is_runc() && *binary == handler.binary);
        of_binary.map(|(_, features)| *features).next().unwrap_or_default()
    }

    /// These snapshotters give files other owners, as containerd says.
    pub fn set_remapping(&self, snapshotters: BTreeSet<String>) {
        *self.remapping.lock() = snapshotters;
    }

    /// Where containerd has a directory for each task that there is, if that is known.
    pub fn tasks_dir(&self) -> Option<PathBuf> {
        self.tasks_dir.lock().clone()
    }

    /// See [`Runtime::tasks_dir`].
    pub fn set_tasks_dir(&self, dir: Option<PathBuf>) {
        *self.tasks_dir.lock() = dir;
    }

    /// containerd's name for the shim of a handler's containers. Ours does not mount root file systems with other owners:
    /// pods with `users` of their own have containerd's.
    ///
    /// # Errors
    /// `FailedPrecondition` if ours is demanded and containerd cannot run it.
    pub fn shim(&self, handler: &Handler, users: bool) -> Result<String> {
        match users {
            true => Ok(handler.runtime_type.clone()),
            false => self.shipped.runtime_type(handler),
        }
    }

    /// What is not there that pods with users of their own need, if anything. As far as it is known: see
    /// [`Runtime::learn_features`].
    pub fn lacks_for_users(&self, handler: &Handler) -> Option<&'static str> {
        let features = self.features(handler);
        if handler.shim == Shim::Cricket {
            Some("containerd's own shim, not `shim = \"cricket\"`")
        } else if !features.user_namespaces {
            Some("an OCI runtime that makes user namespaces")
        } else if !features.idmap_mounts {
            Some("an OCI runtime that maps the owners of mounts, as runc 1.2 does, and Linux 5.12")
        } else if !self.remapping.lock().contains(self.config.snapshotter(handler)) {
            Some("a snapshotter that maps the owners of files, as overlayfs of containerd 2.0 does")
        } else {
            None
        }
    }

    /// A handler, as far as an OCI spec depends on it. Blocks until its OCI runtime has said what it can do.
    pub fn handler_facts(&self, handler: &Handler) -> HandlerFacts {
        self.learn_features();
        let Features { recursive_read_only, idmap_mounts, user_namespaces } = self.features(handler);
        HandlerFacts {
            recursive_read_only,
            idmap_mounts,
            user_namespaces,
            systemd_cgroup: self.systemd_cgroup(handler),
            shim_group: self.shim_group(handler),
            privileged_without_host_devices: handler.privileged_without_host_devices,
            seccomp_by_default: self.config.unset_seccomp_profile == UnsetSeccomp::RuntimeDefault,
            selinux: self.config.enable_selinux,
            pod_annotations: handler.pod_annotations.clone(),
            container_annotations: handler.container_annotations.clone(),
        }
    }

    /// The base of a handler's specs, if it has one.
    pub fn base_spec(&self, handler: &Handler) -> Option<&Value> {
        self.base_specs.get(handler.base_spec.as_ref()?)
    }

    /// Whom the shim of a container serves beside it, if that is not its pod. Looks for the shim on disk.
    fn shim_group(&self, handler: &Handler) -> Option<String> {
        let whole_node = self.config.shim_scope == ShimScope::Node && handler.is_runc();
        whole_node.then(|| {
            let shim = self.shipped.runtime_type(handler);
            host::shims::group(shim.as_deref().unwrap_or(&handler.runtime_type))
        })
    }

    /// Says once that out-of-memory scores cannot be lowered here.
    pub fn note_clamped_oom_score(&self, wanted: i32, given: i32) {
        if !self.clamp_noted.swap(true, Ordering::AcqRel) {
            log::warn!(
                "oom_score_adj {wanted} was raised to {given}, cricket's own: without CAP_SYS_RESOURCE it cannot be \
                 lowered (said once)"
            );
        }
    }

    /// What the snapshots of a snapshotter of the configuration take.
    pub fn fs_usage(&self, snapshotter: &str) -> &FsUsage {
        self.fs_usage.get(snapshotter).expect("there is one for each snapshotter of the configuration")
    }

    /// Which snapshotter a container's root filesystem is in.
    ///
    /// # Errors
    /// As [`Runtime::handler`], for one that is not configured any more.
    pub fn snapshotter_of(&self, container: &Container) -> Result<String> {
        let sandbox = self.sandboxes.exact(container.sandbox_id.as_str());
        let handler = self.handler(sandbox.as_ref().map_or("", |s| &s.runtime_handler))?;
        Ok(self.config.snapshotter(handler).to_owned())
    }
}
