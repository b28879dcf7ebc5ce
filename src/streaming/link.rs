//! A connection after its handshake: the socket, its two buffers, and the wire that understands them.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use super::buffer::{read, Buffer, Moved};
use super::socket::Socket;
use super::upgrade::{Agreed, Opening};
use super::wire::{Source, StreamId, Wire};
use crate::error::{Context, Error, Kind, Result};
use crate::sys::eventfd::EventFd;
use crate::sys::poll::{Place, Poll};

/// What is read at once.
pub const INCOMING: usize = 64 << 10;
/// Two frames of the greatest length, and answers.
const OUTGOING: usize = 136 << 10;
/// How long a client may take to read our last words and to close.
const FAREWELL: Duration = Duration::from_secs(10);

/// A connection.
pub struct Link {
    socket: Socket,
    /// What came and was not used yet.
    pub input: Buffer,
    /// What is to be sent.
    pub out: Buffer,
    /// What both mean.
    pub wire: Box<dyn Wire>,
    /// When bytes last went through.
    pub used: Instant,
    /// The client is gone.
    pub gone: bool,
    /// There is no room for what we would have to answer: nothing more is understood before a flush.
    pub choked: bool,
    /// The streams have fixed numbers and are there from the start.
    pub fixed: bool,
}

impl Link {
    /// A connection on which our answer is the next thing to be sent.
    pub fn new(socket: Socket, input: Buffer, agreed: Agreed) -> Link {
        let mut out = Buffer::new(OUTGOING);
        out.push(&agreed.answer);
        let fixed = agreed.opening == Opening::Fixed;
        Link { socket, input, out, wire: agreed.wire, used: Instant::now(), gone: false, choked: false, fixed }
    }

    /// A connection on which nothing follows this answer.
    pub fn for_refusal(socket: Socket, input: Buffer, answer: &[u8]) -> Link {
        let mut out = Buffer::new(answer.len());
        out.push(answer);
        let wire = Box::new(super::websocket::WebSocket::new(super::websocket::Content::Plain));
        Link { socket, input, out, wire, used: Instant::now(), gone: false, choked: false, fixed: true }
    }

    /// Waits for the socket too: to send what there is, and to read if `reading`.
    pub fn add_to(&self, poll: &mut Poll, reading: bool) -> Place {
        let at = self.socket.add_to(poll, reading && !self.choked, !self.out.is_empty());
        poll.watch_end(at);
        at
    }

    /// Moves what can be moved after a wait. A client that hangs up while we do not read is gone: what it still sent
    /// has nowhere to go.
    pub fn moved(&mut self, poll: &Poll, at: Place, reading: bool) {
        if reading && !self.choked && poll.readable(at) {
            self.fill();
        } else if poll.hung_up(at) {
            self.gone = true;
        }
        if poll.writable(at) {
            self.flush();
        }
    }

    fn fill(&mut self) {
        match self.input.fill(&mut self.socket) {
            Ok(Moved::Some(_)) => self.used = Instant::now(),
            Ok(Moved::Blocked) => {}
            Ok(Moved::End) | Err(_) => self.gone = true,
        }
    }

    /// Sends what the socket takes.
    pub fn flush(&mut self) {
        loop {
            let unsent = self.socket.has_unsent();
            match self.socket.flush().and_then(|()| self.out.flush(&mut self.socket)) {
                Ok(0) if unsent == self.socket.has_unsent() => {}
                Ok(_) => self.used = Instant::now(),
                Err(_) => {
                    self.gone = true;
                    return;
                }
            }
            self.choked &= !self.out.is_empty();
            if self.wire.settle(&mut self.out) || !self.out.is_empty() {
                return;
            }
        }
    }

    /// Lets `source` put bytes into a frame.
    pub fn relay(&mut self, id: StreamId, source: &mut Source<'_>) -> io::Result<Moved> {
        self.wire.relay(id, &mut self.out, source)
    }

    /// The bytes of a data event were used.
    pub fn took(&mut self, n: usize) {
        self.wire.took(&mut self.input, &mut self.out, n);
    }

    /// Blocks until everything is sent; for what a client must hear.
    ///
    /// # Errors
    /// It went away, or took none of it for `patience`, or we are to stop.
    pub fn flush_all(&mut self, stop: &EventFd, patience: Duration) -> Result<()> {
        let mut poll = Poll::new();
        loop {
            self.flush();
            if self.gone {
                return Err(Error::new(Kind::Canceled, "the client went away"));
            }
            if self.out.is_empty() && !self.socket.has_unsent() {
                return Ok(());
            }
            self.wait(&mut poll, stop, false, Some(self.used + patience))?;
        }
    }

    /// Sends, and reads more once. Blocks until there is more, at most until `deadline`.
    ///
    /// # Errors
    /// As [`Link::flush_all`].
    pub fn wait_for_client(&mut self, stop: &EventFd, deadline: Instant) -> Result<()> {
        let mut poll = Poll::new();
        self.flush();
        loop {
            poll.clear();
            let stopped = poll.add(stop, true, false);
            let at = self.add_to(&mut poll, true);
            poll.wait(Some(deadline)).context("wait for a client")?;
            if poll.readable(stopped) {
                return Err(Error::new(Kind::Unavailable, "cricket is shutting down"));
            }
            let (before, choked) = (self.input.data().len(), self.choked);
            self.moved(&poll, at, true);
            if self.gone {
                return Err(Error::new(Kind::Canceled, "the client went away"));
            }
            if self.input.data().len() > before || (choked && !self.choked) {
                return Ok(());
            }
            if deadline <= Instant::now() {
                return Err(Error::new(Kind::DeadlineExceeded, "the client took too long"));
            }
        }
    }

    /// Waits for the socket alone.
    fn wait(&mut self, poll: &mut Poll, stop: &EventFd, reading: bool, deadline: Option<Instant>) -> Result<()> {
        poll.clear();
        let stopped = poll.add(stop, true, false);
        let at = self.add_to(poll, reading);
        poll.wait(deadline).context("wait for a client")?;
        if poll.readable(stopped) {
            return Err(Error::new(Kind::Unavailable, "cricket is shutting down"));
        }
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(Error::new(Kind::DeadlineExceeded, "the client does not read"));
        }
        // Only sending: that the client sends nothing more is not its end.
        if !reading && poll.hung_up(at) && !poll.writable(at) {
            self.gone = true;
        }
        Ok(())
    }

    /// Sends what is left and ends the connection so that the client reads all of it: a socket closed with unread bytes
    /// would throw away what is still on its way.
    pub fn close(mut self, stop: &EventFd) {
        let patience = if self.gone { Duration::ZERO } else { FAREWELL };
        if self.flush_all(stop, patience).is_err() || self.socket.end().is_err() {
            return;
        }
        let deadline = Some(Instant::now() + FAREWELL);
        let mut poll = Poll::new();
        let mut rest = [0; 4096];
        self.choked = false;
        while self.wait(&mut poll, stop, true, deadline).is_ok() {
            loop {
                match read(&mut self.socket, &mut rest) {
                    Ok(Moved::Some(_)) => {}
                    Ok(Moved::Blocked) => break,
                    Ok(Moved::End) | Err(_) => return,
                }
            }
        }
    }
}
