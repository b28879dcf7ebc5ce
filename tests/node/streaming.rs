//! Exec and port-forward sessions: what clients see, and that nothing is left of them.

use std::io::{Read, Write};

use cricket::error::{Kind, Result};
use cricket_proto::methods::runtime_service as rpc;
use cricket_proto::runtime::{AttachRequest, ContainerState, ExecRequest, NamespaceMode, PortForwardRequest};
use serde_json::{json, Value};

use crate::census;
use crate::cri::{container, namespaces, pod_config, state, Cri, Pod, POLITE};
use crate::frames::{GOAWAY, PING, RST_STREAM};
use crate::node::{until, Node, BUSYBOX};
use crate::stream::{request, spdy, websocket, Client, Frame};

pub const V4: &str = "v4.channel.k8s.io";
/// What goes through a command bit by bit.
const MUCH: usize = 64 << 20;

/// The request for a shell script with these streams.
pub fn request_for(id: &str, script: &str, streams: &[&str]) -> ExecRequest {
    ExecRequest {
        container_id: id.into(),
        cmd: [BUSYBOX, "sh", "-c", script].map(str::to_owned).to_vec(),
        tty: streams.contains(&"resize"),
        stdin: streams.contains(&"stdin"),
        stdout: streams.contains(&"stdout"),
        stderr: streams.contains(&"stderr"),
        ..Default::default()
    }
}

pub fn url(cri: &Cri, request: &ExecRequest) -> Result<String> {
    Ok(cri.call(&rpc::EXEC, request)?.url)
}

/// A session of a script with these streams opened, error first.
fn exec(node: &Node, id: &str, script: &str, streams: &[&str]) -> Client {
    let url = url(&node.cri, &request_for(id, script, streams)).expect("Exec");
    let mut client = spdy(&url, V4).upgraded();
    client.open_all(streams);
    client
}

pub fn status(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(bytes)))
}

pub fn code(bytes: &[u8]) -> Value {
    status(bytes)["details"]["causes"][0]["message"].clone()
}

/// Bytes that differ from place to place.
pub fn pattern(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_ne_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Processes whose command line holds this.
fn running(mark: &str) -> usize {
    census::processes().into_iter().filter(|(_, command)| command.contains(mark)).count()
}

#[test]
fn output_errors_and_outcome() {
    let node = Node::shared();
    let pod = Pod::run(&node, "streams");
    let id = pod.start(container("c", POLITE));
    for version in [V4, "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"] {
        let asked = request_for(&id, "echo out; echo err >&2; exit 42", &["stdout", "stderr"]);
        let mut client = spdy(&url(&node.cri, &asked).expect("Exec"), version).upgraded();
        client.open_all(&["stdout", "stderr"]);
        let [error, out, err, ..] = client.rest();
        assert_eq!((&*out, &*err), (&b"out\n"[..], &b"err\n"[..]), "{version}");
        match version {
            V4 => assert_eq!((code(&error), &status(&error)["reason"]), (json!("42"), &json!("NonZeroExitCode"))),
            _ => assert!(String::from_utf8_lossy(&error).ends_with("exit code 42"), "{version}"),
        }
    }
    let [error, out, ..] = exec(&node, &id, "echo fine", &["stdout"]).rest();
    assert_eq!((status(&error), &*out), (json!({"metadata": {}, "status": "Success"}), &b"fine\n"[..]));

    let mut absent = request_for(&id, "", &["stdout"]);
    absent.cmd = vec!["/no/such/command".into()];
    let mut client = spdy(&url(&node.cri, &absent).expect("Exec"), V4).upgraded();
    client.open_all(&["stdout"]);
    let error = status(&client.rest()[0]);
    assert_eq!((&error["reason"], &error["code"]), (&json!("InternalError"), &json!(500)));
    assert!(error["message"].as_str().is_some_and(|m| m.contains("/no/such/command")), "{error}");
    pod.remove();
}

#[test]
fn what_cannot_be_is_refused_before_there_is_a_url() {
    let node = Node::shared();
    let pod = Pod::run(&node, "stream-refusals");
    let id = pod.create(container("c", POLITE));
    let kind = |request: &ExecRequest| url(&node.cri, request).map_err(|e| e.kind()).err();
    assert_eq!(kind(&request_for(&id, "x", &["stdout"])), Some(Kind::FailedPrecondition));
    node.cri.start(&id).expect("StartContainer");
    assert_eq!(kind(&request_for("nobody", "x", &["stdout"])), Some(Kind::NotFound));
    assert_eq!(kind(&request_for("", "x", &["stdout"])), Some(Kind::InvalidArgument));
    assert_eq!(kind(&request_for(&id, "x", &[])), Some(Kind::InvalidArgument));
    assert_eq!(kind(&request_for(&id, "x", &["resize", "stderr"])), Some(Kind::InvalidArgument));
    assert_eq!(kind(&ExecRequest { cmd: vec![], ..request_for(&id, "x", &["stdout"]) }), Some(Kind::InvalidArgument));

    let good = url(&node.cri, &request_for(&id, "true", &["stdout"])).expect("Exec");
    let other = good.replace("/exec/", "/attach/");
    assert!(spdy(&other, V4).answer.starts_with("HTTP/1.1 404 "), "a token is good for its own path");
    assert!(spdy(&good, V4).answer.starts_with("HTTP/1.1 404 "), "and only once");
    let good = url(&node.cri, &request_for(&id, "true", &["stdout"])).expect("Exec");
    let refused = spdy(&good, "v9.channel.k8s.io").answer;
    assert!(refused.starts_with("HTTP/1.1 403 ") && refused.contains("X-Accepted-Stream-Protocol-Versions: v4."));
    for (method, lines, code) in [
        ("GET", "", 426),
        ("PUT", "", 405),
        ("GET", "Host: twice\r\n", 400),
        ("GET", "Content-Length: 9\r\n", 400),
        ("GET", &"X: y\r\n".repeat(5000), 431),
    ] {
        let url = url(&node.cri, &request_for(&id, "true", &["stdout"])).expect("Exec");
        let answer = request(&url, method, lines).answer;
        assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")), "{method} {code}: {answer}");
    }
    pod.remove();
}

#[test]
fn what_goes_in_comes_out() {
    let node = Node::shared();
    let pod = Pod::run(&node, "cat");
    let id = pod.start(container("c", POLITE));
    let sent = pattern(MUCH);
    let mut client = exec(&node, &id, "cat; echo done >&2", &["stdin", "stdout", "stderr"]);
    let mut writer = client.twin();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Frames of many lengths, some longer than what is read at once.
            let mut rest = &sent[..];
            for length in (1..).map(|n| (n * 7919) % 200_000 + 1) {
                let n = length.min(rest.len());
                writer.data(3, n == rest.len(), &rest[..n]);
                rest = &rest[n..];
                if rest.is_empty() {
                    return;
                }
            }
        });
        let [error, _, out, err, _] = client.rest();
        assert_eq!(out.len(), sent.len());
        assert!(out == sent, "the same bytes");
        assert_eq!((&*err, &status(&error)["status"]), (&b"done\n"[..], &json!("Success")));
    });
    pod.remove();
}

#[test]
fn a_slow_client_gets_all_of_a_command_that_has_ended() {
    let node = Node::shared();
    let pod = Pod::run(&node, "slow-client");
    let id = pod.start(container("c", POLITE));
    let mut client = exec(&node, &id, "head -c 20000000 /dev/zero", &["stdout"]);
    // Longer than a shim waits for its streams when a command is deleted.
    std::thread::sleep(std::time::Duration::from_secs(4));
    let [error, out, ..] = client.rest();
    assert_eq!((out.len(), &status(&error)["status"]), (20_000_000, &json!("Success")));
    pod.remove();
}

#[test]
fn a_terminal_has_a_size() {
    let node = Node::shared();
    let pod = Pod::run(&node, "tty");
    let id = pod.start(container("c", POLITE));
    let mut client = exec(&node, &id, "read x; stty size; echo $TERM; exit 3", &["stdin", "stdout", "resize"]);
    client.data(7, false, br#"{"Width":132,"Height":43}"#);
    client.data(3, false, b"go\n");
    let [error, _, out, ..] = client.rest();
    let out = String::from_utf8_lossy(&out);
    assert!(out.contains("43 132\r\nxterm\r\n"), "{out}");
    assert_eq!(code(&error), "3");
    pod.remove();
}

#[test]
fn websockets_of_every_version() {
    let node = Node::shared();
    let pod = Pod::run(&node, "ws");
    let id = pod.start(container("c", POLITE));
    for protocol in ["v5.channel.k8s.io", V4, "channel.k8s.io"] {
        let asked = request_for(&id, "read x; echo got $x; exit 5", &["stdin", "stdout"]);
        let mut client = websocket(&url(&node.cri, &asked).expect("Exec"), protocol).upgraded();
        client.message(b"\0word\n");
        let [_, out, _, error, _] = client.channels();
        assert_eq!(out, b"got word\n", "{protocol}");
        match protocol {
            "channel.k8s.io" => assert!(error.ends_with(b"exit code 5")),
            _ => assert_eq!(code(&error), "5"),
        }
    }
    let asked = request_for(&id, "cat", &["stdin", "stdout"]);
    let mut client = websocket(&url(&node.cri, &asked).expect("Exec"), "v5.channel.k8s.io").upgraded();
    client.message(&[&[0][..], &[b'z'; 300_000]].concat());
    client.message(&[255, 0]);
    let [_, out, _, error, _] = client.channels();
    assert_eq!((out.len(), &status(&error)["status"]), (300_000, &json!("Success")), "v5 can end stdin");
    let mut client = websocket(&url(&node.cri, &asked).expect("Exec"), "v4.base64.channel.k8s.io").upgraded();
    client.send(b"\x81\x8d\0\0\0\x000aGVsbG8gaGkK");
    assert_eq!(client.receive(), Some((1, b"1".to_vec())));
    assert_eq!(client.receive(), Some((1, b"1aGVsbG8gaGkK".to_vec())));
    client.vanish();
    pod.remove();
}

#[test]
fn a_client_that_vanishes_takes_its_command_along() {
    let node = Node::start();
    let pod = Pod::run(&node, "vanish");
    let id = pod.start(container("c", POLITE));
    let mark = format!("77{}", std::process::id());
    // A shell that stays, and what it started.
    let script = format!("sleep {mark}; true");
    let streams = ["stdin", "stdout", "stderr"];
    let asked = request_for(&id, &script, &streams);
    let fresh = || url(&node.cri, &asked).expect("Exec");
    exec(&node, &id, "true", &streams).rest();
    let before = census::Census::take(&node);
    // Before the streams are there, with some of them, and with all.
    for opened in 0..=streams.len() {
        let mut client = spdy(&fresh(), V4).upgraded();
        client.open_all(&streams[..opened]);
        if opened == streams.len() {
            until("the command runs", || running(&script) > 0);
        }
        client.vanish();
    }
    // In the middle of a request, of a frame, of its input; and with a goodbye.
    std::net::TcpStream::connect(fresh()[7..].split('/').next().expect("a place"))
        .expect("connect")
        .write_all(b"GET")
        .expect("send");
    for last in [&b"\x80\x03\0"[..], &[0, 0, 0, 3, 0, 1, 0, 0, 9], b"\x80\x03\0\x07\0\0\0\x08\0\0\0\0\0\0\0\0"] {
        let mut client = exec(&node, &id, &script, &streams);
        until("the command runs", || running(&script) > 0);
        client.send(last);
        client.vanish();
        until("the command is gone", || running(&script) == 0);
    }
    until("nothing is left", || census::Census::take(&node).new_since(&before).is_empty());
    let execs = node.dir().join("run/containers").join(&id).join("exec");
    until("no directory is left", || census::names(&execs).is_empty());
    assert_eq!(node.cri.sh(&id, "echo alive"), "alive");
    pod.remove();
}

#[test]
fn frames_that_break_the_protocol_end_the_session_and_nothing_else() {
    let node = Node::shared();
    let pod = Pod::run(&node, "broken");
    let id = pod.start(container("c", POLITE));
    let mark = format!("78{}", std::process::id());
    let script = format!("sleep {mark}");
    for breaks in [&[0x80, 2, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1][..], &[0; 8], &[0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff]] {
        let mut client = exec(&node, &id, &script, &["stdout"]);
        until("the command runs", || running(&script) > 0);
        client.send(breaks);
        client.rest();
        until("the command is gone", || running(&script) == 0);
    }
    // Too early, unknown and unwanted streams; a stream that is reset.
    let mut client =
        spdy(&url(&node.cri, &request_for(&id, "true", &["stdin", "stdout"])).expect("Exec"), V4).upgraded();
    client.open(1, &[("streamtype", "error")]);
    client.open(3, &[("streamtype", "stdin")]);
    client.data(3, false, b"early");
    client.rest();
    let mut client = exec(&node, &id, "read x; echo over", &["stdin", "stdout"]);
    client.open(7, &[("streamtype", "stderr")]);
    client.open(9, &[("streamtype", "nonsense")]);
    client.data(99, false, b"nowhere");
    client.control(PING, 0, &[0, 0, 0, 1]);
    let mut seen = Vec::new();
    while seen.len() < 4 {
        if let Frame::Control { kind: kind @ (RST_STREAM | PING), body } = client.frame().expect("a frame") {
            seen.push((kind, body[3]));
        }
    }
    assert_eq!(seen, [(RST_STREAM, 7), (RST_STREAM, 9), (RST_STREAM, 99), (PING, 1)]);
    client.control(RST_STREAM, 0, &[0, 0, 0, 3, 0, 0, 0, 5]);
    let mut last = 0;
    while let Some(frame) = client.frame() {
        if let Frame::Control { kind, .. } = frame {
            last = kind;
        }
    }
    assert_eq!(last, GOAWAY, "stdin reset is its end");
    pod.remove();
}

/// A port-forward client whose `n`th connection is made of streams 4n+1 (error) and 4n+3 (data).
pub fn forward(node: &Node, pod: &str) -> Client {
    let request = PortForwardRequest { pod_sandbox_id: pod.into(), ..Default::default() };
    let url = node.cri.call(&rpc::PORT_FORWARD, &request).expect("PortForward").url;
    spdy(&url, "portforward.k8s.io").upgraded()
}

/// Bytes of each stream until all of these ended.
fn until_ended(client: &mut Client, mut ids: Vec<u32>) -> std::collections::BTreeMap<u32, Vec<u8>> {
    let mut all = std::collections::BTreeMap::new();
    while !ids.is_empty() {
        if let Frame::Data { id, last, bytes } = client.frame().expect("the connection stays") {
            all.entry(id).or_insert_with(Vec::new).extend(bytes);
            if last {
                ids.retain(|other| *other != id);
            }
        }
    }
    all
}

#[test]
fn ports_of_a_pod_are_forwarded() {
    let node = Node::shared();
    let pod = Pod::run(&node, "forward");
    let id = pod.start(container("c", "busybox nc -ll -p 7 -e /bin/busybox cat & wait"));
    until("it listens", || node.cri.sh(&id, "busybox cat /proc/net/tcp /proc/net/tcp6").contains(":0007 "));
    let mut client = forward(&node, &pod.id);
    // Connections at once, each with its own bytes and its own end. Two: the queue of nc's listener is short, and the
    // kernel resets what does not fit.
    let texts: Vec<Vec<u8>> = (0..2).map(|n| pattern(200_000 * n + 1)).collect();
    let mut writer = client.twin();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            (0..2).for_each(|n| writer.open_connection(n, 7));
            for (n, text) in (0..).zip(&texts) {
                text.chunks(9000).for_each(|chunk| writer.data(4 * n + 3, false, chunk));
                writer.data(4 * n + 3, true, b"");
            }
        });
        let got = until_ended(&mut client, (0..2).flat_map(|n| [4 * n + 1, 4 * n + 3]).collect());
        for (n, text) in (0..).zip(&texts) {
            let (back, why) = (&got[&(4 * n + 3)], String::from_utf8_lossy(&got[&(4 * n + 1)]));
            assert!(back == text, "connection {n}: {} bytes of {}, {why}", back.len(), text.len());
            assert!(got[&(4 * n + 1)].is_empty());
        }
    });
    let mut client = writer;
    client.open_connection(20, 9);
    let got = until_ended(&mut client, vec![81, 83]);
    let why = String::from_utf8_lossy(&got[&81]).into_owned();
    assert!(why.contains("127.0.0.1:9") && why.contains("[::1]:9") && why.contains("refused"), "{why}");
    // What is no pair is reset, and the connection goes on.
    client.open(85, &[("streamtype", "data"), ("port", "7"), ("requestid", "x")]);
    client.open(87, &[("streamtype", "error"), ("port", "70000"), ("requestid", "y")]);
    client.open_connection(22, 7);
    client.data(91, true, b"still here");
    assert_eq!(until_ended(&mut client, vec![89, 91])[&91], b"still here");
    client.vanish();
    pod.remove();
}

#[test]
fn ports_of_the_host_and_of_a_websocket() {
    let node = Node::shared();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let mut config = pod_config(&node, "host-forward");
    let security = config.linux.mut_or_insert_default().security_context.mut_or_insert_default();
    security.namespace_options = protobuf::MessageField::some(namespaces(NamespaceMode::NODE));
    let pod = Pod::run_as(&node, config);
    let mut client = forward(&node, &pod.id);
    client.open_connection(0, port);
    client.data(3, true, b"to the host");
    let (mut socket, _) = listener.accept().expect("a connection");
    let mut got = String::new();
    socket.read_to_string(&mut got).expect("until its end");
    assert_eq!(got, "to the host");
    socket.write_all(b"and back").expect("the other half is open");
    drop(socket);
    assert_eq!(until_ended(&mut client, vec![1, 3])[&3], b"and back");

    let request =
        PortForwardRequest { pod_sandbox_id: pod.id.clone(), port: vec![i32::from(port)], ..Default::default() };
    let url = node.cri.call(&rpc::PORT_FORWARD, &request).expect("PortForward").url;
    let mut client = websocket(&url, V4).upgraded();
    for channel in [0, 1] {
        assert_eq!(client.receive(), Some((2, [&[channel][..], &port.to_le_bytes()].concat())));
    }
    let (mut socket, _) = listener.accept().expect("a connection");
    client.message(b"\0hello");
    let mut five = [0; 5];
    socket.read_exact(&mut five).expect("five bytes");
    socket.write_all(&five).expect("send");
    assert_eq!(client.receive(), Some((2, b"\0hello".to_vec())));
    client.vanish();
    assert_eq!(socket.read(&mut five).expect("the end"), 0);
    pod.remove();
}

/// A session on a container's own streams, error first.
fn attach(node: &Node, id: &str, streams: &[&str]) -> Client {
    let request = AttachRequest {
        container_id: id.into(),
        stdin: streams.contains(&"stdin"),
        stdout: streams.contains(&"stdout"),
        stderr: streams.contains(&"stderr"),
        tty: streams.contains(&"resize"),
        ..Default::default()
    };
    let url = node.cri.call(&rpc::ATTACH, &request).expect("Attach").url;
    let mut client = spdy(&url, V4).upgraded();
    client.open_all(streams);
    client
}

/// Bytes of this stream until they hold `text`.
fn until_said(client: &mut Client, id: u32, text: &str) -> String {
    let mut said = Vec::new();
    while !String::from_utf8_lossy(&said).contains(text) {
        match client.frame().expect("the connection stays") {
            Frame::Data { id: other, bytes, .. } if other == id => said.extend(bytes),
            _ => {}
        }
    }
    String::from_utf8_lossy(&said).into_owned()
}

#[test]
fn clients_attach_and_leave_and_the_container_stays() {
    let node = Node::shared();
    let pod = Pod::run(&node, "attach");
    let mut config = container("c", "while read x; do echo out $x; echo err $x >&2; done; exit 9");
    config.stdin = true;
    let id = pod.start(config);
    let mut first = attach(&node, &id, &["stdin", "stdout", "stderr"]);
    first.data(3, false, b"one\n");
    assert_eq!(until_said(&mut first, 5, "\n"), "out one\n");
    let mut second = attach(&node, &id, &["stdout"]);
    // Answered only after the streams are attached to.
    second.control(PING, 0, &[0, 0, 0, 1]);
    while !matches!(second.frame().expect("a frame"), Frame::Control { kind: PING, .. }) {}
    first.data(3, true, b"two\n");
    assert_eq!(until_said(&mut second, 3, "\n"), "out two\n");
    first.vanish();
    assert_eq!(state(&node.cri.status(&id)), ContainerState::CONTAINER_RUNNING);
    let mut third = attach(&node, &id, &["stdin", "stdout"]);
    third.data(3, false, b"three\n");
    assert_eq!(until_said(&mut third, 5, "\n"), "out three\n");
    node.cri.stop(&id, 0).expect("StopContainer");
    let [error, ..] = third.rest();
    assert_eq!(status(&error)["status"], "Success", "the container's end is the session's");
    second.rest();
    assert_eq!(pod.said("c").len(), 6, "the log has everything");
    pod.remove();
}

#[test]
fn input_that_ends_once_ends_for_good() {
    let node = Node::shared();
    let pod = Pod::run(&node, "once");
    let mut config = container("c", "cat; exit 9");
    (config.stdin, config.stdin_once) = (true, true);
    let id = pod.start(config);
    let mut client = attach(&node, &id, &["stdin", "stdout"]);
    client.data(3, true, b"all of it\n");
    let [error, _, out, ..] = client.rest();
    assert_eq!((&*out, &status(&error)["status"]), (&b"all of it\n"[..], &json!("Success")));
    assert_eq!(node.cri.ended(&id).exit_code, 9);
    pod.remove();
}

#[test]
fn a_terminal_is_attached_to() {
    let node = Node::shared();
    let pod = Pod::run(&node, "attach-tty");
    let mut config = container("c", "while read x; do stty size; done");
    (config.stdin, config.tty) = (true, true);
    let id = pod.start(config);
    let mut client = attach(&node, &id, &["stdin", "stdout", "resize"]);
    client.data(7, false, br#"{"Width":91,"Height":17}"#);
    client.data(3, false, b"go\n");
    assert!(until_said(&mut client, 5, "17 91").contains("17 91"));
    client.vanish();
    pod.remove();
}
