//! Where everything is on disk. Pure: paths are computed, nothing is touched.
//!
//! ```text
//! <root>/sandboxes/<id>/    record hostname hosts resolv.conf images/ durable
//! <root>/containers/<id>/   status removal resources volumes/        durable
//! <root>/pause/<version>/   pause dev/ proc/                         the root of sandbox processes
//! <root>/shim/<digest>/     containerd-shim-cricket-v1               as long as a container was made with it
//! <state>/sandboxes/<id>/   ipc uts pid user shm/ images/            gone after a boot
//! <state>/containers/<id>/  io/{stdin,stdout,stderr} exec/<id>/…     gone after a boot
//! <netns_dir>/cricket-<id>                                           gone after a boot
//! ```

use std::path::PathBuf;

use cricket_proto::runtime::{NamespaceMode, NamespaceOption};

use crate::config::Config;
use crate::ids::{ContainerId, SandboxId};
use crate::oci::facts::{Namespaces, SandboxFiles};

/// The directories that the configuration names.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
    state: PathBuf,
    netns_dir: PathBuf,
}

impl Layout {
    /// The layout of a configuration.
    pub fn new(config: &Config) -> Self {
        Layout { root: config.root.clone(), state: config.state.clone(), netns_dir: config.netns_dir.clone() }
    }

    /// The parents of all durable and all volatile container directories.
    pub fn containers(&self) -> [PathBuf; 2] {
        [self.root.join("containers"), self.state.join("containers")]
    }

    /// The parent of all durable sandbox directories.
    pub fn sandboxes(&self) -> PathBuf {
        self.root.join("sandboxes")
    }

    /// Where the shim is put, in a directory for each version.
    pub fn shim(&self) -> PathBuf {
        self.root.join("shim")
    }

    /// The parent of all volatile sandbox directories.
    pub fn sandbox_states(&self) -> PathBuf {
        self.state.join("sandboxes")
    }

    /// Where records are put that cannot be read.
    pub fn damaged(&self) -> PathBuf {
        self.root.join("damaged")
    }

    /// Durable files of a sandbox.
    pub fn sandbox_root(&self, id: &SandboxId) -> PathBuf {
        self.sandboxes().join(id)
    }

    /// Its record.
    pub fn sandbox_record(&self, id: &SandboxId) -> PathBuf {
        self.sandbox_root(id).join("record")
    }

    /// The parent of the root directories of sandbox processes, one for each version of cricket.
    pub fn pause_roots(&self) -> PathBuf {
        self.root.join("pause")
    }

    /// Volatile files of a sandbox: pins and mounts.
    pub fn sandbox_state(&self, id: &SandboxId) -> PathBuf {
        self.sandbox_states().join(id)
    }

    /// Where its /dev/shm is mounted.
    pub fn shm(&self, id: &SandboxId) -> PathBuf {
        self.sandbox_state(id).join("shm")
    }

    /// Where images are mounted for its containers.
    pub fn image_mounts(&self, id: &SandboxId) -> PathBuf {
        self.sandbox_state(id).join("images")
    }

    /// Which images may be mounted for its containers: a file for each.
    pub fn image_notes(&self, id: &SandboxId) -> PathBuf {
        self.sandbox_root(id).join("images")
    }

    /// Where its network namespace is pinned, if it has one: `ip netns` sees it.
    pub fn netns(&self, id: &SandboxId) -> PathBuf {
        self.netns_dir.join(format!("cricket-{id}"))
    }

    /// Where the namespaces of a sandbox are pinned, whichever it has.
    pub fn all_pins(&self, id: &SandboxId) -> Namespaces {
        let state = self.sandbox_state(id);
        Namespaces {
            net: Some(self.netns(id)),
            uts: Some(state.join("uts")),
            ipc: Some(state.join("ipc")),
            user: Some(state.join("user")),
            pid: Some(state.join("pid")),
        }
    }

    /// Where the namespaces are pinned that a sandbox does not share with the host. The host's network
    /// goes with the host's name. Only a sandbox with a process has a PID namespace to share.
    pub fn pins(&self, id: &SandboxId, options: &NamespaceOption, process: bool) -> Namespaces {
        let host_network = options.network == NamespaceMode::NODE.into();
        let host_ipc = options.ipc == NamespaceMode::NODE.into();
        let own_users = options.userns_options.as_ref().is_some_and(|o| o.mode == NamespaceMode::POD.into());
        let shared_pids = process && options.pid == NamespaceMode::POD.into();
        let Namespaces { net, uts, ipc, user, pid } = self.all_pins(id);
        Namespaces {
            net: net.filter(|_| !host_network),
            uts: uts.filter(|_| !host_network),
            ipc: ipc.filter(|_| !host_ipc),
            user: user.filter(|_| own_users),
            pid: pid.filter(|_| shared_pids),
        }
    }

    /// The files that every container of a sandbox sees.
    pub fn sandbox_files(&self, id: &SandboxId, options: &NamespaceOption) -> SandboxFiles {
        let root = self.sandbox_root(id);
        let host_ipc = options.ipc == NamespaceMode::NODE.into();
        SandboxFiles {
            hostname: root.join("hostname"),
            hosts: root.join("hosts"),
            resolv_conf: root.join("resolv.conf"),
            shm: if host_ipc { PathBuf::from("/dev/shm") } else { self.shm(id) },
        }
    }

    /// Durable files of a container.
    pub fn container_root(&self, id: &ContainerId) -> PathBuf {
        self.root.join("containers").join(id)
    }

    /// Its status record.
    pub fn container_status(&self, id: &ContainerId) -> PathBuf {
        self.container_root(id).join("status")
    }

    /// What its status record is called once there is no way back from its removal.
    pub fn container_removal(&self, id: &ContainerId) -> PathBuf {
        self.container_root(id).join("removal")
    }

    /// The record of its limits, if they were updated.
    pub fn container_resources(&self, id: &ContainerId) -> PathBuf {
        self.container_root(id).join("resources")
    }

    /// What it has written to the volumes that its image declares: a directory for each.
    pub fn container_volumes(&self, id: &ContainerId) -> PathBuf {
        self.container_root(id).join("volumes")
    }

    /// Volatile files of a container: its FIFOs.
    pub fn container_state(&self, id: &ContainerId) -> PathBuf {
        self.state.join("containers").join(id)
    }
}
