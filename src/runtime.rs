//! Everything a verb is given: configuration, the outside world, the stores.

mod handlers;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use cricket_proto::runtime::{ContainerEventType, CreateContainerRequest, RunPodSandboxRequest};
use serde_json::Value;

use crate::call::Call;
use crate::clock;
use crate::cni::Cni;
use crate::config::Config;
use crate::containerd::Containerd;
use crate::error::{Error, Result};
use crate::flights::Flights;
use crate::host::features::Features;
use crate::host::Host;
use crate::ids::SandboxId;
use crate::layout::Layout;
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

    /// Where containerd has a directory for each task that there is, if that is known.
    pub fn tasks_dir(&self) -> Option<PathBuf> {
        self.tasks_dir.lock().clone()
    }

    /// See [`Runtime::tasks_dir`].
    pub fn set_tasks_dir(&self, dir: Option<PathBuf>) {
        *self.tasks_dir.lock() = dir;
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
}
