//! Everything about host, handler, image and sandbox that a spec depends on, as plain data.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::capabilities::CapSet;
use super::{seccomp, selinux};
use crate::cdi;

/// How control groups are mounted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CgroupMode {
    /// One hierarchy per controller.
    V1,
    /// As `V1`, with an empty v2 hierarchy beside them.
    Hybrid,
    /// The unified hierarchy.
    #[default]
    V2,
}

/// The processor, as far as programs for it can be filtered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arch {
    /// With the two older ones that it runs as well: 32 bit, and 32 bit addresses.
    X86_64,
    /// With 32 bit ARM.
    Aarch64,
    /// Any other.
    #[default]
    Other,
}

/// The machine, as far as a spec depends on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// How control groups are mounted.
    pub cgroups: CgroupMode,
    /// Flags of the mounted v2 hierarchy that a container in the host's cgroup namespace must repeat, or its mount
    /// clears them for the whole machine: `nsdelegate`, `memory_recursiveprot`.
    pub cgroup2_flags: Vec<String>,
    /// Huge pages can be limited.
    pub hugetlb: bool,
    /// Swap can be limited.
    pub swap: bool,
    /// What the daemon itself may do: no container gets more.
    pub capabilities: CapSet,
    /// The daemon's own `oom_score_adj`: without CAP_SYS_RESOURCE nothing it starts can go below.
    pub oom_score_adj: i32,
    /// AppArmor is on.
    pub apparmor: bool,
    /// SELinux is on.
    pub selinux: bool,
    /// The kernel filters system calls.
    pub seccomp: bool,
    /// What programs are made for.
    pub arch: Arch,
    /// The first two numbers of the kernel's version.
    pub kernel: (u32, u32),
}

/// The runtime handler, as far as a spec depends on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HandlerFacts {
    /// The runtime puts containers into systemd scopes instead of making cgroups itself.
    pub systemd_cgroup: bool,
    /// The name by which a shim of the runc family knows whom it serves, where that is not the pod.
    pub shim_group: Option<String>,
    /// A privileged container sees only the devices it names.
    pub privileged_without_host_devices: bool,
    /// The runtime and the kernel make a mount read-only with everything below it.
    pub recursive_read_only: bool,
    /// The runtime and the kernel map the owners of a mount.
    pub idmap_mounts: bool,
    /// The runtime makes user namespaces.
    pub user_namespaces: bool,
    /// Containers that name no seccomp profile get RuntimeDefault.
    pub seccomp_by_default: bool,
    /// Containers get SELinux labels where SELinux is on.
    pub selinux: bool,
    /// Annotations of the pod that go into the spec, as patterns.
    pub pod_annotations: Vec<String>,
    /// Annotations of the container that go into the spec, as patterns.
    pub container_annotations: Vec<String>,
}

/// An image's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageFacts {
    /// `ENTRYPOINT`.
    pub entrypoint: Vec<String>,
    /// `CMD`.
    pub cmd: Vec<String>,
    /// `ENV`, as `KEY=value`.
    pub env: Vec<String>,
    /// `WORKDIR`; "" for none.
    pub working_dir: String,
    /// `USER`: `user[:group]`, names or numbers; "" for none.
    pub user: String,
    /// `VOLUME`: paths the image wants as volumes, sorted.
    pub volumes: Vec<String>,
    /// `STOPSIGNAL`; "" for none.
    pub stop_signal: String,
    /// `LABEL`.
    pub labels: BTreeMap<String, String>,
}

/// What a container joins; `None` is the host's. A container always gets a mount namespace of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// Network: the pod's, or `None` with network mode NODE.
    pub net: Option<PathBuf>,
    /// IPC: the pod's, or `None` with ipc mode NODE.
    pub ipc: Option<PathBuf>,
    /// Host name: the pod's, or `None` with network mode NODE.
    pub uts: Option<PathBuf>,
    /// Users: the pod's, or `None` for the host's.
    pub user: Option<PathBuf>,
    /// PID, when the container joins one: the pod's with mode POD, the target container's with mode TARGET.
    pub pid: Option<PathBuf>,
}

/// Files of the sandbox that every container sees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SandboxFiles {
    /// Mounted at `/etc/hostname`.
    pub hostname: PathBuf,
    /// Mounted at `/etc/hosts`.
    pub hosts: PathBuf,
    /// Mounted at `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
    /// Mounted at `/dev/shm`: the pod's tmpfs, the host's `/dev/shm` with ipc mode NODE.
    pub shm: PathBuf,
}

/// How mount events travel to and from a mount point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Propagation {
    /// Not at all.
    #[default]
    Private,
    /// It receives.
    Slave,
    /// It sends and receives.
    Shared,
}

/// The source of one CRI mount, looked up on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountSource {
    /// The path without symbolic links.
    pub path: PathBuf,
    /// Of the mount point that holds `path`.
    pub propagation: Propagation,
}

/// A directory of the container's own, for a volume that its image declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnVolume {
    /// Where the container has it.
    pub destination: PathBuf,
    /// Where it is on the host.
    pub source: PathBuf,
}

/// What the CDI devices of a container change, looked up on the host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeviceEdits {
    /// Their nodes.
    pub nodes: Vec<DeviceFacts>,
    /// `KEY=value`, over what the container has.
    pub env: Vec<String>,
    /// Mounts, over those at the same paths.
    pub mounts: Vec<cdi::Mount>,
    /// Programs for the runtime to run.
    pub hooks: Vec<cdi::Hook>,
    /// Groups for the first process.
    pub gids: Vec<u32>,
    /// Cache and memory bandwidth.
    pub intel_rdt: Option<cdi::IntelRdt>,
}

/// Security profiles, fetched from where they are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profiles {
    /// The file that the container names; `None` for RuntimeDefault, which needs no file, and for no filter.
    pub seccomp: Option<seccomp::Profile>,
    /// The AppArmor profile, which the kernel has; `None` for none.
    pub apparmor: Option<String>,
    /// SELinux labels; `None` where it is off, or off by the configuration.
    pub selinux: Option<selinux::Labels>,
}

/// What sort of node a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// Character device.
    Char,
    /// Block device.
    Block,
    /// Named pipe.
    Fifo,
}

/// One device node for the container, looked up on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceFacts {
    /// Where the container sees it.
    pub path: PathBuf,
    /// What it is.
    pub kind: DeviceKind,
    /// Major number; 0 for a pipe.
    pub major: i64,
    /// Minor number; 0 for a pipe.
    pub minor: i64,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// What the device cgroup lets the container do: letters of `rwm`.
    pub access: String,
}
