//! The two buffers of a connection: what came in and is not used yet, what goes out and is not taken yet.
//!
//! Payloads are read into the outgoing one behind the place for their header, and used straight from the incoming one: no
//! byte of them is copied in our process.

use std::io::{self, ErrorKind, Read, Write};

/// A fixed amount of memory that is filled at one end and emptied at the other.
pub struct Buffer {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

/// How an attempt to move bytes went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// So many, more than none.
    Some(usize),
    /// None now: the other side is not ready, or there is no room.
    Blocked,
    /// None ever again.
    End,
}

impl Buffer {
    /// Room for so many bytes.
    pub fn new(capacity: usize) -> Buffer {
        Buffer { bytes: vec![0; capacity].into_boxed_slice(), start: 0, end: 0 }
    }

    /// What is in it.
    pub fn data(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// What is in it, to be changed in place.
    pub fn data_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Takes `n` bytes out at the front.
    pub fn consume(&mut self, n: usize) {
        self.start = (self.start + n).min(self.end);
        if self.is_empty() {
            (self.start, self.end) = (0, 0);
        }
    }

    /// How many bytes still fit.
    pub fn free(&self) -> usize {
        self.bytes.len() - (self.end - self.start)
    }

    /// How many bytes still fit without moving those that are there.
    pub fn tail(&self) -> usize {
        self.bytes.len() - self.end
    }

    /// The memory behind what is in it; [`Buffer::commit`] says how much of it was filled.
    pub fn space(&mut self) -> &mut [u8] {
        &mut self.bytes[self.end..]
    }

    /// Adds the first `n` bytes of [`Buffer::space`].
    pub fn commit(&mut self, n: usize) {
        self.end = (self.end + n).min(self.bytes.len());
    }

    /// Adds a few bytes. Whoever uses a buffer leaves room for them; should it not be enough, the buffer grows.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.tail() < bytes.len() {
            self.compact();
        }
        if self.tail() < bytes.len() {
            let mut larger = vec![0; self.end + 2 * bytes.len() + (4 << 10)];
            larger[..self.end].copy_from_slice(self.data());
            self.bytes = larger.into_boxed_slice();
        }
        self.space()[..bytes.len()].copy_from_slice(bytes);
        self.commit(bytes.len());
    }

    fn compact(&mut self) {
        self.bytes.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
    }

    /// Reads once.
    ///
    /// # Errors
    /// Any but "would block" and "interrupted".
    pub fn fill(&mut self, from: &mut impl Read) -> io::Result<Moved> {
        // What is left of the last read is the beginning of a frame: short.
        if self.start > 0 {
            self.compact();
        }
        let moved = read(from, self.space())?;
        if let Moved::Some(n) = moved {
            self.commit(n);
        }
        Ok(moved)
    }

    /// Writes until it is empty, or the other side is not ready.
    ///
    /// # Errors
    /// Any but "would block" and "interrupted".
    pub fn flush(&mut self, to: &mut impl Write) -> io::Result<usize> {
        let mut total = 0;
        while !self.is_empty() {
            match write(to, self.data())? {
                Moved::Some(n) => {
                    self.consume(n);
                    total += n;
                }
                Moved::Blocked | Moved::End => break,
            }
        }
        Ok(total)
    }
}

/// Reads once; no room counts as blocked.
pub fn read(from: &mut impl Read, into: &mut [u8]) -> io::Result<Moved> {
    if into.is_empty() {
        return Ok(Moved::Blocked);
    }
    match from.read(into) {
        Ok(0) => Ok(Moved::End),
        Ok(n) => Ok(Moved::Some(n)),
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(Moved::Blocked),
        Err(e) => Err(e),
    }
}

/// Writes once.
pub fn write(to: &mut impl Write, bytes: &[u8]) -> io::Result<Moved> {
    match to.write(bytes) {
        Ok(0) => Ok(Moved::Blocked),
        Ok(n) => Ok(Moved::Some(n)),
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(Moved::Blocked),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_as_they_went_in() {
        let mut buffer = Buffer::new(8);
        assert_eq!(buffer.fill(&mut &b"abcdef"[..]).unwrap(), Moved::Some(6));
        buffer.consume(4);
        assert_eq!((buffer.data(), buffer.free(), buffer.tail()), (&b"ef"[..], 6, 2));
        buffer.push(b"ghij");
        assert_eq!((buffer.data(), buffer.tail()), (&b"efghij"[..], 2));
        buffer.push(b"klm");
        let mut out = Vec::new();
        assert_eq!(buffer.flush(&mut out).unwrap(), 9);
        assert_eq!((out.as_slice(), buffer.is_empty()), (&b"efghijklm"[..], true));
    }

    #[test]
    fn full_is_blocked_and_the_end_is_an_end() {
        let mut buffer = Buffer::new(2);
        buffer.push(b"ab");
        assert_eq!(buffer.fill(&mut &b"c"[..]).unwrap(), Moved::Blocked);
        buffer.consume(2);
        assert_eq!(buffer.fill(&mut &b""[..]).unwrap(), Moved::End);
    }
}
