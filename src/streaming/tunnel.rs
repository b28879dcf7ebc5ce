//! SPDY inside the messages of a WebSocket: how newer clients forward ports where no proxy lets SPDY through.

use std::io;

use super::buffer::{Buffer, Moved};
use super::spdy::frame::MAX_CONTROL;
use super::spdy::Spdy;
use super::websocket::{Content, WebSocket};
use super::wire::{self, Next, Source, StreamId, Wire};
use crate::error::Result;

/// Room for the longest control frame and a piece of data.
const INCOMING: usize = 2 * MAX_CONTROL + (32 << 10);
const OUTGOING: usize = 64 << 10;

/// One connection.
pub struct Tunnel {
    outer: WebSocket,
    inner: Spdy,
    input: Buffer,
    out: Buffer,
}

impl Tunnel {
    /// A connection after its handshake.
    pub fn new() -> Tunnel {
        Tunnel {
            outer: WebSocket::new(Content::Plain),
            inner: Spdy::default(),
            input: Buffer::new(INCOMING),
            out: Buffer::new(OUTGOING),
        }
    }

    fn wrap(&mut self, out: &mut Buffer) {
        let sent = wire::send(&mut self.outer, 0, out, self.out.data());
        self.out.consume(sent);
    }
}

impl Default for Tunnel {
    fn default() -> Self {
        Tunnel::new()
    }
}

impl Wire for Tunnel {
    fn next(&mut self, input: &mut Buffer, out: &mut Buffer) -> Result<Next> {
        loop {
            self.wrap(out);
            match self.inner.next(&mut self.input, &mut self.out)? {
                Next::Starved => {}
                next => return Ok(next),
            }
            match self.outer.next(input, out)? {
                Next::Data(_) => {
                    let body = self.outer.body(input);
                    let n = body.len().min(self.input.free());
                    self.input.push(&body[..n]);
                    self.outer.took(input, out, n);
                }
                Next::Starved => {
                    self.wrap(out);
                    return Ok(Next::Starved);
                }
                other @ (Next::Blocked | Next::Goodbye) => return Ok(other),
                Next::Open(..) | Next::Ended(_) | Next::Reset(_) => {}
            }
        }
    }

    fn body<'a>(&'a self, _: &'a Buffer) -> &'a [u8] {
        self.inner.body(&self.input)
    }

    fn took(&mut self, _: &mut Buffer, out: &mut Buffer, n: usize) {
        self.inner.took(&mut self.input, &mut self.out, n);
        self.wrap(out);
    }

    fn accept(&mut self, id: StreamId, out: &mut Buffer) {
        self.inner.accept(id, &mut self.out);
        self.wrap(out);
    }

    fn relay(&mut self, id: StreamId, out: &mut Buffer, source: &mut Source<'_>) -> io::Result<Moved> {
        self.wrap(out);
        if !self.out.is_empty() {
            return Ok(Moved::Blocked);
        }
        let moved = self.inner.relay(id, &mut self.out, source)?;
        self.wrap(out);
        Ok(moved)
    }

    fn end(&mut self, id: StreamId, out: &mut Buffer) {
        self.inner.end(id, &mut self.out);
        self.wrap(out);
    }

    fn reset(&mut self, id: StreamId, out: &mut Buffer) {
        self.inner.reset(id, &mut self.out);
        self.wrap(out);
    }

    fn goodbye(&mut self, out: &mut Buffer) {
        self.inner.goodbye(&mut self.out);
        self.wrap(out);
        if self.out.is_empty() {
            self.outer.goodbye(out);
        }
    }

    fn settle(&mut self, out: &mut Buffer) -> bool {
        self.wrap(out);
        self.out.is_empty()
    }
}
