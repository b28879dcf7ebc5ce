//! Frames of a WebSocket's client, for every kind of message: the first byte says which.

use cricket::streaming::http::Request;
use cricket::streaming::upgrade;
use cricket::streaming::websocket::{Content, WebSocket};
use cricket::streaming::wire::Wire;

/// The handshake of SPDY inside a WebSocket.
const TUNNEL: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Protocol: SPDY/3.1+portforward.k8s.io\r\n\r\n";

/// One input.
pub fn run(bytes: &[u8]) {
    let Some((kind, frames)) = bytes.split_first() else { return };
    crate::wire::run(|| wire(*kind), frames);
}

fn wire(kind: u8) -> Box<dyn Wire> {
    let content = match kind % 5 {
        0 => Content::Channels { closing: true },
        1 => Content::Channels { closing: false },
        2 => Content::Base64,
        3 => Content::Plain,
        _ => {
            let agreed = Request::read(TUNNEL).and_then(|request| upgrade::forward(&request));
            return agreed.unwrap_or_else(|refusal| panic!("{refusal:?}")).wire;
        }
    };
    Box::new(WebSocket::new(content))
}
