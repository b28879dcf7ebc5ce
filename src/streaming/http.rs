//! The request before a session: one HTTP/1.1 upgrade, read strictly and within limits; and our answers to it.

use std::fmt::Write as _;

use crate::error::{Error, Result};

/// The longest request, from its first byte to the empty line.
pub const MAX_REQUEST: usize = 16 << 10;
const MAX_HEADERS: usize = 64;

/// A request without a body.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    /// `GET` or `POST`.
    pub method: String,
    /// Without the query.
    pub path: String,
    /// Names in lower case.
    headers: Vec<(String, String)>,
}

/// What is wrong with a request: the status line of the answer and why.
#[derive(Debug)]
pub struct Refusal {
    /// `404 Not Found`.
    pub status: &'static str,
    /// For a person.
    pub why: String,
    /// More header lines.
    pub headers: Vec<(&'static str, String)>,
}

impl Refusal {
    /// One without further headers.
    pub fn new(status: &'static str, why: impl Into<String>) -> Refusal {
        Refusal { status, why: why.into(), headers: Vec::new() }
    }

    /// The request is not what HTTP allows.
    pub fn bad(why: impl Into<String>) -> Refusal {
        Refusal::new("400 Bad Request", why)
    }

    /// The answer as it goes over the wire; the connection ends with it.
    pub fn answer(&self) -> Vec<u8> {
        let mut text = format!("HTTP/1.1 {}\r\nContent-Type: text/plain; charset=utf-8\r\n", self.status);
        let body = format!("{}\n", self.why);
        line(&mut text, "Content-Length", &body.len().to_string());
        line(&mut text, "Connection", "close");
        self.headers.iter().for_each(|(name, value)| line(&mut text, name, value));
        text += "\r\n";
        text += &body;
        text.into_bytes()
    }
}

/// The answer that ends HTTP on this connection.
pub fn switching(headers: &[(&str, &str)]) -> Vec<u8> {
    let mut text = "HTTP/1.1 101 Switching Protocols\r\n".to_owned();
    line(&mut text, "Connection", "Upgrade");
    headers.iter().for_each(|(name, value)| line(&mut text, name, value));
    text += "\r\n";
    text.into_bytes()
}

fn line(text: &mut String, name: &str, value: &str) {
    write!(text, "{name}: {value}\r\n").expect("writing to a string cannot fail");
}

/// How long the request is that `bytes` begin with; `None` while it is not complete.
pub fn length(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

impl Request {
    /// Reads a complete request.
    ///
    /// # Errors
    /// Anything but a plain HTTP/1.1 GET or POST without a body.
    pub fn read(bytes: &[u8]) -> Result<Request, Refusal> {
        let text = std::str::from_utf8(bytes).map_err(|_| Refusal::bad("the request is not UTF-8"))?;
        let text = text.strip_suffix("\r\n\r\n").ok_or_else(|| Refusal::bad("the request is not complete"))?;
        let mut lines = text.split("\r\n");
        let (method, path) = request_line(lines.next().unwrap_or_default())?;
        let headers: Vec<_> = lines.map(header).collect::<Result<_, _>>()?;
        if headers.len() > MAX_HEADERS {
            return Err(Refusal::new("431 Request Header Fields Too Large", "too many headers"));
        }
        let request = Request { method, path, headers };
        if request.values("transfer-encoding").next().is_some() || request.values("content-length").any(|n| n != "0") {
            return Err(Refusal::bad("the request has a body"));
        }
        match request.values("host").count() {
            1 => Ok(request),
            n => Err(Refusal::bad(format!("{n} Host headers instead of one"))),
        }
    }

    /// All values of a header, given in lower case; each may be a list.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The members of all lists in the headers of this name.
    pub fn list<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.values(name).flat_map(|value| value.split(',')).map(str::trim).filter(|member| !member.is_empty())
    }

    /// What the connection is to become, in lower case; `None` for an ordinary request.
    pub fn upgrade(&self) -> Option<String> {
        let asked = self.list("connection").any(|member| member.eq_ignore_ascii_case("upgrade"));
        self.list("upgrade").next().filter(|_| asked).map(str::to_ascii_lowercase)
    }
}

fn request_line(line: &str) -> Result<(String, String), Refusal> {
    let mut words = line.split(' ');
    let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Refusal::bad("the request line is not three words"));
    };
    if version != "HTTP/1.1" {
        return Err(Refusal::new("505 HTTP Version Not Supported", "only HTTP/1.1 is spoken here"));
    }
    if !matches!(method, "GET" | "POST") {
        return Err(Refusal::new("405 Method Not Allowed", "only GET and POST are allowed"));
    }
    if !target.starts_with('/') || !target.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Refusal::bad("the request's target is not a path"));
    }
    let path = target.split(['?', '#']).next().unwrap_or_default();
    Ok((method.to_owned(), path.to_owned()))
}

fn header(line: &str) -> Result<(String, String), Refusal> {
    let (name, value) = line.split_once(':').ok_or_else(|| Refusal::bad("a header without a colon"))?;
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || !name.bytes().all(token) {
        return Err(Refusal::bad("the name of a header is not a token"));
    }
    let value = value.trim_matches([' ', '\t']);
    if value.chars().any(|c| c.is_control() && c != '\t') {
        return Err(Refusal::bad("a header holds a control character"));
    }
    Ok((name.to_ascii_lowercase(), value.to_owned()))
}

/// For connections on which HTTP is over before it began.
impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Error::invalid(format!("{}: {}", refusal.status, refusal.why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "POST /exec/abc?tty=1 HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\n\
                        Upgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io, v3.channel.k8s.io\r\n\
                        x-stream-protocol-version:channel.k8s.io\r\nContent-Length: 0\r\n\r\n";

    #[test]
    fn an_upgrade_is_read() {
        let request = Request::read(GOOD.as_bytes()).unwrap();
        assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/exec/abc"));
        assert_eq!(request.upgrade().as_deref(), Some("spdy/3.1"));
        let offered: Vec<_> = request.list("x-stream-protocol-version").collect();
        assert_eq!(offered, ["v4.channel.k8s.io", "v3.channel.k8s.io", "channel.k8s.io"]);
        let plain = Request::read(b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n").unwrap();
        assert_eq!(plain.upgrade(), None, "without Connection: Upgrade");
    }

    #[test]
    fn it_is_complete_at_the_empty_line() {
        assert_eq!(length(&GOOD.as_bytes()[..GOOD.len() - 1]), None);
        assert_eq!(length(format!("{GOOD}more").as_bytes()), Some(GOOD.len()));
    }

    #[test]
    fn everything_else_is_refused() {
        let long = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "a: b\r\n".repeat(MAX_HEADERS));
        for (text, status) in [
            ("GET / HTTP/1.1\r\nHost: x\r\n", "400"),
            ("\r\n\r\n", "400"),
            ("GET /\r\n\r\n", "400"),
            ("GET  / HTTP/1.1\r\nHost: x\r\n\r\n", "400"),
            ("GET / HTTP/1.0\r\nHost: x\r\n\r\n", "505"),
            ("PUT / HTTP/1.1\r\nHost: x\r\n\r\n", "405"),
            ("GET http://x/ HTTP/1.1\r\nHost: x\r\n\r\n", "400"),
            ("GET /\u{e9} HTTP/1.1\r\nHost: x\r\n\r\n", "400"),
            ("GET / HTTP/1.1\r\n\r\n", "400"),
            ("GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", "400"),
            ("GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n", "400"),
            ("GET / HTTP/1.1\r\nHost : x\r\n\r\n", "400"),
            ("GET / HTTP/1.1\r\nHost: x\r\nA: \x01\r\n\r\n", "400"),
            ("GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n", "400"),
            ("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n", "400"),
            ("GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", "400"),
            (long.as_str(), "431"),
        ] {
            let refusal = Request::read(text.as_bytes()).expect_err(text);
            assert!(refusal.status.starts_with(status), "{text:?}: {refusal:?}");
        }
        assert!(Request::read(b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n").is_err());
    }

    #[test]
    fn answers_are_whole() {
        let mut refusal = Refusal::new("403 Forbidden", "no");
        refusal.headers.push(("X-Accepted", "a".into()));
        let text = String::from_utf8(refusal.answer()).unwrap();
        assert!(
            text.starts_with("HTTP/1.1 403 Forbidden\r\n") && text.ends_with("X-Accepted: a\r\n\r\nno\n"),
            "{text}"
        );
        assert!(text.contains("Content-Length: 3\r\n"));
        let text = String::from_utf8(switching(&[("Upgrade", "SPDY/3.1")])).unwrap();
        assert_eq!(text, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n");
    }
}
