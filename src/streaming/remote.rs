//! The remote command protocol: stdin, stdout, stderr, a terminal's size and the outcome, for exec and attach alike.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::attach::Attached;
use super::buffer::Moved;
use super::exec::Running;
use super::link::Link;
use super::role::{Client, Process, Role, Streams, Wanted};
use super::status::{status, Outcome};
use super::upgrade::Version;
use super::wire::{send, Next, StreamId};
use super::{size, Shared};
use crate::error::{Context, Error, Kind, Result};
use crate::store::sessions::Session;
use crate::sys::poll::Poll;

/// How long a client may take to open its streams.
const OPENING_BUDGET: Duration = Duration::from_secs(30);
/// How long a client may take to read an answer before it counts as gone, when nothing else goes on any more.
const LAST_WORDS: Duration = Duration::from_secs(30);

/// A session from the handshake to its end.
pub(super) fn serve(shared: &Arc<Shared>, mut link: Link, version: Version, session: Session) -> Result<()> {
    let wanted = match &session {
        Session::Exec(r) => Wanted { stdin: r.stdin, stdout: r.stdout, stderr: r.stderr, tty: r.tty },
        Session::Attach(r) => Wanted { stdin: r.stdin, stdout: r.stdout, stderr: r.stderr, tty: r.tty },
        Session::PortForward(_) => return Err(Error::internal("ports are no process")),
    };
    let opened = open(shared, &mut link, version, wanted);
    let streams = match opened {
        Ok(streams) => streams,
        Err(e) => {
            link.close(&shared.stop);
            return Err(e.context("a client opens its streams"));
        }
    };
    let process: Result<Box<dyn Process>> = match session {
        Session::Exec(request) => Running::start(shared, &request).map(|p| Box::new(p) as _),
        Session::Attach(request) => Attached::start(shared, &request).map(|p| Box::new(p) as _),
        Session::PortForward(_) => return Err(Error::internal("ports are no process")),
    };
    let mut remote = Remote { shared, link, version, streams, size: Vec::new(), stdin_waits: false, stdin_over: false };
    let outcome = match process {
        Ok(mut process) => remote.run(&mut *process),
        Err(e) => Ok(Outcome::Failure(e.to_string())),
    };
    match outcome {
        Ok(outcome) => remote.end(&outcome),
        Err(e) => {
            remote.link.close(&shared.stop);
            Err(e)
        }
    }
}

/// Waits until the client has opened all of its streams.
fn open(shared: &Shared, link: &mut Link, version: Version, wanted: Wanted) -> Result<Streams> {
    let mut streams = Streams::default();
    let expected = Role::ALL.into_iter().filter(|role| wanted.has(*role, version));
    if link.fixed {
        expected.for_each(|role| streams.0[role.index()] = Some(role.index() as StreamId));
        let first = [Role::Stdout, Role::Stderr, Role::Error].into_iter().find(|role| wanted.has(*role, version));
        link.wire.hello(first.map_or(3, Role::index) as StreamId, &mut link.out);
        return Ok(streams);
    }
    let missing = |streams: &Streams| expected.clone().any(|role| streams.of(role).is_none());
    let deadline = Instant::now() + OPENING_BUDGET;
    while missing(&streams) {
        match link.wire.next(&mut link.input, &mut link.out)? {
            Next::Open(id, headers) => {
                let kind = headers.iter().find(|(name, _)| name == "streamtype").map(|(_, value)| value.as_str());
                let role = kind.and_then(Role::of_header).filter(|role| wanted.has(*role, version));
                match role.filter(|role| streams.of(*role).is_none()) {
                    Some(role) => {
                        streams.0[role.index()] = Some(id);
                        link.wire.accept(id, &mut link.out);
                    }
                    None => link.wire.reset(id, &mut link.out),
                }
            }
            // Of a stream that it does not write to. One that ends stdin before the rest is open is too early.
            Next::Ended(id) if streams.role(id) != Some(Role::Stdin) => {}
            Next::Starved => link.wait_for_client(&shared.stop, deadline)?,
            Next::Blocked => {
                link.choked = true;
                link.wait_for_client(&shared.stop, deadline)?;
            }
            other => return Err(Error::invalid(format!("{other:?} before all streams were open"))),
        }
    }
    Ok(streams)
}

struct Remote<'a> {
    shared: &'a Shared,
    link: Link,
    version: Version,
    streams: Streams,
    /// The beginning of a terminal's size.
    size: Vec<u8>,
    /// Stdin has bytes that the process does not take yet.
    stdin_waits: bool,
    stdin_over: bool,
}

impl Remote<'_> {
    /// Moves bytes until the process has ended.
    ///
    /// # Errors
    /// The client is gone and the process is to end with it, or we are to stop.
    fn run(&mut self, process: &mut dyn Process) -> Result<Outcome> {
        let mut poll = Poll::new();
        loop {
            self.understand(process)?;
            self.link.flush();
            if self.link.gone {
                process.end_input();
                if !process.outlives_client() {
                    return Err(Error::new(Kind::Canceled, "the client went away"));
                }
            }
            if let Some(outcome) = process.outcome() {
                return Ok(outcome);
            }
            let idle = self.link.used + self.shared.rt.config.streaming.idle_timeout;
            let room = self.link.gone || self.link.out.is_empty();
            poll.clear();
            let stop = poll.add(&self.shared.stop, true, false);
            let reading = !self.stdin_waits;
            let at = (!self.link.gone).then(|| self.link.add_to(&mut poll, reading));
            process.watch(&mut poll, room, self.stdin_waits);
            let idle = (!self.link.gone).then_some(idle);
            let deadline = [idle, process.deadline()].into_iter().flatten().min();
            poll.wait(deadline).context("wait for a session's streams")?;
            if poll.readable(stop) {
                return Err(Error::new(Kind::Unavailable, "cricket is shutting down"));
            }
            if idle.is_some_and(|idle| idle <= Instant::now()) {
                return Err(Error::new(Kind::DeadlineExceeded, "nothing was said for too long"));
            }
            if let Some(at) = at {
                self.link.moved(&poll, at, reading);
            }
            self.stdin_waits = false;
            process.output(&poll, &mut Client { link: &mut self.link, streams: &self.streams })?;
        }
    }

    /// Does what the client says, until there is nothing more or stdin is full.
    fn understand(&mut self, process: &mut dyn Process) -> Result<()> {
        while !self.link.gone {
            match self.link.wire.next(&mut self.link.input, &mut self.link.out)? {
                Next::Starved => return Ok(()),
                Next::Blocked => {
                    self.link.choked = true;
                    return Ok(());
                }
                Next::Data(id) => {
                    let body = self.link.wire.body(&self.link.input);
                    let length = body.len();
                    let used = match self.streams.role(id) {
                        Some(Role::Stdin) if !self.stdin_over => match process.input(body) {
                            Moved::Some(n) => n,
                            Moved::Blocked => {
                                self.stdin_waits = true;
                                return Ok(());
                            }
                            Moved::End => {
                                self.end_input(process);
                                length
                            }
                        },
                        Some(Role::Resize) => {
                            for (width, height) in size::sizes(&mut self.size, body) {
                                process.resize(width, height);
                            }
                            length
                        }
                        _ => length,
                    };
                    self.link.took(used);
                }
                Next::Ended(id) => {
                    if self.streams.role(id) == Some(Role::Stdin) {
                        self.end_input(process);
                    }
                }
                Next::Reset(id) => match self.streams.role(id) {
                    Some(Role::Stdin) => self.end_input(process),
                    // It does not want to hear more of it.
                    Some(role) => self.streams.0[role.index()] = None,
                    None => {}
                },
                Next::Open(id, _) => self.link.wire.reset(id, &mut self.link.out),
                Next::Goodbye => self.link.gone = true,
            }
        }
        Ok(())
    }

    fn end_input(&mut self, process: &mut dyn Process) {
        self.stdin_over = true;
        process.end_input();
    }

    /// Tells the outcome, ends the streams, and closes.
    fn end(mut self, outcome: &Outcome) -> Result<()> {
        let words = status(self.version, outcome);
        let mut said = 0;
        if let Some(id) = self.streams.of(Role::Error) {
            while said < words.len() && !self.link.gone {
                said += send(&mut *self.link.wire, id, &mut self.link.out, &words[said..]);
                self.link.flush_all(&self.shared.stop, LAST_WORDS)?;
                if said < words.len() {
                    // Its window is used up: it has to speak before we can.
                    let deadline = Instant::now() + LAST_WORDS;
                    self.link.wait_for_client(&self.shared.stop, deadline)?;
                    self.ignore_client()?;
                }
            }
        }
        for role in [Role::Stdout, Role::Stderr, Role::Error, Role::Stdin, Role::Resize] {
            if let Some(id) = self.streams.of(role) {
                self.link.wire.end(id, &mut self.link.out);
            }
        }
        self.link.wire.goodbye(&mut self.link.out);
        self.link.close(&self.shared.stop);
        Ok(())
    }

    /// Understands what the client says and does nothing of it.
    fn ignore_client(&mut self) -> Result<()> {
        loop {
            match self.link.wire.next(&mut self.link.input, &mut self.link.out)? {
                Next::Starved | Next::Blocked => return Ok(()),
                Next::Data(_) => {
                    let length = self.link.wire.body(&self.link.input).len();
                    self.link.took(length);
                }
                Next::Goodbye => self.link.gone = true,
                Next::Open(..) | Next::Ended(_) | Next::Reset(_) => {}
            }
        }
    }
}
