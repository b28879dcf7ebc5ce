//! The one loop of a shim: connections, signals, terminals and events, each served as far as it goes without waiting.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Instant;

use super::container::{Container, Exit};
use super::frame::{self, Frame, Frames};
use super::jobs::Job;
use super::launch::Launch;
use super::publisher::Publisher;
use super::pump::{Flow, Pump};
use super::wire::Message;
use crate::error::{Context, Error, Result};
use crate::stdio::Relay;
use crate::sys::epoll::Epoll;
use crate::sys::signal;
use crate::sys::signal_fd::SignalFd;
use crate::sys::stack;

/// What one turn reads.
const READ: usize = 16 << 10;

/// What a token stands for is in its lowest bits; a number is above them.
const KINDS: u32 = 3;
/// The listening socket.
const LISTENER: u64 = 0;
/// Signals.
const SIGNALS: u64 = 1;
/// The connection for events.
const EVENTS: u64 = 2;
/// A caller.
const CALLER: u64 = 3;
/// Something that copies.
pub(super) const PUMP: u64 = 4;
/// A logging program that gets ready.
pub(super) const LOGGER: u64 = 5;
/// A control group out of memory.
pub(super) const MEMORY: u64 = 6;
/// Output that we write down ourselves.
pub(super) const OUTPUT: u64 = 7;

/// To whom an answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    caller: u64,
    stream: u32,
}

/// A connection of containerd's.
pub(super) struct Caller {
    stream: UnixStream,
    frames: Frames,
    pub(super) unsent: Vec<u8>,
}

/// Everything a shim has.
pub struct Server {
    pub(super) namespace: String,
    pub(super) socket: PathBuf,
    pub(super) epoll: Epoll,
    pub(super) publisher: Publisher,
    pub(super) containers: BTreeMap<String, Container>,
    /// Calls of the runtime by pid.
    pub(super) jobs: BTreeMap<u32, Job>,
    /// Processes that wait for their logging program, by token.
    pub(super) launches: BTreeMap<u64, (Launch, File)>,
    /// Children that ended before their pid was known to us.
    pub(super) unknown: Vec<(u32, Exit)>,
    pub(super) pumps: BTreeMap<u64, Pump>,
    /// Out-of-memory kills below a control group that are accounted for, by its path.
    pub(super) claimed: BTreeMap<PathBuf, u64>,
    /// What writes output down, once a container wants it.
    pub(super) relay: Option<Relay>,
    /// When its buffers are given back.
    pub(super) rest_at: Option<Instant>,
    /// Containers that were announced, until when.
    pub(super) pledges: Vec<Instant>,
    /// Set when we are about to end: until when.
    pub(super) leaving: Option<Instant>,
    /// A signal asked us to end, which we do as soon as nothing lives that we look after.
    pub(super) told_to_end: bool,
    pub(super) listener: UnixListener,
    signals: SignalFd,
    pub(super) callers: BTreeMap<u64, Caller>,
    buffer: Box<[u8]>,
    /// The last time we had a container or a caller.
    pub(super) alone_since: Instant,
    next: u64,
}

impl Server {
    /// A server on a socket that listens, telling events to containerd's ttrpc socket.
    pub fn new(listener: UnixListener, socket: PathBuf, namespace: String, events: PathBuf) -> Result<Server> {
        let epoll = Epoll::new().context("make an epoll")?;
        let signals = SignalFd::new(&[signal::SIGCHLD, signal::SIGTERM, signal::SIGINT]).context("take signals")?;
        listener.set_nonblocking(true).context("listen")?;
        epoll.add(&listener, LISTENER).context("listen")?;
        epoll.add(&signals, SIGNALS).context("take signals")?;
        Ok(Server {
            publisher: Publisher::new(events, namespace.clone(), EVENTS),
            namespace,
            socket,
            epoll,
            containers: BTreeMap::new(),
            jobs: BTreeMap::new(),
            launches: BTreeMap::new(),
            unknown: Vec::new(),
            pumps: BTreeMap::new(),
            claimed: BTreeMap::new(),
            relay: None,
            rest_at: None,
            pledges: Vec::new(),
            leaving: None,
            told_to_end: false,
            listener,
            signals,
            callers: BTreeMap::new(),
            buffer: vec![0; READ].into(),
            alone_since: Instant::now(),
            next: 1,
        })
    }

    /// Serves until there is nothing left to serve.
    pub fn serve_all(mut self) -> Result<()> {
        let mut ready = Vec::new();
        while !self.is_over() {
            let time = self.next_tick().map(|at| at.saturating_duration_since(Instant::now()));
            stack::release();
            self.epoll.wait_at_most(&mut ready, time).context("wait")?;
            for token in &ready {
                self.turn(*token);
            }
            self.publisher.tick(&self.epoll);
            self.end_overdue();
            self.rest();
        }
        Ok(())
    }

    fn turn(&mut self, token: u64) {
        match token & ((1 << KINDS) - 1) {
            LISTENER => self.accept(),
            SIGNALS => self.take_signals(),
            EVENTS => self.publisher.ready(&self.epoll),
            CALLER => self.hear(token),
            PUMP => self.pump(token),
            LOGGER => self.logger_is_ready(token),
            OUTPUT => self.output_is_ready(),
            _ => self.memory_event(token),
        }
    }

    /// A token for something new.
    pub(super) fn token(&mut self, kind: u64) -> u64 {
        self.next += 1;
        self.next << KINDS | kind
    }

    fn accept(&mut self) {
        // One a turn: the rest are reported again.
        let stream = match self.listener.accept() {
            Ok((stream, _)) => stream,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return,
            Err(e) => return log::warn!("accept a caller: {e}"),
        };
        let token = self.token(CALLER);
        if let Err(e) = stream.set_nonblocking(true).and_then(|()| self.epoll.add(&stream, token)) {
            return log::warn!("accept a caller: {e}");
        }
        self.callers.insert(token, Caller { stream, frames: Frames::default(), unsent: Vec::new() });
    }

    /// Reads what a caller sent, or goes on answering if it was slow to read.
    fn hear(&mut self, token: u64) {
        let Some(caller) = self.callers.get_mut(&token) else { return };
        if !caller.unsent.is_empty() {
            return self.send(token);
        }
        let n = match caller.stream.read(&mut self.buffer) {
            Ok(0) => return self.hang_up(token),
            Ok(n) => n,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return,
            Err(_) => return self.hang_up(token),
        };
        let (mut input, mut heard) = (&self.buffer[..n], Vec::new());
        while let Some(frame) = caller.frames.next(&mut input) {
            heard.push(frame);
        }
        heard.into_iter().filter(Frame::is_request).for_each(|frame| self.serve(token, &frame));
    }

    fn serve(&mut self, caller: u64, frame: &Frame) {
        let reply = Reply { caller, stream: frame.stream };
        match frame.request() {
            Ok(request) => self.call(reply, request),
            Err(e) => self.answer(reply, Err(e)),
        }
    }

    /// Answers a call. A caller that is gone needs no answer.
    pub(super) fn answer(&mut self, reply: Reply, result: Result<Message>) {
        if let Some(caller) = self.callers.get_mut(&reply.caller) {
            if let Err(e) = &result {
                log::debug!("answer: {e}");
            }
            caller.unsent.extend_from_slice(&frame::response(reply.stream, &result));
            self.send(reply.caller);
        }
    }

    fn send(&mut self, token: u64) {
        let Some(caller) = self.callers.get_mut(&token) else { return };
        let watched = match caller.stream.write(&caller.unsent) {
            Ok(n) if n == caller.unsent.len() => {
                caller.unsent = Vec::new();
                self.epoll.await_input(&caller.stream, token)
            }
            Ok(n) => {
                caller.unsent.drain(..n);
                self.epoll.await_room(&caller.stream, token)
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                self.epoll.await_room(&caller.stream, token)
            }
            Err(e) => Err(e),
        };
        if watched.is_err() {
            self.hang_up(token);
        }
    }

    fn hang_up(&mut self, token: u64) {
        if let Some(caller) = self.callers.remove(&token) {
            // One that broke may not be in there any more.
            self.epoll.remove(&caller.stream).ok();
        }
    }

    fn take_signals(&mut self) {
        while let Some(taken) = self.signals.next() {
            if taken == signal::SIGCHLD {
                self.reap();
            } else {
                // A node that shuts down waits for us. That we are gone before containerd has fetched how a container
                // ended costs nothing then: it knows from the event, or is gone itself.
                self.told_to_end = true;
                if self.has_living() {
                    log::info!("signal {taken}: ends with the last container");
                }
            }
        }
    }

    fn pump(&mut self, token: u64) {
        let Some(pump) = self.pumps.get_mut(&token) else { return };
        if pump.turn(&self.epoll, &mut self.buffer) == Flow::Ended {
            self.stop_pump(token);
        }
    }

    /// Starts to copy; both files must not block.
    pub(super) fn start_pump(&mut self, from: File, to: File) -> Result<u64> {
        let token = self.token(PUMP);
        let pump = Pump::start(&self.epoll, from, to, token).context("copy from a terminal")?;
        self.pumps.insert(token, pump);
        Ok(token)
    }

    /// Stops copying at once.
    pub(super) fn stop_pump(&mut self, token: u64) {
        self.pumps.remove(&token).into_iter().for_each(|pump| pump.stop(&self.epoll));
    }

    /// Stops copying after what is there.
    pub(super) fn end_pump(&mut self, token: u64) {
        if let Some(pump) = self.pumps.remove(&token) {
            pump.end(&self.epoll, &mut self.buffer);
        }
    }

    /// Tells containerd.
    pub(super) fn publish(&mut self, topic: &str, kind: &str, event: Message) {
        self.publisher.publish(&self.epoll, topic, kind, event);
    }

    /// A container that is there for callers.
    pub(super) fn container(&mut self, id: &str) -> Result<&mut Container> {
        let found = self.containers.get_mut(id).filter(|c| c.first.state != super::container::State::Creating);
        found.ok_or_else(|| Error::not_found(format!("no container {id} here")))
    }
}
