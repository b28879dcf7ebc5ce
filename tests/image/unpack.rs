//! Layers that are unpacked while they are fetched: as containerd does it, file for file, and nowhere else.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use cricket::call::Call;
use cricket::containerd::{Containerd, Descriptor, Labels, Mount, SnapshotRef};
use cricket::error::Kind;
use cricket::sys::xattr;
use tar::EntryType;

use crate::binary::binary;
use crate::facts::{facts, Facts};
use crate::registry::{Layer, Registry};
use crate::tape::{packed, plain, tape, Piece};
use crate::zoo::{highest, lowest, middle};
use crate::{call, Node};

/// The value of an overlay's option.
fn option<'a>(mounts: &'a [Mount], key: &str) -> Option<&'a str> {
    mounts.iter().flat_map(|mount| &mount.options).find_map(|option| option.strip_prefix(key))
}

impl Node {
    /// The directories of a committed snapshot and those below it, the lowest first.
    fn directories(&self, snapshot: &str) -> Vec<PathBuf> {
        let at = |key| SnapshotRef { snapshotter: "overlayfs", key };
        let mounts = self.client.prepare_snapshot(&call(), &at("look"), snapshot, &root()).expect("a snapshot");
        self.client.remove_snapshot(&call(), &at("look")).expect("ours");
        let all = option(&mounts, "lowerdir=").expect("an overlay");
        all.split(':').rev().map(PathBuf::from).collect()
    }

    /// containerd's differ on the same layers: the name of the highest snapshot.
    pub fn by_containerd(&self, layers: &[Layer]) -> String {
        let at = |key| SnapshotRef { snapshotter: "overlayfs", key };
        let mut parent = String::new();
        for (n, layer) in layers.iter().enumerate() {
            let mounts = self.client.prepare_snapshot(&call(), &at("theirs"), &parent, &root()).expect("a snapshot");
            let descriptor = Descriptor {
                media_type: format!("application/vnd.oci.image.layer.v1.tar{}", layer.kind),
                digest: layer.digest(),
                size_bytes: layer.stored.len() as u64,
                ..Descriptor::default()
            };
            let found = self.client.apply_layer(&call(), &descriptor, &mounts).expect("containerd unpacks it");
            assert_eq!(found, layer.diff_id);
            parent = format!("theirs-{n}");
            self.client.commit_snapshot(&call(), &at("theirs"), &parent, &root()).expect("committed");
        }
        parent
    }

    /// Undoes [`Node::by_containerd`].
    pub fn forget_theirs(&self, layers: usize) {
        for n in (0..layers).rev() {
            let key = format!("theirs-{n}");
            let at = SnapshotRef { snapshotter: "overlayfs", key: &key };
            self.client.remove_snapshot(&call(), &at).expect("ours");
        }
    }

    /// A program that unpacks as cricket does, and writes down how that ended.
    pub fn witness(&self, body: &str) -> PathBuf {
        let (script, told) = (self.private.dir().join("unpacker"), self.told());
        let text = format!("#!/bin/sh\n{body}\ncode=$?; echo $code >>{}; exit $code\n", told.display());
        fs::write(&script, text).expect("write the script");
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("ours");
        script
    }

    fn told(&self) -> PathBuf {
        self.private.dir().join("told")
    }

    /// How the processes ended that unpacked since this was asked last.
    pub fn ended(&self) -> Vec<String> {
        let text = fs::read_to_string(self.told()).unwrap_or_default();
        fs::remove_file(self.told()).ok();
        text.lines().map(str::to_owned).collect()
    }

    /// No snapshot, whole or in the making.
    pub fn assert_nothing_unpacked(&self) {
        assert_eq!(self.client.snapshots(&call(), "overlayfs").expect("snapshots"), []);
    }

    pub fn chain_id(&self, name: &str) -> String {
        self.store.get(name).expect("pulled").chain_id.clone()
    }
}

/// What cricket's own code in this process says.
struct Notes(Mutex<Vec<String>>);

static NOTES: Notes = Notes(Mutex::new(Vec::new()));

impl Notes {
    fn begin() {
        log::set_logger(&NOTES).expect("one test wants them");
        log::set_max_level(log::LevelFilter::Debug);
    }

    /// Those that name a blob.
    fn of(digest: &str) -> Vec<String> {
        NOTES.0.lock().expect("no panic").iter().filter(|note| note.contains(digest)).cloned().collect()
    }
}

impl log::Log for Notes {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        self.0.lock().expect("no panic").push(record.args().to_string());
    }

    fn flush(&self) {}
}

/// What the garbage collector leaves alone.
pub fn root() -> Labels {
    Labels::from([("containerd.io/gc.root".to_owned(), "yes".to_owned())])
}

/// The real one.
pub fn cricket() -> String {
    format!("{} \"$@\"", binary().display())
}

#[test]
fn every_file_is_what_containerd_makes_of_it() {
    let node = Node::new();
    let registry = Registry::start(node.private.dir(), "", "");
    // No other test has these.
    let layers = [packed(&tape(&lowest(), 501)), packed(&tape(&middle(), 502)), plain(tape(&highest(), 503))];
    registry.push("zoo", "1", &layers);
    let name = format!("{}/zoo:1", registry.address);
    let unpacker = node.witness(&cricket());
    Notes::begin();
    node.pull_by(unpacker, &name).expect("pull");
    assert_eq!(node.ended(), ["0"; 3], "unpacked while they were fetched");
    for layer in &layers {
        assert_eq!(Notes::of(&layer.digest()), [format!("layer {}: unpacked while it was fetched", layer.digest())]);
    }
    let ours = node.directories(&node.chain_id(&name));
    let theirs = node.directories(&node.by_containerd(&layers));
    assert_eq!(ours.len(), 3);
    let undated = [
        "implied",
        "implied/once",
        "etc/inherits",
        "kept",
        "kept/below",
        "kept/new",
        "lib",
        "usr",
        "etc",
        "gone-dir",
        "tmp",
        "opaque",
        "deep",
    ];
    for (n, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
        let undated: &[&str] = if n == 0 { &["implied", "usr", "deep", "etc/prefixed"] } else { &undated };
        let (ours, theirs) = (facts(ours, undated), facts(theirs, undated));
        let names = |of: &BTreeMap<PathBuf, Facts>| of.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&ours), names(&theirs), "layer {n}");
        for (path, theirs) in &theirs {
            let deep = path.starts_with("deep") && theirs.kind == 'd';
            assert!(
                deep || ours[path] == *theirs,
                "layer {n}, {}: {:#?} is not {theirs:#?}",
                path.display(),
                ours[path]
            );
        }
    }
    // Seen through the overlay, what is gone is gone.
    assert!(facts(&ours[1], &[])[Path::new("gone")].kind == 'c');
}

#[test]
fn layers_lie_on_others_that_were_there() {
    let node = Node::new();
    let registry = Registry::start(node.private.dir(), "", "");
    let base = || packed(&tape(&lowest(), 1));
    registry.push("base", "1", &[base()]);
    let layers = [base(), packed(&tape(&middle(), 2))];
    registry.push("zoo", "1", &layers);
    let unpacker = node.witness(&cricket());
    node.pull_by(unpacker.clone(), &format!("{}/base:1", registry.address)).expect("pull");
    let name = format!("{}/zoo:1", registry.address);
    node.pull_by(unpacker, &name).expect("pull");
    assert_eq!(node.ended(), ["0"; 2]);
    let ours = node.directories(&node.chain_id(&name));
    let kept = fs::metadata(ours[1].join("kept")).expect("implied");
    assert_eq!((kept.mode() & 0o7777, kept.uid(), kept.gid()), (0o710, 7, 8));
    assert_eq!(xattr::value(&ours[1].join("kept"), c"user.kept").expect("as below"), b"yes");
    node.collect_garbage();
    assert_eq!(node.client.snapshots(&call(), "overlayfs").expect("snapshots").len(), 2);
}

#[test]
fn nothing_is_written_elsewhere() {
    let outside = std::env::temp_dir().join(format!("cricket-outside-{}", std::process::id()));
    fs::create_dir(&outside).expect("made");
    fs::write(outside.join("file"), "untouched").expect("written");
    let path = outside.display().to_string();
    let climbing = format!("../../../../../../../../../../../../{path}/file");
    let file = format!("{path}/file");
    let attempts: Vec<Vec<Piece>> = vec![
        vec![Piece::file(&climbing, b"x")],
        vec![Piece::symlink("out", &path), Piece::file("out/file", b"x")],
        vec![Piece::symlink("out", &climbing), Piece::file("out", b"x")],
        vec![Piece::symlink("out", &file), Piece::hard_link("in", "out"), Piece::file("in", b"x")],
        vec![Piece::hard_link("in", &climbing), Piece::file("in", b"x")],
        vec![Piece::hard_link("in", &file).mode(0o777)],
        vec![Piece::symlink("out", "/proc/self/cwd"), Piece::file("out/file", b"x")],
        vec![Piece::symlink("out", &path), Piece::file("out/.wh.file", b"")],
        vec![Piece::symlink("out", &path), Piece::file("out/.wh..wh..opq", b"")],
        vec![Piece::file("d/file", b""), Piece::symlink("d", &path), Piece::dir("d/").mode(0o777)],
        vec![Piece::file(".wh...", b"")],
        vec![Piece::file(".wh..", b"")],
    ];
    let node = Node::new();
    let registry = Registry::start(node.private.dir(), "", "");
    let unpacker = node.witness(&cricket());
    for (n, pieces) in attempts.iter().enumerate() {
        // Each as the lowest layer, and on another one.
        let below = packed(&tape(&[Piece::dir("d")], 99));
        let own = |number| packed(&tape(pieces, number));
        let layers = [vec![own(2 * n as u64)], vec![below, own(2 * n as u64 + 1)]];
        for (m, layers) in layers.iter().enumerate() {
            let repository = format!("attempt-{n}-{m}");
            registry.push(&repository, "1", layers);
            // Whether containerd takes it is not ours to say.
            node.pull_by(unpacker.clone(), &format!("{}/{repository}:1", registry.address)).ok();
            let found: Vec<_> =
                fs::read_dir(&outside).expect("there").map(|e| e.expect("readable").file_name()).collect();
            assert_eq!(found, ["file"], "attempt {n}, {m}");
            let facts = fs::metadata(outside.join("file")).expect("there");
            assert_eq!((facts.mode() & 0o7777, facts.nlink()), (0o644, 1), "attempt {n}, {m}");
            assert_eq!(fs::read_to_string(outside.join("file")).expect("there"), "untouched", "attempt {n}, {m}");
        }
    }
    assert!(!node.ended().is_empty(), "it was asked");
    fs::remove_dir_all(&outside).expect("ours");
}

#[test]
fn what_ours_does_not_take_containerd_unpacks() {
    let node = Node::new();
    let registry = Registry::start(node.private.dir(), "", "");
    let unpacker = node.witness(&cricket());
    let through = |to| vec![Piece::dir("d"), Piece::symlink("l", to), Piece::file("l/file", b"f")];
    let taken: [(&str, Vec<Piece>); 15] = [
        ("upwards", vec![Piece::dir("a"), Piece::file("a/../b", b"b")]),
        ("a link to nothing", through("there")),
        ("through a link", through("d")),
        ("through an absolute link", through("/d")),
        (
            "a hard link through one",
            vec![Piece::dir("d"), Piece::file("d/f", b""), Piece::symlink("l", "d"), Piece::hard_link("h", "l/f")],
        ),
        (
            "a hard link with a slash",
            vec![Piece::file("f", b""), Piece::symlink("s", "f"), Piece::hard_link("h", "s/")],
        ),
        (
            "an opaque directory of one's own",
            vec![Piece::file("implied/f", b"f"), Piece::file("implied/.wh..wh..opq", b"")],
        ),
        ("a file that goes", vec![Piece::file("a", b"a"), Piece::file(".wh.a", b"")]),
        ("a directory that becomes a link", vec![Piece::dir("a"), Piece::dir("b"), Piece::symlink("a", "b")]),
        ("for all", vec![Piece::record(EntryType::XGlobalHeader, "uid", "5"), Piece::file("a", b"a")]),
        ("GNU's header with times", vec![Piece::file("a", b"a").patched(345, b"00000000001")]),
        ("GNU's header with a prefix", vec![Piece::file("a", b"a").patched(345, b"prefix")]),
        ("another version", vec![Piece::file("a", b"a").prefixed("b").patched(263, b"xx")]),
        ("a tar of Schilling's", vec![Piece::file("a", b"a").prefixed("b").patched(508, b"tar\0")]),
        ("a time beyond all", vec![Piece::file("a", b"a").pax("mtime", b"9223372036854775807")]),
    ];
    for (n, (what, pieces)) in taken.iter().enumerate() {
        registry.push("odd", &n.to_string(), &[packed(&tape(pieces, n as u64))]);
        let name = format!("{}/odd:{n}", registry.address);
        node.pull_by(unpacker.clone(), &name).expect(what);
        assert_eq!(node.ended(), ["1"], "{what}");
        node.assert_complete(&name, 1);
        node.assert_removable(&name);
    }
    // Neither takes these; what is said of the last one is too long for a pipe.
    let long = "a".repeat(200_000);
    let number = Piece::file("a", b"a").pax("uid", b"5").patched(108, b"8");
    let refused =
        [vec![Piece::odd("a", b'Z')], vec![number], vec![Piece::file("a", b"a").pax("path", long.as_bytes())]];
    for (n, pieces) in refused.iter().enumerate() {
        registry.push("refused", &n.to_string(), &[packed(&tape(pieces, n as u64))]);
        node.pull_by(unpacker.clone(), &format!("{}/refused:{n}", registry.address)).expect_err("nobody takes it");
        assert_eq!(node.ended(), ["1"]);
        node.assert_nothing_unpacked();
    }
}

#[test]
fn what_depends_on_the_layers_below_is_as_there() {
    let node = Node::new();
    let registry = Registry::start(node.private.dir(), "", "");
    let unpacker = node.witness(&cricket());
    let base = || {
        packed(&tape(
            &[
                Piece::dir("staff").mode(0o2775).owner(0, 50),
                Piece::dir("d"),
                Piece::file("d/secret", b"s"),
                Piece::symlink("l", "d"),
                Piece::dir("a").pax("SCHILY.xattr.user.x", b"1"),
                Piece::dir("usr/lib").mode(0o711),
                Piece::symlink("lib", "usr/lib"),
            ],
            1,
        ))
    };
    // Ours makes the first two, and what is below says that it must not; the others it refuses by itself.
    let above: [(&str, Vec<Piece>); 5] = [
        ("0", vec![Piece::file("lib/shadows-a-link", b"f")]),
        ("0", vec![Piece::file("staff/new/f", b"f")]),
        ("1", vec![Piece::dir("d"), Piece::symlink("m", "d"), Piece::file("m/.wh..wh..opq", b"")]),
        ("1", vec![Piece::file("a/f", b"f"), Piece::dir("a")]),
        ("1", vec![Piece::dir("e"), Piece::file("a/f", b"f"), Piece::symlink("a", "e")]),
    ];
    for (n, (code, pieces)) in above.iter().enumerate() {
        let layers = [base(), packed(&tape(pieces, 10 + n as u64))];
        registry.push("above", &n.to_string(), &layers);
        let name = format!("{}/above:{n}", registry.address);
        node.pull_by(unpacker.clone(), &name).expect("pull");
        let mut ended = node.ended();
        ended.sort();
        // The lowest layer is there from the second pull on.
        assert_eq!(ended.last().map(String::as_str), Some(*code), "{n}: {ended:?}");
        let ours = node.directories(&node.chain_id(&name));
        let theirs = node.directories(&node.by_containerd(&layers));
        let undated = ["staff", "staff/new", "a", "e", "d", "lib"];
        let (ours, theirs) = (facts(&ours[1], &undated), facts(&theirs[1], &undated));
        assert_eq!(ours, theirs, "{n}");
        node.forget_theirs(2);
    }
}

#[test]
fn whatever_becomes_of_the_process_the_image_is_whole() {
    let node = Node::new();
    let registry = Registry::start(node.private.dir(), "", "");
    let layers = [packed(&tape(&lowest(), 1)), packed(&tape(&middle(), 2))];
    registry.push("zoo", "1", &layers);
    let name = format!("{}/zoo:1", registry.address);
    let halfway = format!("head -c 300000 | {} \"$@\"", binary().display());
    for body in
        ["exit 3", "kill -9 $$", "cat >/dev/null; echo rubbish; true", halfway.as_str(), "head -c 100 >/dev/null; true"]
    {
        let unpacker = node.witness(body);
        node.pull_by(unpacker, &name).expect(body);
        node.assert_complete(&name, 2);
        node.assert_removable(&name);
    }
    node.pull_by("/nonexistent/cricket".into(), &name).expect("pull");
    node.assert_complete(&name, 2);
}

#[test]
fn a_layer_that_is_something_else_is_refused() {
    let node = Node::new();
    let registry = Registry::start(node.private.dir(), "", "");
    let mut layer = packed(&tape(&lowest(), 1));
    layer.diff_id = packed(b"else").diff_id;
    registry.push("zoo", "1", &[layer]);
    let unpacker = node.witness(&cricket());
    let e = node.pull_by(unpacker, &format!("{}/zoo:1", registry.address)).expect_err("another diff id");
    assert_eq!(e.kind(), Kind::InvalidArgument);
    assert!(e.to_string().contains("it unpacks to sha256:"), "{e}");
    assert_eq!(node.ended(), ["0"]);
    node.assert_nothing_unpacked();
}

#[test]
fn a_process_that_hangs_goes_with_the_pull() {
    let node = Node::new();
    let registry = Registry::start(node.private.dir(), "", "");
    registry.push("zoo", "1", &[packed(&tape(&lowest(), 1))]);
    let pid = node.private.dir().join("pid");
    let unpacker = node.witness(&format!("echo $$ >{}; exec sleep 1000", pid.display()));
    let call = Call::unbounded();
    let began = Instant::now();
    let name = format!("{}/zoo:1", registry.address);
    std::thread::scope(|scope| {
        let pulling = scope.spawn(|| node.pull_by_within(&call, unpacker, &name));
        while !pid.exists() {
            assert!(began.elapsed() < Duration::from_secs(60), "it never started");
            std::thread::sleep(Duration::from_millis(10));
        }
        call.cancel();
        let e = pulling.join().expect("no panic").expect_err("cancelled");
        assert_eq!(e.kind(), Kind::Canceled);
    });
    let pid = fs::read_to_string(&pid).expect("told");
    assert!(!Path::new("/proc").join(pid.trim()).exists(), "it is still there");
    node.assert_nothing_unpacked();
}
