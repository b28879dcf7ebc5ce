//! What the handlers of pods are, as the configuration, this machine and their OCI runtimes have it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::Value;

use super::Runtime;
use crate::config::{CgroupDriver, Handler, Shim, ShimScope, UnsetSeccomp};
use crate::error::{Error, Result};
use crate::host::features::{self, Features};
use crate::host::shims;
use crate::oci::facts::{CgroupMode, HandlerFacts};
use crate::store::Container;

impl Runtime {
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

    /// Which snapshotter a container's root filesystem is in.
    ///
    /// # Errors
    /// As [`Runtime::handler`], for one that is not configured any more.
    pub fn snapshotter_of(&self, container: &Container) -> Result<String> {
        let sandbox = self.sandboxes.exact(container.sandbox_id.as_str());
        let handler = self.handler(sandbox.as_ref().map_or("", |s| &s.runtime_handler))?;
        Ok(self.config.snapshotter(handler).to_owned())
    }

    /// These snapshotters give files other owners, as containerd says.
    pub fn set_remapping(&self, snapshotters: BTreeSet<String>) {
        *self.remapping.lock() = snapshotters;
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
            shims::group(shim.as_deref().unwrap_or(&handler.runtime_type))
        })
    }
}
