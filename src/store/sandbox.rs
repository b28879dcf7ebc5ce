//! A pod sandbox in memory.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use cricket_proto::records;
use cricket_proto::runtime::{NamespaceMode, NamespaceOption, PodSandboxConfig};
use protobuf::MessageField;

use crate::error::{Error, Result};
use crate::ids::SandboxId;
use crate::sync::Mutex;

/// Whether a sandbox can take containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SandboxState {
    /// Namespaces and network stand.
    Ready,
    /// Stopped, or lost in a reboot. Stop runs again to finish what it could not; only removal follows.
    NotReady,
}

/// A pod sandbox: identity never changes, only its state does.
#[derive(Debug)]
pub struct Sandbox {
    /// 64 hex digits.
    pub id: SandboxId,
    /// As in the request, unaltered.
    pub config: PodSandboxConfig,
    /// As in the request; empty means the default one.
    pub runtime_handler: String,
    /// Nanoseconds since the epoch.
    pub created_at: i64,
    /// Pinned network namespace; none with the host's network.
    pub netns: Option<PathBuf>,
    /// Addresses, the primary one first; none with the host's network.
    pub ips: Vec<IpAddr>,
    state: Mutex<SandboxState>,
}

impl Sandbox {
    /// A sandbox that stands.
    pub fn ready(record: &records::Sandbox) -> Self {
        Sandbox::from_record(record, SandboxState::Ready)
    }

    /// A sandbox as its record tells, in `state`.
    pub fn from_record(record: &records::Sandbox, state: SandboxState) -> Self {
        Sandbox {
            id: SandboxId::from_record(&record.id),
            config: record.config.clone().unwrap_or_default(),
            runtime_handler: record.runtime_handler.clone(),
            created_at: record.created_at,
            netns: Some(&record.netns_path).filter(|p| !p.is_empty()).map(PathBuf::from),
            ips: record.ips.iter().filter_map(|ip| ip.parse().ok()).collect(),
            state: Mutex::new(state),
        }
    }

    /// The record that brings it back after a restart.
    pub fn record(&self) -> records::Sandbox {
        let phase = match self.state() {
            SandboxState::Ready => records::sandbox::Phase::READY,
            SandboxState::NotReady => records::sandbox::Phase::NOT_READY,
        };
        records::Sandbox {
            id: self.id.to_string(),
            phase: phase.into(),
            config: MessageField::some(self.config.clone()),
            runtime_handler: self.runtime_handler.clone(),
            created_at: self.created_at,
            netns_path: self.netns.as_deref().map(Path::to_string_lossy).unwrap_or_default().into_owned(),
            ips: self.ips.iter().map(IpAddr::to_string).collect(),
            ..Default::default()
        }
    }

    /// Whether it can take containers.
    pub fn state(&self) -> SandboxState {
        *self.state.lock()
    }

    /// It is being stopped: no new container may join. Idempotent.
    pub fn set_not_ready(&self) {
        *self.state.lock() = SandboxState::NotReady;
    }

    /// # Errors
    /// `FailedPrecondition` unless it is ready.
    pub fn must_be_ready(&self) -> Result<()> {
        match self.state() {
            SandboxState::Ready => Ok(()),
            SandboxState::NotReady => Err(Error::precondition(format!("pod sandbox {} is not ready", self.id))),
        }
    }

    /// The namespace options of the request; absent ones are the CRI's defaults.
    pub fn namespaces(&self) -> NamespaceOption {
        namespace_options(&self.config)
    }

    /// Whether the pod lives in the host's network.
    pub fn host_network(&self) -> bool {
        self.namespaces().network == NamespaceMode::NODE.into()
    }
}

/// The namespace options of a sandbox configuration; absent ones are the CRI's defaults.
pub fn namespace_options(config: &PodSandboxConfig) -> NamespaceOption {
    config.linux.security_context.namespace_options.clone().unwrap_or_default()
}

/// The name that is reserved for a sandbox: `name_namespace_uid_attempt`.
///
/// # Errors
/// `InvalidArgument` if the configuration has no metadata, or lacks name, namespace or uid.
pub fn reserved_name(config: &PodSandboxConfig) -> Result<String> {
    let metadata = config.metadata.as_ref().ok_or_else(|| Error::invalid("pod sandbox config has no metadata"))?;
    for (field, value) in [("name", &metadata.name), ("namespace", &metadata.namespace), ("uid", &metadata.uid)] {
        if value.is_empty() {
            return Err(Error::invalid(format!("pod sandbox metadata has no {field}")));
        }
    }
    Ok(format!("{}_{}_{}_{}", metadata.name, metadata.namespace, metadata.uid, metadata.attempt))
}
