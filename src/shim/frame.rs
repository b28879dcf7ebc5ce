//! ttrpc's frames: ten bytes of header, then a message. A request in, a response out.
//!
//! Pure: bytes in, bytes out.

use super::wire::{self, Message};
use crate::error::{Error, Kind, Result};

/// Longest message of the protocol.
pub const LIMIT: usize = 4 << 20;
const HEADER: usize = 10;
const REQUEST: u8 = 1;
const RESPONSE: u8 = 2;

/// A frame that has arrived whole.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    /// Odd for calls that the other side begins.
    pub stream: u32,
    /// Request, response or data.
    pub kind: u8,
    /// The message; `None` if it was longer than [`LIMIT`] and was skipped.
    pub message: Option<Vec<u8>>,
}

/// Puts frames together from what arrives in pieces. Keeps at most one frame of at most [`LIMIT`], and nothing between
/// frames.
#[derive(Debug, Default)]
pub struct Frames {
    pending: Vec<u8>,
    /// So many bytes of a frame that is too long are still to come.
    skip: usize,
}

impl Frames {
    /// Takes the next frame out of `input`, which is advanced behind it; `None` when the input is used up.
    pub fn next(&mut self, input: &mut &[u8]) -> Option<Frame> {
        let skipped = self.skip.min(input.len());
        *input = &input[skipped..];
        self.skip -= skipped;
        if self.skip > 0 || !self.fill(input, HEADER) {
            return None;
        }
        let (length, stream, kind) = header(&self.pending);
        if length > LIMIT {
            self.skip = length;
            self.pending = Vec::new();
            return Some(Frame { stream, kind, message: None });
        }
        if !self.fill(input, HEADER + length) {
            return None;
        }
        let message = Some(self.pending.split_off(HEADER));
        self.pending = Vec::new();
        Some(Frame { stream, kind, message })
    }

    /// Whether `pending` is `length` bytes long, after taking from `input` what is missing.
    fn fill(&mut self, input: &mut &[u8], length: usize) -> bool {
        let missing = length.saturating_sub(self.pending.len()).min(input.len());
        self.pending.extend_from_slice(&input[..missing]);
        *input = &input[missing..];
        self.pending.len() >= length
    }
}

fn header(bytes: &[u8]) -> (usize, u32, u8) {
    let word = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    (word(0) as usize, word(4), bytes[8])
}

fn framed(stream: u32, kind: u8, message: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEADER + message.len());
    frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(&[kind, 0]);
    frame.extend_from_slice(message);
    frame
}

/// A call from the other side.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// `package.Service`.
    pub service: String,
    /// Its method.
    pub method: String,
    /// The request message.
    pub payload: Vec<u8>,
    /// How long the caller waits; 0 for ever.
    pub timeout_nanos: u64,
}

impl Frame {
    /// The request in this frame.
    ///
    /// # Errors
    /// `InvalidArgument` for a stream that is none of a client, `ResourceExhausted` for one that was too long.
    pub fn request(&self) -> Result<Request> {
        if self.stream % 2 == 0 {
            return Err(Error::invalid(format!("stream {} is not a client's", self.stream)));
        }
        let Some(message) = &self.message else {
            return Err(Error::new(Kind::ResourceExhausted, format!("a message is longer than {LIMIT} bytes")));
        };
        let mut request = Request::default();
        wire::read(message, |field, value| {
            match field {
                1 => request.service = value.text()?,
                2 => request.method = value.text()?,
                3 => request.payload = value.bytes().to_vec(),
                4 => request.timeout_nanos = value.number(),
                _ => {}
            }
            Ok(())
        })?;
        Ok(request)
    }

    /// Whether this is a request at all: what else there is nobody sends to us, and it is ignored.
    pub fn is_request(&self) -> bool {
        self.kind == REQUEST
    }

    /// What the other side answered to a request of ours.
    pub fn answer(&self) -> Result<()> {
        let (mut code, mut text) = (0, String::new());
        wire::read(self.message.as_deref().unwrap_or_default(), |field, value| match field {
            1 => wire::read(value.bytes(), |field, value| {
                match field {
                    1 => code = value.number(),
                    2 => text = String::from_utf8_lossy(value.bytes()).into_owned(),
                    _ => {}
                }
                Ok(())
            }),
            _ => Ok(()),
        })?;
        match code {
            0 => Ok(()),
            code => Err(Error::new(Kind::Unknown, format!("it was refused with code {code}: {text}"))),
        }
    }
}

/// A request of ours as a frame.
pub fn request(stream: u32, service: &str, method: &str, payload: &[u8]) -> Vec<u8> {
    framed(stream, REQUEST, &Message::new().bytes(1, service).bytes(2, method).bytes(3, payload).done())
}

/// The answer to the request on `stream` as a frame.
pub fn response(stream: u32, result: &Result<Message>) -> Vec<u8> {
    let message = match result {
        Ok(answer) => Message::new().bytes(2, answer.clone().done()),
        Err(e) => Message::new().message(1, Message::new().number(1, code(e.kind())).bytes(2, e.to_string())),
    };
    framed(stream, RESPONSE, &message.done())
}

/// The gRPC status code.
fn code(kind: Kind) -> u64 {
    match kind {
        Kind::Canceled => 1,
        Kind::Unknown => 2,
        Kind::InvalidArgument => 3,
        Kind::DeadlineExceeded => 4,
        Kind::NotFound => 5,
        Kind::AlreadyExists => 6,
        Kind::PermissionDenied => 7,
        Kind::ResourceExhausted => 8,
        Kind::FailedPrecondition => 9,
        Kind::Aborted => 10,
        Kind::Unimplemented => 12,
        Kind::Internal => 13,
        Kind::Unavailable => 14,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_whole_however_they_are_cut() {
        let mut stream = request(1, "s", "m", b"abc");
        stream.extend(response(3, &Ok(Message::new().number(1, 7))));
        stream.extend(request(5, "", "", b""));
        let mut at_once = Vec::new();
        for size in 1..=stream.len() {
            let (mut frames, mut found) = (Frames::default(), Vec::new());
            for mut piece in stream.chunks(size) {
                found.extend(std::iter::from_fn(|| frames.next(&mut piece)));
            }
            assert_eq!(frames.pending.capacity(), 0, "nothing is kept between frames");
            if size == 1 {
                at_once = found;
            } else {
                assert_eq!(found, at_once, "cut into {size}");
            }
        }
        assert_eq!(at_once.len(), 3);
        let first = at_once[0].request().expect("a request");
        assert_eq!((first.service.as_str(), first.method.as_str(), first.payload.as_slice()), ("s", "m", &b"abc"[..]));
        assert!(!at_once[1].is_request());
        assert!(at_once[1].answer().is_ok());
    }

    #[test]
    fn a_frame_that_is_too_long_is_skipped_and_the_next_is_read() {
        let mut stream = ((LIMIT + 1) as u32).to_be_bytes().to_vec();
        stream.extend([0, 0, 0, 7, 1, 0]);
        stream.resize(HEADER + LIMIT + 1, 9);
        stream.extend(request(9, "s", "m", b""));
        let (mut frames, mut found) = (Frames::default(), Vec::new());
        for mut piece in stream.chunks(5000) {
            found.extend(std::iter::from_fn(|| frames.next(&mut piece)));
            assert!(frames.pending.len() <= HEADER + 10);
        }
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].request().expect_err("too long").kind(), Kind::ResourceExhausted);
        assert_eq!((found[1].stream, found[1].request().expect("short").method.as_str()), (9, "m"));
    }

    #[test]
    fn what_no_client_sends_is_refused() {
        let even = Frame { stream: 2, kind: REQUEST, message: Some(Vec::new()) };
        assert_eq!(even.request().expect_err("even").kind(), Kind::InvalidArgument);
        let garbage = Frame { stream: 1, kind: REQUEST, message: Some(vec![0xff; 9]) };
        assert_eq!(garbage.request().expect_err("garbage").kind(), Kind::InvalidArgument);
    }

    #[test]
    fn an_error_goes_out_with_its_code_and_words() {
        let frame = response(1, &Err(Error::not_found("no task x")));
        let frame = Frames::default().next(&mut frame.as_slice()).expect("whole");
        assert_eq!(frame.answer().expect_err("refused").to_string(), "it was refused with code 5: no task x");
    }
}
