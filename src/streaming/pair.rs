//! One forwarded connection: a socket in the pod's network namespace, and two streams of the client.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::time::Instant;

use super::buffer::{read, write, Buffer, Moved};
use super::link::Link;
use super::wire::{send, StreamId};
use crate::error::{Context, Error, Result};
use crate::store::{Sandbox, SandboxState};
use crate::sys::namespace;
use crate::sys::net::{connect_loopback, tcp_socket, Family};
use crate::sys::poll::{Place, Poll};

/// How much of the client's bytes is kept for a connection that does not take them. Then everything waits for it.
const QUEUE: usize = 64 << 10;

/// A pair.
pub struct Pair {
    /// The stream of its bytes; the client opens it second.
    pub data: Option<StreamId>,
    /// The stream of what went wrong.
    pub error: StreamId,
    /// As the client names it.
    pub key: String,
    /// Where to.
    pub port: u16,
    since: Instant,
    state: State,
    /// What the client sent and the connection did not take; made when it is needed.
    queue: Option<Buffer>,
    /// The client sends nothing more.
    client_ended: bool,
    /// What is still to be told on the error stream; then both streams end.
    words: Option<Vec<u8>>,
    place: Option<Place>,
}

enum State {
    /// Its data stream is not there yet.
    Alone,
    /// Being connected; the socket for the other protocol stands by.
    Dialling(TcpStream, Family, Option<TcpStream>, Vec<String>),
    /// Connected.
    Open(TcpStream, Halves),
    /// Nothing more to do but to end the streams.
    Closed,
    /// The streams are ended.
    Over,
}

/// Which directions of a connection are over.
#[derive(Clone, Copy, Default)]
struct Halves {
    /// We told it that nothing more comes.
    to: bool,
    /// It told us.
    from: bool,
}

/// What became of bytes for a connection.
pub enum Took {
    /// So many were used; never none.
    Some(usize),
    /// None: as many as we keep are waiting.
    Full,
}

impl Pair {
    /// One whose data stream is still to come.
    pub fn new(error: StreamId, port: u16, key: String) -> Pair {
        Pair {
            data: None,
            error,
            key,
            port,
            since: Instant::now(),
            state: State::Alone,
            queue: None,
            client_ended: false,
            words: None,
            place: None,
        }
    }

    /// Since when it waits for its data stream.
    pub fn lonely_since(&self) -> Option<Instant> {
        self.data.is_none().then_some(self.since)
    }

    /// Whether nothing more is to be done.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// Its data stream is there: begins to connect.
    pub fn dial(&mut self, data: StreamId, sandbox: &Sandbox) {
        self.data = Some(data);
        match sockets(sandbox) {
            Ok((v4, v6)) => self.connect(v4, Family::V4, Some(v6), Vec::new()),
            Err(e) => self.fail(&e.to_string()),
        }
    }

    fn connect(
        &mut self,
        socket: io::Result<TcpStream>,
        family: Family,
        other: Option<io::Result<TcpStream>>,
        mut why: Vec<String>,
    ) {
        let begun = socket.and_then(|socket| connect_loopback(&socket, family, self.port).map(|()| socket));
        match (begun, other) {
            (Ok(socket), other) => self.state = State::Dialling(socket, family, other.and_then(Result::ok), why),
            (Err(e), other) => {
                why.push(words(family, self.port, &e));
                match other {
                    Some(other) => self.connect(other, Family::V6, None, why),
                    None => self.fail(&why.join(", ")),
                }
            }
        }
    }

    fn fail(&mut self, why: &str) {
        self.words = Some(format!("forward port {}: {why}", self.port).into_bytes());
        self.state = State::Closed;
    }

    /// Waits for what it needs to.
    pub fn watch(&mut self, poll: &mut Poll, room: bool) {
        let queued = self.has_queued();
        self.place = match &self.state {
            State::Dialling(socket, ..) => Some(poll.add(socket, false, true)),
            State::Open(socket, halves) => {
                let (reads, writes) = (room && !halves.from, queued && !halves.to);
                (reads || writes).then(|| poll.add(socket, reads, writes))
            }
            State::Alone | State::Closed | State::Over => None,
        };
    }

    /// Goes on with connecting.
    pub fn advance(&mut self, poll: &Poll) {
        if !self.place.is_some_and(|at| poll.writable(at)) {
            return;
        }
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Dialling(socket, family, other, mut why) => match socket.take_error() {
                Ok(None) => {
                    // A few bytes at a time must not wait for more.
                    socket.set_nodelay(true).ok();
                    self.state = State::Open(socket, Halves::default());
                    self.place = None;
                    self.write_queued();
                }
                Ok(Some(e)) | Err(e) => {
                    why.push(words(family, self.port, &e));
                    match other {
                        Some(other) => self.connect(Ok(other), Family::V6, None, why),
                        None => self.fail(&why.join(", ")),
                    }
                    self.place = None;
                }
            },
            other => self.state = other,
        }
    }

    /// Bytes of the client: straight into the connection if it takes them, else into the queue.
    pub fn take(&mut self, bytes: &[u8]) -> Took {
        let queued = self.has_queued();
        match &mut self.state {
            State::Open(socket, halves) if !halves.to => {
                if !queued {
                    match write(socket, bytes) {
                        Ok(Moved::Some(n)) => return Took::Some(n),
                        Ok(Moved::Blocked | Moved::End) => {}
                        Err(_) => {
                            self.state = State::Closed;
                            return Took::Some(bytes.len());
                        }
                    }
                }
            }
            State::Dialling(..) => {}
            // Nobody wants them any more.
            _ => return Took::Some(bytes.len()),
        }
        let queue = self.queue.get_or_insert_with(|| Buffer::new(QUEUE));
        match bytes.len().min(queue.free()) {
            0 => Took::Full,
            n => {
                queue.push(&bytes[..n]);
                Took::Some(n)
            }
        }
    }

    /// The client sends nothing more.
    pub fn end_from_client(&mut self) {
        self.client_ended = true;
        self.write_queued();
    }

    /// Sends what waits, now that the connection may take it.
    pub fn send_queued(&mut self, poll: &Poll) {
        if self.place.is_some_and(|at| poll.writable(at)) {
            self.write_queued();
        }
    }

    fn write_queued(&mut self) {
        let State::Open(socket, halves) = &mut self.state else { return };
        if let Some(queue) = &mut self.queue {
            if queue.flush(socket).is_err() {
                self.state = State::Closed;
                return;
            }
            if queue.is_empty() {
                self.queue = None;
            }
        }
        if self.client_ended && self.queue.is_none() && !halves.to {
            halves.to = true;
            // One that is gone already needs no end.
            socket.shutdown(Shutdown::Write).ok();
            if halves.from {
                self.state = State::Closed;
            }
        }
    }

    /// Moves what the pod sends into a frame.
    pub fn relay(&mut self, poll: &Poll, link: &mut Link) {
        let (Some(at), Some(data)) = (self.place, self.data) else { return };
        let State::Open(socket, halves) = &mut self.state else { return };
        if halves.from || !poll.readable(at) {
            return;
        }
        match link.relay(data, &mut |into| read(socket, into)) {
            Ok(Moved::Some(_) | Moved::Blocked) => {}
            Ok(Moved::End) => {
                halves.from = true;
                link.wire.end(data, &mut link.out);
                if halves.to {
                    self.state = State::Closed;
                } else if link.fixed {
                    // Neither side can end one half of a channel: this is the end of both.
                    self.end_from_client();
                }
            }
            Err(e) => {
                let why = format!("read from port {}: {e}", self.port);
                self.fail(&why);
            }
        }
    }

    /// Says on the error stream what went wrong, and ends the streams of a closed connection.
    pub fn speak(&mut self, link: &mut Link) {
        if !matches!(self.state, State::Closed) {
            return;
        }
        if let Some(words) = &mut self.words {
            let said = send(&mut *link.wire, self.error, &mut link.out, words);
            words.drain(..said);
            if !words.is_empty() {
                return;
            }
        }
        link.wire.end(self.error, &mut link.out);
        if let Some(data) = self.data {
            link.wire.end(data, &mut link.out);
        }
        self.state = State::Over;
    }

    fn has_queued(&self) -> bool {
        self.queue.as_ref().is_some_and(|queue| !queue.is_empty())
    }
}

fn words(family: Family, port: u16, e: &io::Error) -> String {
    match family {
        Family::V4 => format!("connect to 127.0.0.1:{port}: {e}"),
        Family::V6 => format!("connect to [::1]:{port}: {e}"),
    }
}

type Sockets = (io::Result<TcpStream>, io::Result<TcpStream>);

/// Two sockets in the sandbox's network: there may be a kernel without one of the protocols.
fn sockets(sandbox: &Sandbox) -> Result<Sockets> {
    if sandbox.state() != SandboxState::Ready {
        return Err(Error::precondition(format!("pod sandbox {} is not ready", sandbox.id)));
    }
    let both = || Ok((tcp_socket(Family::V4), tcp_socket(Family::V6)));
    match &sandbox.netns {
        Some(netns) => namespace::within(netns, both).context("enter the pod's network"),
        None => both(),
    }
}
