//! How containers end: codes, reasons, stop signals and grace.

use std::process::Command;
use std::time::{Duration, Instant};

use cricket_proto::runtime::{ContainerState, LinuxContainerResources};
use protobuf::MessageField;

use crate::cri::{container, state, Pod, POLITE};
use crate::node::{until, Node, BUSYBOX};

/// Does not listen, and says when it does not.
const STUBBORN: &str = "trap '' TERM; echo ready; while :; do sleep 1000; done";

#[test]
fn exit_codes_and_reasons() {
    let node = Node::shared();
    let pod = Pod::run(&node, "codes");
    let ended = |name: &str, script: &str| {
        let status = pod.run_to_end(container(name, script));
        assert!(status.created_at > 0 && status.created_at <= status.started_at, "{status:?}");
        assert!(status.started_at <= status.finished_at, "{status:?}");
        (status.exit_code, status.reason)
    };
    assert_eq!(ended("zero", "exit 0"), (0, "Completed".into()));
    assert_eq!(ended("three", "exit 3"), (3, "Error".into()));

    let id = pod.start(container("killed", POLITE));
    let pid = node.cri.pid(&id).to_string();
    assert!(Command::new("kill").args(["-KILL", &pid]).status().expect("run kill").success());
    let status = node.cri.ended(&id);
    assert_eq!((status.exit_code, &*status.reason), (137, "Error"));
    pod.remove();
}

#[test]
fn the_kernels_out_of_memory_killer_is_named() {
    let node = Node::shared();
    let pod = Pod::run(&node, "oom");
    let limits =
        || MessageField::some(LinuxContainerResources { memory_limit_in_bytes: 32 << 20, ..Default::default() });
    let mut config = container("itself", "");
    // It keeps the last line, which never ends.
    config.command = vec![BUSYBOX.into(), "tail".into(), "/dev/zero".into()];
    config.linux.as_mut().expect("set").resources = limits();
    let status = pod.run_to_end(config);
    assert_eq!((status.exit_code, &*status.reason), (137, "OOMKilled"), "{status:?}");

    // A limit that did no harm is no reason.
    let mut config = container("fits", "exit 4");
    config.linux.as_mut().expect("set").resources = limits();
    let status = pod.run_to_end(config);
    assert_eq!((status.exit_code, &*status.reason), (4, "Error"), "{status:?}");
    pod.remove();
}

#[test]
fn a_program_that_does_not_exist_is_a_start_error() {
    let node = Node::shared();
    let pod = Pod::run(&node, "no-program");
    let mut config = container("c", "");
    config.command = vec!["/no/such/program".into()];
    let id = pod.create(config);
    let e = node.cri.start(&id).expect_err("it cannot start");
    assert!(e.message().contains("/no/such/program"), "{e}");
    let status = node.cri.status(&id);
    assert_eq!(state(&status), ContainerState::CONTAINER_EXITED);
    assert_eq!((status.exit_code, &*status.reason), (128, "StartError"));
    assert!(status.message.contains("/no/such/program"), "{status:?}");
    assert!(status.finished_at > 0, "{status:?}");
    node.cri.remove(&id).expect("RemoveContainer");
    pod.remove();
}

#[test]
fn a_stop_right_after_the_start_is_heard() {
    let node = Node::shared();
    let pod = Pod::run(&node, "early");
    let id = pod.start(container("slow", "sleep 0.5; trap 'exit 7' TERM; while :; do sleep 1000 & wait $!; done"));
    let begun = Instant::now();
    node.cri.stop(&id, 60).expect("StopContainer");
    assert_eq!(node.cri.status(&id).exit_code, 7, "by its handler, which it had not yet");
    assert!(begun.elapsed() < Duration::from_secs(60), "not by the end of the grace");
    pod.remove();
}

#[test]
fn a_stop_asks_first_and_kills_after_the_grace() {
    let node = Node::shared();
    let pod = Pod::run(&node, "stop");
    let started = |name: &str, script: &str| {
        let id = pod.start(container(name, script));
        until("its handler stands", || pod.said(name).iter().any(|line| line == "ready"));
        id
    };
    let polite = started("polite", POLITE);
    node.cri.stop(&polite, 30).expect("StopContainer");
    let status = node.cri.status(&polite);
    assert_eq!((state(&status), status.exit_code), (ContainerState::CONTAINER_EXITED, 7), "its own code");

    let stubborn = started("stubborn", STUBBORN);
    let begun = Instant::now();
    node.cri.stop(&stubborn, 1).expect("StopContainer");
    assert!(begun.elapsed() >= Duration::from_secs(1), "the grace was granted");
    let status = node.cri.status(&stubborn);
    assert_eq!((state(&status), status.exit_code, &*status.reason), (ContainerState::CONTAINER_EXITED, 137, "Error"));

    let hasty = started("hasty", POLITE);
    node.cri.stop(&hasty, 0).expect("StopContainer");
    assert_eq!(node.cri.status(&hasty).exit_code, 137, "no grace, no question");

    for id in [&polite, &stubborn, &hasty] {
        node.cri.stop(id, 1).expect("StopContainer of one that has ended");
        node.cri.remove(id).expect("RemoveContainer");
        node.cri.stop(id, 1).expect("StopContainer of one that is gone");
        node.cri.remove(id).expect("RemoveContainer of one that is gone");
    }
    let running = started("running", STUBBORN);
    node.cri.remove(&running).expect("RemoveContainer kills");
    assert!(node.cri.containers().expect("ListContainers").iter().all(|c| c.id != running));
    pod.remove();
}
