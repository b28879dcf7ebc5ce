//! Pulls from Debian's docker-registry into a real containerd.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

use cricket::call::Call;
use cricket::containerd::Containerd;
use cricket::error::{Kind, Result};
use cricket::image::pull::Puller;
use cricket::reference::Reference;
use cricket::registry::{Credentials, Options};
use cricket::store::pulls::Pulls;
use cricket_proto::runtime::AuthConfig;

use crate::binary::binary;
use crate::certificate::certificate;
use crate::registry::{noise, Layer, Registry};
use crate::tokens::TokenServer;
use crate::{call, Node};

/// bcrypt of `geheim`, in the one form that docker-registry reads.
const HTPASSWD: &str = "me:$2b$05$ACBangILh5fZYf.jeBcoVOOR0IlMq6nvooy5EHLOFs.hMSj4KucLq\n";

impl Node {
    pub fn pull(&self, name: &str, credentials: &Credentials, dirs: &[&Path]) -> Result<String> {
        self.pull_within(Duration::from_secs(20), name, credentials, dirs)
    }

    /// The same, giving up what makes no progress for so long.
    pub fn pull_within(
        &self,
        progress_timeout: Duration,
        name: &str,
        credentials: &Credentials,
        dirs: &[&Path],
    ) -> Result<String> {
        let dirs = dirs.iter().map(|dir| dir.to_path_buf()).collect();
        self.pull_with(&call(), name, credentials, Options { dirs, progress_timeout }, binary())
    }

    /// From a registry of the test's own; this program unpacks.
    pub fn pull_by(&self, unpacker: PathBuf, name: &str) -> Result<String> {
        self.pull_by_within(&call(), unpacker, name)
    }

    pub fn pull_by_within(&self, call: &Call, unpacker: PathBuf, name: &str) -> Result<String> {
        let options = Options { dirs: Vec::new(), progress_timeout: Duration::from_secs(20) };
        self.pull_with(call, name, &nobody(), options, unpacker)
    }

    /// Layers need not stay once they are unpacked.
    pub fn pull_discarding(&self, unpacker: PathBuf, name: &str) -> Result<String> {
        let options = Options { dirs: Vec::new(), progress_timeout: Duration::from_secs(20) };
        self.with_puller(&options, unpacker, |puller| {
            let puller = Puller { discard_unpacked_layers: true, ..puller.clone() };
            puller.pull(&call(), &Reference::parse(name).expect(name), &nobody())
        })
    }

    fn pull_with(
        &self,
        call: &Call,
        name: &str,
        credentials: &Credentials,
        options: Options,
        unpacker: PathBuf,
    ) -> Result<String> {
        let reference = Reference::parse(name).expect(name);
        self.with_puller(&options, unpacker, |puller| puller.pull(call, &reference, credentials))
    }

    fn with_puller<T>(&self, options: &Options, unpacker: PathBuf, pull: impl FnOnce(&Puller<'_>) -> T) -> T {
        let client = cricket::containerd::Client::new(&self.private.socket()).expect("a socket");
        pull(&Puller {
            containerd: Arc::new(client),
            store: &self.store,
            snapshotter: "overlayfs",
            pulls: &Arc::new(Pulls::new(3)),
            options,
            unpacker: Some(unpacker),
            discard_unpacked_layers: false,
            sole: true,
            report: Arc::new(|_| ()),
        })
    }
}

fn me() -> Credentials {
    let auth = AuthConfig { username: "me".into(), password: "geheim".into(), ..AuthConfig::default() };
    Credentials::from_request(&auth).expect("credentials")
}

/// Which of [`layers`] has three million bytes.
pub const LARGE: usize = 1;

pub fn layers() -> Vec<Layer> {
    vec![Layer::plain("a", b"a"), Layer::gzip("b", &noise(3_000_000, 1)), Layer::gzip("c", b"c")]
}

pub fn nobody() -> Credentials {
    Credentials::default()
}

#[test]
fn from_a_plain_registry_and_again() {
    let node = Node::new();
    let registry = Registry::start(node.private.dir(), "", "");
    let id = registry.push("some/app", "1", &layers());
    let name = format!("{}/some/app:1", registry.address);
    for _ in 0..2 {
        assert_eq!(node.pull(&name, &nobody(), &[]).expect("pull"), id);
        node.assert_complete(&name, 3);
        node.assert_complete(&id, 3);
    }
    let missing = node.pull(&format!("{}/some/app:2", registry.address), &nobody(), &[]).expect_err("not there");
    assert_eq!(missing.kind(), Kind::NotFound, "{missing}");
    node.assert_removable(&name);
}

#[test]
fn over_tls_with_a_ca_of_its_own() {
    let node = Node::new();
    let dir = node.private.dir();
    let (key, cert) = certificate(dir);
    let plain = Registry::start(dir, "", "");
    let id = plain.push("app", "1", &layers());
    let tls = format!("  tls:\n    certificate: {}\n    key: {}\n", cert.display(), key.display());
    let registry = Registry::start(dir, &tls, "");
    let name = format!("{}/app:1", registry.address);
    let hosts = dir.join("certs.d").join(&registry.address);
    fs::create_dir_all(&hosts).expect("a directory");
    let server = format!("server = \"https://{}\"\n", registry.address);
    fs::write(hosts.join("hosts.toml"), &server).expect("write hosts.toml");
    let e = node.pull(&name, &nobody(), &[&dir.join("certs.d")]).expect_err("its CA is not known");
    assert!(e.kind() == Kind::Unknown && e.to_string().starts_with("RegistryUnavailable: "), "{e}");
    node.assert_empty();
    fs::write(hosts.join("hosts.toml"), format!("{server}ca = \"{}\"\n", cert.display())).expect("write hosts.toml");
    assert_eq!(node.pull(&name, &nobody(), &[&dir.join("certs.d")]).expect("pull"), id);
    node.assert_complete(&name, 3);
}

#[test]
fn with_a_name_and_a_password() {
    let node = Node::new();
    let dir = node.private.dir();
    let id = Registry::start(dir, "", "").push("app", "1", &layers());
    fs::write(dir.join("htpasswd"), HTPASSWD).expect("write htpasswd");
    let auth = format!("auth: {{htpasswd: {{realm: x, path: {}/htpasswd}}}}\n", dir.display());
    let registry = Registry::start(dir, "", &auth);
    let name = format!("{}/app:1", registry.address);
    let e = node.pull(&name, &nobody(), &[]).expect_err("who are you?");
    assert_eq!(e.kind(), Kind::PermissionDenied, "{e}");
    assert_eq!(node.pull(&name, &me(), &[]).expect("pull"), id);
    node.assert_complete(&name, 3);
}

#[test]
fn with_tokens() {
    let node = Node::new();
    let dir = node.private.dir();
    certificate(dir);
    let id = Registry::start(dir, "", "").push("some/app", "1", &layers());
    for (only, credentials) in [(None, nobody()), (Some("Basic bWU6Z2VoZWlt"), me())] {
        let tokens = TokenServer::start(dir, only);
        let registry = Registry::start(dir, "", &tokens.configuration(dir));
        let name = format!("{}/some/app:1", registry.address);
        assert_eq!(node.pull(&name, &credentials, &[]).expect("pull"), id);
        assert!(tokens.given.load(Ordering::Relaxed) > 0);
        node.assert_complete(&name, 3);
        if only.is_some() {
            let e = node.pull(&name, &nobody(), &[]).expect_err("who are you?");
            assert_eq!(e.kind(), Kind::PermissionDenied, "{e}");
        }
    }
}

#[test]
fn from_a_mirror() {
    let node = Node::new();
    let dir = node.private.dir();
    let registry = Registry::start(dir, "", "");
    let id = registry.push("library/app", "1", &layers());
    fs::create_dir_all(dir.join("certs.d/docker.io")).expect("a directory");
    let text = format!("[host.\"http://{}\"]\ncapabilities = [\"pull\", \"resolve\"]\n", registry.address);
    fs::write(dir.join("certs.d/docker.io/hosts.toml"), text).expect("write hosts.toml");
    assert_eq!(node.pull("app:1", &nobody(), &[&dir.join("certs.d")]).expect("pull"), id);
    node.assert_complete("docker.io/library/app:1", 3);
}

#[test]
fn what_another_program_has_begun() {
    let node = Node::new();
    let registry = Registry::start(node.private.dir(), "", "");
    let layers = layers();
    let id = registry.push("app", "1", &layers);
    // A short layer and a long one.
    for (n, layer) in [&layers[0], &layers[LARGE]].into_iter().enumerate() {
        let (digest, size) = (layer.digest(), layer.stored.len().to_string());
        let reference = format!("layer-{digest}");
        let mut ingest = node.ctr_command(&["content", "ingest", "--expected-size", &size]);
        ingest.args(["--expected-digest", &digest, &reference]).stdin(Stdio::piped());
        let mut ctr = ingest.stderr(Stdio::null()).spawn().expect("ctr comes with containerd");
        ctr.stdin.take().expect("a pipe").write_all(&layer.stored[..layer.stored.len() / 3]).expect("taken");
        assert!(!ctr.wait().expect("ended").success(), "that was not all");
        let begun = node.ctr(&["content", "active"]);
        assert!(begun.lines().any(|line| line.contains(&digest) && !line.contains("\t0B\t")), "layer {n}: {begun}");
    }
    let name = format!("{}/app:1", registry.address);
    assert_eq!(node.pull(&name, &nobody(), &[]).expect("pull"), id);
    node.assert_complete(&name, 3);
}

#[test]
fn several_at_once() {
    let node = Node::new();
    let registry = Registry::start(node.private.dir(), "", "");
    let ids: Vec<String> = (0..4)
        .map(|n| {
            let mut all = layers();
            all.push(Layer::plain("own", &[n]));
            registry.push(&format!("app{n}"), "1", &all)
        })
        .collect();
    std::thread::scope(|scope| {
        for (n, id) in ids.iter().enumerate() {
            let (node, name) = (&node, format!("{}/app{n}:1", registry.address));
            scope.spawn(move || assert_eq!(node.pull(&name, &nobody(), &[]).expect("pull"), *id));
        }
    });
    node.collect_garbage();
    assert_eq!(node.store.list().len(), 4);
    // The two lowest layers are those of all, the two short ones on them are one snapshot.
    assert_eq!(node.client.snapshots(&call(), "overlayfs").expect("snapshots").len(), 2 + 4);
}
