//! Debian's docker-registry on loopback, with what a test asks of it, and a way to put images there.
#![allow(dead_code, reason = "every test target uses a part of it")]

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{json, Value};
use sha2::{Digest, Sha256};

/// Only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running registry. Dropping it ends it; what it stores stays in its directory.
pub struct Registry {
    /// `127.0.0.1:PORT`.
    pub address: String,
    daemon: Child,
}

impl Registry {
    /// Starts one that stores in `dir`. `more` is YAML for the top level of its configuration, `http` for below `http:`.
    pub fn start(dir: &Path, http: &str, more: &str) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let config = dir.join(format!("registry-{}.yml", address.replace(':', "-")));
        let text = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage:\n  filesystem: {{rootdirectory: \
             {dir}/registry}}\nhttp:\n  addr: {address}\n  secret: x\n{http}{more}",
            dir = dir.display()
        );
        fs::write(&config, text).expect("write the registry's configuration");
        let log = fs::File::create(config.with_extension("log")).expect("a log");
        let daemon = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log)
            .spawn()
            .expect("docker-registry is missing: apt-get install docker-registry");
        let until = Instant::now() + PATIENCE;
        while TcpStream::connect(&address).is_err() {
            let log = config.with_extension("log");
            assert!(Instant::now() < until, "no registry: {}", fs::read_to_string(log).unwrap_or_default());
            std::thread::sleep(Duration::from_millis(20));
        }
        Registry { address, daemon }
    }

    /// Puts an image of these layers under `repository:tag`; the registry must be one without TLS and credentials.
    /// Returns the image's id.
    pub fn push(&self, repository: &str, tag: &str, layers: &[Layer]) -> String {
        let link =
            |bytes: &[u8], kind: &str| json!({ "mediaType": kind, "digest": digest(bytes), "size": bytes.len() });
        let diff_ids: Vec<String> = layers.iter().map(|layer| digest(&layer.plain)).collect();
        let config = json!({ "os": "linux", "architecture": architecture(), "config": { "Cmd": ["/a"], "User": "7" },
            "rootfs": { "type": "layers", "diff_ids": diff_ids } })
        .to_string()
        .into_bytes();
        let stored: Vec<Value> = layers
            .iter()
            .map(|layer| link(&layer.stored, &format!("application/vnd.oci.image.layer.v1.tar{}", layer.kind)))
            .collect();
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({ "schemaVersion": 2, "mediaType": kind, "layers": stored,
            "config": link(&config, "application/vnd.oci.image.config.v1+json") })
        .to_string()
        .into_bytes();
        for bytes in layers.iter().map(|layer| &layer.stored).chain([&config]) {
            self.push_blob(repository, bytes);
        }
        let url = format!("http://{}/v2/{repository}/manifests/{tag}", self.address);
        ureq::put(url).header("content-type", kind).send(&manifest[..]).expect("push the manifest");
        digest(&config)
    }

    fn push_blob(&self, repository: &str, bytes: &[u8]) {
        let url = format!("http://{}/v2/{repository}/blobs/uploads/", self.address);
        let begun = ureq::post(url).send_empty().expect("begin an upload");
        let location = begun.headers()["location"].to_str().expect("text").to_owned();
        let joint = if location.contains('?') { '&' } else { '?' };
        let url = format!("{location}{joint}digest={}", digest(bytes));
        ureq::put(url).header("content-type", "application/octet-stream").send(bytes).expect("push a blob");
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.daemon.kill().ok();
        self.daemon.wait().ok();
    }
}

/// A layer as stored and as a tar; `kind` is the end of its media type.
pub struct Layer {
    pub stored: Vec<u8>,
    pub kind: &'static str,
    pub plain: Vec<u8>,
}

impl Layer {
    /// A layer with one file.
    pub fn plain(name: &str, content: &[u8]) -> Self {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        tar.append_data(&mut header, name, content).expect("in memory");
        let plain = tar.into_inner().expect("in memory");
        Layer { stored: plain.clone(), kind: "", plain }
    }

    /// The same, compressed.
    pub fn gzip(name: &str, content: &[u8]) -> Self {
        let layer = Layer::plain(name, content);
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(&layer.plain).expect("in memory");
        Layer { stored: out.finish().expect("in memory"), kind: "+gzip", ..layer }
    }
}

/// Bytes that do not compress, the same every time.
pub fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut all = Vec::with_capacity(bytes + 8);
    while all.len() < bytes {
        all.extend(next());
    }
    all.truncate(bytes);
    all
}

/// A proxy on the way to a registry that breaks each connection after some bytes of answers.
pub struct Breaker {
    /// `127.0.0.1:PORT`.
    pub address: String,
    /// How many connections it has broken.
    pub broken: Arc<AtomicUsize>,
}

impl Breaker {
    /// Connections end after `bytes` from the registry; it lives as long as the process.
    pub fn start(to: &str, bytes: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        let (to, broken) = (to.to_owned(), Arc::new(AtomicUsize::new(0)));
        let own = broken.clone();
        let accept = move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(&to)) else { return };
                let (mut from, mut into) =
                    (client.try_clone().expect("a descriptor"), server.try_clone().expect("a descriptor"));
                let up = move || drop(std::io::copy(&mut from, &mut into));
                std::thread::Builder::new().name("up".into()).spawn(up).expect("a thread");
                let broken = own.clone();
                let down = move || {
                    let passed = std::io::copy(&mut (&server).take(bytes), &mut &client).unwrap_or(0);
                    if passed == bytes {
                        broken.fetch_add(1, Ordering::Relaxed);
                    }
                    client.shutdown(std::net::Shutdown::Both).ok();
                    server.shutdown(std::net::Shutdown::Both).ok();
                };
                std::thread::Builder::new().name("down".into()).spawn(down).expect("a thread");
            }
        };
        std::thread::Builder::new().name("breaker".into()).spawn(accept).expect("a thread");
        Breaker { address, broken }
    }
}

/// A token server: signs for whoever asks, or only for this user, what docker-registry then believes.
pub struct TokenServer {
    /// `http://127.0.0.1:PORT/token`.
    pub realm: String,
    /// Tokens given out.
    pub given: Arc<AtomicU64>,
}

impl TokenServer {
    /// `dir` has `key.pem` and `cert.pem` of [`certificate`]. With `only`, the value of `Authorization` that it wants.
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
                        own.fetch_add(1, Ordering::Relaxed);
                        (200, json!({ "token": token(&dir, &head) }).to_string())
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
}

/// A token for the scope in a request's query, signed with the key in `dir`.
fn token(dir: &Path, head: &str) -> String {
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
        "jti": now.to_string(), "access": [{ "type": kind, "name": name, "actions": ["pull"] }] });
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

/// A key and a certificate of its own for 127.0.0.1, as `key.pem` and `cert.pem` in `dir`.
pub fn certificate(dir: &Path) -> (PathBuf, PathBuf) {
    let (key, cert) = (dir.join("key.pem"), dir.join("cert.pem"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test"])
        .args(["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&cert)
        .output()
        .expect("openssl is missing: apt-get install openssl");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    (key, cert)
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port()
}

pub fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
