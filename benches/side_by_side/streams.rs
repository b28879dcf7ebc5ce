//! Sessions of a person at a keyboard and of programs that move files: exec and port-forward, over SPDY.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cricket::error::{Context, Error, Result};
use cricket::sys::namespace;
use cricket_proto::methods::runtime_service as rpc;
use cricket_proto::runtime::{ExecRequest, PortForwardRequest};

use crate::interrupt;
use crate::node::BUSYBOX;
use crate::setting::Setting;
use crate::side::{Pod, Side};
use crate::stopwatch::Times;
use crate::stream::{spdy, Client, Frame};
use crate::table::{Figure, Goal, Row, Table};

/// Sessions of one command on each side, and of one side before it is the other's turn.
const SESSIONS: usize = 100;
const TURN: usize = 5;
/// Turns of each side at moving bytes.
const TURNS: usize = 3;
/// Connections of a turn, one after another in one session.
const CONNECTIONS: u32 = 500;
/// What a client sends at once.
const CHUNK: usize = 32 << 10;

/// What is done once, and what is measured of it.
struct Taken {
    times: Times,
    /// Of the daemons, shims and what they run, not of the command itself.
    system: Duration,
}

/// The ways that bytes go; each moves so many.
type Move = fn(&Side, &Pod, usize) -> Result<()>;

/// Both sides in turn.
pub fn measure(setting: &Setting, table: &mut Table) -> Result<()> {
    let sides = Side::both(setting)?;
    let pods = [sides[0].run("streams")?, sides[1].run("streams")?];
    let mib = setting.stream_mib;
    table.group(
        "Sessions",
        &format!(
            "Exec and port-forward over SPDY, by a client without TLS on loopback. Round trip: from the call of Exec until \
             the connection of a session that ran `true` is closed, {SESSIONS} times on each side, {TURN} here and {TURN} \
             there. Throughput: {mib} MiB from `dd` and to it, and to and from a listener in the pod, {TURNS} times \
             on each side in turn. Connections: {CONNECTIONS} one after another in one session, each with a byte there and \
             back."
        ),
    );
    table.note("CPU: of daemons, shims and what these run, without the command itself and the client.");

    let taken = both(&sides, &pods, SESSIONS / TURN, |side, pod| {
        let mut times = Times::default();
        (0..TURN).try_for_each(|_| times.take("exec", || round_trip(side, pod)))?;
        Ok(times)
    })?;
    table.row(Row::new("exec, round trip", "ms", &taken[0].times, &taken[1].times).goal(Goal::RatioAtMost(1.0)));
    let each = |taken: &Taken| taken.system.as_secs_f64() * 1000.0 / SESSIONS as f64;
    table.row(Row::new("exec, round trip, CPU", "ms", each(&taken[0]), each(&taken[1])));

    let ways: [(&str, Move); 4] =
        [("exec, out", out), ("exec, in", into), ("port-forward, out", from_port), ("port-forward, in", to_port)];
    for (name, way) in ways {
        let taken = both(&sides, &pods, TURNS, |side, pod| {
            let mut times = Times::default();
            times.take(name, || way(side, pod, mib << 20))?;
            Ok(times)
        })?;
        let speed = |taken: &Taken| Figure::from(mib as f64 * 1000.0 / taken.times.percentile(50));
        let cost = |taken: &Taken| taken.system.as_secs_f64() * 1000.0 / (mib * TURNS) as f64;
        table.row(Row::new(name, "MiB/s", speed(&taken[0]), speed(&taken[1])).goal(Goal::RatioAtLeast(1.0)));
        let row = Row::new(&format!("{name}, CPU"), "ms/MiB", cost(&taken[0]), cost(&taken[1]));
        // One and a half times as much for the same processor time.
        table.row(row.goal(Goal::RatioAtMost(0.67)));
    }

    let taken = both(&sides, &pods, TURNS, |side, pod| {
        let mut times = Times::default();
        times.take("connections", || connections(side, pod))?;
        Ok(times)
    })?;
    let rate = |taken: &Taken| Figure::from(f64::from(CONNECTIONS) * 1000.0 / taken.times.percentile(50));
    let each = |taken: &Taken| taken.system.as_secs_f64() * 1000.0 / f64::from(CONNECTIONS * TURNS as u32);
    let row = Row::new("port-forward, connections", "1/s", rate(&taken[0]), rate(&taken[1]));
    table.row(row.goal(Goal::RatioAtLeast(1.0)));
    table.row(Row::new("port-forward, connection, CPU", "ms", each(&taken[0]), each(&taken[1])));
    sides.iter().zip(&pods).try_for_each(|(side, pod)| side.remove(pod))
}

/// Lets each side take its turns.
fn both(
    sides: &[Side; 2],
    pods: &[Pod; 2],
    turns: usize,
    act: impl Fn(&Side, &Pod) -> Result<Times>,
) -> Result<[Taken; 2]> {
    let mut all = [(); 2].map(|()| Taken { times: Times::default(), system: Duration::ZERO });
    // What only the first session costs is nobody's figure.
    sides.iter().zip(pods).try_for_each(|(side, pod)| round_trip(side, pod))?;
    for _ in 0..turns {
        for (n, side) in sides.iter().enumerate() {
            interrupt::check()?;
            let before = side.group.cpu()?;
            let times = act(side, &pods[n]).with_context(|| side.name.to_owned())?;
            all[n].system += (side.group.cpu()? - before).system;
            all[n].times.merge(&times);
        }
    }
    Ok(all)
}

fn exec(side: &Side, pod: &Pod, script: &str, streams: &[&str]) -> Result<Client> {
    let request = ExecRequest {
        container_id: pod.container.clone(),
        cmd: [BUSYBOX, "sh", "-c", script].map(str::to_owned).to_vec(),
        stdin: streams.contains(&"stdin"),
        stdout: streams.contains(&"stdout"),
        ..Default::default()
    };
    let mut client = spdy(&side.cri().call(&rpc::EXEC, &request)?.url, "v4.channel.k8s.io").upgraded();
    client.open_all(streams);
    Ok(client)
}

/// Reads to the end; how many bytes came on stream `id`, if the command succeeded.
fn heard(client: &mut Client, wanted: u32) -> Result<usize> {
    let (mut count, mut outcome) = (0, Vec::new());
    while let Some(frame) = client.frame() {
        match frame {
            Frame::Data { id: 1, bytes, .. } => outcome.extend(bytes),
            Frame::Data { id, bytes, .. } if id == wanted => count += bytes.len(),
            _ => {}
        }
    }
    let outcome = String::from_utf8_lossy(&outcome);
    match outcome.contains("\"Success\"") {
        true => Ok(count),
        false => Err(Error::internal(format!("the command failed: {outcome}"))),
    }
}

fn round_trip(side: &Side, pod: &Pod) -> Result<()> {
    heard(&mut exec(side, pod, "true", &["stdout"])?, 3).map(drop)
}

fn out(side: &Side, pod: &Pod, bytes: usize) -> Result<()> {
    let mut client =
        exec(side, pod, &format!("dd if=/dev/zero bs=64k count={} 2>/dev/null", bytes >> 16), &["stdout"])?;
    same(bytes, heard(&mut client, 3)?)
}

fn into(side: &Side, pod: &Pod, bytes: usize) -> Result<()> {
    let mut client = exec(side, pod, "dd of=/dev/null bs=64k 2>/dev/null; echo all", &["stdin", "stdout"])?;
    let mut writer = client.twin();
    std::thread::scope(|scope| {
        scope.spawn(move || send(&mut writer, 3, bytes));
        match client.rest()[2] == b"all\n" {
            true => Ok(()),
            false => Err(Error::internal("the command did not read everything")),
        }
    })
}

fn send(client: &mut Client, id: u32, bytes: usize) {
    let chunk = vec![0; CHUNK];
    let mut left = bytes;
    while left > 0 {
        let n = left.min(CHUNK);
        left -= n;
        client.data(id, left == 0, &chunk[..n]);
    }
}

fn same(wanted: usize, found: usize) -> Result<()> {
    match wanted == found {
        true => Ok(()),
        false => Err(Error::internal(format!("{found} bytes of {wanted}"))),
    }
}

/// A listener in the pod, and a session that forwards its port.
fn forward(side: &Side, pod: &Pod) -> Result<(TcpListener, u16, Client)> {
    let netns = PathBuf::from(format!("/proc/{}/ns/net", side.cri().pid(&pod.container)));
    let listener = listen(&netns)?;
    let port = listener.local_addr().context("a port")?.port();
    let request = PortForwardRequest { pod_sandbox_id: pod.id.clone(), port: vec![port.into()], ..Default::default() };
    let url = side.cri().call(&rpc::PORT_FORWARD, &request)?.url;
    Ok((listener, port, spdy(&url, "portforward.k8s.io").upgraded()))
}

fn listen(netns: &Path) -> Result<TcpListener> {
    namespace::within(netns, || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listen in the pod"))
}

/// Opens the session's `n`th connection, and returns its other end.
fn connect(client: &mut Client, listener: &TcpListener, n: u32, port: u16) -> Result<TcpStream> {
    client.open_connection(n, port);
    listener.accept().map(|(socket, _)| socket).context("accept in the pod")
}

fn from_port(side: &Side, pod: &Pod, bytes: usize) -> Result<()> {
    let (listener, port, mut client) = forward(side, pod)?;
    let mut socket = connect(&mut client, &listener, 0, port)?;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let chunk = vec![0; CHUNK];
            (0..bytes / CHUNK).try_for_each(|_| socket.write_all(&chunk))
        });
        let mut count = 0;
        loop {
            match next_data(&mut client) {
                Some(Frame::Data { id: 3, bytes, last }) => {
                    count += bytes.len();
                    if last {
                        break;
                    }
                }
                Some(_) => {}
                None => return Err(Error::internal("the session ended")),
            }
        }
        client.data(3, true, &[]);
        same(bytes, count)
    })
}

/// The next frame of data.
fn next_data(client: &mut Client) -> Option<Frame> {
    std::iter::from_fn(|| client.frame()).find(|frame| matches!(frame, Frame::Data { .. }))
}

fn to_port(side: &Side, pod: &Pod, bytes: usize) -> Result<()> {
    let (listener, port, mut client) = forward(side, pod)?;
    let mut socket = connect(&mut client, &listener, 0, port)?;
    let (mut reader, whole) = (client.twin(), client.twin());
    std::thread::scope(|scope| {
        scope.spawn(move || send(&mut client, 3, bytes));
        // Our windows are renewed; nobody must be left waiting because they are not read.
        scope.spawn(move || while reader.frame().is_some() {});
        let (mut buffer, mut count) = (vec![0; 64 << 10], 0);
        while count < bytes {
            match socket.read(&mut buffer).context("read in the pod")? {
                0 => break,
                n => count += n,
            }
        }
        whole.vanish();
        same(bytes, count)
    })
}

fn connections(side: &Side, pod: &Pod) -> Result<()> {
    let (listener, port, mut client) = forward(side, pod)?;
    for n in 0..CONNECTIONS {
        let mut socket = connect(&mut client, &listener, n, port)?;
        client.data(4 * n + 3, false, b"x");
        let mut byte = [0];
        socket.read_exact(&mut byte).context("read in the pod")?;
        socket.write_all(&byte).context("write in the pod")?;
        loop {
            match next_data(&mut client) {
                Some(Frame::Data { bytes, .. }) if bytes == b"x" => break,
                Some(_) => {}
                None => return Err(Error::internal("the session ended")),
            }
        }
        client.data(4 * n + 3, true, &[]);
    }
    client.vanish();
    Ok(())
}
