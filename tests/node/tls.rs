//! Sessions that are encrypted: the same on TLS, and what is not TLS gets nowhere.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{sleep, Builder};
use std::time::Duration;

use cricket_proto::methods::runtime_service as rpc;
use cricket_proto::runtime::{AttachRequest, PortForwardRequest};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use serde_json::json;

use crate::census::Holdings;
use crate::certificate::certificate;
use crate::cri::{container, Pod, POLITE};
use crate::node::{until, Node, Tuning};
use crate::stream::{request, spdy, websocket, Client, Frame};
use crate::streaming::{code, pattern, request_for, status, url, V4};

/// What goes through a command bit by bit.
const MUCH: usize = 16 << 20;

/// A node whose sessions are encrypted.
fn node() -> Node {
    Node::start_on(Tuning::default(), |dir| {
        let (key, chain) = certificate(dir);
        encrypt(dir, &chain, &key);
    })
}

fn encrypt(dir: &Path, chain: &Path, key: &Path) {
    let mut file = fs::File::options().append(true).open(dir.join("cricket.toml")).expect("the configuration");
    writeln!(file, "[streaming]\ntls_cert = {chain:?}\ntls_key = {key:?}").expect("write it");
}

/// A URL for clients without TLS that leads to this one, once. The server must have the node's certificate.
fn plain(node: &Node, url: &str) -> String {
    let (place, path) = url.strip_prefix("https://").expect("an encrypted session").split_once('/').expect("a path");
    let mut roots = RootCertStore::empty();
    let trusted = CertificateDer::from_pem_file(node.dir().join("cert.pem")).expect("the certificate");
    roots.add(trusted).expect("the certificate");
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("127.0.0.1").expect("an address");
    let session = ClientConnection::new(Arc::new(config), name).expect("a client");
    let server = TcpStream::connect(place).expect("connect");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/{path}", listener.local_addr().expect("bound"));
    let serve = move || {
        let (client, _) = listener.accept().expect("a client");
        translate(&client, session, &server).ok();
        client.shutdown(Shutdown::Both).ok();
    };
    Builder::new().name("tls".into()).spawn(serve).expect("a thread");
    url
}

/// Until either side ends.
fn translate(mut client: &TcpStream, mut session: ClientConnection, mut server: &TcpStream) -> std::io::Result<()> {
    client.set_nonblocking(true)?;
    server.set_nonblocking(true)?;
    let blocked = |e: &std::io::Error| e.kind() == ErrorKind::WouldBlock;
    let (mut buffer, mut over) = ([0; 16 << 10], false);
    // For the client, and not taken yet.
    let mut back: Vec<u8> = Vec::new();
    loop {
        let mut idle = true;
        if session.wants_write() {
            match session.write_tls(&mut server) {
                Err(e) if blocked(&e) => {}
                done => idle = done? == 0,
            }
        } else if !over {
            match client.read(&mut buffer) {
                Err(e) if blocked(&e) => {}
                Ok(0) => {
                    over = true;
                    session.send_close_notify();
                }
                read => {
                    session.writer().write_all(&buffer[..read?])?;
                    idle = false;
                }
            }
        } else {
            server.shutdown(Shutdown::Write)?;
        }
        if back.is_empty() {
            match session.read_tls(&mut server) {
                Err(e) if blocked(&e) => {}
                Ok(0) => return Ok(()),
                read => {
                    read?;
                    session.process_new_packets().map_err(std::io::Error::other)?;
                    match session.reader().read_to_end(&mut back) {
                        Err(e) if blocked(&e) => {}
                        done => _ = done?,
                    }
                    idle = false;
                }
            }
        }
        while !back.is_empty() {
            match client.write(&back) {
                Err(e) if blocked(&e) => break,
                written => drop(back.drain(..written?)),
            }
            idle = false;
        }
        if idle {
            sleep(Duration::from_millis(1));
        }
    }
}

fn exec(node: &Node, id: &str, script: &str, streams: &[&str]) -> Client {
    let url = url(&node.cri, &request_for(id, script, streams)).expect("Exec");
    let mut client = spdy(&plain(node, &url), V4).upgraded();
    client.open_all(streams);
    client
}

#[test]
fn sessions_of_every_kind_go_over_tls() {
    let node = node();
    let pod = Pod::run(&node, "tls");
    let mut config = container("c", "busybox nc -ll -p 7 -e /bin/busybox cat & while read x; do echo heard $x; done");
    config.stdin = true;
    let id = pod.start(config);

    let [error, _, out, err, _] =
        exec(&node, &id, "echo out; echo err >&2; exit 42", &["stdin", "stdout", "stderr"]).rest();
    assert_eq!((&*out, &*err, code(&error)), (&b"out\n"[..], &b"err\n"[..], json!("42")));

    let sent = pattern(MUCH);
    let mut client = exec(&node, &id, "cat", &["stdin", "stdout"]);
    let mut writer = client.twin();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let last = sent.len().div_ceil(70_001) - 1;
            sent.chunks(70_001).enumerate().for_each(|(n, chunk)| writer.data(3, n == last, chunk));
        });
        let [error, _, out, ..] = client.rest();
        assert!(out == sent, "the same bytes: {} of {}", out.len(), sent.len());
        assert_eq!(status(&error)["status"], "Success");
    });

    // More than all buffers hold is there before the client reads.
    let mut client = exec(&node, &id, "head -c 20000000 /dev/zero", &["stdout"]);
    sleep(Duration::from_secs(3));
    let [error, out, ..] = client.rest();
    assert_eq!((out.len(), &status(&error)["status"]), (20_000_000, &json!("Success")));

    let asked = request_for(&id, "cat; echo error >&2", &["stdin", "stdout", "stderr"]);
    let opened = url(&node.cri, &asked).expect("Exec");
    let mut client = websocket(&plain(&node, &opened), "v5.channel.k8s.io").upgraded();
    client.message(b"\0word");
    client.message(&[255, 0]);
    let [_, out, err, error, _] = client.channels();
    assert_eq!((&*out, &*err, &status(&error)["status"]), (&b"word"[..], &b"error\n"[..], &json!("Success")));

    let attach = AttachRequest { container_id: id, stdin: true, stdout: true, ..Default::default() };
    let opened = node.cri.call(&rpc::ATTACH, &attach).expect("Attach").url;
    let mut client = spdy(&plain(&node, &opened), V4).upgraded();
    client.open_all(&["stdin", "stdout"]);
    client.data(3, false, b"me\n");
    let mut said = Vec::new();
    while !String::from_utf8_lossy(&said).contains("heard me\n") {
        if let Frame::Data { id: 5, bytes, .. } = client.frame().expect("more") {
            said.extend(bytes);
        }
    }
    client.vanish();

    let ports = PortForwardRequest { pod_sandbox_id: pod.id.clone(), ..Default::default() };
    let opened = node.cri.call(&rpc::PORT_FORWARD, &ports).expect("PortForward").url;
    let mut client = spdy(&plain(&node, &opened), "portforward.k8s.io").upgraded();
    client.open_connection(0, 7);
    client.data(3, true, b"through the pod");
    let (mut got, mut open) = (Vec::new(), 2);
    while open > 0 {
        if let Frame::Data { id, last, bytes } = client.frame().expect("until both streams end") {
            assert!(id == 3 || bytes.is_empty(), "{}", String::from_utf8_lossy(&bytes));
            got.extend(bytes);
            open -= u32::from(last);
        }
    }
    assert_eq!(got, b"through the pod");
    client.vanish();
    pod.remove();
}

#[test]
fn what_is_not_tls_gets_nowhere_and_costs_no_session() {
    let node = node();
    let pod = Pod::run(&node, "no-tls");
    let id = pod.start(container("c", POLITE));
    let opened = url(&node.cri, &request_for(&id, "echo there", &["stdout"])).expect("Exec");
    let unencrypted = opened.replacen("https", "http", 1);
    let before = Holdings::at_rest(node.daemon_pid());

    let refused = request(&unencrypted, "POST", "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n");
    assert!(!refused.answer.contains("HTTP/1.1"), "{}", refused.answer);
    let (place, _) = unencrypted["http://".len()..].split_once('/').expect("a path");
    // A record that promises more than comes, a handshake that is nonsense, and nothing at all.
    for bytes in [&b"\x16\x03\x01\x40\x00\x01"[..], b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\xff", b""] {
        let mut socket = TcpStream::connect(place).expect("connect");
        socket.write_all(bytes).expect("send");
        socket.shutdown(Shutdown::Write).expect("and end");
        let mut rest = Vec::new();
        socket.read_to_end(&mut rest).ok(); // an alert, or a reset
    }
    until("their threads and descriptors are gone", || {
        let now = Holdings::at_rest(node.daemon_pid());
        now.named() == before.named() && now.files.len() <= before.files.len()
    });

    let mut client = spdy(&plain(&node, &opened), V4).upgraded();
    client.open_all(&["stdout"]);
    assert_eq!(client.rest()[1], b"there\n", "the URL is as good as before");
    pod.remove();
}

#[test]
fn a_renewed_certificate_is_shown_after_the_port_was_closed_and_a_bad_one_is_named() {
    let mut node = node();
    let (key, chain): (PathBuf, PathBuf) = (node.dir().join("key.pem"), node.dir().join("cert.pem"));
    let good = fs::read(&key).expect("the key");
    for (file, bytes, says) in [
        (&key, &b"nothing"[..], "key.pem"),
        (&chain, &b""[..], "cert.pem: holds no certificate"),
        (&chain, &good[..], "cert.pem: holds no certificate"),
    ] {
        let before = fs::read(file).expect("it is there");
        fs::write(file, bytes).expect("write it");
        node.end_daemon("TERM");
        let ended = node.run(&["serve"]);
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(!ended.status.success() && said.contains("streaming: ") && said.contains(says), "{said}");
        fs::write(file, before).expect("write it");
        node.start_daemon();
    }
    let pod = Pod::run(&node, "renewed");
    let id = pod.start(container("c", POLITE));
    // Of another key, under the running daemon.
    certificate(node.dir());
    let opened = url(&node.cri, &request_for(&id, "echo there", &["stdout"])).expect("Exec");
    let mut client = spdy(&plain(&node, &opened), V4).upgraded();
    client.open_all(&["stdout"]);
    assert_eq!(client.rest()[1], b"there\n");
    pod.remove();
}
