//! Cases about devices, CDI and limits: what depends on the machine.

use cricket::cdi;
use cricket::oci::facts::{DeviceEdits, DeviceFacts, DeviceKind, Propagation};
use cricket_proto::runtime::{Device, HugepageLimit, LinuxContainerResources, Mount, NamespaceMode};

use super::cases::{host_namespaces, mounts, resources_v1, strings, Build};
use super::fixture::{source, Case};

/// As [`super::cases::ALL`].
pub const ALL: &[(&str, Build)] = &[
    ("cdi", cdi_devices),
    ("cdi-over-mounts", cdi_over_mounts),
    ("own-dev", own_dev),
    ("sys-mounted", sys_mounted),
    ("unlimited", unlimited),
    ("swap-off", swap_off),
    ("pids-max", pids_max),
    ("no-controllers", no_controllers),
    ("directory-of-devices", directory_of_devices),
    ("host-ipc", host_ipc),
    ("privileged-host", privileged_host),
];

fn cdi_devices() -> Case {
    let mut case = Case::new();
    case.edits = DeviceEdits {
        nodes: vec![fuse("/dev/acme0", "rw")],
        env: strings(&["ACME_VISIBLE=0", "NGINX_VERSION=acme"]),
        mounts: vec![cdi::Mount {
            host_path: "/usr/lib/acme.so".into(),
            container_path: "/usr/lib/acme.so".into(),
            options: strings(&["ro", "nosuid", "bind"]),
            ..Default::default()
        }],
        hooks: vec![cdi::Hook {
            hook_name: "createContainer".into(),
            path: "/usr/bin/acme-hook".into(),
            args: strings(&["acme-hook", "ldconfig"]),
            timeout: Some(5),
            ..Default::default()
        }],
        gids: vec![44, 0, 44],
        intel_rdt: Some(cdi::IntelRdt { clos_id: "guaranteed".into(), enable_mbm: true, ..Default::default() }),
    };
    case
}

/// A mount of a device takes the place of one of the request, and lies before what lies in it.
fn cdi_over_mounts() -> Case {
    let mut case = mounts();
    let mount =
        |path: &str| cdi::Mount { host_path: "/acme".into(), container_path: path.into(), ..Default::default() };
    case.edits.mounts = vec![mount("/config"), mount("/etc/resolv.conf")];
    case
}

/// The node's /dev instead of one of its own.
fn own_dev() -> Case {
    let mut case = Case::new();
    let mount = Mount { container_path: "/dev/".into(), host_path: "/dev".into(), ..Default::default() };
    case.mount(mount, source("/dev", Propagation::Private));
    case
}

fn sys_mounted() -> Case {
    let mut case = Case::new();
    for path in ["/sys", "/sys/fs/cgroup", "/proc"] {
        let mount = Mount { container_path: path.into(), host_path: path.into(), readonly: true, ..Default::default() };
        case.mount(mount, source(path, Propagation::Shared));
    }
    case
}

fn unlimited() -> Case {
    let mut case = Case::new();
    *case.resources() = LinuxContainerResources { cpu_quota: -1, memory_limit_in_bytes: -1, ..Default::default() };
    case
}

/// Of processes, which the CRI has no field for but the raw one.
fn pids_max() -> Case {
    let mut case = Case::new();
    case.resources().unified = [("pids.max".to_owned(), "512".to_owned())].into();
    case
}

/// The node does not account for swap.
fn swap_off() -> Case {
    let mut case = resources_v1();
    case.host.swap = false;
    case.resources().memory_swap_limit_in_bytes = 512 << 20;
    case
}

/// Limits of 0 for huge pages, which the kubelet always sends, where none can be limited.
fn no_controllers() -> Case {
    let mut case = Case::new();
    case.host.hugetlb = false;
    let page = |size: &str| HugepageLimit { page_size: size.into(), ..Default::default() };
    case.resources().hugepage_limits = vec![page("2MB"), page("1GB")];
    case
}

fn directory_of_devices() -> Case {
    let mut case = Case::new();
    case.config.devices =
        vec![Device { host_path: "/dev/snd".into(), container_path: "/dev/snd".into(), ..Default::default() }];
    case.devices = vec![fuse("/dev/snd/controlC0", "rwm"), fuse("/dev/snd/pcmC0D0p", "rwm")];
    case
}

fn host_ipc() -> Case {
    let mut case = Case::new();
    case.modes(NamespaceMode::POD, NamespaceMode::CONTAINER, NamespaceMode::NODE);
    case.namespaces.ipc = None;
    case.files.shm = "/dev/shm".into();
    case
}

fn privileged_host() -> Case {
    let mut case = host_namespaces();
    case.privileged();
    case
}

pub fn fuse(path: &str, access: &str) -> DeviceFacts {
    DeviceFacts {
        path: path.into(),
        kind: DeviceKind::Char,
        major: 10,
        minor: 229,
        mode: 0o666,
        uid: 0,
        gid: 0,
        access: access.into(),
    }
}

pub fn disk(path: &str, access: &str) -> DeviceFacts {
    DeviceFacts { kind: DeviceKind::Block, major: 8, minor: 0, mode: 0o660, gid: 6, ..fuse(path, access) }
}
