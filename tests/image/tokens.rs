//! A token server, as a registry is told to believe.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use serde_json::json;

/// A token server: signs for whoever asks, or only for this user, what docker-registry then believes.
pub struct TokenServer {
    /// `http://127.0.0.1:PORT/token`.
    pub realm: String,
    /// Tokens given out.
    pub given: Arc<AtomicU64>,
}

impl TokenServer {
    /// `dir` has `key.pem` and `cert.pem` of [`crate::certificate::certificate`]. With `only`, the value of `Authorization` that it wants.
    pub fn start(dir: &Path, only: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let realm = format!("http://{}/token", listener.local_addr().expect("bound"));
        let (dir, given) = (dir.to_owned(), Arc::new(AtomicU64::new(0)));
        let own = given.clone();
        let serve = move || {
            for client in listener.incoming() {
                let mut client = client.expect("a connection");
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && client.read(&mut byte).unwrap_or(0) == 1 {
                    head.push(byte[0]);
                }
                let head = String::from_utf8_lossy(&head).into_owned();
                let allowed = head.starts_with("GET")
                    && only.is_none_or(|only| {
                        head.to_lowercase().contains(&format!("authorization: {}", only.to_lowercase()))
                    });
                let (status, body) = match allowed {
                    true => {
                        let number = own.fetch_add(1, Ordering::Relaxed);
                        (200, json!({ "token": token(&dir, &head, number) }).to_string())
                    }
                    // It does not know POST, as many do not.
                    false if head.starts_with("POST") => (405, String::new()),
                    false => (401, String::new()),
                };
                let answer =
                    format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                client.write_all(answer.as_bytes()).ok();
            }
        };
        std::thread::Builder::new().name("tokens".into()).spawn(serve).expect("a thread");
        TokenServer { realm, given }
    }

    /// What a registry is to be told of it.
    pub fn configuration(&self, dir: &Path) -> String {
        let (realm, dir) = (&self.realm, dir.display());
        format!("auth: {{token: {{realm: \"{realm}\", service: reg, issuer: test, rootcertbundle: {dir}/cert.pem}}}}\n")
    }
}

/// A token for the scope in a request's query, signed with the key in `dir`. No two are the same.
fn token(dir: &Path, head: &str, number: u64) -> String {
    let query = head.split([' ', '?']).nth(2).unwrap_or_default();
    let scope = query.split('&').find_map(|part| part.strip_prefix("scope=")).unwrap_or_default();
    let scope = scope.replace("%3A", ":").replace("%2F", "/").replace("%2C", ",");
    let mut parts = scope.split(':');
    let (kind, name) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let pem = fs::read_to_string(dir.join("cert.pem")).expect("cert.pem");
    let der: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    let header = json!({ "typ": "JWT", "alg": "RS256", "x5c": [der] });
    let claims = json!({ "iss": "test", "sub": "", "aud": "reg", "exp": now + 300, "nbf": now - 10, "iat": now,
        "jti": number.to_string(), "access": [{ "type": kind, "name": name, "actions": ["pull"] }] });
    let text = format!("{}.{}", url64(header.to_string().as_bytes()), url64(claims.to_string().as_bytes()));
    let mut signer = Command::new("openssl")
        .args(["dgst", "-sha256", "-sign"])
        .arg(dir.join("key.pem"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("openssl is missing: apt-get install openssl");
    signer.stdin.take().expect("piped").write_all(text.as_bytes()).expect("sign");
    let signature = signer.wait_with_output().expect("openssl").stdout;
    format!("{text}.{}", url64(&signature))
}

fn url64(bytes: &[u8]) -> String {
    cricket::base64::encode(bytes).trim_end_matches('=').replace('+', "-").replace('/', "_")
}
