//! Containers look at themselves: what is hidden from them, what they may open, and what travels through their mounts.

use std::fs;
use std::path::Path;
use std::process::Command;

use cricket_proto::runtime::{ContainerConfig, Device, LinuxContainerSecurityContext, Mount, MountPropagation};

use crate::cri::{container, pod_config, Pod, POLITE};
use crate::node::{Node, Tuning};

fn security(config: &mut ContainerConfig) -> &mut LinuxContainerSecurityContext {
    config.linux.mut_or_insert_default().security_context.mut_or_insert_default()
}

/// Runs a program of the node.
fn run(program: &str, arguments: &[&str]) {
    let done = Command::new(program).args(arguments).status().expect(program);
    assert!(done.success(), "{program} {arguments:?}");
}

/// Options, optional fields and type of the topmost mount on a path, as the container's own table has them.
fn mounted(node: &Node, id: &str, path: &str) -> Option<String> {
    let table = node.cri.sh(id, "cat /proc/self/mountinfo");
    let line = table.lines().rfind(|line| line.split(' ').nth(4) == Some(path))?;
    Some(line.split(' ').skip(5).collect::<Vec<_>>().join(" "))
}

/// A pod that may have privileged containers.
fn privileged_pod<'a>(node: &'a Node, name: &str) -> Pod<'a> {
    let mut config = pod_config(node, name);
    config.linux.mut_or_insert_default().security_context.mut_or_insert_default().privileged = true;
    Pod::run_as(node, config)
}

#[test]
fn paths_are_hidden_and_protected_as_asked_and_not_from_privileged_containers() {
    let node = Node::shared();
    let pod = privileged_pod(&node, "paths");
    let start = |name: &str, listed: bool, privileged: bool| {
        let mut config = container(name, POLITE);
        let security = security(&mut config);
        security.privileged = privileged;
        if listed {
            security.masked_paths = ["/proc/kcore", "/proc/irq", "/proc/no-such-file"].map(String::from).to_vec();
            security.readonly_paths = ["/proc/sys", "/proc/bus"].map(String::from).to_vec();
        }
        pod.start(config)
    };
    let listed = start("listed", true, false);
    assert_eq!(node.cri.sh(&listed, "head -c 1 /proc/kcore | wc -c; ls /proc/irq | wc -l"), "0\n0");
    assert!(mounted(&node, &listed, "/proc/irq").expect("hidden").starts_with("ro"));
    assert!(mounted(&node, &listed, "/proc/sys").expect("protected").starts_with("ro"));
    let refused = node.cri.sh(&listed, "(echo x > /proc/sys/kernel/domainname) 2>&1 || true");
    assert!(refused.contains("Read-only file system"), "{refused}");
    for id in [start("free", false, false), start("privileged", true, true)] {
        for path in ["/proc/kcore", "/proc/irq", "/proc/sys"] {
            assert_eq!(mounted(&node, &id, path), None, "{path}");
        }
        assert_ne!(node.cri.sh(&id, "ls /proc/irq | wc -l"), "0");
    }
    let privileged = start("again", false, true);
    for (id, access) in [(&listed, "ro"), (&privileged, "rw")] {
        assert!(mounted(&node, id, "/sys").expect("mounted").starts_with(access), "{access}");
    }
    pod.remove();
}

#[test]
fn rights_without_a_word_are_the_usual_fourteen() {
    let node = Node::shared();
    let pod = Pod::run(&node, "usual");
    let id = pod.start(container("usual", POLITE));
    let status = node.cri.sh(&id, "cat /proc/self/status");
    let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).expect(name).trim();
    for set in ["CapPrm:", "CapEff:", "CapBnd:"] {
        assert_eq!(line(set), "00000000a80425fb", "{set}");
    }
    for set in ["CapInh:", "CapAmb:"] {
        assert_eq!(line(set), "0000000000000000", "{set}");
    }
    assert_eq!(line("NoNewPrivs:"), "0");
    pod.remove();
}

#[test]
fn devices_are_open_as_far_as_they_were_given() {
    let node = Node::shared();
    let pod = Pod::run(&node, "devices");
    let dir = node.dir().join("volumes/devices");
    fs::create_dir_all(dir.join("many/deep")).expect("mkdir");
    let shown = |path: &str| dir.join(path).display().to_string();
    // That of fuse, which is in no container unless it is asked for.
    for path in ["many/one", "many/deep/two"] {
        run("mknod", &["-m", "666", &shown(path), "c", "10", "229"]);
    }
    std::os::unix::fs::symlink("many/one", dir.join("link")).expect("symlink");
    let device = |host: &str, container: &str, permissions: &str| Device {
        host_path: shown(host),
        container_path: container.into(),
        permissions: permissions.into(),
        ..Default::default()
    };
    let start = |name: &str, devices: Vec<Device>| {
        let mut config = container(name, POLITE);
        config.devices = devices;
        pod.start(config)
    };
    let tried = |id: &str, script: &str| node.cri.sh(id, &format!("(({script}) 2>&1 && echo opened) || true"));
    let readable = start("readable", vec![device("link", "/dev/given", "r")]);
    assert_eq!(node.cri.sh(&readable, "stat -c '%F %t:%T %a' /dev/given"), "character special file a:e5 666");
    assert_eq!(tried(&readable, ": < /dev/given"), "opened");
    assert!(tried(&readable, ": > /dev/given").contains("Operation not permitted"));
    let all = start("all", vec![device("many", "/dev/many", "")]);
    for path in ["/dev/many/one", "/dev/many/deep/two"] {
        assert_eq!(tried(&all, &format!(": <> {path}")), "opened", "{path}");
    }
    let none = start("none", vec![]);
    let made = tried(&none, "mknod /tmp/own c 10 229 && : < /tmp/own");
    assert!(made.contains("Operation not permitted"), "{made}");
    pod.remove();
}

#[test]
fn mounts_travel_as_far_as_was_asked() {
    let node = Node::shared();
    let pod = privileged_pod(&node, "propagation");
    let dir = node.dir().join("volumes/propagation");
    for sub in ["outside", "inside"] {
        fs::create_dir_all(dir.join(sub)).expect("mkdir");
    }
    let shown = dir.display().to_string();
    run("mount", &["--bind", &shown, &shown]);
    run("mount", &["--make-shared", &shown]);
    let mount = |path: &str, propagation: MountPropagation| Mount {
        container_path: path.into(),
        host_path: shown.clone(),
        propagation: propagation.into(),
        ..Default::default()
    };
    let mut config = container("c", POLITE);
    security(&mut config).privileged = true;
    config.mounts = vec![
        mount("/private", MountPropagation::PROPAGATION_PRIVATE),
        mount("/slave", MountPropagation::PROPAGATION_HOST_TO_CONTAINER),
        mount("/shared", MountPropagation::PROPAGATION_BIDIRECTIONAL),
    ];
    let id = pod.start(config);
    for (path, field) in [("/private", None), ("/slave", Some("master:")), ("/shared", Some("shared:"))] {
        let found = mounted(&node, &id, path).expect("mounted");
        let fields: Vec<&str> = found.split(' ').skip(1).take_while(|field| *field != "-").collect();
        assert_eq!(
            fields.iter().any(|f| field.is_some_and(|wanted| f.starts_with(wanted))),
            field.is_some(),
            "{found}"
        );
        assert_eq!(fields.is_empty(), field.is_none(), "{path}: {found}");
    }
    let outside = dir.join("outside").display().to_string();
    run("mount", &["-t", "tmpfs", "none", &outside]);
    fs::write(dir.join("outside/file"), "").expect("write");
    let seen = node.cri.sh(&id, "ls /private/outside /slave/outside /shared/outside");
    assert_eq!(seen, "/private/outside:\n\n/shared/outside:\nfile\n\n/slave/outside:\nfile");
    node.cri.sh(&id, "mount -t tmpfs none /shared/inside && echo x > /shared/inside/file");
    assert!(dir.join("inside/file").exists(), "what it mounts is the node's as well");
    let inside = dir.join("inside").display().to_string();
    run("umount", &[&inside]);
    run("umount", &[&outside]);
    pod.remove();
    run("umount", &[&shown]);
}

#[test]
fn limits_of_a_base_spec_hold() {
    let file = std::env::temp_dir().join(format!("cricket-node-base-{}.json", std::process::id()));
    let base = r#"{"process": {"rlimits": [{"type": "RLIMIT_NOFILE", "soft": 123, "hard": 456}]},
        "linux": {"resources": {"pids": {"limit": 77}}}}"#;
    fs::write(&file, base).expect("write");
    let node = Node::start_as(Tuning { runc: format!("base_spec = \"{}\"", file.display()), ..Tuning::default() });
    let pod = Pod::run(&node, "base");
    let id = pod.start(container("c", POLITE));
    let limits = node.cri.sh(&id, "grep 'open files' /proc/1/limits");
    assert_eq!(limits.split_whitespace().collect::<Vec<_>>(), ["Max", "open", "files", "123", "456", "files"]);
    let pids = if Path::new("/sys/fs/cgroup/pids").exists() { "pids/pids.max" } else { "pids.max" };
    assert_eq!(node.cri.sh(&id, &format!("cat /sys/fs/cgroup/{pids}")), "77");
    pod.remove();
    fs::remove_file(&file).expect("ours");
}
