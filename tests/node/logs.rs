//! Container logs: every line, in order, in the CRI's format.

use std::fs;

use cricket_proto::runtime::Mount;

use crate::cri::{container, Pod};
use crate::node::{until, Node};

/// A line of a log, taken apart. Panics if it is not in the CRI's format.
fn parse(line: &str) -> (&str, &str, &str) {
    let mut parts = line.splitn(4, ' ');
    let mut part = || parts.next().unwrap_or_else(|| panic!("torn: {line:?}"));
    let (time, stream, tag, text) = (part(), part(), part(), part());
    let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert!(shape.starts_with("0000-00-00T00:00:00.000000000"), "{line:?}");
    assert!(["stdout", "stderr"].contains(&stream) && ["F", "P"].contains(&tag), "{line:?}");
    (stream, tag, text)
}

#[test]
fn a_hundred_thousand_lines_are_complete_and_in_order() {
    let node = Node::shared();
    let pod = Pod::run(&node, "chatty");
    let status = pod.run_to_end(container("c", "seq 1 100000 & seq 1 1000 >&2; wait"));
    assert_eq!(status.exit_code, 0);
    let log = fs::read_to_string(pod.log("c")).expect("the log");
    let of = |wanted: &'static str| log.lines().map(parse).filter(move |line| line.0 == wanted);
    for (stream, count) in [("stdout", 100_000), ("stderr", 1000)] {
        assert!(of(stream).all(|(_, tag, _)| tag == "F"));
        let numbers: Vec<u32> = of(stream).map(|(_, _, text)| text.parse().expect("a number")).collect();
        assert!(numbers.iter().copied().eq(1..=count), "{stream}: {} lines", numbers.len());
    }
    pod.remove();
}

#[test]
fn a_long_line_is_split_and_an_unfinished_one_is_partial() {
    let node = Node::shared();
    let pod = Pod::run(&node, "long");
    pod.run_to_end(container("c", "head -c 40000 /dev/zero | tr '\\0' x; echo; echo; printf unfinished"));
    let log = fs::read_to_string(pod.log("c")).expect("the log");
    let lines: Vec<(&str, usize)> = log.lines().map(|line| (parse(line).1, parse(line).2.len())).collect();
    assert_eq!(lines, [("P", 16384), ("P", 16384), ("F", 40000 - 2 * 16384), ("F", 0), ("P", 10)]);
    pod.remove();
}

#[test]
fn rotation_loses_and_tears_nothing() {
    let node = Node::shared();
    let pod = Pod::run(&node, "rotated");
    let control = node.dir().join("volumes").join("rotated");
    fs::create_dir(&control).expect("a volume");
    let mut config = container("c", "i=0; until [ -e /control/stop ]; do i=$((i+1)); echo $i; done; echo end $i");
    config.mounts = vec![Mount {
        container_path: "/control".into(),
        host_path: control.display().to_string(),
        ..Default::default()
    }];
    let id = pod.start(config);
    let log = pod.log("c");
    let length = |path: &std::path::Path| fs::metadata(path).map_or(0, |meta| meta.len());
    let mut parts = Vec::new();
    for n in 0..5 {
        until("the container writes", || length(&log) > 10_000);
        let old = log.with_extension(n.to_string());
        fs::rename(&log, &old).expect("rename");
        node.cri.reopen_log(&id).expect("ReopenContainerLog");
        let complete = length(&old);
        until("it goes on in the new file", || length(&log) > 0);
        assert_eq!(length(&old), complete, "the old file is complete when the call returns");
        parts.push(old);
    }
    fs::write(control.join("stop"), "").expect("write");
    assert_eq!(node.cri.ended(&id).exit_code, 0);
    parts.push(log);
    let text: String = parts.iter().map(|path| fs::read_to_string(path).expect("a part")).collect();
    let lines: Vec<&str> = text.lines().map(|line| parse(line).2).collect();
    let (last, numbers) = lines.split_last().expect("lines");
    let whole = numbers.iter().enumerate().all(|(n, text)| *text == (n + 1).to_string());
    assert!(whole && *last == format!("end {}", numbers.len()), "{last} after {} lines", numbers.len());
    let e = node.cri.reopen_log(&id).expect_err("it has ended");
    assert_eq!(e.kind(), cricket::error::Kind::FailedPrecondition, "{e}");
    pod.remove();
}
