//! A client of streaming sessions at the level of frames: SPDY/3.1 and WebSocket, and whatever else a test wants to send.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use crate::frames;

/// Only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection after its request.
pub struct Client {
    pub socket: TcpStream,
    /// The answer's head.
    pub answer: String,
    begun: bool,
}

/// A frame of SPDY from the server.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    Data { id: u32, last: bool, bytes: Vec<u8> },
    Control { kind: u16, body: Vec<u8> },
}

/// Sends a request of its own to the server of `url`; `lines` come after the request line and Host.
pub fn request(url: &str, method: &str, lines: &str) -> Client {
    let rest = url.strip_prefix("http://").expect("a URL");
    let (place, path) = rest.split_once('/').expect("a path");
    let mut socket = TcpStream::connect(place).expect("connect");
    socket.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
    socket.set_nodelay(true).expect("set an option");
    write!(socket, "{method} /{path} HTTP/1.1\r\nHost: {place}\r\n{lines}\r\n").expect("send the request");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match socket.read(&mut byte) {
            Ok(1) => answer.push(byte[0]),
            Ok(_) => break,
            // A server that hangs up before it has read all that we sent.
            Err(e) if e.kind() == ErrorKind::ConnectionReset => break,
            Err(e) => panic!("no answer: {e}"),
        }
    }
    Client { socket, answer: String::from_utf8(answer).expect("text"), begun: false }
}

/// A SPDY connection that offers this version.
pub fn spdy(url: &str, version: &str) -> Client {
    let lines = format!("Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: {version}\r\n");
    request(url, "POST", &lines)
}

/// A WebSocket that offers this protocol.
pub fn websocket(url: &str, protocol: &str) -> Client {
    let lines = format!(
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: {protocol}\r\n"
    );
    request(url, "GET", &lines)
}

impl Client {
    /// The upgrade was agreed on.
    pub fn upgraded(self) -> Client {
        assert!(self.answer.starts_with("HTTP/1.1 101 "), "{}", self.answer);
        self
    }

    /// Another handle of the same connection.
    pub fn twin(&self) -> Client {
        let socket = self.socket.try_clone().expect("another handle");
        Client { socket, answer: String::new(), begun: self.begun }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("send");
    }

    pub fn control(&mut self, kind: u16, flags: u8, body: &[u8]) {
        self.send(&frames::control(kind, flags, body));
    }

    /// SYN_STREAM with these headers.
    pub fn open(&mut self, id: u32, headers: &[(&str, &str)]) {
        let first = !std::mem::replace(&mut self.begun, true);
        self.send(&frames::syn_stream(first, id, 0, headers));
    }

    /// The streams of a remote command: error 1, and of the rest the wanted ones, in order 3, 5, …
    pub fn open_all(&mut self, rest: &[&str]) {
        self.open(1, &[("streamtype", "error")]);
        for (n, kind) in rest.iter().enumerate() {
            self.open(3 + 2 * n as u32, &[("streamtype", kind)]);
        }
    }

    /// Begins the `n`th connection of a port-forward: streams 4n+1 (error) and 4n+3 (data).
    pub fn open_connection(&mut self, n: u32, port: u16) {
        let (port, number) = (port.to_string(), n.to_string());
        for (id, kind) in [(4 * n + 1, "error"), (4 * n + 3, "data")] {
            self.open(id, &[("streamtype", kind), ("port", &port), ("requestid", &number)]);
        }
    }

    pub fn data(&mut self, id: u32, last: bool, bytes: &[u8]) {
        self.send(&frames::data(id, if last { frames::FIN } else { 0 }, bytes));
    }

    /// The next frame; `None` at the connection's end.
    pub fn frame(&mut self) -> Option<Frame> {
        let mut head = [0; 8];
        if !self.fill(&mut head) {
            return None;
        }
        let mut body = vec![0; u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize];
        assert!(self.fill(&mut body), "the connection ends within a frame");
        let first = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        Some(match first & 1 << 31 {
            0 => Frame::Data { id: first, last: head[4] & 1 != 0, bytes: body },
            _ => Frame::Control { kind: first as u16, body },
        })
    }

    /// Whether there was as much; not if the connection ended before.
    fn fill(&mut self, bytes: &mut [u8]) -> bool {
        match self.socket.read_exact(bytes) {
            Ok(()) => true,
            Err(e) if matches!(e.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => false,
            Err(e) => panic!("receive: {e}"),
        }
    }

    /// Everything until the connection's end: the bytes of stream 1, 3, 5, 7 and 9.
    pub fn rest(&mut self) -> [Vec<u8>; 5] {
        let mut all: [Vec<u8>; 5] = Default::default();
        while let Some(frame) = self.frame() {
            if let Frame::Data { id, bytes, .. } = frame {
                all[(id as usize - 1) / 2].extend(bytes);
            }
        }
        all
    }

    /// A binary message of one frame.
    pub fn message(&mut self, payload: &[u8]) {
        self.send(&frames::websocket(0x82, payload));
    }

    /// The next message of a WebSocket: opcode and payload.
    pub fn receive(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 2];
        if !self.fill(&mut head) {
            return None;
        }
        let mut length = usize::from(head[1]);
        if length == 126 {
            let mut more = [0; 2];
            self.fill(&mut more);
            length = u16::from_be_bytes(more).into();
        }
        let mut payload = vec![0; length];
        assert!(self.fill(&mut payload), "the connection ends within a frame");
        Some((head[0] & 0x0f, payload))
    }

    /// Everything until the connection's end, by channel.
    pub fn channels(&mut self) -> [Vec<u8>; 5] {
        let mut all: [Vec<u8>; 5] = Default::default();
        while let Some((opcode, payload)) = self.receive() {
            if let (1 | 2, [channel @ 0..=4, bytes @ ..]) = (opcode, &*payload) {
                all[usize::from(*channel)].extend(bytes);
            }
        }
        all
    }

    /// Goes away without a word.
    pub fn vanish(self) {
        self.socket.shutdown(Shutdown::Both).ok(); // it may have ended already
    }
}
