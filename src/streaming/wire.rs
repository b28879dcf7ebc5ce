//! What SPDY and WebSocket have in common: streams of bytes, many on one connection, both ways.
//!
//! A wire has no socket. It understands what is in the incoming buffer and writes frames into the outgoing one; whoever
//! has the socket fills the first and flushes the second.

use std::io;

use super::buffer::{Buffer, Moved};
use crate::error::Result;

/// The number of a stream: SPDY's, or the channel of a WebSocket.
pub type StreamId = u32;

/// Room that is kept in the outgoing buffer for answers of the wire itself.
pub const RESERVE: usize = 4 << 10;
/// Less room than that is not worth a read.
const WORTHWHILE: usize = 8 << 10;

/// What the client says next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing more is in the incoming buffer.
    Starved,
    /// An answer does not fit into the outgoing buffer: flush first.
    Blocked,
    /// A stream begins; nothing is answered yet.
    Open(StreamId, Vec<(String, String)>),
    /// Bytes for this stream: [`Wire::body`].
    Data(StreamId),
    /// The client sends nothing more on this stream.
    Ended(StreamId),
    /// The client wants to hear nothing more of this stream, and sends nothing more.
    Reset(StreamId),
    /// The client ends the connection in an orderly way.
    Goodbye,
}

/// One end of a connection with many streams.
pub trait Wire: Send {
    /// Goes on in the incoming buffer. With [`Next::Data`] it stays where it is until the bytes are taken.
    ///
    /// # Errors
    /// The client broke the protocol: the connection is of no more use.
    fn next(&mut self, input: &mut Buffer, out: &mut Buffer) -> Result<Next>;

    /// The bytes that [`Next::Data`] spoke of, as far as they are here. Never empty.
    fn body<'a>(&'a self, input: &'a Buffer) -> &'a [u8];

    /// The first `n` bytes of the body were used.
    fn took(&mut self, input: &mut Buffer, out: &mut Buffer, n: usize);

    /// Where streams are there from the start: tells the client so with an empty message for this one.
    fn hello(&self, _: StreamId, _: &mut Buffer) {}

    /// Says yes to a stream of [`Next::Open`].
    fn accept(&mut self, id: StreamId, out: &mut Buffer);

    /// Lets `source` put bytes straight into a frame of stream `id`. Blocked, without a call of `source`, when there is no
    /// room or the client does not want more now.
    fn relay(&mut self, id: StreamId, out: &mut Buffer, source: &mut Source<'_>) -> io::Result<Moved>;

    /// We send nothing more on this stream.
    fn end(&mut self, id: StreamId, out: &mut Buffer);

    /// We neither send nor want to hear anything more of this stream.
    fn reset(&mut self, id: StreamId, out: &mut Buffer);

    /// The last frame of the connection.
    fn goodbye(&mut self, out: &mut Buffer);

    /// Puts what the wire itself still holds into the outgoing buffer; whether nothing is left. After every flush.
    fn settle(&mut self, _: &mut Buffer) -> bool {
        true
    }
}

/// Fills a piece of memory.
pub type Source<'a> = dyn FnMut(&mut [u8]) -> io::Result<Moved> + 'a;

/// Sends as many of `bytes` as are possible now; returns how many.
pub fn send(wire: &mut dyn Wire, id: StreamId, out: &mut Buffer, bytes: &[u8]) -> usize {
    let mut sent = 0;
    while sent < bytes.len() {
        let mut copy = |into: &mut [u8]| {
            let n = into.len().min(bytes.len() - sent);
            into[..n].copy_from_slice(&bytes[sent..sent + n]);
            Ok(Moved::Some(n))
        };
        match wire.relay(id, out, &mut copy) {
            Ok(Moved::Some(n)) => sent += n,
            // Copying has no errors.
            Ok(Moved::Blocked | Moved::End) | Err(_) => break,
        }
    }
    sent
}

/// The frame of a binary protocol: reads at most `most` bytes behind `place` bytes for a header, which `head` writes when
/// the length is known. Only the header of a short payload may be shorter than its place.
pub fn frame(
    out: &mut Buffer,
    place: usize,
    most: usize,
    source: &mut Source<'_>,
    head: impl FnOnce(usize, &mut [u8]) -> usize,
) -> io::Result<Moved> {
    if most == 0 || out.tail() < RESERVE + WORTHWHILE {
        return Ok(Moved::Blocked);
    }
    let room = (out.tail() - RESERVE - place).min(most);
    let space = out.space();
    let moved = source(&mut space[place..place + room])?;
    let Moved::Some(n) = moved else { return Ok(moved) };
    let used = head(n, &mut space[..place]);
    if used < place {
        space.copy_within(place..place + n, used);
    }
    out.commit(used + n);
    Ok(moved)
}
