//! Port-forward in numbers: many connections to several ports at once, on one session and on several; every byte, and each
//! half's own end.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{channel, Receiver};
use std::thread::scope;
use std::time::Duration;

use cricket::error::Context;
use cricket::sys::namespace;
use cricket_proto::methods::runtime_service as rpc;
use cricket_proto::runtime::PortForwardRequest;

use crate::census::{Census, Holdings};
use crate::cri::Pod;
use crate::node::{until, Node};
use crate::stream::{websocket, Frame};
use crate::streaming::{forward, pattern, V4};

/// What goes through a connection, each way.
const MUCH: usize = 1 << 20;
/// Connections of a session; every third ends another half first.
const CONNECTIONS: u32 = 24;
const SESSIONS: u32 = 4;
/// What differs from one connection to the next.
const SHIFT: usize = 1009;
/// From the client to the pod, and back.
const TO: usize = 0;
const FROM: usize = 1 << 19;

/// The bytes of a connection in one direction.
fn bytes(all: &[u8], n: u32, direction: usize) -> &[u8] {
    let start = direction + n as usize * SHIFT;
    &all[start..start + MUCH]
}

/// Who ends its half first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    /// The client; the pod answers when it has everything.
    Client,
    /// The pod; the client goes on when it has everything.
    Pod,
    /// Nobody waits for anybody.
    Neither,
}

fn first(n: u32) -> First {
    [First::Client, First::Pod, First::Neither][n as usize % 3]
}

/// Listeners in the pod: two of IPv4, one of IPv6, whose connections begin with their number.
struct Server {
    listeners: Vec<TcpListener>,
    over: AtomicBool,
}

impl Server {
    fn in_pod(node: &Node, pod: &Pod) -> Server {
        let bind = || {
            let [v4, v6]: [SocketAddr; 2] = [(Ipv4Addr::LOCALHOST, 0).into(), (Ipv6Addr::LOCALHOST, 0).into()];
            let all = [v4, v4, v6].map(TcpListener::bind);
            all.into_iter().collect::<std::io::Result<Vec<_>>>().context("listen in the pod")
        };
        Server {
            listeners: namespace::within(&netns(node, pod), bind).expect("the pod's network"),
            over: AtomicBool::new(false),
        }
    }

    fn ports(&self) -> Vec<u16> {
        self.listeners.iter().map(|l| l.local_addr().expect("bound").port()).collect()
    }

    /// Serves a listener until [`Ending`].
    fn accept(&self, listener: &TcpListener, all: &[u8]) {
        scope(|scope| {
            for socket in listener.incoming() {
                let socket = socket.expect("a connection");
                if self.over.load(Ordering::Acquire) {
                    break;
                }
                scope.spawn(move || converse(socket, all));
            }
        });
    }
}

/// Ends what accepts when dropped, so that a test that fails ends too.
struct Ending<'a>(&'a Server, std::path::PathBuf);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Release);
        let wake = || {
            let places = self.0.listeners.iter().filter_map(|l| l.local_addr().ok());
            places.for_each(|place| drop(TcpStream::connect(place)));
            Ok(())
        };
        namespace::within(&self.1, wake).ok(); // without the pod nobody accepts either
    }
}

fn netns(node: &Node, pod: &Pod) -> std::path::PathBuf {
    node.dir().join("netns").join(format!("cricket-{}", pod.id))
}

/// The pod's side of a connection.
fn converse(mut socket: TcpStream, all: &[u8]) {
    socket.set_read_timeout(Some(Duration::from_secs(60))).expect("an option");
    let mut number = [0; 4];
    socket.read_exact(&mut number).expect("the connection's number");
    let n = u32::from_le_bytes(number);
    let hear = |mut socket: &TcpStream| {
        let mut heard = Vec::new();
        socket.read_to_end(&mut heard).expect("until the client's end");
        assert_eq!(heard.len(), MUCH, "connection {n}, {:?} first", first(n));
        assert!(heard == bytes(all, n, TO), "the same bytes to the pod on connection {n}");
    };
    let say = |mut socket: &TcpStream| {
        socket.write_all(bytes(all, n, FROM)).expect("the client reads");
        socket.shutdown(Shutdown::Write).expect("it is open");
    };
    match first(n) {
        First::Client => (hear(&socket), say(&socket)),
        First::Pod => (say(&socket), hear(&socket)),
        First::Neither => scope(|scope| {
            scope.spawn(|| say(&socket));
            (hear(&socket), ())
        }),
    };
}

/// One session with all its connections.
fn session(node: &Node, pod: &str, ports: &[u16], session: u32, all: &[u8]) {
    let mut client = forward(node, pod);
    let mut writer = client.twin();
    let number = |n: u32| session * CONNECTIONS + n;
    let (go_on, told) = channel();
    scope(|scope| {
        scope.spawn(move || {
            for n in 0..CONNECTIONS {
                writer.open_connection(n, ports[n as usize % ports.len()]);
                writer.data(4 * n + 3, false, &number(n).to_le_bytes());
            }
            let at_once: Vec<u32> = (0..CONNECTIONS).filter(|n| first(number(*n)) != First::Pod).collect();
            send(&mut writer, &at_once, number, all);
            wait_and_send(&mut writer, told, number, all);
        });
        let (mut got, mut open) = (BTreeMap::<u32, Vec<u8>>::new(), 2 * CONNECTIONS);
        while open > 0 {
            let Frame::Data { id, last, bytes } = client.frame().expect("the session stays") else { continue };
            got.entry(id).or_default().extend(bytes);
            open -= u32::from(last);
            if last && id % 4 == 3 && first(number(id / 4)) == First::Pod {
                go_on.send(id / 4).expect("the writer waits");
            }
        }
        drop(go_on);
        for n in 0..CONNECTIONS {
            let (error, back) = (&got[&(4 * n + 1)], &got[&(4 * n + 3)]);
            assert!(error.is_empty(), "connection {}: {}", number(n), String::from_utf8_lossy(error));
            assert_eq!(back.len(), MUCH, "connection {}, {:?} first", number(n), first(number(n)));
            assert!(back == bytes(all, number(n), FROM), "the same bytes from the pod on connection {}", number(n));
        }
    });
    client.vanish();
}

/// Sends for these connections in turn, in frames of many lengths.
fn send(writer: &mut crate::stream::Client, connections: &[u32], number: impl Fn(u32) -> u32, all: &[u8]) {
    let mut rest: Vec<(u32, &[u8])> = connections.iter().map(|n| (*n, bytes(all, number(*n), TO))).collect();
    let mut length = 1;
    while !rest.is_empty() {
        for (n, bytes) in &mut rest {
            length = (length * 7919 + 1) % 50_021;
            let (now, later) = bytes.split_at((length + 1).min(bytes.len()));
            writer.data(4 * *n + 3, later.is_empty(), now);
            *bytes = later;
        }
        rest.retain(|(_, bytes)| !bytes.is_empty());
    }
}

fn wait_and_send(
    writer: &mut crate::stream::Client,
    told: Receiver<u32>,
    number: impl Fn(u32) -> u32 + Copy,
    all: &[u8],
) {
    told.into_iter().for_each(|n| send(writer, &[n], number, all));
}

#[test]
fn many_connections_ports_and_sessions_at_once() {
    let node = Node::start();
    let pod = Pod::run(&node, "forward-many");
    let server = Server::in_pod(&node, &pod);
    let ports = server.ports();
    let all = pattern(FROM + MUCH + (SESSIONS * CONNECTIONS + 8) as usize * SHIFT);
    let held = || Holdings::at_rest(node.daemon_pid());
    scope(|scope| {
        for listener in &server.listeners {
            scope.spawn(|| server.accept(listener, &all));
        }
        let ending = Ending(&server, netns(&node, &pod));
        session(&node, &pod.id, &ports, 0, &all);
        let (things, before) = (Census::take(&node), held());
        std::thread::scope(|scope| {
            for n in 0..SESSIONS {
                let (node, pod, ports, all) = (&node, &pod.id, &ports, &all);
                scope.spawn(move || session(node, pod, ports, n, all));
            }
        });
        until("the daemon's threads and files are as before", || {
            let now = held();
            now.named() == before.named() && now.files.len() == before.files.len()
        });
        assert_eq!(Census::take(&node).new_since(&things), Vec::<String>::new());
        drop(ending);
    });
    pod.remove();
}

#[test]
fn a_websocket_has_many_ports_and_ends_with_the_last_connection() {
    let node = Node::shared();
    let pod = Pod::run(&node, "forward-channels");
    let server = Server::in_pod(&node, &pod);
    let ports = server.ports();
    let all = pattern(FROM + MUCH + 8 * SHIFT);
    let request = PortForwardRequest {
        pod_sandbox_id: pod.id.clone(),
        port: ports.iter().map(|port| i32::from(*port)).collect(),
        ..Default::default()
    };
    let url = node.cri.call(&rpc::PORT_FORWARD, &request).expect("PortForward").url;
    let mut client = websocket(&url, V4).upgraded();
    let mut writer = client.twin();
    let count = ports.len() as u8;
    scope(|scope| {
        let pods = server.listeners.iter().zip(0..).map(|(listener, n)| {
            let all = &all;
            scope.spawn(move || {
                let (mut socket, _) = listener.accept().expect("a connection");
                let mut heard = vec![0; MUCH];
                both_ways(&mut socket, &mut heard, bytes(all, n, FROM));
                assert!(heard == bytes(all, n, TO), "the same bytes to port {n}");
                // And its end.
            })
        });
        let pods: Vec<_> = pods.collect();
        scope.spawn(|| {
            let mut at = 0;
            while at < MUCH {
                let to = (at + 30_011).min(MUCH);
                for n in 0..count {
                    writer.message(&[&[2 * n][..], &bytes(&all, n.into(), TO)[at..to]].concat());
                }
                at = to;
            }
        });
        let mut got = vec![Vec::new(); 2 * ports.len()];
        while let Some((2, message)) = client.receive() {
            got[usize::from(message[0])].extend_from_slice(&message[1..]);
        }
        for pod in pods {
            pod.join().expect("no panic");
        }
        for n in 0..ports.len() {
            let begins = ports[n].to_le_bytes();
            assert_eq!((&got[2 * n][..2], &*got[2 * n + 1]), (&begins[..], &begins[..]), "port {n}");
            assert!(got[2 * n][2..] == *bytes(&all, n as u32, FROM), "the same bytes from port {n}");
        }
    });
    pod.remove();
}

/// Says and hears at the same time.
fn both_ways(socket: &mut TcpStream, heard: &mut [u8], said: &[u8]) {
    let mut other = socket.try_clone().expect("another handle");
    scope(|scope| {
        scope.spawn(move || other.write_all(said).expect("the client reads"));
        socket.read_exact(heard).expect("as much as the client has");
    });
}
