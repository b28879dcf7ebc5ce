//! What the daemon costs: measured on the release binary, and held to what was measured plus a fifth.
#![allow(clippy::print_stdout, reason = "the figures, with --nocapture")]

use std::fs;

use crate::census::Holdings;
use crate::cri::{container, Pod, POLITE};
use crate::elf;
use crate::node::{binary, Node};

const MIB: u64 = 1 << 20;
const KIB: u64 = 1 << 10;
/// A binary of this size is a debug build, whose figures mean nothing.
const DEBUG_BYTES: u64 = 20 * MIB;
/// What the product promises; nothing below may ever exceed it.
const MOST_BINARY: u64 = 7_000_000;
const MOST_IDLE: u64 = 6 * MIB;
const MOST_THREADS: usize = 12;

/// Memory of its own, measured, plus a fifth. How much of the program is resident beside it is chance: 2 to 5 MiB of pages
/// that the kernel takes back when it needs them.
const OWN: u64 = 700 * KIB;
const OWN_PER_POD: u64 = 50 * KIB;
/// The whole program, and what it needs for the pods here.
const BUSY: u64 = 9 * MIB;

/// Pods that do nothing, to measure the growth by.
const PODS: usize = 10;

fn is_release() -> bool {
    let size = fs::metadata(binary()).expect("it exists").len();
    if size > DEBUG_BYTES {
        println!("{} is a debug build: sizes are not checked", binary().display());
    }
    size <= DEBUG_BYTES
}

#[test]
fn the_binary_is_static_and_small() {
    assert!(elf::is_static(&binary()), "it runs on any distribution");
    if is_release() {
        let size = fs::metadata(binary()).expect("it exists").len();
        println!("binary: {size} bytes of {MOST_BINARY}");
        assert!(size <= MOST_BINARY, "{size} bytes");
    }
}

#[test]
fn an_idle_daemon_and_an_idle_pod_cost_little() {
    let mut node = Node::prepare();
    node.start_daemon();
    let idle = Holdings::at_rest(node.daemon_pid());
    node.import_shell();
    let now = || Holdings::at_rest(node.daemon_pid());
    println!(
        "idle: {} KiB resident, {} KiB of its own, {} threads {:?}",
        idle.rss_bytes / KIB,
        idle.anon_bytes / KIB,
        idle.threads.len(),
        idle.threads
    );

    // What the first pod costs once is not the second one's.
    let first = Pod::run(&node, "first");
    first.start(container("c", POLITE));
    let before = now();
    let pods: Vec<Pod<'_>> = (0..PODS).map(|n| Pod::run(&node, &format!("idle-{n}"))).collect();
    for pod in &pods {
        pod.start(container("c", POLITE));
    }
    let after = now();
    let growth = after.anon_bytes.saturating_sub(before.anon_bytes) / PODS as u64;
    println!(
        "a pod: {} KiB; with {PODS}: {} KiB resident, {} threads",
        growth / KIB,
        after.rss_bytes / KIB,
        after.threads.len()
    );
    assert_eq!(after.named(), idle.named(), "threads do not grow with pods");
    let most = idle.threads.len().max(after.threads.len());
    assert!(most <= MOST_THREADS, "{most} threads: {:?}", after.threads);
    if is_release() {
        assert!(idle.rss_bytes <= MOST_IDLE, "{} KiB idle", idle.rss_bytes / KIB);
        assert!(idle.anon_bytes <= OWN, "{} KiB of its own", idle.anon_bytes / KIB);
        assert!(after.rss_bytes <= BUSY, "{} KiB with {PODS} pods", after.rss_bytes / KIB);
        assert!(growth <= OWN_PER_POD, "{growth} bytes a pod");
    }
    pods.into_iter().for_each(Pod::remove);
    first.remove();
}
