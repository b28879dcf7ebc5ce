//! CRI configuration in, OCI runtime spec out. Pure: every fact about the host is handed in.
//!
//! Two steps. [`check`] refuses, before anything exists, what can never become a container; [`container::spec`] builds
//! the spec once the sandbox's namespaces, the user and the sources of mounts and devices are known. What cricket does
//! not offer yet is refused with `Unimplemented`, never left out, whenever leaving it out would weaken the container.

pub mod accounts;
pub mod annotations;
pub mod apparmor;
pub mod base;
pub mod capabilities;
mod cdi;
pub mod cgroup;
pub mod container;
mod devices;
mod env;
pub mod facts;
pub mod labels;
pub mod mounts;
mod namespaces;
pub mod process;
pub mod resources;
pub mod sandbox;
pub mod seccomp;
pub mod security;
pub mod selinux;
pub mod signal;
pub mod user;
pub mod users;
pub mod volumes;

use cricket_proto::runtime::{ContainerConfig, PodSandboxConfig};

use crate::error::{Error, Result};
use facts::{HandlerFacts, HostFacts, ImageFacts};

/// What the client asked for, and what there is to answer it with.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The configuration the sandbox was made from.
    pub sandbox: &'a PodSandboxConfig,
    /// The container's configuration.
    pub config: &'a ContainerConfig,
    /// Its image.
    pub image: &'a ImageFacts,
    /// The machine.
    pub host: &'a HostFacts,
    /// The runtime handler of the sandbox.
    pub handler: &'a HandlerFacts,
}

impl Request<'_> {
    /// The container asks to be privileged.
    pub fn privileged(&self) -> bool {
        self.config.linux.security_context.privileged
    }

    /// The container is to see the devices of the host: pass it to `host::devices::resolve`.
    pub fn wants_host_devices(&self) -> bool {
        self.privileged() && !self.handler.privileged_without_host_devices
    }
}

/// The CDI devices that a container names.
///
/// # Errors
/// `InvalidArgument` for what is no name.
pub fn cdi_names(config: &ContainerConfig) -> Result<Vec<String>> {
    crate::cdi::names(config.CDI_devices.iter().map(|d| d.name.as_str()), config.annotations.iter())
}

/// Refuses whatever can be refused without touching anything.
///
/// # Errors
/// `InvalidArgument`: the request contradicts itself or the sandbox. `Unimplemented`: cricket does not offer it.
/// `FailedPrecondition`: this host, or this handler, cannot do it. A refused recursive read-only mount begins with
/// `RROUnsupported`, which the kubelet looks for: do not prefix it.
pub fn check(request: &Request<'_>) -> Result<()> {
    let Request { sandbox, config, image, host, handler } = *request;
    if sandbox.metadata.is_none() {
        return Err(Error::invalid("the pod sandbox config has no metadata"));
    }
    if config.metadata.is_none() {
        return Err(Error::invalid("the container config has no metadata"));
    }
    security::check(request)?;
    namespaces::check(sandbox, config)?;
    mounts::check(config, handler)?;
    devices::check(config)?;
    cdi_names(config)?;
    process::check(config, image)?;
    user::wanted(config, image)?;
    capabilities::of(request)?;
    resources::check(&config.linux.resources, host)?;
    cgroup::check(&sandbox.linux.cgroup_parent, handler.systemd_cgroup)?;
    signal::of(config, image)?;
    Ok(())
}
