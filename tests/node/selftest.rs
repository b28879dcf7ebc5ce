//! `cricket selftest` on a running daemon.

use std::fs;

use crate::census::Census;
use crate::node::Node;

#[test]
fn the_selftest_passes_and_leaves_nothing() {
    let node = Node::start();
    // The first one leaves its image.
    let output = node.run(&["selftest"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.lines().last().is_some_and(|last| last.contains("steps passed in")), "{said}");
    println!("{said}");
    let before = Census::take(&node);
    assert!(node.run(&["selftest"]).status.success());
    let left = Census::take(&node).new_since(&before);
    assert!(left.is_empty(), "{left:#?}");
    let pods = node.cri.pods().expect("ListPodSandbox").len();
    assert_eq!((pods, node.cri.containers().expect("ListContainers").len()), (0, 0));
}

#[test]
fn a_network_that_does_not_parse_is_named_and_the_hosts_will_do() {
    let node = Node::start();
    let conf = node.dir().join("net.d/10-test.conflist");
    fs::write(&conf, "{ \"cniVersion\": ").expect("write");
    let output = node.run(&["selftest"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in [&*node.dir().join("net.d").display().to_string(), "10-test.conflist: not a JSON object"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(said.contains("--host-network"), "and the way out: {said}");
    assert!(said.lines().last().is_some_and(|last| last.contains("FAILED at step")), "{said}");

    let output = node.run(&["selftest", "--host-network"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}{}", String::from_utf8_lossy(&output.stderr));
}
