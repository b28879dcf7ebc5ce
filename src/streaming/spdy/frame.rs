//! Frames of SPDY/3.1: their heads, read and written.

use crate::error::{Error, Result};

/// The head of every frame.
pub const HEAD: usize = 8;
/// The longest control frame that is accepted. Those of a remote command have some sixty bytes.
pub const MAX_CONTROL: usize = 16 << 10;

const VERSION: u16 = 3;
const CONTROL: u32 = 1 << 31;

/// Numbers of control frames.
pub mod kind {
    #![allow(missing_docs, reason = "the specification's names")]
    pub const SYN_STREAM: u16 = 1;
    pub const SYN_REPLY: u16 = 2;
    pub const RST_STREAM: u16 = 3;
    pub const SETTINGS: u16 = 4;
    pub const PING: u16 = 6;
    pub const GOAWAY: u16 = 7;
    pub const HEADERS: u16 = 8;
    pub const WINDOW_UPDATE: u16 = 9;
}

/// Why a stream is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Its use breaks the protocol.
    Protocol = 1,
    /// It is not open.
    Invalid = 2,
    /// We do not want it.
    Refused = 3,
    /// We want nothing more of it.
    Cancel = 5,
    /// Its window became too great.
    FlowControl = 7,
    /// It was used again.
    InUse = 8,
    /// The client had ended it.
    AlreadyClosed = 9,
}

/// The last frame of its sender on this stream.
pub const FIN: u8 = 1;
/// The receiver must not answer.
pub const UNIDIRECTIONAL: u8 = 2;
/// Of SETTINGS: the window of streams that begin from now on.
pub const INITIAL_WINDOW: u32 = 7;

/// The first eight bytes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// A control frame: its kind, flags and length.
    Control(u16, u8, usize),
    /// Data: its stream, flags and length.
    Data(u32, u8, usize),
}

impl Head {
    /// Reads it.
    ///
    /// # Errors
    /// Another version, a control frame that is too long, a stream 0.
    pub fn read(bytes: [u8; HEAD]) -> Result<Head> {
        let [a, b] = [[bytes[0], bytes[1], bytes[2], bytes[3]], [0, bytes[5], bytes[6], bytes[7]]];
        let (first, length, flags) = (u32::from_be_bytes(a), u32::from_be_bytes(b) as usize, bytes[4]);
        if first & CONTROL == 0 {
            return match first {
                0 => Err(Error::invalid("SPDY: data for stream 0")),
                id => Ok(Head::Data(id, flags, length)),
            };
        }
        let (version, kind) = ((first >> 16) as u16 & 0x7fff, first as u16);
        if version != VERSION {
            return Err(Error::invalid(format!("SPDY: version {version} instead of 3")));
        }
        if length > MAX_CONTROL {
            return Err(Error::invalid(format!("SPDY: a control frame of {length} bytes")));
        }
        Ok(Head::Control(kind, flags, length))
    }

    /// Writes it.
    pub fn write(self) -> [u8; HEAD] {
        let (first, flags, length) = match self {
            Head::Control(kind, flags, length) => (CONTROL | u32::from(VERSION) << 16 | u32::from(kind), flags, length),
            Head::Data(id, flags, length) => (id, flags, length),
        };
        let [a, b, c, d] = first.to_be_bytes();
        let [_, e, f, g] = (length as u32).to_be_bytes();
        [a, b, c, d, flags, e, f, g]
    }
}

/// A control frame whose body is numbers.
pub fn numbers<const N: usize>(kind: u16, body: [u32; N]) -> Vec<u8> {
    let mut frame = Head::Control(kind, 0, 4 * N).write().to_vec();
    frame.extend(body.iter().flat_map(|n| n.to_be_bytes()));
    frame
}

/// The numbers of a body that is nothing else.
///
/// # Errors
/// Another length.
pub fn read_numbers<const N: usize>(body: &[u8]) -> Result<[u32; N]> {
    let mut all = [0; N];
    if body.len() != 4 * N {
        return Err(Error::invalid(format!("SPDY: a body of {} bytes instead of {}", body.len(), 4 * N)));
    }
    for (number, bytes) in all.iter_mut().zip(body.chunks_exact(4)) {
        *number = bytes.iter().fold(0, |n, byte| n << 8 | u32::from(*byte));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_as_they_are_written() {
        for head in [Head::Control(kind::PING, 0, 4), Head::Data(7, FIN, (1 << 24) - 1), Head::Data(1 << 30, 0, 0)] {
            assert_eq!(Head::read(head.write()).unwrap(), head);
        }
        assert_eq!(Head::Control(kind::SYN_STREAM, 1, 12).write(), [0x80, 3, 0, 1, 1, 0, 0, 12]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for head in [[0; 8], [0x80, 2, 0, 1, 0, 0, 0, 0], [0x80, 3, 0, 1, 0, 1, 0, 0]] {
            assert!(Head::read(head).is_err(), "{head:?}");
        }
        assert!(read_numbers::<2>(&[0; 4]).is_err());
        assert_eq!(read_numbers::<1>(&[0, 0, 1, 2]).unwrap(), [258]);
    }
}
