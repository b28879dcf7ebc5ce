//! Debian's docker-registry on loopback, with what a test asks of it, and a way to put images there.
#![allow(dead_code, reason = "every test target uses a part of it")]

use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
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
        let diff_ids: Vec<&String> = layers.iter().map(|layer| &layer.diff_id).collect();
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

/// A layer as stored; `kind` is the end of its media type, `diff_id` the digest of its tar.
pub struct Layer {
    pub stored: Vec<u8>,
    pub kind: &'static str,
    pub diff_id: String,
}

impl Layer {
    /// A layer with one file.
    pub fn plain(name: &str, content: &[u8]) -> Self {
        let (stored, diff_id) = tar_of_one(name, content.len() as u64, content, Vec::new());
        Layer { stored, kind: "", diff_id }
    }

    /// The same, compressed.
    pub fn gzip(name: &str, content: &[u8]) -> Self {
        Layer::gzip_of(name, content.len() as u64, content)
    }

    /// The same, of so many bytes that are never in memory together.
    pub fn gzip_of(name: &str, bytes: u64, content: impl Read) -> Self {
        let out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let (out, diff_id) = tar_of_one(name, bytes, content, out);
        Layer { stored: out.finish().expect("in memory"), kind: "+gzip", diff_id }
    }

    /// What the manifest calls it.
    pub fn digest(&self) -> String {
        digest(&self.stored)
    }
}

/// Writes a tar with one file, and says its digest.
fn tar_of_one<W: Write>(name: &str, bytes: u64, content: impl Read, to: W) -> (W, String) {
    let mut tar = tar::Builder::new(Hashing { hash: Sha256::new(), to });
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes);
    header.set_mode(0o755);
    tar.append_data(&mut header, name, content.take(bytes)).expect("in memory");
    let Hashing { hash, to } = tar.into_inner().expect("in memory");
    (to, named(hash))
}

/// Hashes what goes through it.
struct Hashing<W> {
    hash: Sha256,
    to: W,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Bytes that do not compress, the same every time.
pub fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut all = vec![0; bytes];
    Noise(seed | 1).read_exact(&mut all).expect("it has no end");
    all
}

/// The same without an end. Its state is never 0.
pub struct Noise(pub u64);

impl Read for Noise {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        for word in into.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            word.copy_from_slice(&self.0.to_le_bytes()[..word.len()]);
        }
        Ok(into.len())
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port()
}

pub fn digest(bytes: &[u8]) -> String {
    named(Sha256::new_with_prefix(bytes))
}

fn named(hash: Sha256) -> String {
    let hex: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
