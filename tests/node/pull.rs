//! Pulls by the daemon as it is shipped, from Debian's registry: what is pulled runs, and it costs little memory.
#![allow(clippy::print_stdout, reason = "the figures, with --nocapture")]

use std::fs;
use std::time::Duration;

use cricket::call::Call;
use cricket::containerd::Containerd;
use cricket::error::Result;
use cricket_proto::runtime::AuthConfig;

use crate::census::Holdings;
use crate::cri::{container, image_spec, Pod};
use crate::node::{Node, BUSYBOX, PATIENCE};
use crate::registry::{noise, Layer, Registry};

const MIB: u64 = 1 << 20;
/// Growth of the daemon's memory by a pull, however large the image.
const GROWTH: u64 = 8 * MIB;
const LARGE: usize = 100 << 20;

fn pull(node: &Node, name: &str) -> Result<String> {
    let auth = AuthConfig { username: "me".into(), password: "very-secret".into(), ..Default::default() };
    node.cri.pull(name, Some(auth))
}

fn collect_garbage(node: &Node) {
    let (client, call) = (node.containerd_client(), Call::within(PATIENCE));
    client.create_lease(&call, "collect", Duration::from_secs(60)).expect("a lease");
    client.delete_lease(&call, "collect", true).expect("collect garbage");
}

#[test]
fn what_is_pulled_runs_also_after_a_garbage_collection() {
    let node = Node::start();
    let registry = Registry::start(node.dir(), "", "");
    let busybox = fs::read(BUSYBOX).expect("busybox");
    let layers = [Layer::plain("etc/hello", b"hello"), Layer::gzip("bin/busybox", &busybox)];
    let id = registry.push("shell", "1", &layers);
    let name = format!("{}/shell:1", registry.address);
    assert_eq!(pull(&node, &name).expect("PullImage"), id);
    assert!(node.cri.has_image(&name) && node.cri.has_image(&id));
    let listed = node.cri.images().expect("ListImages").into_iter().find(|image| image.id == id).expect("listed");
    assert_eq!(listed.repo_tags, std::slice::from_ref(&name));
    collect_garbage(&node);
    let pod = Pod::run(&node, "pulled");
    let mut config = container("c", "");
    config.image = image_spec(&name);
    config.command = [BUSYBOX, "sh", "-c", "cat /etc/hello"].map(str::to_owned).to_vec();
    config.args.clear();
    assert_eq!(pod.run_to_end(config).exit_code, 0);
    assert_eq!(pod.said("c"), ["hello"]);
    pod.remove();
    node.cri.remove_image(&id).expect("RemoveImage");
    assert!(!node.cri.has_image(&name));
    let log = fs::read_to_string(node.dir().join("cricket.log")).expect("the log");
    assert!(!log.contains("very-secret"), "credentials are not logged");
}

#[test]
fn a_large_layer_costs_little_memory() {
    let node = Node::start();
    let registry = Registry::start(node.dir(), "", "");
    let small = registry.push("small", "1", &[Layer::plain("s", b"s")]);
    registry.push("large", "1", &[Layer::plain("l", &noise(LARGE, 7))]);
    // What the first pull costs once is not the large one's.
    assert_eq!(pull(&node, &format!("{}/small:1", registry.address)).expect("PullImage"), small);
    let pid = node.daemon_pid();
    let before = Holdings::at_rest(pid).rss_bytes;
    fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("forget the peak");
    pull(&node, &format!("{}/large:1", registry.address)).expect("PullImage");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024;
    let after = Holdings::at_rest(pid).rss_bytes;
    println!("resident before {before}, peak {peak}, after {after}: grown by {}", peak.saturating_sub(before));
    assert!(peak.saturating_sub(before) < GROWTH, "{} bytes", peak - before);
    let log = fs::read_to_string(node.dir().join("cricket.log")).expect("the log");
    assert!(log.contains("unpacked while it was fetched"), "{log}");
}
