//! Everything a verb is given: configuration, the outside world, the stores.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use crate::cni::Cni;
use crate::config::{Config, Handler};
use crate::containerd::Containerd;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::ids::{ContainerId, SandboxId};
use crate::stdio::Hub;
use crate::store::image::ImageStore;
use crate::store::{Container, Sandbox, Store};
use crate::sync::Mutex;
use crate::workers::{Size, Workers};

/// Exits that are settled at the same time; more wait, none is refused.
const SETTLING: Size = Size { bound: 8, kept: 0, limit: usize::MAX };

/// The daemon's state, shared by every verb.
pub struct Runtime {
    /// As checked at start.
    pub config: Config,
    /// Facts of this machine.
    pub host: Host,
    /// containerd, or a fake of it.
    pub containerd: Arc<dyn Containerd>,
    /// The pod network.
    pub cni: Cni,
    /// Container output.
    pub hub: Hub,
    /// Threads for what no client waits for: settling exits.
    pub workers: Workers,
    /// Pod sandboxes.
    pub sandboxes: Store<Sandbox>,
    /// Containers.
    pub containers: Store<Container>,
    /// Images.
    pub images: ImageStore,
    /// Why requests cannot be served yet.
    not_ready: Mutex<Option<String>>,
    /// Whether containerd answers.
    connected: AtomicBool,
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
}

impl Runtime {
    /// A runtime that is not ready until [`Runtime::set_ready`].
    pub fn new(parts: Parts) -> Self {
        let Parts { config, host, containerd, hub } = parts;
        let cni = Cni::new(&config.cni.conf_dir, config.cni.bin_dirs.clone(), &config.cni.cache_dir, config.cni.timeout);
        Runtime {
            cni,
            hub,
            host,
            containerd,
            workers: Workers::new(SETTLING),
            sandboxes: Store::new("pod sandbox"),
            containers: Store::new("container"),
            images: ImageStore::default(),
            not_ready: Mutex::new(Some(format!("waiting for containerd at {}", config.containerd.address.display()))),
            connected: AtomicBool::new(false),
            config,
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

    /// Which snapshotter a container's root filesystem is in.
    ///
    /// # Errors
    /// As [`Runtime::handler`], for one that is not configured any more.
    pub fn snapshotter_of(&self, container: &Container) -> Result<String> {
        let sandbox = self.sandboxes.find(container.sandbox_id.as_str())?;
        let handler = self.handler(sandbox.as_ref().map_or("", |s| &s.runtime_handler))?;
        Ok(self.config.snapshotter(handler).to_owned())
    }

    /// Durable files of a sandbox.
    pub fn sandbox_root(&self, id: &SandboxId) -> PathBuf {
        self.config.root.join("sandboxes").join(id)
    }

    /// Its record.
    pub fn sandbox_record(&self, id: &SandboxId) -> PathBuf {
        self.sandbox_root(id).join("record")
    }

    /// Volatile files of a sandbox: pins and mounts.
    pub fn sandbox_state(&self, id: &SandboxId) -> PathBuf {
        self.config.state.join("sandboxes").join(id)
    }

    /// Where its network namespace is pinned; `ip netns` sees it there.
    pub fn netns_path(&self, id: &SandboxId) -> PathBuf {
        self.config.netns_dir.join(format!("cricket-{id}"))
    }

    /// Durable files of a container.
    pub fn container_root(&self, id: &ContainerId) -> PathBuf {
        self.config.root.join("containers").join(id)
    }

    /// Its status record.
    pub fn container_status(&self, id: &ContainerId) -> PathBuf {
        self.container_root(id).join("status")
    }

    /// Volatile files of a container: its FIFOs.
    pub fn container_state(&self, id: &ContainerId) -> PathBuf {
        self.config.state.join("containers").join(id)
    }
}

