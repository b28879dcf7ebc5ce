//! Nothing grows: neither on the node nor in the daemon, whatever was made and removed.

use std::time::Instant;

use cricket_proto::runtime::{ContainerState, PodSandboxState};

use crate::census::{Census, Holdings};
use crate::cri::{container, Pod, POLITE};
use crate::node::{until, Node};

/// Pods of one container each, so many at a time by each of two clients.
const PODS: usize = 100;
const AT_A_TIME: usize = 5;
/// Pools of threads, the C core's and the workers, have one more after work than before, or a few.
const POOL_SLACK: usize = 3;

/// Makes so many pods with a container each, and removes them.
fn round(node: &Node, name: &str) {
    let pods: Vec<(Pod<'_>, String)> = (0..AT_A_TIME)
        .map(|n| {
            let pod = Pod::run(node, &format!("{name}-{n}"));
            let container = pod.start(container("c", POLITE));
            (pod, container)
        })
        .collect();
    for (n, (pod, container)) in pods.into_iter().enumerate() {
        // The kubelet's way, and the short one.
        if n % 2 == 0 {
            node.cri.stop(&container, 10).expect("StopContainer");
            node.cri.remove(&container).expect("RemoveContainer");
        }
        pod.remove();
    }
}

#[test]
fn a_hundred_pods_leave_nothing_on_the_node_or_in_the_daemon() {
    let node = Node::start();
    // Connections, caches and kept threads are there after the first pod.
    round(&node, "first");
    let held = || Holdings::at_rest(node.daemon_pid());
    let (before, held_before) = (Census::take(&node), held());

    let begun = Instant::now();
    std::thread::scope(|scope| {
        for client in ["a", "b"] {
            let node = &node;
            scope.spawn(move || {
                for n in 0..PODS / AT_A_TIME / 2 {
                    round(node, &format!("{client}-{n}"));
                }
            });
        }
    });
    println!("{PODS} pods of one container made and removed in {:.1} s", begun.elapsed().as_secs_f64());

    // Shims end by themselves, a moment after their last container.
    until("the last shim ends", || {
        Census::take(&node).new_since(&before).iter().all(|left| !left.starts_with("shims"))
    });
    let left = Census::take(&node).new_since(&before);
    assert!(left.is_empty(), "{left:#?}");
    assert_eq!(node.cri.pods().expect("ListPodSandbox").len(), 0);
    assert_eq!(node.cri.containers().expect("ListContainers").len(), 0);
    until("the daemon's own threads and files are as before", || {
        let now = held();
        now.named() == held_before.named() && now.files.len() == held_before.files.len()
    });
    let now = held();
    let grown = now.threads.len().saturating_sub(held_before.threads.len());
    assert!(grown <= POOL_SLACK, "before: {held_before:#?}\nnow: {now:#?}");
    println!("resident before {} KiB, after {} KiB", held_before.rss_bytes >> 10, now.rss_bytes >> 10);
}

#[test]
fn a_thousand_lists_are_answered_and_the_daemon_is_idle_afterwards() {
    let node = Node::shared();
    let pod = Pod::run(&node, "listed");
    let id = pod.start(container("c", POLITE));
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..250 {
                    let pods = node.cri.pods().expect("ListPodSandbox");
                    let pod = pods.iter().find(|p| p.id == pod.id).expect("ours");
                    assert_eq!(pod.state, PodSandboxState::SANDBOX_READY.into());
                    let containers = node.cri.containers().expect("ListContainers");
                    let container = containers.iter().find(|c| c.id == id).expect("ours");
                    assert_eq!(container.state, ContainerState::CONTAINER_RUNNING.into());
                }
            });
        }
    });
    println!("2000 lists in {:.0} ms", begun.elapsed().as_secs_f64() * 1000.0);
    until("the daemon has at most 12 threads again", || Holdings::of(node.daemon_pid()).threads.len() <= 12);
    pod.remove();
}
