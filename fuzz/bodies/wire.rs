//! What our end of a connection with many streams holds to, whatever the other end says: nothing panics, no buffer grows,
//! it always goes on, and how the bytes were cut makes no difference.

use cricket::streaming::buffer::{Buffer, Moved};
use cricket::streaming::wire::{send, Next, Wire};

/// As in a session.
const INCOMING: usize = 64 << 10;
const OUTGOING: usize = 136 << 10;

/// What was understood.
#[derive(Debug, PartialEq, Eq)]
enum Event {
    Open(u32, Vec<(String, String)>),
    Data(u32, Vec<u8>),
    Ended(u32),
    Reset(u32),
    Goodbye,
    Broken,
}

/// One input, whole and in pieces.
pub fn run(make: impl Fn() -> Box<dyn Wire>, bytes: &[u8]) {
    let whole = events(make(), bytes, INCOMING, usize::MAX);
    let cut = bytes.first().map_or(1, |byte| usize::from(*byte) + 1);
    assert_eq!(events(make(), bytes, cut, 1 + cut % 7), whole, "cut into pieces of {cut}");
}

/// Everything that these bytes say when they come in pieces, and at most so many bytes of data are taken at once.
fn events(mut wire: Box<dyn Wire>, bytes: &[u8], piece: usize, most: usize) -> Vec<Event> {
    let (mut input, mut out, mut all) = (Buffer::new(INCOMING), Buffer::new(OUTGOING), Vec::new());
    // A byte of data is at most an event of its own; no other frame has less than two.
    let mut patience = 64 + 4 * bytes.len();
    for piece in bytes.chunks(piece) {
        let mut rest = piece;
        while !rest.is_empty() {
            let moved = input.fill(&mut rest).expect("a slice has no errors");
            assert!(matches!(moved, Moved::Some(_)), "the incoming buffer is full of what is not understood");
            loop {
                patience = patience.checked_sub(1).expect("it always gets further");
                let next = match wire.next(&mut input, &mut out) {
                    Ok(next) => next,
                    Err(_) => {
                        all.push(Event::Broken);
                        return all;
                    }
                };
                let blocked = next == Next::Blocked && out.is_empty();
                assert!(!blocked, "it waits for room in an empty buffer");
                match next {
                    Next::Starved => break,
                    Next::Blocked => {}
                    Next::Open(id, headers) => {
                        match id % 16 {
                            7 => wire.reset(id, &mut out),
                            _ => wire.accept(id, &mut out),
                        }
                        all.push(Event::Open(id, headers));
                    }
                    Next::Data(id) => {
                        let body = wire.body(&input);
                        assert!(!body.is_empty(), "data without a byte");
                        let body = body[..body.len().min(most)].to_vec();
                        wire.took(&mut input, &mut out, body.len());
                        match all.last_mut() {
                            Some(Event::Data(last, bytes)) if *last == id => bytes.extend(body),
                            _ => all.push(Event::Data(id, body)),
                        }
                    }
                    Next::Ended(id) => {
                        send(&mut *wire, id, &mut out, b"answer");
                        wire.end(id, &mut out);
                        all.push(Event::Ended(id));
                    }
                    Next::Reset(id) => all.push(Event::Reset(id)),
                    Next::Goodbye => {
                        wire.goodbye(&mut out);
                        all.push(Event::Goodbye);
                    }
                }
                flush(&mut *wire, &mut out);
            }
            flush(&mut *wire, &mut out);
            assert_eq!(input.data().len() + input.free(), INCOMING, "the incoming buffer has grown");
        }
    }
    all
}

/// A client that takes everything at once.
fn flush(wire: &mut dyn Wire, out: &mut Buffer) {
    loop {
        assert_eq!(out.data().len() + out.free(), OUTGOING, "the outgoing buffer has grown");
        out.consume(out.data().len());
        if wire.settle(out) && out.is_empty() {
            return;
        }
    }
}
