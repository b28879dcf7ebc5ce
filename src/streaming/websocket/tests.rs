//! What a WebSocket does with frames of a client, byte by byte.

use super::*;
use crate::streaming::frames::websocket as frame;
use crate::streaming::wire::send;

/// Any will do.
const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];

struct Side {
    ws: WebSocket,
    input: Buffer,
    out: Buffer,
}

impl Side {
    fn new(content: Content) -> Side {
        Side { ws: WebSocket::new(content), input: Buffer::new(64 << 10), out: Buffer::new(136 << 10) }
    }

    fn all(&mut self) -> Result<Vec<String>> {
        let mut all = Vec::new();
        loop {
            match self.ws.next(&mut self.input, &mut self.out)? {
                Next::Starved => return Ok(all),
                Next::Data(id) => {
                    // One byte at a time: whatever was not taken is still there.
                    let body = self.ws.body(&self.input);
                    all.push(format!("{id}:{}", char::from(body[0])));
                    self.ws.took(&mut self.input, &mut self.out, 1);
                }
                other => all.push(format!("{other:?}")),
            }
        }
    }
}

const V5: Content = Content::Channels { closing: true };
const V4: Content = Content::Channels { closing: false };

/// The bytes of each channel, in the order of the events.
fn joined(events: &[String]) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for event in events {
        match (all.last_mut(), event.split_once(':')) {
            (Some(last), Some((id, text))) if last.starts_with(&format!("{id}:")) => last.push_str(text),
            _ => all.push(event.clone()),
        }
    }
    all
}

#[test]
fn messages_fragments_and_controls_in_any_pieces() {
    let long = "y".repeat(300);
    let bytes = [
        frame(0x82, b"\0hello"),
        frame(0x02, b"\x04{"),
        frame(0x89, b"ping"),
        frame(0x00, b""),
        frame(0x80, b"}"),
        frame(0x82, [b"\0", long.as_bytes()].concat().as_slice()),
        frame(0x82, b""),
        frame(0x82, b"\xff\0"),
        frame(0x8a, b"unasked"),
        frame(0x88, b"\x03\xe8"),
    ]
    .concat();
    for piece in 1..bytes.len() {
        let mut side = Side::new(V5);
        let mut all = Vec::new();
        for bytes in bytes.chunks(piece) {
            side.input.push(bytes);
            all.extend(side.all().unwrap());
        }
        let expected = ["0:hello".into(), "4:{}".into(), format!("0:{long}"), "Ended(0)".into(), "Goodbye".into()];
        assert_eq!(joined(&all), expected, "in pieces of {piece}");
        assert_eq!(side.out.data(), b"\x8a\x04ping\x88\x02\x03\xe8");
    }
}

#[test]
fn base64_in_any_pieces() {
    let bytes = [frame(0x81, b"0aGVsbG8="), frame(0x01, b"4e"), frame(0x80, b"30=")].concat();
    for piece in 1..bytes.len() {
        let mut side = Side::new(Content::Base64);
        let mut all = Vec::new();
        for bytes in bytes.chunks(piece) {
            side.input.push(bytes);
            all.extend(side.all().unwrap());
        }
        assert_eq!(joined(&all), ["0:hello", "4:{}"], "in pieces of {piece}");
    }
    let mut side = Side::new(Content::Base64);
    side.ws.hello(1, &mut side.out);
    assert_eq!(send(&mut side.ws, 1, &mut side.out, b"hello"), 5);
    assert_eq!(side.out.data(), b"\x81\x011\x81\x091aGVsbG8=");
    side.input.push(&frame(0x81, b"0aGVsbG8"));
    assert!(side.all().is_err());
}

#[test]
fn what_we_say_is_a_frame() {
    let mut side = Side::new(V5);
    side.ws.hello(1, &mut side.out);
    send(&mut side.ws, 2, &mut side.out, b"abc");
    side.ws.end(2, &mut side.out);
    side.ws.reset(2, &mut side.out);
    side.ws.goodbye(&mut side.out);
    side.ws.goodbye(&mut side.out);
    assert_eq!(side.out.data(), b"\x82\x01\x01\x82\x04\x02abc\x88\x02\x03\xe8");
    for length in [124, 125, 126, MAX_DATA, MAX_DATA + 1] {
        let mut side = Side::new(V4);
        let sent = send(&mut side.ws, 1, &mut side.out, &vec![b'x'; length]);
        assert_eq!(sent, length);
        let head: &[u8] = match length {
            124 => b"\x82\x7d\x01x",
            125 => b"\x82\x7e\x00\x7e\x01x",
            126 => b"\x82\x7e\x00\x7f\x01x",
            _ => b"\x82\x7e\xff\xff\x01x",
        };
        assert!(side.out.data().starts_with(head), "{length}: {:x?}", &side.out.data()[..8]);
    }
}

#[test]
fn plain_messages_are_one_stream() {
    let mut side = Side::new(Content::Plain);
    side.input.push(&[frame(0x82, b"ab"), frame(0x82, b"c")].concat());
    assert_eq!(joined(&side.all().unwrap()), ["0:abc"]);
    send(&mut side.ws, 0, &mut side.out, b"xy");
    assert_eq!(side.out.data(), b"\x82\x02xy");
}

#[test]
fn what_breaks_the_protocol_ends_the_connection() {
    let unmasked = vec![0x82, 1, 0];
    for bytes in [
        unmasked,
        frame(0xc2, b"\0x"),
        frame(0x80, b"no message to go on"),
        [frame(0x02, b"\0x"), frame(0x82, b"\0x")].concat(),
        frame(0x83, b"\0x"),
        frame(0x8b, b""),
        frame(0x09, b"ping in pieces"),
        frame(0x89, &[0; 126]),
        [&[0x82, 0x80 | 126, 0, 5][..], &MASK].concat(),
        [&[0x82, 0x80 | 127, 0, 0, 0, 0, 0, 0, 1, 0][..], &MASK].concat(),
        [&[0x82, 0x80 | 127, 0xff, 0, 0, 0, 0, 0, 0, 0][..], &MASK].concat(),
    ] {
        let mut side = Side::new(V4);
        side.input.push(&bytes);
        assert!(side.all().is_err(), "{bytes:x?}");
    }
}
