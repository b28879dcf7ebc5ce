//! From a request to a wire: which protocol both sides know, and the answer that says so.

use sha1::{Digest, Sha1};

use super::base64;
use super::http::{switching, Refusal, Request};
use super::spdy::Spdy;
use super::tunnel::Tunnel;
use super::websocket::{Content, WebSocket};
use super::wire::Wire;

/// Names in the headers of a SPDY upgrade.
const OFFERED: &str = "x-stream-protocol-version";
const CHOSEN: &str = "X-Stream-Protocol-Version";
const ACCEPTED: &str = "X-Accepted-Stream-Protocol-Versions";
/// RFC 6455 mixes it into its answer.
const WEBSOCKET_GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Port-forward's names.
const FORWARD: &str = "portforward.k8s.io";
const TUNNELLED: &str = "SPDY/3.1+portforward.k8s.io";

/// The versions of the remote command protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// Errors in words.
    V1,
    /// Streams may come in any order.
    V2,
    /// A terminal's size.
    V3,
    /// The outcome as a JSON status.
    V4,
    /// A channel of a WebSocket can be closed.
    V5,
}

/// What was agreed on.
pub struct Agreed {
    /// Speaks it.
    pub wire: Box<dyn Wire>,
    /// The bytes that tell the client.
    pub answer: Vec<u8>,
    /// How streams come about.
    pub opening: Opening,
}

/// How the streams of a connection come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// The client opens each of them.
    ByClient,
    /// They are there from the start, with fixed numbers.
    Fixed,
}

/// For exec and attach.
pub fn remote_command(request: &Request) -> Result<(Agreed, Version), Refusal> {
    match kind(request)? {
        Kind::Spdy => {
            let known = ["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];
            // A client that names none is as old as the first one.
            let chosen = choose(request, OFFERED, &known)?.unwrap_or("channel.k8s.io");
            Ok((spdy(chosen), version(chosen)))
        }
        Kind::WebSocket => {
            let known = [
                "v5.channel.k8s.io",
                "v4.channel.k8s.io",
                "v4.base64.channel.k8s.io",
                "v3.channel.k8s.io",
                "v2.channel.k8s.io",
                "channel.k8s.io",
                "base64.channel.k8s.io",
            ];
            let chosen = choose(request, "sec-websocket-protocol", &known)?;
            let version = chosen.map_or(Version::V1, version);
            let content = match chosen.is_some_and(|name| name.contains("base64")) {
                true => Content::Base64,
                false => Content::Channels { closing: version == Version::V5 },
            };
            Ok((websocket(request, chosen, Box::new(WebSocket::new(content)), Opening::Fixed)?, version))
        }
    }
}

/// For port-forward.
pub fn forward(request: &Request) -> Result<Agreed, Refusal> {
    match kind(request)? {
        Kind::Spdy => Ok(spdy(choose(request, OFFERED, &[FORWARD])?.unwrap_or(FORWARD))),
        Kind::WebSocket => {
            let known = [TUNNELLED, "v4.channel.k8s.io", "v4.base64.channel.k8s.io", FORWARD];
            let chosen = choose(request, "sec-websocket-protocol", &known)?;
            let (wire, opening): (Box<dyn Wire>, _) = match chosen {
                Some(TUNNELLED) => (Box::new(Tunnel::new()), Opening::ByClient),
                Some("v4.base64.channel.k8s.io") => (Box::new(WebSocket::new(Content::Base64)), Opening::Fixed),
                _ => (Box::new(WebSocket::new(Content::Channels { closing: false })), Opening::Fixed),
            };
            websocket(request, chosen, wire, opening)
        }
    }
}

enum Kind {
    Spdy,
    WebSocket,
}

fn kind(request: &Request) -> Result<Kind, Refusal> {
    match request.upgrade().as_deref() {
        Some("spdy/3.1") => Ok(Kind::Spdy),
        Some("websocket") => Ok(Kind::WebSocket),
        other => {
            let why = other.map_or("this is an endpoint for upgrades".into(), |o| format!("no upgrade to {o:?}"));
            let mut refusal = Refusal::new("426 Upgrade Required", format!("{why}: SPDY/3.1 and WebSocket are known"));
            refusal.headers.push(("Upgrade", "SPDY/3.1, websocket".into()));
            Err(refusal)
        }
    }
}

/// The first that the client offers and we know; `None` if it offers nothing.
fn choose<'a>(request: &Request, header: &str, known: &[&'a str]) -> Result<Option<&'a str>, Refusal> {
    let mut offered = request.list(header).peekable();
    if offered.peek().is_none() {
        return Ok(None);
    }
    let chosen = offered.find_map(|offer| known.iter().find(|name| **name == offer));
    chosen.map(|name| Some(*name)).ok_or_else(|| {
        let mut refusal = Refusal::new("403 Forbidden", format!("none of the protocols offered is known: {known:?}"));
        refusal.headers.extend(known.iter().map(|name| (ACCEPTED, (*name).to_owned())));
        refusal
    })
}

fn version(name: &str) -> Version {
    match name.split('.').next() {
        Some("v5") => Version::V5,
        Some("v4") => Version::V4,
        Some("v3") => Version::V3,
        Some("v2") => Version::V2,
        _ => Version::V1,
    }
}

fn spdy(chosen: &str) -> Agreed {
    let answer = switching(&[("Upgrade", "SPDY/3.1"), (CHOSEN, chosen)]);
    Agreed { wire: Box::new(Spdy::default()), answer, opening: Opening::ByClient }
}

fn websocket(
    request: &Request,
    chosen: Option<&str>,
    wire: Box<dyn Wire>,
    opening: Opening,
) -> Result<Agreed, Refusal> {
    if !request.values("sec-websocket-version").eq(["13"]) {
        let mut refusal = Refusal::new("426 Upgrade Required", "only version 13 of WebSocket is known");
        refusal.headers.push(("Sec-WebSocket-Version", "13".into()));
        return Err(refusal);
    }
    let mut keys = request.values("sec-websocket-key");
    // Sixteen bytes in base64.
    let (Some(key), None) = (keys.next().filter(|key| key.len() == 24), keys.next()) else {
        return Err(Refusal::bad("the request has no Sec-WebSocket-Key"));
    };
    if request.method != "GET" {
        return Err(Refusal::bad("a WebSocket begins with GET"));
    }
    let mut accept = Vec::new();
    base64::encode(&Sha1::digest(format!("{key}{WEBSOCKET_GUID}")), &mut accept);
    let accept = String::from_utf8_lossy(&accept);
    let mut headers = vec![("Upgrade", "websocket"), ("Sec-WebSocket-Accept", &*accept)];
    headers.extend(chosen.map(|name| ("Sec-WebSocket-Protocol", name)));
    Ok(Agreed { wire, answer: switching(&headers), opening })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(lines: &str) -> Request {
        let text = format!("GET /x HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n{lines}\r\n");
        Request::read(text.as_bytes()).unwrap()
    }

    fn websocket_request(protocols: &str) -> Request {
        let key = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        request(&format!("{key}{protocols}"))
    }

    fn answer(agreed: Agreed) -> String {
        String::from_utf8(agreed.answer).unwrap()
    }

    #[test]
    fn the_first_offer_that_is_known_is_chosen() {
        let offers = "Upgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v9, v4.channel.k8s.io\r\n\
                      X-Stream-Protocol-Version: v3.channel.k8s.io\r\n";
        let (agreed, version) = remote_command(&request(offers)).ok().unwrap();
        assert_eq!((version, agreed.opening), (Version::V4, Opening::ByClient));
        assert!(answer(agreed).contains("X-Stream-Protocol-Version: v4.channel.k8s.io\r\n"));
        let (_, version) = remote_command(&request("Upgrade: SPDY/3.1\r\n")).ok().unwrap();
        assert_eq!(version, Version::V1);
        let refusal = remote_command(&request("Upgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v9\r\n"));
        let refusal = refusal.err().unwrap();
        assert_eq!((refusal.status, refusal.headers.len()), ("403 Forbidden", 4));
    }

    #[test]
    fn a_websocket_is_answered_as_its_specification_shows() {
        let (agreed, version) =
            remote_command(&websocket_request("Sec-WebSocket-Protocol: x, v5.channel.k8s.io\r\n")).ok().unwrap();
        assert_eq!((version, agreed.opening), (Version::V5, Opening::Fixed));
        let text = answer(agreed);
        assert!(text.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{text}");
        assert!(text.contains("Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n"), "{text}");
        let (agreed, version) = remote_command(&websocket_request("")).ok().unwrap();
        assert_eq!(version, Version::V1);
        assert!(!answer(agreed).contains("Protocol:"));
        for (offer, version) in [("base64.channel.k8s.io", Version::V1), ("v4.base64.channel.k8s.io", Version::V4)] {
            let (_, got) =
                remote_command(&websocket_request(&format!("Sec-WebSocket-Protocol: {offer}\r\n"))).ok().unwrap();
            assert_eq!(got, version);
        }
    }

    #[test]
    fn port_forward_over_both() {
        let agreed = forward(&request("Upgrade: spdy/3.1\r\nX-Stream-Protocol-Version: portforward.k8s.io\r\n"));
        assert_eq!(agreed.ok().unwrap().opening, Opening::ByClient);
        for (offer, opening) in [("v4.channel.k8s.io", Opening::Fixed), (TUNNELLED, Opening::ByClient)] {
            let agreed = forward(&websocket_request(&format!("Sec-WebSocket-Protocol: {offer}\r\n")));
            assert_eq!(agreed.ok().unwrap().opening, opening);
        }
    }

    #[test]
    fn what_is_no_upgrade_is_told_what_is() {
        for lines in ["", "Upgrade: h2c\r\n"] {
            let refusal = remote_command(&request(lines)).err().unwrap();
            assert_eq!(refusal.status, "426 Upgrade Required");
        }
        for lines in [
            "Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            "Upgrade: websocket\r\nSec-WebSocket-Version: 8\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
            "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: short\r\n",
        ] {
            assert!(remote_command(&request(lines)).is_err(), "{lines}");
        }
    }
}
