//! What a client of streaming sessions says, byte by byte: frames of SPDY/3.1 and of WebSocket, made without any of our
//! own code. The unit tests of `streaming` and the client of `stream.rs` both take them from here.

/// Numbers of SPDY's control frames.
pub const SYN_STREAM: u16 = 1;
pub const RST_STREAM: u16 = 3;
pub const SETTINGS: u16 = 4;
pub const PING: u16 = 6;
pub const GOAWAY: u16 = 7;
pub const HEADERS: u16 = 8;
pub const WINDOW_UPDATE: u16 = 9;

/// Of SPDY: the last frame of this stream.
pub const FIN: u8 = 1;

/// What begins a zlib stream that is compressed with SPDY's dictionary.
pub const PREFACE: [u8; 6] = [0x78, 0xbb, 0xe3, 0xc6, 0xa7, 0xc2];

/// A masked frame of a WebSocket whose first byte is this: flags and opcode.
pub fn websocket(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x12, 0x34, 0x56, 0x78];
    let mut frame = vec![first];
    match payload.len() {
        n @ 0..=125 => frame.push(0x80 | n as u8),
        n @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend((n as u16).to_be_bytes());
        }
        n => {
            frame.push(0x80 | 127);
            frame.extend((n as u64).to_be_bytes());
        }
    }
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// A control frame of SPDY.
pub fn control(kind: u16, flags: u8, body: &[u8]) -> Vec<u8> {
    frame(0x8003_0000 | u32::from(kind), flags, body)
}

/// A control frame whose body is numbers.
pub fn numbers<const N: usize>(kind: u16, body: [u32; N]) -> Vec<u8> {
    control(kind, 0, &body.map(u32::to_be_bytes).concat())
}

/// A data frame of SPDY.
pub fn data(id: u32, flags: u8, bytes: &[u8]) -> Vec<u8> {
    frame(id, flags, bytes)
}

fn frame(first: u32, flags: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = first.to_be_bytes().to_vec();
    frame.push(flags);
    frame.extend(&(body.len() as u32).to_be_bytes()[1..]);
    frame.extend(body);
    frame
}

/// The frame that begins a stream with these headers; `first` if it is the connection's first.
pub fn syn_stream(first: bool, id: u32, flags: u8, headers: &[(&str, &str)]) -> Vec<u8> {
    let mut body = [id.to_be_bytes(), [0; 4]].concat();
    body.extend([0, 0]);
    if first {
        body.extend(PREFACE);
    }
    body.extend(stored(&headers_of(headers)));
    // As a flush ends: Go's reader hands out nothing before.
    body.extend(stored(&[]));
    control(SYN_STREAM, flags, &body)
}

/// These bytes in a block of a zlib stream, as they are.
pub fn stored(plain: &[u8]) -> Vec<u8> {
    let length = u16::try_from(plain.len()).expect("as much as a block can hold").to_le_bytes();
    let complement = length.map(|byte| !byte);
    [&[0][..], &length, &complement, plain].concat()
}

/// The bytes of a header block before compression.
pub fn headers_of(headers: &[(&str, &str)]) -> Vec<u8> {
    let mut plain = (headers.len() as u32).to_be_bytes().to_vec();
    for text in headers.iter().flat_map(|(name, value)| [name, value]) {
        plain.extend((text.len() as u32).to_be_bytes());
        plain.extend(text.bytes());
    }
    plain
}
