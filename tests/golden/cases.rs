//! The cases, one per aspect of the spec.

use cricket::oci::facts::{CgroupMode, DeviceFacts, DeviceKind, ImageFacts, Namespaces, OwnVolume, Propagation};
use cricket_proto::runtime::MountPropagation::{PROPAGATION_BIDIRECTIONAL, PROPAGATION_HOST_TO_CONTAINER};
use cricket_proto::runtime::{
    Device, HugepageLimit, IDMapping, ImageSpec, Int64Value, KeyValue, LinuxContainerResources, Mount, NamespaceMode,
    UserNamespace,
};

use super::fixture::{source, Case};
use super::machine::{disk, fuse};

/// How the input of a case is made.
pub type Build = fn() -> Case;

/// Name of the folder, and its input.
pub const ALL: &[(&str, Build)] = &[
    ("minimal", Case::new),
    ("args-env-cwd", args_env_cwd),
    ("privileged", privileged),
    ("privileged-without-host-devices", privileged_without_host_devices),
    ("host-namespaces", host_namespaces),
    ("pod-pid", pod_pid),
    ("target-pid", target_pid),
    ("resources-v1", resources_v1),
    ("resources-v2", resources_v2),
    ("systemd-cgroup", systemd_cgroup),
    ("shim-group", shim_group),
    ("devices", devices),
    ("mounts", mounts),
    ("capabilities", capabilities),
    ("capabilities-all-ambient", capabilities_all_ambient),
    ("tty-stdin", tty_stdin),
    ("readonly-masked", readonly_masked),
    ("user-groups", user_groups),
    ("empty-image", empty_image),
    ("image-volume", image_volume),
    ("volumes-of-image", volumes_of_image),
    ("idmapped-mount", idmapped_mount),
    ("userns", userns),
    ("userns-pod-pid", userns_pod_pid),
];

pub fn strings(all: &[&str]) -> Vec<String> {
    all.iter().map(|s| s.to_string()).collect()
}

/// `args` replace CMD; a variable of the request takes the place of the image's.
fn args_env_cwd() -> Case {
    let mut case = Case::new();
    case.config.args = strings(&["nginx-debug"]);
    case.config.working_dir = "/srv".into();
    let env = |key: &str, value: &str| KeyValue { key: key.into(), value: value.into(), ..Default::default() };
    case.config.envs = vec![env("NGINX_VERSION", "1.28"), env("OPTS", "a=b=c"), env("EMPTY", "")];
    case
}

fn privileged() -> Case {
    let mut case = Case::new();
    case.privileged();
    case.host.cgroup2_flags = strings(&["nsdelegate", "memory_recursiveprot"]);
    case.devices = vec![fuse("/dev/fuse", "rwm"), disk("/dev/sda", "rwm")];
    // What the kubelet sends for any container; a privileged one is not bound by it.
    case.security().masked_paths = strings(&["/proc/kcore"]);
    case.security().capabilities.mut_or_insert_default().drop_capabilities = strings(&["ALL"]);
    case
}

fn privileged_without_host_devices() -> Case {
    let mut case = Case::new();
    case.privileged();
    case.handler.privileged_without_host_devices = true;
    case.devices = vec![fuse("/dev/fuse", "rw")];
    case
}

pub fn host_namespaces() -> Case {
    let mut case = Case::new();
    case.modes(NamespaceMode::NODE, NamespaceMode::NODE, NamespaceMode::NODE);
    case.namespaces = Namespaces::default();
    case.hostname = "node-1".into();
    case.files.shm = "/dev/shm".into();
    case
}

fn pod_pid() -> Case {
    let mut case = Case::new();
    case.modes(NamespaceMode::POD, NamespaceMode::POD, NamespaceMode::POD);
    case.namespaces.pid = Some("/proc/4711/ns/pid".into());
    case
}

/// An ephemeral container that debugs another one.
fn target_pid() -> Case {
    let mut case = Case::new();
    let options = case.security().namespace_options.mut_or_insert_default();
    options.pid = NamespaceMode::TARGET.into();
    options.target_id = "7".repeat(64);
    case.namespaces.pid = Some("/proc/4712/ns/pid".into());
    case
}

pub fn resources_v1() -> Case {
    let mut case = Case::new();
    case.host.cgroups = CgroupMode::Hybrid;
    case.sandbox.linux.mut_or_insert_default().cgroup_parent = "/kubepods/burstable/pod6e7f".into();
    *case.resources() = LinuxContainerResources {
        cpu_period: 100_000,
        cpu_quota: 50_000,
        cpu_shares: 512,
        cpuset_cpus: "0-1".into(),
        cpuset_mems: "0".into(),
        memory_limit_in_bytes: 256 << 20,
        oom_score_adj: 970,
        ..Default::default()
    };
    case
}

/// Swap of its own, raw values, huge pages; and a score that this daemon may not give.
fn resources_v2() -> Case {
    let mut case = Case::new();
    case.host.capabilities = cricket::oci::capabilities::CapSet::from_bits(!(1 << 24));
    case.host.oom_score_adj = -500;
    let pages = |page_size: &str, limit| HugepageLimit { page_size: page_size.into(), limit, ..Default::default() };
    *case.resources() = LinuxContainerResources {
        cpu_shares: 2,
        memory_limit_in_bytes: 256 << 20,
        memory_swap_limit_in_bytes: 384 << 20,
        oom_score_adj: -997,
        hugepage_limits: vec![pages("2MB", 4 << 20), pages("1GB", 0)],
        unified: [("memory.min", "1048576"), ("memory.oom.group", "1")].map(|(k, v)| (k.into(), v.into())).into(),
        ..Default::default()
    };
    case
}

/// Containers of the same group share a shim, whatever their pods.
fn shim_group() -> Case {
    let mut case = Case::new();
    case.handler.shim_group = Some("cricket-node-1".into());
    case
}

fn systemd_cgroup() -> Case {
    let mut case = Case::new();
    case.handler.systemd_cgroup = true;
    case.sandbox.linux.mut_or_insert_default().cgroup_parent =
        "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod6e7f.slice".into();
    case
}

fn devices() -> Case {
    let mut case = Case::new();
    let device = |host: &str, container: &str, permissions: &str| Device {
        host_path: host.into(),
        container_path: container.into(),
        permissions: permissions.into(),
        ..Default::default()
    };
    case.config.devices = vec![
        device("/dev/fuse", "/dev/fuse", "rw"),
        device("/dev/sda", "/dev/disk", "r"),
        device("/run/p", "/run/p", ""),
    ];
    let pipe = DeviceFacts { kind: DeviceKind::Fifo, major: 0, minor: 0, ..fuse("/run/p", "rwm") };
    case.devices = vec![fuse("/dev/fuse", "rw"), disk("/dev/disk", "r"), pipe];
    case
}

pub fn mounts() -> Case {
    let mut case = Case::new();
    let mount = |container: &str| Mount {
        container_path: container.into(),
        host_path: "/as/typed".into(),
        ..Default::default()
    };
    let private = Propagation::Private;
    case.handler.recursive_read_only = true;
    case.mount(mount("/var/run/secrets/token"), source("/var/lib/kubelet/pods/6e7f/token", private));
    case.mount(mount("/etc/hosts"), source("/var/lib/kubelet/pods/6e7f/etc-hosts", private));
    case.mount(Mount { readonly: true, ..mount("/config/") }, source("/srv/config", private));
    case.mount(
        Mount { readonly: true, recursive_read_only: true, ..mount("/config/deep") },
        source("/srv/deep", private),
    );
    case.mount(
        Mount { propagation: PROPAGATION_HOST_TO_CONTAINER.into(), ..mount("/media") },
        source("/media", Propagation::Slave),
    );
    case.mount(
        Mount { propagation: PROPAGATION_BIDIRECTIONAL.into(), ..mount("/csi") },
        source("/var/lib/csi", Propagation::Shared),
    );
    case.mount(mount("/dev/shm"), source("/var/lib/kubelet/pods/6e7f/shm", private));
    case.mount(mount("/dev/mqueue"), source("/dev/mqueue", private));
    case
}

fn capabilities() -> Case {
    let mut case = Case::new();
    let asked = case.security().capabilities.mut_or_insert_default();
    asked.add_capabilities = strings(&["net_admin", "CAP_SYS_TIME"]);
    asked.drop_capabilities = strings(&["NET_RAW", "Mknod"]);
    case
}

fn capabilities_all_ambient() -> Case {
    let mut case = Case::new();
    case.security().no_new_privs = true;
    let asked = case.security().capabilities.mut_or_insert_default();
    asked.drop_capabilities = strings(&["ALL"]);
    asked.add_capabilities = strings(&["CHOWN"]);
    asked.add_ambient_capabilities = strings(&["NET_BIND_SERVICE"]);
    case
}

fn tty_stdin() -> Case {
    let mut case = Case::new();
    (case.config.tty, case.config.stdin, case.config.stdin_once) = (true, true, true);
    case.config.command = strings(&["sh"]);
    case
}

fn readonly_masked() -> Case {
    let mut case = Case::new();
    let security = case.security();
    security.readonly_rootfs = true;
    security.masked_paths = strings(&["/proc/asound", "/proc/kcore", "/sys/firmware"]);
    security.readonly_paths = strings(&["/proc/bus", "/proc/sys"]);
    case
}

fn user_groups() -> Case {
    let mut case = Case::new();
    let int = |value| Some(Int64Value { value, ..Default::default() }).into();
    let security = case.security();
    security.run_as_user = int(1000);
    security.run_as_group = int(3000);
    security.supplemental_groups = vec![5678, 1234, 5678];
    case
}

/// Nothing from the image, nothing of the pod but what must be.
fn empty_image() -> Case {
    let mut case = Case::new();
    case.image = ImageFacts { entrypoint: strings(&[""]), ..Default::default() };
    case.config.image.clear();
    case.config.command = strings(&["/app"]);
    case.sandbox.linux.mut_or_insert_default().cgroup_parent.clear();
    case
}

/// Directories of the container's own, writable in a root that is not; a mount of the request below one of them.
fn volumes_of_image() -> Case {
    let mut case = mounts();
    case.security().readonly_rootfs = true;
    let volume = |number: u32, path: &str| OwnVolume {
        destination: path.into(),
        source: format!("/var/lib/cricket/containers/c/volumes/{number}").into(),
    };
    case.volumes = vec![volume(0, "/var/lib/data"), volume(1, "/etc"), volume(2, "/var/run")];
    case
}

/// The content of an image, and a directory of another.
fn image_volume() -> Case {
    let mut case = Case::new();
    let mount = |path: &str, sub_path: &str| Mount {
        container_path: path.into(),
        readonly: true,
        image: Some(ImageSpec { image: "models:1".into(), ..Default::default() }).into(),
        image_sub_path: sub_path.into(),
        ..Default::default()
    };
    let private = Propagation::Private;
    case.mount(mount("/models", ""), source("/run/cricket/sandboxes/5/images/aa", private));
    case.mount(mount("/tiny", "tiny/v2"), source("/run/cricket/sandboxes/5/images/aa/tiny/v2", private));
    case
}

fn idmapped_mount() -> Case {
    let mut case = Case::new();
    case.handler.idmap_mounts = true;
    let mapping = vec![IDMapping { host_id: 100_000, container_id: 0, length: 65536, ..Default::default() }];
    let mount = Mount {
        container_path: "/data".into(),
        host_path: "/srv/data".into(),
        uidMappings: mapping.clone(),
        gidMappings: mapping,
        ..Default::default()
    };
    case.mount(mount, source("/srv/data", Propagation::Private));
    case
}

/// Gives pod and container users of their own.
pub fn user_namespace(case: &mut Case) {
    let mapping = |host_id| vec![IDMapping { host_id, container_id: 0, length: 65536, ..Default::default() }];
    let users = UserNamespace {
        mode: NamespaceMode::POD.into(),
        uids: mapping(100_000),
        gids: mapping(200_000),
        ..Default::default()
    };
    case.pod_security().namespace_options.mut_or_insert_default().userns_options = Some(users.clone()).into();
    case.security().namespace_options.mut_or_insert_default().userns_options = Some(users).into();
    case.namespaces.user = Some("/run/cricket/sandboxes/5/user".into());
}

fn userns() -> Case {
    let mut case = Case::new();
    user_namespace(&mut case);
    case
}

fn userns_pod_pid() -> Case {
    let mut case = pod_pid();
    user_namespace(&mut case);
    case
}
