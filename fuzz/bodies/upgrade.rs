//! The request that begins a session: read, answered, and whatever is answered is HTTP.

use cricket::streaming::http::{self, Refusal, Request};
use cricket::streaming::upgrade::{self, Agreed};

/// One input.
pub fn run(bytes: &[u8]) {
    let length = http::length(bytes);
    // Where it ends does not depend on what follows.
    assert_eq!(length, (4..=bytes.len()).find(|end| bytes[..*end].ends_with(b"\r\n\r\n")));
    let request = match Request::read(length.map_or(bytes, |length| &bytes[..length])) {
        Ok(request) => request,
        Err(refusal) => return refused(&refusal),
    };
    assert!(length.is_some() && request.path.starts_with('/'), "{request:?}");
    match upgrade::remote_command(&request) {
        Ok((agreed, _)) => agreed_on(&agreed),
        Err(refusal) => refused(&refusal),
    }
    match upgrade::forward(&request) {
        Ok(agreed) => agreed_on(&agreed),
        Err(refusal) => refused(&refusal),
    }
}

fn agreed_on(agreed: &Agreed) {
    let (head, body) = answer(&agreed.answer);
    assert!(head.starts_with("HTTP/1.1 101 ") && body.is_empty(), "{head}");
}

fn refused(refusal: &Refusal) {
    let bytes = refusal.answer();
    let (head, body) = answer(&bytes);
    assert!(head.starts_with("HTTP/1.1 4") || head.starts_with("HTTP/1.1 505 "), "{head}");
    assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}\n{body}");
}

/// Head and body of an answer.
fn answer(bytes: &[u8]) -> (&str, &str) {
    let text = std::str::from_utf8(bytes).expect("text");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    for line in head.split("\r\n").skip(1) {
        let (name, value) = line.split_once(": ").expect("a header");
        assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'), "{line}");
        assert!(!value.chars().any(char::is_control), "{line:?}");
    }
    (head, body)
}
