//! ExecSync: output, exit codes, time limits, many at once.

use cricket::error::Kind;

use crate::census;
use crate::cri::{container, Pod, POLITE};
use crate::node::{until, Node, BUSYBOX};

/// The kubelet takes 16 MiB an answer; so much is output.
const CAP: usize = 15 << 20;

#[test]
fn a_command_gives_its_output_and_exit_code() {
    let node = Node::shared();
    let pod = Pod::run(&node, "exec");
    let id = pod.start(container("c", POLITE));
    let exec = |command: &[&str]| node.cri.exec(&id, command, 10);

    let answer = exec(&[BUSYBOX, "sh", "-c", "echo out; echo err >&2; exit 42"]).expect("ExecSync");
    assert_eq!((&*answer.stdout, &*answer.stderr, answer.exit_code), (&b"out\n"[..], &b"err\n"[..], 42));
    let answer = exec(&[BUSYBOX, "true"]).expect("ExecSync");
    assert_eq!((answer.stdout.len(), answer.stderr.len(), answer.exit_code), (0, 0, 0));
    let answer = exec(&[BUSYBOX, "sh", "-c", "kill -9 $$"]).expect("ExecSync");
    assert_eq!(answer.exit_code, 137);

    let e = exec(&["/no/such/command"]).expect_err("it cannot start");
    assert!(e.message().contains("/no/such/command"), "{e}");
    assert_eq!(exec(&[]).map_err(|e| e.kind()).err(), Some(Kind::InvalidArgument));
    let nobody = node.cri.exec("nobody", &["true"], 0);
    assert_eq!(nobody.map_err(|e| e.kind()).err(), Some(Kind::NotFound));
    node.cri.stop(&id, 10).expect("StopContainer");
    assert_eq!(exec(&[BUSYBOX, "true"]).map_err(|e| e.kind()).err(), Some(Kind::FailedPrecondition));
    pod.remove();
}

#[test]
fn a_command_that_takes_too_long_is_killed() {
    let node = Node::shared();
    let pod = Pod::run(&node, "slow-exec");
    let id = pod.start(container("c", POLITE));
    // Nothing else on this machine sleeps for so long.
    let seconds = format!("98765{}", std::process::id());
    let sleeps = || census::processes().into_iter().filter(|(_, command)| command.contains(&seconds)).count();
    let e = node.cri.exec(&id, &[BUSYBOX, "sleep", &seconds], 1).expect_err("its time is up");
    assert_eq!(e.kind(), Kind::DeadlineExceeded, "{e}");
    assert_eq!(sleeps(), 0, "the command is gone when the answer comes");

    // A command that has ended does not wait for what it left in the background.
    let script = format!("sleep {seconds} & echo done");
    let answer = node.cri.exec(&id, &[BUSYBOX, "sh", "-c", &script], 20).expect("ExecSync");
    assert_eq!((&*answer.stdout, answer.exit_code), (&b"done\n"[..], 0));
    node.cri.stop(&id, 0).expect("StopContainer");
    until("the container takes it along", || sleeps() == 0);
    pod.remove();
}

#[test]
fn twenty_commands_at_once() {
    let node = Node::shared();
    let pod = Pod::run(&node, "many-execs");
    let id = pod.start(container("c", POLITE));
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..20)
            .map(|n| {
                let (node, id) = (&node, &id);
                scope.spawn(move || {
                    let script = format!("echo start {n}; sleep 0.2; echo end {n}; exit {n}");
                    node.cri.exec(id, &[BUSYBOX, "sh", "-c", &script], 50).expect("ExecSync")
                })
            })
            .collect();
        for (n, run) in runs.into_iter().enumerate() {
            let answer = run.join().expect("no panic");
            let said = String::from_utf8_lossy(&answer.stdout).into_owned();
            assert_eq!((said, answer.exit_code), (format!("start {n}\nend {n}\n"), n as i32));
        }
    });
    pod.remove();
}

#[test]
fn big_output_is_cut_and_the_command_runs_to_its_end() {
    let node = Node::shared();
    let pod = Pod::run(&node, "big-exec");
    let id = pod.start(container("c", POLITE));
    let script = "head -c 40000000 /dev/zero; echo end > /tmp/end; exit 5";
    let answer = node.cri.exec(&id, &[BUSYBOX, "sh", "-c", script], 50).expect("ExecSync");
    assert_eq!((answer.stdout.len(), answer.exit_code), (CAP, 5));
    assert_eq!(node.cri.sh(&id, "cat /tmp/end"), "end");
    pod.remove();
}
