//! The pinned namespaces of a pod: where they are, making them, taking them down.

use std::fs;
use std::path::{Path, PathBuf};

use cricket_proto::runtime::{NamespaceMode, NamespaceOption};

use crate::error::{Context, Result};
use crate::ids::SandboxId;
use crate::runtime::Runtime;
use crate::sandbox::sysctl;
use crate::sys::mount;
use crate::sys::namespace::{self, Namespace};
use crate::sys::net;

/// Paths of the namespaces that the pod does not share with the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pins {
    /// Network.
    pub net: Option<PathBuf>,
    /// IPC.
    pub ipc: Option<PathBuf>,
    /// UTS; the host's network goes with the host's name.
    pub uts: Option<PathBuf>,
}

impl Pins {
    /// The pins of a sandbox with these namespace options.
    pub fn of(rt: &Runtime, id: &SandboxId, options: &NamespaceOption) -> Self {
        let host_network = options.network == NamespaceMode::NODE.into();
        let state = rt.sandbox_state(id);
        Pins {
            net: (!host_network).then(|| rt.netns_path(id)),
            uts: (!host_network).then(|| state.join("uts")),
            ipc: (options.ipc != NamespaceMode::NODE.into()).then(|| state.join("ipc")),
        }
    }

    /// Which of them are the pod's own.
    pub fn own(&self) -> sysctl::Own {
        sysctl::Own { net: self.net.is_some(), ipc: self.ipc.is_some(), uts: self.uts.is_some() }
    }

    /// Makes and pins them: host name set, loopback up, sysctls applied.
    pub fn create(&self, hostname: &str, sysctls: &[(PathBuf, String)]) -> Result<()> {
        if let Some(dir) = self.net.as_deref().and_then(Path::parent) {
            fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
        }
        let all = [(Namespace::Net, &self.net), (Namespace::Ipc, &self.ipc), (Namespace::Uts, &self.uts)];
        let pins: Vec<(Namespace, &Path)> = all.iter().filter_map(|(n, p)| Some((*n, p.as_deref()?))).collect();
        namespace::create(&pins, || {
            if self.uts.is_some() {
                namespace::set_hostname(hostname).with_context(|| format!("set host name {hostname:?}"))?;
            }
            if self.net.is_some() {
                net::loopback_up().context("bring the pod's loopback up")?;
            }
            sysctl::apply(sysctls)
        })
    }

    /// Whether all of them are there.
    pub fn stand(&self) -> bool {
        [&self.net, &self.ipc, &self.uts].into_iter().flatten().all(|path| mount::is_namespace(path))
    }

    /// Takes them down. Idempotent; goes on after a failure and reports the first.
    pub fn remove(&self) -> Result<()> {
        let all = [&self.net, &self.ipc, &self.uts];
        all.into_iter().flatten().map(|path| namespace::unpin(path)).fold(Ok(()), |first, next| first.and(next))
    }
}
