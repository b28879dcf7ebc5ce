//! What SPDY does with frames of a client, byte by byte.

use super::*;
use crate::streaming::frames;
use crate::streaming::wire::send;

/// What a client says, frame by frame.
struct Peer {
    begun: bool,
    bytes: Vec<u8>,
}

impl Peer {
    fn new() -> Peer {
        Peer { begun: false, bytes: Vec::new() }
    }

    fn says(mut self, frame: &[u8]) -> Peer {
        self.bytes.extend(frame);
        self
    }

    fn syn(mut self, id: u32, flags: u8, headers: &[(&str, &str)]) -> Peer {
        let first = !std::mem::replace(&mut self.begun, true);
        self.says(&frames::syn_stream(first, id, flags, headers))
    }

    fn data(self, id: u32, flags: u8, bytes: &[u8]) -> Peer {
        self.says(&frames::data(id, flags, bytes))
    }

    fn control<const N: usize>(self, which: u16, body: [u32; N]) -> Peer {
        self.says(&frames::numbers(which, body))
    }
}

/// Our side, with its buffers.
struct Side {
    spdy: Spdy,
    input: Buffer,
    out: Buffer,
}

impl Side {
    fn new() -> Side {
        let mut side = Side { spdy: Spdy::default(), input: Buffer::new(64 << 10), out: Buffer::new(136 << 10) };
        assert_eq!(side.next().unwrap(), Next::Starved);
        side.sent();
        side
    }

    fn hears(&mut self, peer: Peer) {
        self.input.push(&peer.bytes);
    }

    fn next(&mut self) -> Result<Next> {
        self.spdy.next(&mut self.input, &mut self.out)
    }

    /// Everything that happens, with the bytes of data events; streams are accepted.
    fn all(&mut self) -> Result<Vec<String>> {
        let mut all = Vec::new();
        loop {
            match self.next()? {
                Next::Starved => return Ok(all),
                Next::Data(id) => {
                    let body = self.spdy.body(&self.input).to_vec();
                    self.spdy.took(&mut self.input, &mut self.out, body.len());
                    all.push(format!("{id}:{}", String::from_utf8_lossy(&body)));
                }
                Next::Open(id, headers) => {
                    self.spdy.accept(id, &mut self.out);
                    all.push(format!("open {id} {headers:?}"));
                }
                other => all.push(format!("{other:?}")),
            }
        }
    }

    fn sent(&mut self) -> Vec<u8> {
        let sent = self.out.data().to_vec();
        self.out.consume(sent.len());
        sent
    }

    /// With stream 1 open.
    fn open() -> Side {
        let mut side = Side::new();
        side.hears(Peer::new().syn(1, 0, &[("streamType", "stdin")]));
        side.all().unwrap();
        side.sent();
        side
    }

    fn resets(&mut self, id: u32, reason: Reason) -> bool {
        self.sent().windows(16).any(|w| w == numbers(kind::RST_STREAM, [id, reason as u32]))
    }
}

#[test]
fn streams_open_carry_bytes_and_end_in_any_pieces() {
    let peer = Peer::new()
        .syn(1, 0, &[("streamType", "error")])
        .syn(3, FIN, &[("streamtype", "stdin")])
        .data(1, 0, b"hello")
        .data(1, FIN, b"");
    for piece in 1..peer.bytes.len() {
        let mut side = Side::new();
        let mut all = Vec::new();
        for bytes in peer.bytes.chunks(piece) {
            side.input.push(bytes);
            all.extend(side.all().unwrap());
        }
        let text = all.iter().filter_map(|e| e.strip_prefix("1:")).collect::<String>();
        let rest: Vec<_> = all.iter().filter(|e| !e.starts_with("1:")).collect();
        assert_eq!(text, "hello", "in pieces of {piece}");
        assert_eq!(
            rest,
            ["open 1 [(\"streamtype\", \"error\")]", "open 3 [(\"streamtype\", \"stdin\")]", "Ended(3)", "Ended(1)"]
        );
        assert_eq!(side.sent().iter().filter(|b| **b == 0x80).count(), 2, "two SYN_REPLY");
    }
}

#[test]
fn a_ping_is_answered_and_ours_are_not() {
    let mut side = Side::new();
    side.hears(Peer::new().control(kind::PING, [7]).control(kind::PING, [8]));
    assert_eq!(side.all().unwrap(), Vec::<String>::new());
    assert_eq!(side.sent(), numbers(kind::PING, [7]));
}

#[test]
fn a_stream_that_is_reset_is_gone_in_both_directions() {
    let mut side = Side::open();
    side.hears(Peer::new().control(kind::RST_STREAM, [1, 5]).data(1, 0, b"late").control(kind::RST_STREAM, [9, 5]));
    assert_eq!(side.all().unwrap(), ["Reset(1)"]);
    assert_eq!(send(&mut side.spdy, 1, &mut side.out, b"x"), 0);
    let mut side = Side::open();
    side.spdy.reset(1, &mut side.out);
    assert!(side.resets(1, Reason::Cancel));
    side.hears(Peer::new().data(1, FIN, b"under way"));
    assert_eq!(side.all().unwrap(), Vec::<String>::new());
    assert_eq!(side.sent(), Vec::<u8>::new(), "no answer to what crossed our reset");
}

#[test]
fn data_where_none_may_be_resets_the_stream() {
    let mut side = Side::open();
    side.hears(Peer::new().data(5, 0, b"unknown"));
    assert_eq!(side.all().unwrap(), Vec::<String>::new());
    assert!(side.resets(5, Reason::Invalid));
    side.hears(Peer::new().data(1, FIN, b"").data(1, 0, b"after its end"));
    assert_eq!(side.all().unwrap(), ["Ended(1)"]);
    assert!(side.resets(1, Reason::AlreadyClosed));
}

#[test]
fn a_stream_begins_once_and_in_order() {
    let mut side = Side::new();
    side.hears(Peer::new().syn(3, 0, &[]).syn(3, 0, &[]));
    assert_eq!(side.all().unwrap(), ["open 3 []", "Reset(3)"]);
    assert!(side.resets(3, Reason::InUse));
    for (first, second) in [(3, 1), (3, 3), (1, 2)] {
        let mut side = Side::new();
        side.hears(Peer::new().syn(first, 0, &[]).control(kind::RST_STREAM, [first, 5]).syn(second, 0, &[]));
        assert!(side.all().is_err(), "{first} {second}");
    }
    let mut side = Side::new();
    side.hears(Peer::new().syn(1, UNIDIRECTIONAL, &[]));
    assert_eq!(side.all().unwrap(), Vec::<String>::new());
    assert!(side.resets(1, Reason::Refused));
}

#[test]
fn no_more_streams_than_there_may_be() {
    let mut side = Side::new();
    let mut peer = Peer::new();
    for n in 0..=MAX_STREAMS as u32 {
        peer = peer.syn(2 * n + 1, 0, &[]);
        side.hears(std::mem::replace(&mut peer, Peer { begun: true, bytes: Vec::new() }));
        side.all().unwrap();
        if (n as usize) < MAX_STREAMS {
            side.sent();
        }
    }
    assert!(side.resets(2 * MAX_STREAMS as u32 + 1, Reason::Refused));
}

#[test]
fn windows_bind_only_a_client_that_renews_them() {
    let much = vec![b'x'; 100_000];
    let mut side = Side::open();
    let mut sent = 0;
    for _ in 0..10 {
        sent += send(&mut side.spdy, 1, &mut side.out, &much);
        side.sent();
    }
    assert_eq!(sent, 1_000_000, "a client that says nothing of windows");

    let mut side = Side::open();
    side.hears(Peer::new().control(kind::WINDOW_UPDATE, [0, 1 << 20]));
    side.all().unwrap();
    assert_eq!(send(&mut side.spdy, 1, &mut side.out, &much), DEFAULT_WINDOW as usize);
    assert_eq!(send(&mut side.spdy, 1, &mut side.out, &much), 0);
    side.sent();
    side.hears(Peer::new().control(kind::WINDOW_UPDATE, [1, 10]));
    side.all().unwrap();
    assert_eq!(send(&mut side.spdy, 1, &mut side.out, &much), 10);
    side.hears(Peer::new().control(kind::SETTINGS, [1, INITIAL_WINDOW, DEFAULT_WINDOW as u32 + 5]));
    side.all().unwrap();
    assert_eq!(send(&mut side.spdy, 1, &mut side.out, &much), 5);
    side.hears(Peer::new().control(kind::WINDOW_UPDATE, [1, i32::MAX as u32]).control(kind::WINDOW_UPDATE, [1, 99]));
    assert_eq!(side.all().unwrap(), ["Reset(1)"]);
    assert!(side.resets(1, Reason::FlowControl));
}

#[test]
fn the_clients_window_is_renewed_as_its_bytes_are_used() {
    let mut side = Side::open();
    let half = vec![0; OUR_WINDOW as usize / 2];
    side.hears(Peer::new().data(1, 0, &half));
    side.all().unwrap();
    let sent = side.sent();
    let renewed =
        [numbers(kind::WINDOW_UPDATE, [0, OUR_WINDOW / 2]), numbers(kind::WINDOW_UPDATE, [1, OUR_WINDOW / 2])];
    assert_eq!(sent, renewed.concat());
}

#[test]
fn a_flood_of_pings_waits_for_room() {
    let mut side = Side { out: Buffer::new(RESERVE), ..Side::new() };
    for _ in 0..1000 {
        side.hears(Peer::new().control(kind::PING, [1]));
    }
    let mut answered = 0;
    loop {
        let next = side.next().unwrap();
        answered += side.sent().len() / 12;
        match next {
            Next::Blocked => {}
            Next::Starved => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(answered, 1000);
    assert!(side.out.free() <= RESERVE, "the buffer did not grow");
}

#[test]
fn what_we_say_is_a_frame() {
    let mut side = Side::open();
    side.hears(Peer::new().syn(1, 0, &[]));
    assert_eq!(send(&mut side.spdy, 1, &mut side.out, b"abc"), 3);
    side.spdy.end(1, &mut side.out);
    side.spdy.end(1, &mut side.out);
    side.spdy.goodbye(&mut side.out);
    let expected =
        [&Head::Data(1, 0, 3).write()[..], b"abc", &Head::Data(1, FIN, 0).write(), &numbers(kind::GOAWAY, [1, 0])];
    assert_eq!(side.sent(), expected.concat());
}

#[test]
fn what_breaks_the_protocol_ends_the_connection() {
    for bytes in [
        vec![0x80, 2, 0, 1, 0, 0, 0, 0],
        Head::Control(kind::PING, 0, 5).write().iter().copied().chain([0; 5]).collect(),
        Head::Control(kind::SYN_STREAM, 0, 4).write().iter().copied().chain([0; 4]).collect(),
        Head::Control(kind::HEADERS, 0, 2).write().iter().copied().chain([0; 2]).collect(),
        Head::Control(kind::SETTINGS, 0, 8).write().iter().copied().chain([0, 0, 0, 9, 0, 0, 0, 0]).collect(),
        numbers(kind::RST_STREAM, [1]),
        vec![0; 8],
    ] {
        let mut side = Side::new();
        side.input.push(&bytes);
        assert!(side.all().is_err(), "{bytes:?}");
    }
}

#[test]
fn frames_of_kinds_nobody_knows_are_passed_over() {
    let mut side = Side::open();
    side.hears(Peer::new().control(77, [1, 2, 3]).control(kind::GOAWAY, [0, 0]).data(1, 0, b"still"));
    assert_eq!(side.all().unwrap(), ["Goodbye", "1:still"]);
}

/// Good frames with a few bytes changed, cut and doubled: whatever comes of them, it is an answer or an error, and both
/// buffers stay as they are. So many rounds always; CRICKET_FUZZ_ROUNDS for more.
#[test]
fn damaged_frames_are_survived() {
    let rounds = std::env::var("CRICKET_FUZZ_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(3000);
    let good = Peer::new()
        .syn(1, 0, &[("streamtype", "error")])
        .syn(3, 0, &[("streamtype", "stdin"), ("port", "80")])
        .data(3, 0, b"some bytes")
        .control(kind::PING, [1])
        .control(kind::SETTINGS, [1, INITIAL_WINDOW, 1000])
        .control(kind::WINDOW_UPDATE, [3, 500])
        .control(kind::RST_STREAM, [1, 5])
        .data(3, FIN, b"last")
        .control(kind::GOAWAY, [0, 0])
        .bytes;
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize % below
    };
    for _ in 0..rounds {
        let mut bytes = good.clone();
        for _ in 0..=random(6) {
            let at = random(bytes.len());
            match random(4) {
                0 => bytes[at] = random(256) as u8,
                1 => bytes[at] ^= 1 << random(8),
                2 => bytes.truncate(at.max(1)),
                _ => {
                    let end = (at + random(40)).min(bytes.len());
                    let piece = bytes[at..end].to_vec();
                    bytes.extend(piece);
                }
            }
        }
        let mut side = Side { out: Buffer::new(16 << 10), ..Side::new() };
        for piece in bytes.chunks(1 + random(bytes.len())) {
            side.input.push(piece);
            if side.all().is_err() {
                break;
            }
            send(&mut side.spdy, 3, &mut side.out, b"answer");
            side.sent();
        }
    }
}
