//! `cricket doctor` tells what is wrong, changes nothing, and what it calls an orphan goes at the next start.

use std::fs;

use cricket_proto::runtime::PodSandboxState;

use crate::census::Census;
use crate::cri::Pod;
use crate::node::Node;

fn doctor(node: &Node, arguments: &[&str]) -> (Option<i32>, String) {
    let output = node.run(&[&["doctor"], arguments].concat());
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    (output.status.code(), text)
}

#[test]
fn orphans_are_named_and_go() {
    let mut node = Node::start();
    let empty = Census::take(&node);
    let (kept, lost) = (Pod::run(&node, "kept").id, Pod::run(&node, "lost").id);
    assert_eq!(doctor(&node, &[]), (Some(0), "nothing is wrong\n".to_owned()));
    node.end_daemon("KILL");
    fs::remove_dir_all(node.dir().join("lib/sandboxes").join(&lost)).expect("lose a record");
    fs::create_dir(node.dir().join("lib/damaged")).expect("mkdir");
    fs::write(node.dir().join("lib/damaged/sandbox-x"), "?").expect("write");
    let before = Census::take(&node);
    for (arguments, lines) in [(&[][..], 3), (&["--orphans"], 2)] {
        let (code, told) = doctor(&node, arguments);
        assert_eq!((code, told.lines().count()), (Some(1), lines), "{told}");
        assert!(told.contains("orphan: ") && told.contains(&lost) && !told.contains(&kept), "{told}");
        assert!(told.ends_with("when cricket starts: systemctl restart cricket\n"), "{told}");
    }
    assert_eq!(Census::take(&node), before, "looking changes nothing");

    node.start_daemon();
    fs::remove_dir_all(node.dir().join("lib/damaged")).expect("seen");
    assert_eq!(doctor(&node, &[]), (Some(0), "nothing is wrong\n".to_owned()));
    let pods = node.cri.pods().expect("ListPodSandbox");
    assert_eq!(
        pods.iter().map(|p| (p.id.as_str(), p.state)).collect::<Vec<_>>(),
        [(kept.as_str(), PodSandboxState::SANDBOX_READY.into())]
    );
    node.cri.remove_pod(&kept).expect("RemovePodSandbox");
    assert_eq!(Census::take(&node).new_since(&empty), Vec::<String>::new());

    node.containerd.kill();
    let (code, told) = doctor(&node, &[]);
    assert_eq!((code, told.lines().count()), (Some(1), 1), "{told}");
    assert!(told.starts_with("containerd at "), "{told}");
}
