//! Disks and directories that do not take what we write.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::thread;

use cricket::containerd::fake::Fault;
use cricket::containerd::Containerd;
use cricket::error::Kind;
use cricket::sys::mount;
use cricket_proto::runtime::{ContainerState, PodSandboxState};

use crate::requests;
use crate::world::{assert_refused, call, eventually, World, PATIENCE};

/// Mounts a tmpfs.
fn tmpfs(at: &Path, options: &str) {
    fs::create_dir_all(at).expect("make a mount point");
    let done = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at).status();
    assert!(done.expect("start mount").success());
}

/// Writes until the disk is full.
fn fill(dir: &Path) {
    let mut file = fs::File::create(dir.join("ballast")).expect("a file");
    while file.write_all(&[0; 512]).is_ok() {}
}

/// A node whose records are on a disk of their own, and where.
fn on_a_small_disk() -> (World, PathBuf) {
    let mut world = World::new();
    let root = world.dir.path().join("root");
    world.shut_down();
    tmpfs(&root, "size=256k");
    world.boot();
    (world, root)
}

#[test]
fn a_sandbox_on_a_disk_that_takes_nothing() {
    let world = World::new();
    for name in ["root", "state", "netns"] {
        let dir = world.dir.path().join(name);
        tmpfs(&dir, "ro");
        assert_refused(world.run(world.request("a")), Kind::Unknown, &[name, "Read-only file system"]);
        mount::detach(&dir).expect("unmount");
        assert_eq!(world.leftovers(), Vec::<String>::new(), "{name}");
        assert!(world.sandboxes.list().is_empty());
    }
    world.assert_clean(&["a"]);
}

#[test]
fn a_directory_that_is_a_file() {
    let world = World::new();
    for name in ["root", "state", "netns"] {
        let dir = world.dir.path().join(name);
        fs::remove_dir_all(&dir).ok(); // the first sandbox makes it
        fs::write(&dir, "").expect("write a file");
        assert_refused(world.run(world.request("a")), Kind::Unknown, &[name]);
        fs::remove_file(&dir).expect("remove the file");
        assert_eq!(world.leftovers(), Vec::<String>::new(), "{name}");
        assert!(world.sandboxes.list().is_empty(), "{name}");
    }
    world.assert_clean(&["a"]);
}

#[test]
fn a_container_on_a_disk_that_takes_nothing() {
    let world = World::new();
    let pod = world.pod("a");
    let before = world.leftovers();
    let dir = world.dir.path().join("root/containers");
    tmpfs(&dir, "ro");
    let done = world.create(requests::container(&pod, "a"));
    assert_refused(done, Kind::Unknown, &["create container a_a_default", "Read-only file system"]);
    mount::detach(&dir).expect("unmount");
    assert_eq!(world.leftovers(), before);
    let id = world.container(&pod, "a");
    // Its FIFOs have no place: it never runs.
    let dir = world.dir.path().join("state/containers");
    tmpfs(&dir, "ro");
    assert_refused(world.start(&id), Kind::Unknown, &["start container", "Read-only file system"]);
    mount::detach(&dir).expect("unmount");
    assert_eq!(world.status(&id).reason, "StartError");
    assert_eq!(world.count("create_task"), 0);
    world.remove_pod(&pod).expect("remove");
    world.assert_clean(&["a"]);
}

#[test]
fn pods_can_be_stopped_on_a_full_disk() {
    let (mut world, root) = on_a_small_disk();
    let (pod, id) = world.running("a");
    let (_, other) = world.running("b");
    fill(&root);
    world.exit(&other, 3);
    assert_eq!(world.status(&other).exit_code, 3);
    let e = world.run(world.request("c"));
    assert_refused(e, Kind::ResourceExhausted, &["No space left on device"]);
    // This is what frees disks.
    world.stop(&id, 0).expect("stop a container");
    world.stop_pod(&pod).expect("stop its pod");
    world.remove_pod(&pod).expect("remove it");
    fs::remove_file(root.join("ballast")).expect("make room");
    world.restart();
    assert_eq!(world.sandboxes.list().len(), 1);
    assert_eq!(world.state(&other), ContainerState::CONTAINER_EXITED, "though its code could not be written");
}

#[test]
fn a_pod_is_told_to_be_what_a_restart_would_find() {
    for full in [false, true] {
        let (world, root) = on_a_small_disk();
        let (pod, _) = world.running("a");
        if full {
            fill(&root);
        }
        let (go, wait) = mpsc::channel::<()>();
        world.fake.after("kill", move || wait.recv_timeout(PATIENCE).expect("told to go on"));
        let midway = thread::scope(|scope| {
            let stop = scope.spawn(|| world.stop_pod(&pod));
            eventually("its container is killed", || world.count("kill") > 0);
            let midway = world.pod_status(&pod).state.enum_value();
            go.send(()).expect("the stop waits");
            stop.join().expect("no panic").expect("stop");
            midway
        });
        let expected = if full { PodSandboxState::SANDBOX_READY } else { PodSandboxState::SANDBOX_NOTREADY };
        assert_eq!(midway, Ok(expected), "the disk is full: {full}");
        assert_eq!(world.pod_status(&pod).state.enum_value(), Ok(PodSandboxState::SANDBOX_NOTREADY));
    }
}

#[test]
fn what_cannot_be_written_on_a_full_disk_is_not_forgotten_by_restarts() {
    let (mut world, root) = on_a_small_disk();
    let (pod, id) = world.running("a");
    let other = world.container(&pod, "b");
    fill(&root);
    // Neither started nor failed, whoever looks.
    assert_refused(world.start(&other), Kind::ResourceExhausted, &["No space left on device"]);
    assert_eq!(world.state(&other), ContainerState::CONTAINER_CREATED);
    world.exit(&id, 3);
    let status = world.status(&id);
    for _ in 0..2 {
        world.restart();
        world.await_exit(&id);
        assert_eq!(world.status(&id), status);
        assert_eq!(world.state(&other), ContainerState::CONTAINER_CREATED);
    }
    fs::remove_file(root.join("ballast")).expect("make room");
    eventually("it is written down, and its task goes", || !world.leftovers().contains(&format!("task:{id}")));
    world.restart();
    assert_eq!(world.status(&id), status);
    world.start(&other).expect("there is room");
    world.remove_pod(&pod).expect("remove");
}

#[test]
fn a_removal_on_a_full_disk_that_is_cut_short_is_finished_or_has_not_begun() {
    for n in 1.. {
        let (mut world, root) = on_a_small_disk();
        let (pod, id) = world.running("a");
        fill(&root);
        world.exit(&id, 3);
        let status = world.status(&id);
        world.fake.fail_at(n, Fault::LostReply);
        let done = world.remove(&id);
        if done.is_ok() {
            assert!(n > 4, "its task, its record twice, and its snapshot");
            return;
        }
        world.restart();
        if world.containers.exact(&id).is_some() {
            world.await_exit(&id);
            assert_eq!(world.status(&id), status, "call {n}");
        }
        world.remove(&id).expect("the retry");
        fs::remove_file(root.join("ballast")).expect("make room");
        world.remove_pod(&pod).expect("remove");
        world.assert_clean(&["a"]);
    }
}

#[test]
fn a_missing_log_directory_is_told() {
    let world = World::new();
    let pod = world.pod("a");
    let id = world.container(&pod, "a");
    fs::remove_dir(world.dir.path().join("logs")).expect("remove the log directory");
    let texts = ["logs/a.log", "its directory does not exist; the client makes it before the container"];
    let e = assert_refused(world.start(&id), Kind::FailedPrecondition, &texts);
    let status = world.status(&id);
    assert_eq!((status.exit_code, status.reason, status.message), (128, "StartError".into(), e.to_string()));
    world.remove_pod(&pod).expect("remove");
    world.assert_clean(&["a"]);
}

#[test]
fn a_pod_without_a_log_directory_logs_nothing() {
    let world = World::new();
    let pod = world.run(requests::pod("a")).expect("run");
    let id = world.container(&pod, "a");
    world.start(&id).expect("start");
    assert_eq!(world.status(&id).log_path, "");
    world.exit(&id, 0);
}

#[test]
fn a_log_stays_below_the_pods_log_directory() {
    let world = World::new();
    let pod = world.pod("a");
    for path in ["/x.log", "../x.log", "a/../../x.log"] {
        let mut request = requests::container(&pod, "a");
        requests::config(&mut request).log_path = path.into();
        assert_refused(world.create(request), Kind::InvalidArgument, &[path, "must lie in the pod's log directory"]);
    }
}

#[test]
fn whatever_lies_on_a_mount_point_is_taken_down() {
    let world = World::new();
    let pod = world.pod("a");
    let at = |path: &str| world.dir.path().join(path);
    let (netns, shm) = (at(&format!("netns/cricket-{pod}")), at(&format!("state/sandboxes/{pod}/shm")));
    mount::bind(Path::new("/proc/self/ns/net"), &netns).expect("bind over the pin");
    mount::shm(&shm, 4096).expect("mount over shm");
    world.remove_pod(&pod).expect("remove");
    world.assert_clean(&["a"]);
}

#[test]
fn pins_that_somebody_removed_are_no_obstacle() {
    let world = World::new();
    let pod = world.pod("a");
    let netns = world.dir.path().join(format!("netns/cricket-{pod}"));
    cricket::sys::namespace::unpin(&netns).expect("unpin");
    world.stop_pod(&pod).expect("stop");
    assert_eq!(world.cni.last_netns(), "", "plugins are told that it is gone");
    assert_eq!(world.pod_status(&pod).state.enum_value(), Ok(PodSandboxState::SANDBOX_NOTREADY));
    world.remove_pod(&pod).expect("remove");
    world.assert_clean(&["a"]);
}

#[test]
fn the_files_of_a_pod() {
    let world = World::new();
    let mut request = world.request("a");
    let dns = cricket_proto::runtime::DNSConfig { servers: vec!["10.0.0.10".into()], ..Default::default() };
    request.config.mut_or_insert_default().dns_config = Some(dns).into();
    let pod = world.run(request).expect("run");
    let read = |name: &str| fs::read_to_string(world.dir.path().join(format!("root/sandboxes/{pod}/{name}")));
    assert_eq!(read("hostname").expect("hostname"), "a\n");
    assert_eq!(read("resolv.conf").expect("resolv.conf"), "nameserver 10.0.0.10\n");
    let id = world.container(&pod, "a");
    let record = world.fake.container(&call(), &id).expect("the record");
    let spec: serde_json::Value = serde_json::from_slice(&record.spec).expect("JSON");
    let namespaces = spec["linux"]["namespaces"].as_array().expect("a list");
    let joined = namespaces.iter().filter_map(|n| n["path"].as_str()).collect::<Vec<_>>();
    assert_eq!(joined.len(), 3, "ipc, uts and network: {joined:?}");
    assert!(joined.iter().all(|path| mount::is_namespace(Path::new(path))));
}
