//! The image verbs on a real containerd: what they import is what containerd calls complete, and its garbage
//! collection agrees.

mod archives;
#[path = "../support/binary.rs"]
mod binary;
#[path = "../support/certificate.rs"]
mod certificate;
mod facts;
mod faults;
mod proxy;
mod pull;
mod run;
#[path = "../support/registry.rs"]
mod registry;
#[path = "../support/containerd.rs"]
mod support;
mod tape;
mod tokens;
mod unpack;
mod zoo;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use cricket::call::Call;
use cricket::containerd::{Client, Containerd, Labels, SnapshotRef};
use cricket::error::Kind;
use cricket::image::build::{self, Bytes, NewFile, NewImage};
use cricket::image::fs_info::{fs_info, Place};
use cricket::image::import::{import, Imported};
use cricket::image::{load, remove, Images};
use cricket::store::fs_usage::FsUsage;
use cricket::store::image::ImageStore;
use cricket_proto::runtime::{ImageSpec, RemoveImageRequest};
use support::PrivateContainerd;

const NAME: &str = "cricket.local/app:1";

/// A node: containerd, what cricket knows of it, and files.
struct Node {
    client: Client,
    store: ImageStore,
    private: PrivateContainerd,
}

impl Node {
    fn new() -> Self {
        let private = PrivateContainerd::start();
        let client = Client::new(&private.socket()).expect("a socket");
        client.ensure_namespace(&call()).expect("a namespace");
        Node { client, store: ImageStore::new(), private }
    }

    fn images(&self) -> Images<'_> {
        Images { containerd: &self.client, store: &self.store, snapshotter: "overlayfs" }
    }

    fn file(&self, bytes: &[u8]) -> PathBuf {
        let path = self.private.dir().join("archive");
        fs::write(&path, bytes).expect("write the archive");
        path
    }

    fn import(&self, bytes: &[u8]) -> Vec<Imported> {
        let file = self.file(bytes);
        import(&self.images(), &call(), &file, self.private.dir(), None).expect("import")
    }

    fn ctr(&self, arguments: &[&str]) -> String {
        let done = self.ctr_command(arguments).output().expect("ctr comes with containerd");
        assert!(done.status.success(), "ctr {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).expect("text")
    }

    fn ctr_command(&self, arguments: &[&str]) -> Command {
        let mut ctr = Command::new("ctr");
        ctr.args(["--address", &self.private.socket(), "--namespace", "k8s.io"]).args(arguments);
        ctr
    }

    /// Nothing but what the records, leases and containers keep.
    fn collect_garbage(&self) {
        self.client.create_lease(&call(), "collect", Duration::from_secs(60)).expect("a lease");
        self.client.delete_lease(&call(), "collect", true).expect("collect garbage");
    }

    /// containerd finds all of the image, also after a garbage collection.
    fn assert_complete(&self, name: &str, layers: usize) {
        self.collect_garbage();
        let checked = self.ctr(&["images", "check", &format!("name=={name}")]);
        let line = checked.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {checked}"));
        // The configuration counts, manifests do not.
        let blobs = layers + 1;
        assert!(line.contains(&format!(" complete ({blobs}/{blobs}) ")), "{checked}");
        assert!(line.trim_end().ends_with("true"), "unpacked: {checked}");
        let image = self.store.get(name).expect(name);
        let at = SnapshotRef { snapshotter: "overlayfs", key: &image.chain_id };
        self.client.snapshot(&call(), &at).expect("the root filesystem");
        assert_eq!(self.client.snapshots(&call(), "overlayfs").expect("snapshots").len(), layers);
        assert_eq!(self.client.leases(&call()).expect("leases"), Vec::<String>::new());
    }

    /// Removed, an image leaves nothing.
    fn assert_removable(&self, name: &str) {
        let spec = ImageSpec { image: name.to_owned(), ..ImageSpec::default() };
        let request = RemoveImageRequest { image: Some(spec).into(), ..RemoveImageRequest::default() };
        remove::remove(&self.images(), &call(), &request).expect("remove");
        assert!(self.store.list().is_empty());
        self.assert_empty();
    }

    fn assert_empty(&self) {
        assert_eq!(self.client.images(&call()).expect("images"), []);
        assert_eq!(self.client.snapshots(&call(), "overlayfs").expect("snapshots"), []);
        assert_eq!(self.client.leases(&call()).expect("leases"), Vec::<String>::new());
        assert_eq!(self.ctr(&["content", "list", "--quiet"]), "");
        assert_eq!(self.ctr(&["content", "active"]).lines().count(), 1, "only the heading");
    }
}

fn call() -> Call {
    Call::within(Duration::from_secs(60))
}

#[test]
fn archives_of_every_shape() {
    let node = Node::new();
    for archive in [archives::layout(NAME), archives::saved(NAME), archives::gzip(&archives::layout(NAME))] {
        let imported = node.import(&archive);
        assert_eq!(imported[0].references, [NAME]);
        node.assert_complete(NAME, 3);
        node.assert_complete(&imported[0].id, 3);
        let at =
            Place { containerd: &node.client, measured: &FsUsage::default(), snapshotter: "overlayfs", version: 0 };
        let usage = fs_info(&[at], &call()).expect("usage");
        let filesystem = &usage.image_filesystems[0];
        assert!(filesystem.used_bytes.value > 1500, "{filesystem:?}");
        assert!(fs::metadata(&filesystem.fs_id.mountpoint).expect("the mount point is there").is_dir());
        node.assert_removable(NAME);
    }
}

#[test]
fn what_a_writable_layer_takes_is_what_containerd_says() {
    let node = Node::new();
    node.import(&archives::layout(NAME));
    let chain_id = node.store.get(NAME).expect("imported").chain_id.clone();
    let key = SnapshotRef { snapshotter: "overlayfs", key: "written" };
    // Else it is garbage as soon as it is there. containerd keeps no label without a value.
    let root = Labels::from([("containerd.io/gc.root".into(), "yes".into())]);
    let mounts = node.client.prepare_snapshot(&call(), &key, &chain_id, &root).expect("prepare");
    let upper = mounts[0].options.iter().find_map(|option| option.strip_prefix("upperdir=")).expect("an overlay");
    let upper = PathBuf::from(upper);
    fs::create_dir_all(upper.join("a/b")).expect("mkdir");
    fs::write(upper.join("a/b/file"), vec![7; 123_456]).expect("write");
    fs::hard_link(upper.join("a/b/file"), upper.join("a/other")).expect("link");
    std::os::unix::fs::symlink("/etc", upper.join("a/etc")).expect("symlink");

    let measured = FsUsage::default();
    let at = Place { containerd: &node.client, measured: &measured, snapshotter: "overlayfs", version: 0 };
    fs_info(&[at], &call()).expect("measured");
    let last = measured.last.lock().clone();
    assert_eq!(last.writable["written"].as_deref(), Some(upper.as_path()), "counted where it lies");
    let theirs = node.client.snapshot_usage(&call(), &key).expect("usage");
    assert_eq!(last.usage["written"], theirs);
    assert!(theirs.size_bytes > 123_456 && theirs.inodes == 5, "{theirs:?}");
    node.client.remove_snapshot(&call(), &key).expect("remove");
}

#[test]
fn what_we_build_others_import_and_what_they_export_we_import() {
    let node = Node::new();
    let image = NewImage {
        name: NAME,
        files: vec![
            NewFile { path: "bin/ctr", mode: 0o755, bytes: Bytes::File("/usr/bin/ctr".as_ref()) },
            NewFile { path: "etc/passwd", mode: 0o644, bytes: Bytes::Inline(b"root:x:0:0::/:\n") },
        ],
        entrypoint: vec!["/bin/ctr"],
        env: vec![],
        labels: BTreeMap::new(),
    };
    let mut bytes = Vec::new();
    let built = build::write(&image, &mut bytes).expect("build");
    let file = node.file(&bytes).display().to_string();

    node.ctr(&["images", "import", &file]);
    load::refresh_all(&node.images(), &call()).expect("refresh");
    assert_eq!(node.store.get(NAME).expect("adopted").id, built.id);
    node.assert_complete(NAME, 1);
    node.assert_complete(&built.id, 1);

    node.ctr(&["images", "export", &file, NAME]);
    node.assert_removable(&built.id[..20]);
    let exported = fs::read(&file).expect("exported");
    let imported = node.import(&exported);
    assert_eq!((&imported[0].id, imported[0].references.as_slice()), (&built.id, &[NAME.to_owned()][..]));
    node.assert_complete(NAME, 1);
    node.assert_removable(NAME);
}

#[test]
fn a_broken_layer_leaves_nothing() {
    let node = Node::new();
    let mut archive = archives::saved(NAME);
    let at = archive.windows(8).position(|bytes| bytes == b"cccccccc").expect("the third layer");
    archive[at] = b'x';
    let file = node.file(&archive);
    let e = import(&node.images(), &call(), &file, node.private.dir(), None).expect_err("refused");
    assert_eq!(e.kind(), Kind::InvalidArgument, "{e}");
    assert!(e.to_string().contains("its content in the archive has digest"), "{e}");
    node.assert_empty();
}
