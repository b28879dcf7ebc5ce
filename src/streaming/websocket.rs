//! The WebSocket protocol (RFC 6455), the server's side, and the channels that Kubernetes puts into its messages.
//!
//! A message is never kept: its bytes are unmasked where they are and used as they come, whatever its length and
//! fragments. The first byte of a message is its channel.

use std::io;

use super::base64::{self, Decoder};
use super::buffer::{Buffer, Moved};
use super::wire::{self, Next, Source, StreamId, Wire, RESERVE};
use crate::error::{Error, Result};

/// The channel of v5 whose messages say that another one is closed.
const CLOSED: u8 = 255;
/// The longest payload of a message that we send: its length then fits into two bytes.
const MAX_DATA: usize = 65_534;
/// The same where it becomes a third longer.
const MAX_BASE64: usize = 12 << 10;
/// Opcode and length for the long form, and the channel.
const HEAD: usize = 5;
/// The longest payload whose length is one byte.
const SHORT: usize = 125;
/// The greatest answer: a pong.
const MAX_ANSWER: usize = 2 + SHORT;

mod opcode {
    pub(super) const CONTINUATION: u8 = 0;
    pub(super) const TEXT: u8 = 1;
    pub(super) const BINARY: u8 = 2;
    pub(super) const CLOSE: u8 = 8;
    pub(super) const PING: u8 = 9;
    pub(super) const PONG: u8 = 10;
}

/// What the messages of a connection hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// The channel's number and bytes. With v5 a channel can be closed.
    Channels {
        /// It is v5.
        closing: bool,
    },
    /// The channel's digit and base64.
    Base64,
    /// One stream of bytes, number 0; its messages mean nothing.
    Plain,
}

/// One connection.
pub struct WebSocket {
    content: Content,
    /// The frame of a message that we are in.
    body: Option<Body>,
    /// What the message that we are in is for.
    message: Option<Message>,
    decoder: Decoder,
    /// Decoded base64, and how much of it was taken.
    decoded: Vec<u8>,
    taken: usize,
    goodbye: bool,
}

#[derive(Debug)]
struct Body {
    left: u64,
    last: bool,
    mask: [u8; 4],
    /// Bytes at the front of the incoming buffer that are unmasked already.
    clear: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Message {
    /// Its first byte was not seen yet.
    Begun,
    /// Bytes for this channel.
    For(u8),
    /// The number of a channel that is closed.
    Closing,
}

impl WebSocket {
    /// A connection after its handshake.
    pub fn new(content: Content) -> WebSocket {
        WebSocket {
            content,
            body: None,
            message: None,
            decoder: Decoder::default(),
            decoded: Vec::new(),
            taken: 0,
            goodbye: false,
        }
    }

    /// Bytes of a message are in the incoming buffer: unmasks them and finds out what they are for. `None`: nothing to tell.
    fn message(&mut self, input: &mut Buffer) -> Result<Option<Next>> {
        let body = self.body.as_mut().expect("only called within a frame");
        let here = usize::try_from(body.left).unwrap_or(usize::MAX).min(input.data().len());
        if here == 0 {
            return Ok(Some(Next::Starved));
        }
        unmask(&mut input.data_mut()[body.clear..here], &mut body.mask);
        body.clear = here;
        match self.message {
            Some(Message::Begun) => {
                let first = input.data()[0];
                self.message = Some(match (self.content, first) {
                    (Content::Plain, _) => Message::For(0),
                    (Content::Channels { closing: true }, CLOSED) => Message::Closing,
                    (Content::Base64, digit) => Message::For(digit.wrapping_sub(b'0')),
                    (Content::Channels { .. }, channel) => Message::For(channel),
                });
                if self.content != Content::Plain {
                    self.take(input, 1);
                }
                Ok(None)
            }
            Some(Message::Closing) => {
                let id = input.data()[0];
                self.take(input, 1);
                Ok(Some(Next::Ended(id.into())))
            }
            Some(Message::For(channel)) if self.content == Content::Base64 => {
                (self.decoded, self.taken) = (Vec::new(), 0);
                self.decoder.decode(&input.data()[..here], &mut self.decoded);
                self.take(input, here);
                Ok((!self.decoded.is_empty()).then_some(Next::Data(channel.into())))
            }
            Some(Message::For(channel)) => Ok(Some(Next::Data(channel.into()))),
            None => Err(Error::internal("a frame without a message")),
        }
    }

    fn take(&mut self, input: &mut Buffer, n: usize) {
        if let Some(body) = &mut self.body {
            body.left -= n as u64;
            body.clear -= n;
        }
        input.consume(n);
    }

    /// The head of the next frame, and the whole frame if it is a control frame.
    fn frame(&mut self, input: &mut Buffer, out: &mut Buffer) -> Result<Option<Next>> {
        let Some(head) = Head::read(input.data())? else { return Ok(Some(Next::Starved)) };
        if head.opcode >= opcode::CLOSE {
            return self.control(&head, input, out);
        }
        match (head.opcode, self.message) {
            (opcode::CONTINUATION, Some(_)) => {}
            (opcode::TEXT | opcode::BINARY, None) => self.message = Some(Message::Begun),
            (opcode, _) => return Err(broken(&format!("a frame of kind {opcode} at the wrong place"))),
        }
        input.consume(head.size);
        self.body = Some(Body { left: head.length, last: head.last, mask: head.mask, clear: 0 });
        Ok(None)
    }

    fn control(&mut self, head: &Head, input: &mut Buffer, out: &mut Buffer) -> Result<Option<Next>> {
        if !head.last || head.length > SHORT as u64 {
            return Err(broken("a control frame that is too long or in pieces"));
        }
        let end = head.size + head.length as usize;
        let Some(payload) = input.data().get(head.size..end) else { return Ok(Some(Next::Starved)) };
        let mut payload = payload.to_vec();
        unmask(&mut payload, &mut { head.mask });
        input.consume(end);
        match head.opcode {
            opcode::PING => {
                out.push(&[0x80 | opcode::PONG, payload.len() as u8]);
                out.push(&payload);
                Ok(None)
            }
            opcode::PONG => Ok(None),
            opcode::CLOSE => {
                self.goodbye(out);
                Ok(Some(Next::Goodbye))
            }
            opcode => Err(broken(&format!("a frame of kind {opcode}"))),
        }
    }

    fn relay_base64(&self, id: StreamId, out: &mut Buffer, source: &mut Source<'_>) -> io::Result<Moved> {
        if out.tail() < RESERVE + MAX_BASE64 * 4 / 3 + 16 {
            return Ok(Moved::Blocked);
        }
        let mut plain = [0; MAX_BASE64];
        let moved = source(&mut plain)?;
        let Moved::Some(n) = moved else { return Ok(moved) };
        let mut text = vec![b'0' + id as u8];
        base64::encode(&plain[..n], &mut text);
        let mut head = [0; HEAD];
        let used = head_of(opcode::TEXT, text.len(), &mut head);
        out.push(&head[..used]);
        out.push(&text);
        Ok(moved)
    }
}

impl Wire for WebSocket {
    fn next(&mut self, input: &mut Buffer, out: &mut Buffer) -> Result<Next> {
        loop {
            if let (true, Some(Message::For(channel))) = (self.taken < self.decoded.len(), &self.message) {
                return Ok(Next::Data((*channel).into()));
            }
            self.decoder.check()?;
            if out.free() < MAX_ANSWER.max(RESERVE / 2) {
                return Ok(Next::Blocked);
            }
            let next = match &self.body {
                Some(Body { left: 0, last, .. }) => {
                    if *last {
                        self.message = None;
                        self.decoder.finish()?;
                    }
                    self.body = None;
                    None
                }
                Some(_) => self.message(input)?,
                None => self.frame(input, out)?,
            };
            if let Some(next) = next {
                return Ok(next);
            }
        }
    }

    fn body<'a>(&'a self, input: &'a Buffer) -> &'a [u8] {
        match self.content {
            Content::Base64 => &self.decoded[self.taken..],
            _ => &input.data()[..self.body.as_ref().map_or(0, |body| body.clear)],
        }
    }

    fn took(&mut self, input: &mut Buffer, _: &mut Buffer, n: usize) {
        match self.content {
            Content::Base64 => self.taken += n,
            _ => self.take(input, n),
        }
    }

    fn hello(&self, id: StreamId, out: &mut Buffer) {
        match self.content {
            Content::Channels { .. } => out.push(&[0x80 | opcode::BINARY, 1, id as u8]),
            Content::Base64 => out.push(&[0x80 | opcode::TEXT, 1, b'0' + id as u8]),
            Content::Plain => {}
        }
    }

    /// Channels need no answer.
    fn accept(&mut self, _: StreamId, _: &mut Buffer) {}

    fn relay(&mut self, id: StreamId, out: &mut Buffer, source: &mut Source<'_>) -> io::Result<Moved> {
        match self.content {
            Content::Base64 => self.relay_base64(id, out, source),
            Content::Plain => wire::frame(out, HEAD - 1, MAX_DATA, source, |n, head| head_of(opcode::BINARY, n, head)),
            Content::Channels { .. } => wire::frame(out, HEAD, MAX_DATA, source, |n, head| {
                let used = head_of(opcode::BINARY, n + 1, head);
                head[used] = id as u8;
                used + 1
            }),
        }
    }

    /// A channel ends with its connection. v5 could say it, but has it only for clients.
    fn end(&mut self, _: StreamId, _: &mut Buffer) {}

    fn reset(&mut self, _: StreamId, _: &mut Buffer) {}

    fn goodbye(&mut self, out: &mut Buffer) {
        if !std::mem::replace(&mut self.goodbye, true) {
            // 1000: a normal closure.
            out.push(&[0x80 | opcode::CLOSE, 2, 0x03, 0xe8]);
        }
    }
}

/// The head of a client's frame.
struct Head {
    last: bool,
    opcode: u8,
    length: u64,
    mask: [u8; 4],
    /// How many bytes it takes.
    size: usize,
}

impl Head {
    /// Reads it; `None` while it is not complete.
    fn read(bytes: &[u8]) -> Result<Option<Head>> {
        let &[first, second, ref rest @ ..] = bytes else { return Ok(None) };
        if first & 0x70 != 0 {
            return Err(broken("a frame uses an extension that was not agreed on"));
        }
        if second & 0x80 == 0 {
            return Err(broken("a client's frame is not masked"));
        }
        let more = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let Some((number, rest)) = rest.split_at_checked(more) else { return Ok(None) };
        let Some(mask) = rest.first_chunk::<4>() else { return Ok(None) };
        let length = match more {
            0 => u64::from(second & 0x7f),
            _ => number.iter().fold(0, |n, byte| n << 8 | u64::from(*byte)),
        };
        if length >> 63 != 0 || (more == 2 && length <= SHORT as u64) || (more == 8 && length <= 0xffff) {
            return Err(broken("a frame's length is not written as it must be"));
        }
        Ok(Some(Head { last: first & 0x80 != 0, opcode: first & 0x0f, length, mask: *mask, size: 2 + more + 4 }))
    }
}

/// Writes the head of our frame; returns its length.
fn head_of(opcode: u8, length: usize, head: &mut [u8]) -> usize {
    head[0] = 0x80 | opcode;
    if length <= SHORT {
        head[1] = length as u8;
        return 2;
    }
    head[1] = 126;
    head[2..4].copy_from_slice(&(length as u16).to_be_bytes());
    4
}

/// Takes the mask off; it is left turned to where the next byte goes on.
fn unmask(bytes: &mut [u8], mask: &mut [u8; 4]) {
    let eight = u64::from_ne_bytes([mask[0], mask[1], mask[2], mask[3], mask[0], mask[1], mask[2], mask[3]]);
    let mut words = bytes.chunks_exact_mut(8);
    for word in &mut words {
        if let Ok(bytes) = <&mut [u8; 8]>::try_from(word) {
            *bytes = (u64::from_ne_bytes(*bytes) ^ eight).to_ne_bytes();
        }
    }
    let rest = words.into_remainder();
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
    mask.rotate_left(rest.len() % 4);
}

fn broken(why: &str) -> Error {
    Error::invalid(format!("WebSocket: {why}"))
}

#[cfg(test)]
mod tests;
