//! The runtime spec of a sandbox's process: no rights, no image, nothing to see.

use std::collections::HashMap;
use std::path::Path;

use cricket_proto::runtime::{LinuxContainerResources, LinuxSandboxSecurityContext, NamespaceMode, PodSandboxConfig};
use oci_spec::runtime::{
    Linux, LinuxCapabilities, LinuxCpu, LinuxDeviceCgroup, LinuxNamespaceType as Type, LinuxResources, Mount, Process,
    Root, Spec, User,
};

use super::container::VERSION;
use super::facts::{HandlerFacts, HostFacts, Namespaces};
use super::{annotations, cgroup, namespaces, resources, users};
use crate::error::{Error, Result};
use crate::ids::SandboxId;

/// The program in its root directory.
pub const PROGRAM: &str = "pause";
/// The directories that an OCI runtime mounts something on.
pub const MOUNT_POINTS: [&str; 2] = ["proc", "dev"];

/// Whoever it is, it is nobody whom an image knows.
const NOBODY: u32 = 65535;
/// The last thing that the kernel should kill in a pod.
const OOM_SCORE: i64 = -998;
/// The least share of the processor.
const SHARES: u64 = 2;
/// As on other runtimes: what logs of sandboxes would be below.
const LOG_DIRECTORY: &str = "io.kubernetes.cri.sandbox-log-directory";

/// A container of the pod may be allowed to look at the process's root: nothing there may give it more than it has.
const MASKED: [&str; 10] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Everything the spec is made of.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The sandbox's configuration.
    pub config: &'a PodSandboxConfig,
    /// Its id.
    pub id: &'a SandboxId,
    /// Its pinned namespaces. The PID namespace is not joined but made, by the runtime.
    pub namespaces: &'a Namespaces,
    /// The machine.
    pub host: &'a HostFacts,
    /// The runtime handler of the sandbox.
    pub handler: &'a HandlerFacts,
    /// The directory with [`PROGRAM`] and the [`MOUNT_POINTS`].
    pub root: &'a Path,
}

/// Refuses, before anything is made, what would be no process.
///
/// # Errors
/// `InvalidArgument`.
pub fn check(config: &PodSandboxConfig, systemd_cgroup: bool) -> Result<()> {
    user(&config.linux.security_context)?;
    cgroup::check(&config.linux.cgroup_parent, systemd_cgroup)
}

/// The runtime spec.
///
/// # Errors
/// As [`check`].
pub fn spec(input: &Input<'_>) -> Result<Spec> {
    let mut root = Root::default();
    root.set_path(input.root.into()).set_readonly(Some(true));
    let mut spec = Spec::default();
    spec.set_version(VERSION.into())
        .set_root(Some(root))
        .set_mounts(Some(mounts()))
        .set_process(Some(process(input)?))
        .set_hostname(None)
        .set_annotations(Some(annotations(input)))
        .set_linux(Some(linux(input)?));
    Ok(spec)
}

fn process(input: &Input<'_>) -> Result<Process> {
    let score = LinuxContainerResources { oom_score_adj: OOM_SCORE, ..Default::default() };
    let mut process = Process::default();
    process
        .set_terminal(Some(false))
        .set_user(user(&input.config.linux.security_context)?)
        .set_args(Some(vec![format!("/{PROGRAM}"), PROGRAM.into()]))
        .set_env(Some(vec![]))
        .set_cwd("/".into())
        .set_capabilities(Some(no_capabilities()))
        .set_rlimits(None)
        .set_oom_score_adj(Some(resources::oom_score_adj(&score, input.host)?.value))
        .set_no_new_privileges(Some(true));
    Ok(process)
}

/// The pod's user; without one, nobody.
fn user(security: &LinuxSandboxSecurityContext) -> Result<User> {
    let id = |what: &str, value: i64| {
        let id = u32::try_from(value).ok().filter(|id| i32::try_from(*id).is_ok());
        id.ok_or_else(|| Error::invalid(format!("{what} {value} of the pod sandbox is not between 0 and 2147483647")))
    };
    let (user, group) = (security.run_as_user.as_ref(), security.run_as_group.as_ref());
    if group.is_some() && user.is_none() {
        return Err(Error::invalid("the pod sandbox has run_as_group without run_as_user"));
    }
    let uid = user.map(|u| id("run_as_user", u.value)).transpose()?;
    let gid = group.map(|g| id("run_as_group", g.value)).transpose()?;
    let gid = gid.unwrap_or(if uid.is_some() { 0 } else { NOBODY });
    // The primary group among them, as for containers: nothing else tells the kernel that it may not be dropped.
    let mut groups = vec![gid];
    for &group in &security.supplemental_groups {
        let group = id("supplemental group", group)?;
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    let mut made = User::default();
    made.set_uid(uid.unwrap_or(NOBODY)).set_gid(gid).set_additional_gids(Some(groups));
    Ok(made)
}

fn no_capabilities() -> LinuxCapabilities {
    let mut none = LinuxCapabilities::default();
    none.set_bounding(Some(Default::default()))
        .set_effective(Some(Default::default()))
        .set_permitted(Some(Default::default()))
        .set_inheritable(Some(Default::default()))
        .set_ambient(Some(Default::default()));
    none
}

/// What the runtime needs to start a process, no more.
fn mounts() -> Vec<Mount> {
    let mount = |destination: &str, kind: &str, options: &[&str]| {
        let mut mount = Mount::default();
        mount
            .set_destination(destination.into())
            .set_typ(Some(kind.into()))
            .set_source(Some(kind.into()))
            .set_options(Some(options.iter().map(|o| (*o).to_owned()).collect()));
        mount
    };
    vec![
        mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", &["nosuid", "noexec", "strictatime", "mode=755", "size=64k"]),
    ]
}

fn linux(input: &Input<'_>) -> Result<Linux> {
    let Input { config, handler, .. } = *input;
    let parent = &config.linux.cgroup_parent;
    let mappings = users::mappings(config)?;
    let paths = |all: &[&str]| Some(all.iter().map(|p| (*p).to_owned()).collect());
    let mut all = vec![namespaces::own(Type::Mount)];
    let pid = config.linux.security_context.namespace_options.pid.enum_value_or_default();
    if pid != NamespaceMode::NODE {
        all.push(namespaces::own(Type::Pid));
    }
    let Namespaces { net, ipc, uts, user, .. } = input.namespaces;
    let pinned = [(Type::User, user), (Type::Ipc, ipc), (Type::Uts, uts), (Type::Network, net)];
    all.extend(pinned.into_iter().filter_map(|(kind, path)| Some(namespaces::join(kind, path.as_deref()?))));

    let mut linux = Linux::default();
    linux
        .set_resources(Some(limits()))
        .set_cgroups_path(Some(cgroup::path(parent, handler.systemd_cgroup, input.id.as_str())?))
        .set_namespaces(Some(all))
        .set_uid_mappings(mappings.as_ref().map(|m| m.uids.clone()))
        .set_gid_mappings(mappings.map(|m| m.gids))
        .set_devices(None)
        .set_rootfs_propagation(None)
        .set_masked_paths(paths(&MASKED))
        .set_readonly_paths(paths(&READ_ONLY));
    Ok(linux)
}

fn limits() -> LinuxResources {
    let mut nothing = LinuxDeviceCgroup::default();
    nothing.set_allow(false).set_access(Some("rwm".into()));
    let mut cpu = LinuxCpu::default();
    cpu.set_shares(Some(SHARES));
    let mut limits = LinuxResources::default();
    limits.set_devices(Some(vec![nothing])).set_cpu(Some(cpu));
    limits
}

/// Those of the pod that the handler lets through, and over them ours. What the whole pod may use is said to runtimes that
/// make a machine for it; its cgroup is the kubelet's.
fn annotations(input: &Input<'_>) -> HashMap<String, String> {
    let (pod, config) = (&input.config.metadata, input.config);
    let mut all: HashMap<String, String> =
        annotations::passed(&config.annotations, &input.handler.pod_annotations).collect();
    let ours = [
        (annotations::CONTAINER_TYPE, "sandbox"),
        (annotations::SANDBOX_ID, input.id.as_str()),
        (annotations::SANDBOX_NAME, &pod.name),
        (annotations::SANDBOX_NAMESPACE, &pod.namespace),
        (annotations::SANDBOX_UID, &pod.uid),
        (LOG_DIRECTORY, &config.log_directory),
    ];
    all.extend(ours.map(|(key, value)| (key.to_owned(), value.to_owned())));
    if let Some(whole) = config.linux.resources.as_ref() {
        let limits = [
            ("cpu-period", whole.cpu_period),
            ("cpu-quota", whole.cpu_quota),
            ("cpu-shares", whole.cpu_shares),
            ("memory", whole.memory_limit_in_bytes),
        ];
        all.extend(limits.map(|(what, limit)| (format!("io.kubernetes.cri.sandbox-{what}"), limit.to_string())));
    }
    if input.handler.systemd_cgroup {
        for (key, value) in cgroup::scope(&config.annotations, None) {
            all.entry(key.to_owned()).or_insert(value);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use cricket_proto::runtime::Int64Value;

    fn made(config: &PodSandboxConfig) -> Result<Spec> {
        spec(&Input {
            config,
            id: &SandboxId::from_record("s1"),
            namespaces: &Namespaces {
                net: Some("/ns/net".into()),
                ipc: Some("/ns/ipc".into()),
                uts: Some("/ns/uts".into()),
                user: None,
                pid: Some("/ns/pid".into()),
            },
            host: &HostFacts::default(),
            handler: &HandlerFacts::default(),
            root: Path::new("/root"),
        })
    }

    fn int(value: i64) -> protobuf::MessageField<Int64Value> {
        Some(Int64Value { value, ..Default::default() }).into()
    }

    fn security(config: &mut PodSandboxConfig) -> &mut LinuxSandboxSecurityContext {
        config.linux.mut_or_insert_default().security_context.mut_or_insert_default()
    }

    #[test]
    fn it_has_no_rights_and_its_own_pids() {
        let spec = made(&PodSandboxConfig::default()).expect("valid");
        let process = spec.process().as_ref().expect("a process");
        assert_eq!((process.user().uid(), process.user().gid()), (NOBODY, NOBODY));
        assert_eq!(process.no_new_privileges(), Some(true));
        let capabilities = process.capabilities().as_ref().expect("sets");
        for set in [capabilities.bounding(), capabilities.effective(), capabilities.permitted()] {
            assert_eq!(set.as_ref().map(std::collections::HashSet::len), Some(0));
        }
        let linux = spec.linux().as_ref().expect("linux");
        let namespaces = linux.namespaces().clone().unwrap_or_default();
        let shown: Vec<String> = namespaces
            .iter()
            .map(|n| format!("{}={}", n.typ(), n.path().as_deref().unwrap_or(Path::new("")).display()))
            .collect();
        assert_eq!(shown, ["mnt=", "pid=", "ipc=/ns/ipc", "uts=/ns/uts", "net=/ns/net"]);
        assert_eq!(linux.cgroups_path().as_deref(), Some(Path::new("/k8s.io/s1")));
    }

    #[test]
    fn a_pod_of_the_hosts_processes_is_among_them() {
        let mut config = PodSandboxConfig::default();
        security(&mut config).namespace_options.mut_or_insert_default().pid = NamespaceMode::NODE.into();
        let spec = made(&config).expect("valid");
        let namespaces = spec.linux().as_ref().and_then(|l| l.namespaces().clone()).unwrap_or_default();
        assert!(namespaces.iter().all(|n| n.typ() != Type::Pid), "{namespaces:?}");
    }

    #[test]
    fn the_pods_user_is_its_user() {
        let mut config = PodSandboxConfig::default();
        security(&mut config).run_as_user = int(1000);
        security(&mut config).supplemental_groups = vec![7];
        let user = |config: &PodSandboxConfig| {
            let spec = made(config).map_err(|e| e.kind())?;
            let user = spec.process().as_ref().map(|p| p.user().clone()).unwrap_or_default();
            Ok((user.uid(), user.gid(), user.additional_gids().clone().unwrap_or_default()))
        };
        assert_eq!(user(&config), Ok((1000, 0, vec![0, 7])));
        security(&mut config).run_as_group = int(2000);
        assert_eq!(user(&config), Ok((1000, 2000, vec![2000, 7])));
        security(&mut config).supplemental_groups = vec![-1];
        assert_eq!(user(&config), Err(Kind::InvalidArgument));
        let mut config = PodSandboxConfig::default();
        security(&mut config).run_as_group = int(5);
        assert_eq!(user(&config), Err(Kind::InvalidArgument));
        security(&mut config).run_as_user = int(1 << 31);
        assert_eq!(user(&config), Err(Kind::InvalidArgument));
        assert_eq!(check(&config, false).map_err(|e| e.kind()), Err(Kind::InvalidArgument));
    }
}
