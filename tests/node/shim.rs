//! Shims under the daemon: ours, which is the default, and containerd's own beside it.
#![allow(clippy::print_stdout, reason = "the figures, with --nocapture")]

use std::fs;
use std::process::Command;

use cricket::shim::NAME;
use cricket_proto::runtime::{ContainerState, Mount};

use crate::census::{kilobytes, shims, Census};
use crate::cri::{container, state, Pod, POLITE};
use crate::node::{until, Node, Tuning};

/// Memory of a shim of three containers that no other process shares: measured 84 kB, plus a fifth. Its program is shared.
const PRIVATE_KB: u64 = 101;
/// How often a shim is killed.
const KILLS: usize = 20;

fn kill(pid: u32) {
    assert!(Command::new("kill").args(["-KILL", &pid.to_string()]).status().expect("run kill").success());
}

#[test]
fn a_pod_has_one_small_shim_and_it_is_ours() {
    let node = Node::start();
    let pod = Pod::run(&node, "small");
    let ids: Vec<String> = (0..3).map(|n| pod.start(container(&format!("c{n}"), POLITE))).collect();
    let found = shims(&node);
    assert!(matches!(&found[..], [(_, command)] if command.contains(NAME)), "{found:?}");
    let pid = found[0].0;
    until("it has written down what they said, and rests", || kilobytes(pid, "Private_Dirty") <= PRIVATE_KB);
    println!(
        "shim of three containers: {} kB private, {} kB PSS alone",
        kilobytes(pid, "Private_Dirty"),
        kilobytes(pid, "Pss")
    );
    assert_eq!(fs::read_dir(format!("/proc/{pid}/task")).expect("it lives").count(), 1, "one thread");
    let descriptors = || fs::read_dir(format!("/proc/{pid}/fd")).expect("it lives").count();
    let before = descriptors();
    for _ in 0..50 {
        assert_eq!(node.cri.sh(&ids[0], "echo alive"), "alive");
    }
    until("no descriptor is left of the execs", || descriptors() == before);
    until("and no memory", || kilobytes(pid, "Private_Dirty") <= PRIVATE_KB);
    pod.remove();
}

#[test]
fn the_log_goes_on_while_there_is_no_daemon() {
    let mut node = Node::start();
    let (log, id, pod_id) = {
        let pod = Pod::run(&node, "alone");
        let id = pod.start(container("c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done"));
        (pod.log("c"), id, pod.id)
    };
    node.end_daemon("KILL");
    let lines = || fs::read_to_string(&log).expect("the log").lines().count();
    let before = lines();
    until("a hundred lines more, and nobody to write them but the shim", || lines() > before + 100);
    node.start_daemon();
    // The kubelet's rotation.
    let moved = log.with_extension("moved");
    fs::rename(&log, &moved).expect("ours");
    node.cri.reopen_log(&id).expect("ReopenContainerLog");
    let old = fs::read_to_string(&moved).expect("the old log");
    until("it goes on in a new file", || log.exists() && lines() > 10);
    assert_eq!(fs::read_to_string(&moved).expect("the old log"), old, "nothing more in the old one");
    let new = fs::read_to_string(&log).expect("the log");
    let whole = new.rfind('\n').expect("lines");
    let numbers = old.lines().chain(new[..whole].lines()).map(|line| line.rsplit(' ').next().expect("a word"));
    assert!(numbers
        .map(|word| word.parse::<usize>().expect("a number"))
        .eq(1..=old.lines().count() + new[..whole].lines().count()));
    node.cri.stop_pod(&pod_id).expect("StopPodSandbox");
    node.cri.remove_pod(&pod_id).expect("RemovePodSandbox");
}

#[test]
fn a_killed_shim_leaves_nothing_and_new_containers_start() {
    let node = Node::start();
    let pod = Pod::run(&node, "struck");
    let empty = Census::take(&node);
    for n in 0..KILLS {
        let both = [0, 1].map(|m| pod.start(container(&format!("c{n}-{m}"), POLITE)));
        let pids = both.clone().map(|id| node.cri.pid(&id));
        for (pid, _) in shims(&node) {
            kill(pid);
        }
        for (id, pid) in both.iter().zip(pids) {
            assert_eq!(node.cri.ended(id).exit_code, 137);
            until("its process is gone", || !std::path::Path::new(&format!("/proc/{pid}")).exists());
            node.cri.remove(id).expect("RemoveContainer");
        }
    }
    until("nothing is left of them", || Census::take(&node).new_since(&empty).is_empty());
    let id = pod.start(container("after", POLITE));
    assert_eq!(state(&node.cri.status(&id)), ContainerState::CONTAINER_RUNNING);
    pod.remove();
}

#[test]
fn containerds_own_shim_serves_as_well() {
    let node = Node::start_as(Tuning { runc: "shim = \"runc-v2\"".into(), ..Tuning::default() });
    let empty = Census::take(&node);
    let pod = Pod::run(&node, "theirs");
    let volume = node.dir().join("volumes/theirs");
    fs::create_dir(&volume).expect("a volume");
    let mut config = container("c", POLITE);
    let host_path = volume.display().to_string();
    config.mounts = vec![Mount { container_path: "/v".into(), host_path, ..Default::default() }];
    let id = pod.start(config);
    let found = shims(&node);
    assert!(matches!(&found[..], [(_, command)] if command.contains("containerd-shim-runc-v2")), "{found:?}");
    assert_eq!(node.cri.sh(&id, "echo alive"), "alive");
    until("it has spoken", || pod.said("c") == ["ready"]);
    let moved = pod.log("c").with_extension("moved");
    fs::rename(pod.log("c"), &moved).expect("ours");
    node.cri.reopen_log(&id).expect("ReopenContainerLog");
    node.cri.stop(&id, 20).expect("StopContainer");
    assert_eq!(node.cri.ended(&id).exit_code, 7);
    let status = pod.run_to_end(container("short", "echo out; echo err >&2; exit 3"));
    assert_eq!(status.exit_code, 3);
    assert_eq!(pod.said("short").len(), 2);
    pod.remove();
    until("nothing is left", || Census::take(&node).new_since(&empty).is_empty());
}

#[test]
fn a_pod_of_each_side_by_side() {
    let ours = Node::shared();
    let pod = Pod::run(&ours, "ours");
    pod.start(container("c", POLITE));
    let theirs = Node::start_as(Tuning { runc: "shim = \"runc-v2\"".into(), ..Tuning::default() });
    let other = Pod::run(&theirs, "theirs");
    other.start(container("c", POLITE));
    let cost = |node: &Node| shims(node).iter().map(|(pid, _)| kilobytes(*pid, "Private_Dirty")).min().expect("a shim");
    let (small, large) = (cost(&ours), cost(&theirs));
    println!("private memory of a shim: ours {small} kB, containerd's {large} kB: {} times", large / small);
    assert!(small * 15 < large, "ours {small} kB, theirs {large} kB");
    pod.remove();
    other.remove();
}
