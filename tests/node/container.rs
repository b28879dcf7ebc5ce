//! A container gets what its configuration asks for, looked at from inside and from the host.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use cricket_proto::runtime::{Int64Value, KeyValue, LinuxContainerResources, Mount, NamespaceMode};
use protobuf::MessageField;

use crate::cri::{container, namespaces, pod_config, state, Pod, POLITE};
use crate::node::{until, Node};

/// The file of a controller in the cgroup of a process, whichever version the machine has: (v1 name, v2 name).
fn cgroup_file(pid: u32, controller: &str, v1: &str, v2: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it lives");
    let of = |wanted: &dyn Fn(&str, &str) -> bool| {
        let mut parts = text.lines().map(|line| line.splitn(3, ':').collect::<Vec<_>>());
        parts.find(|p| wanted(p[0], p[1])).map(|p| (p[1].to_owned(), p[2].to_owned()))
    };
    let path = match of(&|_, controllers| controllers.split(',').any(|c| c == controller)) {
        Some((controllers, path)) => format!("/sys/fs/cgroup/{controllers}{path}/{v1}"),
        None => format!("/sys/fs/cgroup{}/{v2}", of(&|number, _| number == "0").expect("cgroup v2").1),
    };
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}")).trim().to_owned()
}

fn capabilities(status: &str) -> u64 {
    let hex = status.lines().find_map(|line| line.strip_prefix("CapEff:")).expect("CapEff").trim();
    u64::from_str_radix(hex, 16).expect("hex")
}

#[test]
fn environment_directory_mounts_user_and_read_only_root() {
    let node = Node::shared();
    let pod = Pod::run(&node, "asks");
    let volumes = node.dir().join("volumes").join("asks");
    fs::create_dir(&volumes).expect("a volume");
    fs::write(volumes.join("settings"), "from outside\n").expect("a file in it");
    let volume = |from: &Path, to: &str, readonly| Mount {
        container_path: to.into(),
        host_path: from.display().to_string(),
        readonly,
        ..Default::default()
    };

    let mut config = container("main", &format!("echo \"$GREETING, $FROM_IMAGE, $(pwd), $(id -u)\"; {POLITE}"));
    config.envs = vec![KeyValue { key: "GREETING".into(), value: "hello \"you\"".into(), ..Default::default() }];
    config.working_dir = "/data".into();
    config.mounts = vec![
        volume(&volumes, "/data", false),
        volume(&volumes.join("settings"), "/etc/settings", true),
        volume(&volumes, "/frozen", true),
    ];
    let security = config.linux.as_mut().expect("set").security_context.as_mut().expect("set");
    security.readonly_rootfs = true;
    let id = pod.start(config);
    let sh = |script: &str| node.cri.sh(&id, script);

    assert_eq!(sh("echo \"$GREETING, $FROM_IMAGE, $(pwd)\""), "hello \"you\", yes, /data");
    sh("echo from inside > /data/answer");
    assert_eq!(fs::read_to_string(volumes.join("answer")).expect("seen outside"), "from inside\n");
    assert_eq!(sh("cat /etc/settings /frozen/answer"), "from outside\nfrom inside");
    for path in ["/etc/settings", "/frozen/new", "/tmp/new"] {
        let refused = sh(&format!("echo x 2>&1 > {path} || true; (echo x > {path}) 2>&1 || true"));
        assert!(refused.contains("Read-only file system"), "{path}: {refused}");
    }
    assert_eq!(node.cri.status(&id).mounts.len(), 3);
    node.cri.stop(&id, 10).expect("StopContainer");
    assert_eq!(pod.said("main")[0], "hello \"you\", yes, /data, 0");
    pod.remove();
}

#[test]
fn users_and_capabilities() {
    let node = Node::shared();
    let pod = Pod::run(&node, "users");
    let mut config = container("numeric", POLITE);
    let security = config.linux.as_mut().expect("set").security_context.as_mut().expect("set");
    security.run_as_user = MessageField::some(Int64Value { value: 1000, ..Default::default() });
    security.run_as_group = MessageField::some(Int64Value { value: 2000, ..Default::default() });
    security.supplemental_groups = vec![3000];
    let id = pod.start(config);
    assert_eq!(node.cri.sh(&id, "id -u; id -g; id -G"), "1000\n2000\n2000 3000 50000");
    assert_eq!(capabilities(&node.cri.sh(&id, "cat /proc/self/status")), 0, "only root has any");
    let user = node.cri.status(&id).user.linux.clone().unwrap_or_default();
    assert_eq!((user.uid, user.gid), (1000, 2000));

    const CHOWN: u64 = 1;
    const NET_ADMIN: u64 = 1 << 12;
    const KILL: u64 = 1 << 5;
    let mut config = container("capable", POLITE);
    let security = config.linux.as_mut().expect("set").security_context.as_mut().expect("set");
    let asked = security.capabilities.mut_or_insert_default();
    asked.add_capabilities = vec!["NET_ADMIN".into()];
    asked.drop_capabilities = vec!["CHOWN".into()];
    let id = pod.start(config);
    let has = capabilities(&node.cri.sh(&id, "cat /proc/self/status"));
    assert_eq!(has & (CHOWN | NET_ADMIN | KILL), NET_ADMIN | KILL, "{has:x}");
    pod.remove();
}

#[test]
fn only_a_privileged_container_sees_the_hosts_devices() {
    let node = Node::shared();
    let devices: Vec<String> = fs::read_dir("/dev")
        .expect("/dev")
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|t| t.is_char_device() || t.is_block_device()))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !["full", "null", "ptmx", "random", "tty", "urandom", "zero", "console"].contains(&&**name))
        .collect();
    assert!(!devices.is_empty(), "this machine has a device that is not in every container");
    let mut config = pod_config(&node, "privileged");
    config.linux.as_mut().expect("set").security_context.as_mut().expect("set").privileged = true;
    let pod = Pod::run_as(&node, config);
    let plain = pod.start(container("plain", POLITE));
    let mut config = container("privileged", POLITE);
    config.linux.as_mut().expect("set").security_context.as_mut().expect("set").privileged = true;
    let privileged = pod.start(config);
    let missing = |id: &str| {
        let seen = node.cri.sh(id, "ls /dev");
        devices.iter().filter(|d| !seen.lines().any(|s| s == *d)).count()
    };
    assert_eq!((missing(&plain), missing(&privileged)), (devices.len(), 0));
    let status = node.cri.sh(&privileged, "cat /proc/self/status");
    assert!(capabilities(&status) & (1 << 21) != 0, "SYS_ADMIN: {status}");
    pod.remove();
}

#[test]
fn resource_limits_are_in_the_cgroup() {
    let node = Node::shared();
    let mut config = pod_config(&node, "limits");
    let parent = format!("/cricket-test-{}", std::process::id());
    config.linux.as_mut().expect("set").cgroup_parent = parent.clone();
    let pod = Pod::run_as(&node, config);
    let mut config = container("limited", POLITE);
    config.linux.as_mut().expect("set").resources = MessageField::some(LinuxContainerResources {
        cpu_period: 100_000,
        cpu_quota: 25_000,
        cpu_shares: 512,
        memory_limit_in_bytes: 64 << 20,
        oom_score_adj: 500,
        cpuset_cpus: "0".into(),
        ..Default::default()
    });
    let id = pod.start(config);
    let pid = node.cri.pid(&id);
    assert_eq!(cgroup_file(pid, "memory", "memory.limit_in_bytes", "memory.max"), (64 << 20).to_string());
    let quota = cgroup_file(pid, "cpu", "cpu.cfs_quota_us", "cpu.max");
    assert!(["25000", "25000 100000"].contains(&&*quota), "{quota}");
    // v1's 512 shares are v2's weight 20.
    let share = cgroup_file(pid, "cpu", "cpu.shares", "cpu.weight");
    assert!(["512", "20"].contains(&&*share), "{share}");
    assert_eq!(cgroup_file(pid, "cpuset", "cpuset.cpus", "cpuset.cpus"), "0");
    assert_eq!(fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).expect("it lives").trim(), "500");
    let path = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it lives");
    assert!(path.contains(&format!(":{parent}/{id}\n")), "below the pod's parent: {path}");
    pod.remove();
    remove_group(&parent);
}

/// Removes the control group of a pod: it is the kubelet's, which is the test here.
pub fn remove_group(parent: &str) {
    let name = parent.trim_start_matches('/');
    let hierarchies = fs::read_dir("/sys/fs/cgroup").expect("cgroups").flatten().map(|hierarchy| hierarchy.path());
    let groups: Vec<_> = hierarchies.chain(["/sys/fs/cgroup".into()]).map(|path| path.join(name)).collect();
    // A shim that is about to end may be in it yet.
    until("the control group of the pod is removed", || {
        groups.iter().all(|group| fs::remove_dir(group).is_ok() || !group.exists())
    });
}

/// As runc leaves it when the last process takes its time to go.
#[test]
fn a_control_group_that_a_runtime_has_left_goes_with_its_container() {
    let node = Node::shared();
    let mut config = pod_config(&node, "left-group");
    let parent = format!("/cricket-left-{}", std::process::id());
    let linux = config.linux.mut_or_insert_default();
    linux.cgroup_parent = parent.clone();
    let mut options = namespaces(NamespaceMode::POD);
    options.pid = NamespaceMode::POD.into();
    linux.security_context.mut_or_insert_default().namespace_options = Some(options).into();
    let pod = Pod::run_as(&node, config);
    let id = pod.start(container("ended", "exit 0"));
    node.cri.ended(&id);
    let all = PathBuf::from("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(&all).expect("cgroups").flatten().map(|hierarchy| hierarchy.path());
    let groups = hierarchies.chain([all]).map(|hierarchy| hierarchy.join(&parent[1..]));
    let groups: Vec<_> = groups.filter(|group| group.is_dir()).collect();
    let leave = |id: &str| {
        let left: Vec<_> = groups.iter().map(|group| group.join(id)).collect();
        left.iter().for_each(|group| fs::create_dir_all(group.join("inner")).expect("a group"));
        left
    };
    let left = leave(&id);
    assert!(!left.is_empty());
    node.cri.remove(&id).expect("RemoveContainer");
    assert!(!left.iter().any(|group| group.exists()), "{left:?}");

    let (id, sandbox) = (pod.start(container("runs", POLITE)), pod.id.clone());
    let left = [leave(&id), leave(&sandbox)].concat();
    pod.remove();
    assert!(!left.iter().any(|group| group.exists()), "{left:?}");
    remove_group(&parent);
}

#[test]
fn a_terminal_has_one_stream() {
    let node = Node::shared();
    let pod = Pod::run(&node, "tty");
    let mut config = container("tty", "[ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo a terminal; echo oops >&2");
    config.tty = true;
    config.stdin = true;
    let status = pod.run_to_end(config);
    assert_eq!((status.exit_code, state(&status)), (0, cricket_proto::runtime::ContainerState::CONTAINER_EXITED));
    let log = fs::read_to_string(pod.log("tty")).expect("the log");
    let words: Vec<Vec<&str>> = log.lines().map(|line| line.split(' ').skip(1).collect()).collect();
    assert_eq!(words, [vec!["stdout", "F", "a", "terminal"], vec!["stdout", "F", "oops"]], "{log:?}");
    pod.remove();
}
