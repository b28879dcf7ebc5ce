//! Sessions in numbers: a hundred commands at once, a thousand one after another, of every kind; nothing stays.
#![allow(clippy::print_stdout, reason = "the figures, with --nocapture")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use cricket_proto::runtime::ExecRequest;

use crate::census::{kilobytes, names, processes, shims, Census, Holdings};
use crate::cri::{container, Pod, POLITE};
use crate::node::{until, Node};
use crate::stream::{spdy, websocket, Client, Frame};
use crate::streaming::{code, request_for, status, url, V4};

const AT_ONCE: usize = 100;
const IN_A_ROW: usize = 1000;
/// Clients of the long row. One alone would leave a processor idle while a command starts.
const CLIENTS: usize = 4;
/// Every kind of session comes once in so many.
const KINDS: usize = 8;
/// What may be left in memory, of the daemon and of the shim each, beyond what the first hundred at once left.
const SLACK_KB: u64 = 1 << 10;
const V5: &str = "v5.channel.k8s.io";

/// Where commands run.
struct Stage<'a> {
    node: &'a Node,
    container: &'a str,
    /// In the command line of everything that is started here.
    mark: String,
}

impl Stage<'_> {
    fn ask(&self, script: &str, streams: &[&str]) -> ExecRequest {
        request_for(self.container, &format!(": {}; {script}", self.mark), streams)
    }

    fn spdy(&self, script: &str, streams: &[&str]) -> Client {
        let mut client = spdy(&url(&self.node.cri, &self.ask(script, streams)).expect("Exec"), V4).upgraded();
        client.open_all(streams);
        client
    }

    fn websocket(&self, version: &str, script: &str, streams: &[&str]) -> Client {
        websocket(&url(&self.node.cri, &self.ask(script, streams)).expect("Exec"), version).upgraded()
    }

    /// The `n`th session.
    fn play(&self, n: usize) {
        let success = |error: &[u8]| assert_eq!(status(error)["status"], "Success", "session {n}");
        let word = format!("word {n}\n");
        match n % KINDS {
            // Input, output, a code.
            0 => {
                let mut client = self.spdy(&format!("cat; exit {}", 1 + n % 7), &["stdin", "stdout", "stderr"]);
                client.data(3, true, word.as_bytes());
                let [error, _, out, ..] = client.rest();
                assert_eq!((&*out, code(&error)), (word.as_bytes(), (1 + n % 7).to_string().into()));
            }
            1 => {
                let mut client = self.websocket(V5, "cat; echo error >&2", &["stdin", "stdout", "stderr"]);
                client.message(&[&[0][..], word.as_bytes()].concat());
                client.message(&[255, 0]);
                let [_, out, err, error, _] = client.channels();
                assert_eq!((&*out, &*err), (word.as_bytes(), &b"error\n"[..]));
                success(&error);
            }
            // Output only.
            2 => {
                let [error, out, ..] = self.spdy("head -c 200000 /dev/zero", &["stdout"]).rest();
                assert_eq!(out.len(), 200_000);
                success(&error);
            }
            3 => {
                let [_, out, _, error, _] = self.websocket(V4, "head -c 200000 /dev/zero", &["stdout"]).channels();
                assert_eq!(out.len(), 200_000);
                success(&error);
            }
            // A client that vanishes: in the middle of a command that would stay, of its output, of its input.
            4 => {
                let mut client = self.spdy("echo begun; sleep 1000; true", &["stdin", "stdout", "stderr"]);
                while !matches!(client.frame(), Some(Frame::Data { id: 5, .. })) {}
                client.vanish();
            }
            5 => {
                let mut client = self.websocket(V4, "cat /dev/zero", &["stdout"]);
                while client.receive().expect("a message").1.len() < 2 {}
                client.vanish();
            }
            6 => {
                let mut client = self.spdy("while :; do :; done", &["stdin", "stdout"]);
                client.data(3, false, &[b'x'; 300_000]);
                client.vanish();
            }
            // A terminal.
            _ => {
                let mut client = self.spdy("read x; stty size", &["stdin", "stdout", "resize"]);
                client.data(7, false, br#"{"Width":132,"Height":43}"#);
                client.data(3, false, b"go\n");
                let [error, _, out, ..] = client.rest();
                assert!(String::from_utf8_lossy(&out).contains("43 132\r\n"));
                success(&error);
            }
        }
    }

    fn running(&self) -> usize {
        processes().into_iter().filter(|(_, command)| command.contains(&self.mark)).count()
    }

    /// Waits until nothing runs any more, and says what the daemon and the shim hold: threads, files, kB of memory.
    fn settled(&self, shim: u32) -> [(Vec<String>, Vec<String>, u64); 2] {
        until("no command runs", || self.running() == 0);
        let execs = self.node.dir().join("run/containers").join(self.container).join("exec");
        until("no directory of a command is left", || names(&execs).is_empty());
        let daemon = Holdings::at_rest(self.node.daemon_pid());
        let named = daemon.named().into_iter().cloned().collect();
        let of_shim = Holdings::of(shim);
        [
            (named, daemon.files, kilobytes(self.node.daemon_pid(), "Anonymous")),
            (of_shim.threads, of_shim.files, kilobytes(shim, "Anonymous")),
        ]
    }
}

/// A hundred sessions that run at the same time.
fn at_once(stage: &Stage<'_>) {
    let begun = Instant::now();
    let waiting: Vec<Client> = (0..AT_ONCE)
        .map(|n| match n % 2 {
            0 => stage.spdy("read x; echo $x", &["stdin", "stdout"]),
            _ => stage.websocket(V4, "read x; echo $x", &["stdin", "stdout"]),
        })
        .collect();
    until("all of them run", || stage.running() == AT_ONCE);
    println!("{AT_ONCE} sessions at once after {:.1} s", begun.elapsed().as_secs_f64());
    for (n, mut client) in waiting.into_iter().enumerate() {
        let out = match n % 2 {
            0 => {
                client.data(3, false, b"all\n");
                client.rest()[2].clone()
            }
            _ => {
                client.message(b"\0all\n");
                client.channels()[1].clone()
            }
        };
        assert_eq!(out, b"all\n", "session {n}");
    }
}

#[test]
fn a_hundred_at_once_and_a_thousand_in_a_row_leave_nothing() {
    let node = Node::start();
    let pod = Pod::run(&node, "sessions");
    let id = pod.start(container("c", POLITE));
    let stage = Stage { node: &node, container: &id, mark: format!("mark-{}", std::process::id()) };
    let shim = match &shims(&node)[..] {
        [(pid, _)] => *pid,
        others => panic!("one shim, not {others:?}"),
    };
    (0..2 * KINDS).for_each(|n| stage.play(n));
    at_once(&stage);
    let (before, things) = (stage.settled(shim), Census::take(&node));
    let check = |when: &str| {
        until(&format!("threads and files are as before, {when}"), || {
            let now = stage.settled(shim);
            let same = |n: usize| now[n].0 == before[n].0 && now[n].1.len() == before[n].1.len();
            same(0) && same(1)
        });
        assert_eq!(Census::take(&node).new_since(&things), Vec::<String>::new(), "{when}");
        let now = stage.settled(shim);
        for (n, who) in ["daemon", "shim"].into_iter().enumerate() {
            println!("{who}: {} kB of its own before, {} kB {when}", before[n].2, now[n].2);
            assert!(now[n].2 <= before[n].2 + SLACK_KB, "{who}: {} kB {when}, {} kB before", now[n].2, before[n].2);
        }
    };

    at_once(&stage);
    check("after a hundred at once");

    let (begun, next) = (Instant::now(), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| loop {
                match next.fetch_add(1, Ordering::Relaxed) {
                    n if n < IN_A_ROW => stage.play(n),
                    _ => break,
                }
            });
        }
    });
    println!("{IN_A_ROW} sessions in {:.1} s", begun.elapsed().as_secs_f64());
    check("after a thousand in a row");
    assert_eq!(node.cri.sh(&id, "echo alive"), "alive");
    pod.remove();
}
