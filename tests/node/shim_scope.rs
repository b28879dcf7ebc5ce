//! One shim for the whole node: it serves every pod, and its death is survived.

use std::process::Command;

use cricket_proto::runtime::{ContainerState, PodSandboxState};

use crate::census::{self, Census};
use crate::cri::{container, state, Pod, POLITE};
use crate::node::{until, Node, Tuning};

fn node_of_one_shim() -> Node {
    Node::start_as(Tuning { top: "shim_scope = \"node\"".into(), ..Tuning::default() })
}

#[track_caller]
fn only_shim(node: &Node) -> u32 {
    let shims = census::shims(node);
    assert_eq!(shims.len(), 1, "one shim serves the node: {shims:?}");
    shims[0].0
}

#[test]
fn pods_share_a_shim_that_outlives_the_first_and_ends_with_the_last() {
    let node = node_of_one_shim();
    let empty = Census::take(&node);
    let (first, second) = (Pod::run(&node, "first"), Pod::run(&node, "second"));
    let a = first.start(container("a", POLITE));
    let b = second.start(container("b", POLITE));
    let shim = only_shim(&node);

    // The container that it was started for goes first.
    node.cri.stop(&a, 10).expect("StopContainer");
    assert_eq!(node.cri.status(&a).exit_code, 7);
    first.remove();
    assert_eq!(node.cri.sh(&b, "echo still here"), "still here");
    assert_eq!(state(&node.cri.status(&b)), ContainerState::CONTAINER_RUNNING);

    let third = Pod::run(&node, "third");
    let status = third.run_to_end(container("c", "echo out; exit 3"));
    assert_eq!((status.exit_code, third.said("c")), (3, vec!["out".to_owned()]));
    assert_eq!(only_shim(&node), shim, "the same all the time");

    third.remove();
    second.remove();
    until("the shim ends with its last container", || census::shims(&node).is_empty());
    let left = Census::take(&node).new_since(&empty);
    assert!(left.is_empty(), "{left:#?}");
}

#[test]
fn its_death_ends_its_containers_and_nothing_else() {
    let node = node_of_one_shim();
    let empty = Census::take(&node);
    let pods = [Pod::run(&node, "one"), Pod::run(&node, "two")];
    let ids = pods.each_ref().map(|pod| pod.start(container("c", POLITE)));
    let pids = ids.each_ref().map(|id| node.cri.pid(id));
    let shim = only_shim(&node);

    assert!(Command::new("kill").args(["-KILL", &shim.to_string()]).status().expect("run kill").success());
    for id in &ids {
        let status = node.cri.ended(id);
        assert_eq!((status.exit_code, &*status.reason), (137, "Error"), "{status:?}");
    }
    for pid in pids {
        until("its process is gone", || !std::path::Path::new(&format!("/proc/{pid}")).exists());
    }
    let ready = |pod: &Pod<'_>| node.cri.pod_status(&pod.id).expect("PodSandboxStatus").state;
    assert!(pods.iter().all(|pod| ready(pod) == PodSandboxState::SANDBOX_READY.into()), "a sandbox has no process");

    // In an old pod and in a new one.
    let again = pods[0].start(container("again", POLITE));
    let new = Pod::run(&node, "new");
    let other = new.start(container("c", POLITE));
    assert_ne!(only_shim(&node), shim);
    assert_eq!(node.cri.sh(&again, "echo well"), "well");
    assert_eq!(node.cri.sh(&other, "echo well"), "well");

    pods.into_iter().for_each(Pod::remove);
    new.remove();
    until("the shim ends with its last container", || census::shims(&node).is_empty());
    let left = Census::take(&node).new_since(&empty);
    assert!(left.is_empty(), "{left:#?}");
}

#[test]
fn its_open_files_are_limited_like_containerds() {
    let node = node_of_one_shim();
    let pod = Pod::run(&node, "files");
    pod.start(container("c", POLITE));
    let limits = |pid: u32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/limits")).expect("it lives");
        let line = text.lines().find(|line| line.starts_with("Max open files")).expect("a limit of files");
        line.split_whitespace().skip(3).map(str::to_owned).take(2).collect::<Vec<String>>()
    };
    let (daemon, shim) = (limits(node.containerd.pid()), limits(only_shim(&node)));
    assert_eq!(shim[1], daemon[1], "as many as containerd may");
    assert_eq!(shim[0], shim[1], "all of them at once");
    pod.remove();
}
