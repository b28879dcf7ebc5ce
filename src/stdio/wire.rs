//! What goes over the socket of a container's streams: one kind byte and a payload a message.
//!
//! ```text
//! relay → client   HELLO version                 first of all
//!                  STDOUT bytes, STDERR bytes    of a client that attached
//!                  MISSED u64                    so many bytes of output were dropped: the client was too slow
//!                  DONE [code text]              the answer to ATTACH and REOPEN; with a code and a text, why not
//!                  END                           the streams have ended; the connection is closed
//! client → relay   ATTACH                        output from now on
//!                  STDIN bytes                   for the container
//!                  CLOSE_STDIN                   the container reads the end, whoever else is attached
//!                  REOPEN                        the log, under its path, after it was renamed
//! ```
//! Numbers are little-endian. Both ends may be of different versions of cricket: a kind that one does not know it
//! ignores, and what is said with known kinds never changes.

use crate::error::{Error, Kind};

/// The name of the socket, in the directory of the container's streams.
pub const SOCKET: &str = "stdio.sock";
/// The version of what is said above.
pub const VERSION: u8 = 1;
/// The longest payload.
pub const MOST: usize = 32 << 10;

pub const STDIN: u8 = 0;
pub const STDOUT: u8 = 1;
pub const STDERR: u8 = 2;
pub const HELLO: u8 = b'H';
pub const ATTACH: u8 = b'A';
pub const CLOSE_STDIN: u8 = b'C';
pub const REOPEN: u8 = b'R';
pub const DONE: u8 = b'D';
pub const MISSED: u8 = b'M';
pub const END: u8 = b'E';

/// The payload of DONE for a refusal.
pub fn refusal(e: &Error) -> Vec<u8> {
    let text = e.to_string();
    let text = text.as_bytes();
    [&[e.kind().code()], &text[..text.len().min(MOST - 1)]].concat()
}

/// What the payload of DONE says.
pub fn outcome(payload: &[u8]) -> Result<(), Error> {
    match payload {
        [] => Ok(()),
        [code, text @ ..] => Err(Error::new(Kind::from_code(*code), String::from_utf8_lossy(text))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_keeps_its_kind_and_fits() {
        assert!(outcome(&[]).is_ok());
        let e = outcome(&refusal(&Error::not_found("no log"))).unwrap_err();
        assert_eq!((e.kind(), e.to_string().as_str()), (Kind::NotFound, "no log"));
        assert_eq!(refusal(&Error::internal("x".repeat(MOST))).len(), MOST);
        assert_eq!(outcome(&[200, b'x']).unwrap_err().kind(), Kind::Unknown);
    }
}
