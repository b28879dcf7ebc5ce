//! SPDY/3.1, as far as one side needs it that never begins a stream: all frames, flow control, header compression.
//!
//! What clients send is taken as fast as it is used; the window that we grant is renewed by the half. Go's clients
//! neither look at windows nor renew ours, so it binds us only once a client has sent a SETTINGS of it, or WINDOW_UPDATE.

mod dictionary;
pub mod frame;
pub mod headers;

use std::collections::BTreeMap;
use std::io;

use super::buffer::{Buffer, Moved};
use super::wire::{self, Next, Source, StreamId, Wire, RESERVE};
use crate::error::{Error, Result};
use frame::{kind, numbers, read_numbers, Head, Reason, FIN, HEAD, INITIAL_WINDOW, UNIDIRECTIONAL};

/// What a window is before anybody says otherwise.
const DEFAULT_WINDOW: i64 = 64 << 10;
/// The window that we grant, for each stream and for all together: what a client may have under way, not what we keep.
const OUR_WINDOW: u32 = 1 << 20;
/// The longest payload of a frame that we send.
const MAX_DATA: usize = 64 << 10;
/// Streams at the same time; more are refused.
const MAX_STREAMS: usize = 1024;
/// The greatest answer to a frame.
const MAX_ANSWER: usize = 64;

/// One connection.
pub struct Spdy {
    reader: headers::Reader,
    writer: headers::Writer,
    streams: BTreeMap<StreamId, Stream>,
    last_id: StreamId,
    body: Option<Body>,
    /// SETTINGS and the connection's window were sent.
    greeted: bool,
    /// The client renews windows.
    renews: bool,
    initial_window: i64,
    window: i64,
    /// Taken since the connection's window was renewed.
    taken: u32,
    goodbye: bool,
}

#[derive(Debug)]
struct Stream {
    /// The client sends nothing more.
    ended: bool,
    /// Nor do we.
    finished: bool,
    window: i64,
    taken: u32,
}

/// A data frame in the middle.
#[derive(Debug)]
struct Body {
    id: StreamId,
    left: usize,
    fin: bool,
    /// Nobody wants it.
    dropped: bool,
}

impl Spdy {
    fn greet(&mut self, out: &mut Buffer) {
        if !std::mem::replace(&mut self.greeted, true) {
            out.push(&numbers(kind::SETTINGS, [1, INITIAL_WINDOW, OUR_WINDOW]));
            out.push(&numbers(kind::WINDOW_UPDATE, [0, OUR_WINDOW - DEFAULT_WINDOW as u32]));
        }
    }

    /// A whole control frame.
    fn control(&mut self, which: u16, flags: u8, body: &[u8], out: &mut Buffer) -> Result<Option<Next>> {
        match which {
            kind::SYN_STREAM => self.open(flags, body, out),
            kind::SYN_REPLY | kind::HEADERS => {
                // Unused, but the next block builds on it.
                let block = body.get(4..).ok_or_else(|| Error::invalid("SPDY: a frame without its stream"))?;
                self.reader.read(block)?;
                let id = read_numbers::<1>(&body[..4])?[0];
                Ok(if flags & FIN != 0 { self.end_of(id) } else { None })
            }
            kind::RST_STREAM => {
                let [id, _] = read_numbers(body)?;
                Ok(self.streams.remove(&id).map(|_| Next::Reset(id)))
            }
            kind::SETTINGS => self.settings(body).map(|()| None),
            kind::PING => {
                let [id] = read_numbers(body)?;
                // Even ones would be our own.
                if id % 2 == 1 {
                    out.push(&numbers(kind::PING, [id]));
                }
                Ok(None)
            }
            kind::GOAWAY => {
                self.goodbye = true;
                Ok(Some(Next::Goodbye))
            }
            kind::WINDOW_UPDATE => {
                let [id, more] = read_numbers(body)?;
                Ok(self.renew(id & !(1 << 31), more & !(1 << 31), out))
            }
            _ => Ok(None),
        }
    }

    fn open(&mut self, flags: u8, body: &[u8], out: &mut Buffer) -> Result<Option<Next>> {
        let Some((fixed, block)) = body.split_at_checked(10) else {
            return Err(Error::invalid("SPDY: a SYN_STREAM that is cut short"));
        };
        let headers = self.reader.read(block)?;
        let id = read_numbers::<1>(&fixed[..4])?[0] & !(1 << 31);
        if id % 2 == 0 || id <= self.last_id {
            return match self.streams.contains_key(&id) {
                true => {
                    self.streams.remove(&id);
                    self.say_reset(id, Reason::InUse, out);
                    Ok(Some(Next::Reset(id)))
                }
                false => Err(Error::invalid(format!("SPDY: stream {id} after stream {}", self.last_id))),
            };
        }
        self.last_id = id;
        if self.streams.len() >= MAX_STREAMS || flags & UNIDIRECTIONAL != 0 || self.goodbye {
            self.say_reset(id, Reason::Refused, out);
            return Ok(None);
        }
        self.streams.insert(id, Stream { ended: false, finished: false, window: self.initial_window, taken: 0 });
        // One that begins with its end is as one whose first frame is empty and the last.
        self.body = (flags & FIN != 0).then_some(Body { id, left: 0, fin: true, dropped: false });
        Ok(Some(Next::Open(id, headers)))
    }

    fn settings(&mut self, body: &[u8]) -> Result<()> {
        let Some((count, entries)) = body.split_first_chunk::<4>() else {
            return Err(Error::invalid("SPDY: SETTINGS that are cut short"));
        };
        if entries.len() != (u32::from_be_bytes(*count) as usize).saturating_mul(8) {
            return Err(Error::invalid("SPDY: SETTINGS of another length than they say"));
        }
        for entry in entries.chunks_exact(8) {
            let [setting, value] = read_numbers(entry)?;
            if setting & 0x00ff_ffff == INITIAL_WINDOW {
                let window = i64::from(value & !(1 << 31));
                let change = window - self.initial_window;
                (self.initial_window, self.renews) = (window, true);
                self.streams.values_mut().for_each(|stream| stream.window += change);
            }
        }
        Ok(())
    }

    fn renew(&mut self, id: StreamId, more: u32, out: &mut Buffer) -> Option<Next> {
        self.renews = true;
        let window = match id {
            0 => Some(&mut self.window),
            _ => self.streams.get_mut(&id).map(|stream| &mut stream.window),
        }?;
        *window += i64::from(more);
        if *window <= i64::from(i32::MAX) || id == 0 {
            return None;
        }
        self.streams.remove(&id);
        self.say_reset(id, Reason::FlowControl, out);
        Some(Next::Reset(id))
    }

    /// The head of a data frame: who wants it?
    fn data(&mut self, id: StreamId, flags: u8, length: usize, out: &mut Buffer) {
        let wrong = match self.streams.get(&id) {
            Some(stream) if stream.ended => Some(Reason::AlreadyClosed),
            Some(_) => None,
            // It may have been under way when we reset the stream.
            None if id <= self.last_id => None,
            None => Some(Reason::Invalid),
        };
        if let Some(reason) = wrong {
            self.say_reset(id, reason, out);
        }
        let dropped = wrong.is_some() || !self.streams.contains_key(&id);
        self.body = Some(Body { id, left: length, fin: flags & FIN != 0, dropped });
    }

    fn end_of(&mut self, id: StreamId) -> Option<Next> {
        let stream = self.streams.get_mut(&id)?;
        if std::mem::replace(&mut stream.ended, true) {
            return None;
        }
        if stream.finished {
            self.streams.remove(&id);
        }
        Some(Next::Ended(id))
    }

    fn say_reset(&self, id: StreamId, reason: Reason, out: &mut Buffer) {
        out.push(&numbers(kind::RST_STREAM, [id, reason as u32]));
    }

    /// Renews windows of which half is used up.
    fn credit(&mut self, id: StreamId, n: usize, out: &mut Buffer) {
        let n = n as u32;
        self.taken += n;
        if out.free() < 2 * MAX_ANSWER {
            return;
        }
        if self.taken >= OUR_WINDOW / 2 {
            out.push(&numbers(kind::WINDOW_UPDATE, [0, std::mem::take(&mut self.taken)]));
        }
        if let Some(stream) = self.streams.get_mut(&id).filter(|stream| !stream.ended) {
            stream.taken += n;
            if stream.taken >= OUR_WINDOW / 2 {
                out.push(&numbers(kind::WINDOW_UPDATE, [id, std::mem::take(&mut stream.taken)]));
            }
        }
    }

    /// How much the client wants to have now on this stream.
    fn quota(&self, stream: &Stream) -> usize {
        match self.renews {
            true => usize::try_from(stream.window.min(self.window)).unwrap_or(0).min(MAX_DATA),
            false => MAX_DATA,
        }
    }
}

impl Default for Spdy {
    /// A connection on which nothing was said yet.
    fn default() -> Self {
        let (reader, writer, streams) = (headers::Reader::new(), headers::Writer::default(), BTreeMap::new());
        let (initial_window, window) = (DEFAULT_WINDOW, DEFAULT_WINDOW);
        let (greeted, renews, goodbye) = (false, false, false);
        let (last_id, taken, body) = (0, 0, None);
        Spdy { reader, writer, streams, last_id, body, greeted, renews, initial_window, window, taken, goodbye }
    }
}

impl Wire for Spdy {
    fn next(&mut self, input: &mut Buffer, out: &mut Buffer) -> Result<Next> {
        loop {
            if out.free() < MAX_ANSWER.max(RESERVE / 2) {
                return Ok(Next::Blocked);
            }
            self.greet(out);
            if let Some(body) = &mut self.body {
                if body.left == 0 {
                    let (id, fin) = (body.id, body.fin && !body.dropped);
                    self.body = None;
                    match fin.then(|| self.end_of(id)).flatten() {
                        Some(next) => return Ok(next),
                        None => continue,
                    }
                }
                if input.is_empty() {
                    return Ok(Next::Starved);
                }
                if body.dropped || !self.streams.contains_key(&body.id) {
                    body.dropped = true;
                    let (id, n) = (body.id, body.left.min(input.data().len()));
                    body.left -= n;
                    input.consume(n);
                    self.credit(id, n, out);
                    continue;
                }
                return Ok(Next::Data(body.id));
            }
            let Some(head) = input.data().first_chunk::<HEAD>() else { return Ok(Next::Starved) };
            match Head::read(*head)? {
                Head::Data(id, flags, length) => {
                    input.consume(HEAD);
                    self.data(id, flags, length, out);
                }
                Head::Control(which, flags, length) => {
                    let Some(body) = input.data().get(HEAD..HEAD + length) else { return Ok(Next::Starved) };
                    let next = self.control(which, flags, body, out)?;
                    input.consume(HEAD + length);
                    if let Some(next) = next {
                        return Ok(next);
                    }
                }
            }
        }
    }

    fn body<'a>(&'a self, input: &'a Buffer) -> &'a [u8] {
        let left = self.body.as_ref().map_or(0, |body| body.left);
        &input.data()[..left.min(input.data().len())]
    }

    fn took(&mut self, input: &mut Buffer, out: &mut Buffer, n: usize) {
        let Some(body) = &mut self.body else { return };
        let n = n.min(body.left);
        body.left -= n;
        let id = body.id;
        input.consume(n);
        self.credit(id, n, out);
    }

    fn accept(&mut self, id: StreamId, out: &mut Buffer) {
        let block = self.writer.empty();
        out.push(&Head::Control(kind::SYN_REPLY, 0, 4 + block.len()).write());
        out.push(&id.to_be_bytes());
        out.push(&block);
    }

    fn relay(&mut self, id: StreamId, out: &mut Buffer, source: &mut Source<'_>) -> io::Result<Moved> {
        let Some(stream) = self.streams.get(&id).filter(|stream| !stream.finished) else { return Ok(Moved::End) };
        let quota = self.quota(stream);
        let moved = wire::frame(out, HEAD, quota, source, |n, head| {
            head.copy_from_slice(&Head::Data(id, 0, n).write());
            HEAD
        })?;
        if let (Moved::Some(n), Some(stream)) = (moved, self.streams.get_mut(&id)) {
            stream.window -= n as i64;
            self.window -= n as i64;
        }
        Ok(moved)
    }

    fn end(&mut self, id: StreamId, out: &mut Buffer) {
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| !stream.finished) else { return };
        stream.finished = true;
        if stream.ended {
            self.streams.remove(&id);
        }
        out.push(&Head::Data(id, FIN, 0).write());
    }

    fn reset(&mut self, id: StreamId, out: &mut Buffer) {
        if self.streams.remove(&id).is_some() {
            self.say_reset(id, Reason::Cancel, out);
        }
    }

    fn goodbye(&mut self, out: &mut Buffer) {
        out.push(&numbers(kind::GOAWAY, [self.last_id, 0]));
    }
}

#[cfg(test)]
mod tests;
