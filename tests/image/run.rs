//! Short layers in a row: one snapshot, in which everything is as if each had one.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cricket::containerd::{Containerd, SnapshotRef};
use cricket::error::Kind;

use crate::binary::binary;
use crate::facts::{facts, Facts};
use crate::proxy::Proxy;
use crate::registry::{Layer, Registry};
use crate::tape::{packed, plain, short, tape, Piece};
use crate::unpack::{cricket, root};
use crate::zoo::lowest;
use crate::{call, Node};

impl Node {
    /// What a container finds on a snapshot. The times of the directories in `undated` are left out.
    fn seen(&self, snapshot: &str, undated: &[&str]) -> BTreeMap<PathBuf, Facts> {
        let at = SnapshotRef { snapshotter: "overlayfs", key: "look" };
        let mounts = self.client.prepare_snapshot(&call(), &at, snapshot, &root()).expect("a snapshot");
        let place = self.private.dir().join("seen");
        fs::create_dir(&place).expect("made");
        let [mount] = mounts.as_slice() else { panic!("{mounts:?}") };
        let run = |command: &mut Command| assert!(command.status().expect("mount is there").success(), "{command:?}");
        let options = mount.options.join(",");
        run(Command::new("mount").args(["-t", &mount.kind, "-o", &options, &mount.source]).arg(&place));
        let seen = facts(&place, undated);
        run(Command::new("umount").arg(&place));
        fs::remove_dir(&place).expect("empty");
        self.client.remove_snapshot(&call(), &at).expect("ours");
        seen
    }

    fn snapshots(&self) -> usize {
        self.client.snapshots(&call(), "overlayfs").expect("snapshots").len()
    }

    /// What was pulled looks as it does when containerd unpacks each layer.
    fn assert_as_by_containerd(&self, name: &str, layers: &[Layer], undated: &[&str]) {
        let ours = self.seen(&self.chain_id(name), undated);
        let theirs = self.seen(&self.by_containerd(layers), undated);
        self.forget_theirs(layers.len());
        assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>(), "{name}");
        for (path, theirs) in &theirs {
            assert_eq!(ours[path], *theirs, "{name}, {}", path.display());
        }
    }
}

/// Short layers in which a directory becomes a file, and directories are there only for what is in them.
fn plainer() -> Vec<Layer> {
    let first = [Piece::dir("d"), Piece::dir("d/goes"), Piece::file("d/goes/with-it", b"1"), Piece::dir("tmp")];
    let second = [
        Piece::file("d/goes", b"a file now"),
        Piece::dir("tmp").mode(0o1770),
        Piece::file("implied/twice/second", b"2"),
    ];
    vec![packed(&short(&first)), packed(&short(&second))]
}

/// Short layers on [`lowest`].
fn above() -> Vec<Layer> {
    let first = [
        Piece::dir("etc").mode(0o755),
        Piece::file("etc/own", b"1"),
        Piece::file("etc/passwd", b"first"),
        Piece::dir("d").mode(0o700).owner(1, 2).changed(1000),
        Piece::file("f", b"a file"),
        Piece::symlink("s", "f"),
        Piece::file(".wh.was-a-file", b""),
        Piece::file(".wh.gone-dir", b""),
        Piece::dir("opaque").mode(0o777),
        Piece::file("opaque/.wh..wh..opq", b""),
        Piece::file("etc/twin", b"t"),
        Piece::hard_link("etc/linked", "etc/twin"),
        Piece::file("tool", b"t").mode(0o4755).pax("SCHILY.xattr.user.a", b"b"),
    ];
    let second = [
        // Of the lowest layer: gone, and something in a directory that neither of these speaks of.
        Piece::file(".wh.gone", b""),
        Piece::file("kept/below/.wh.file", b""),
        Piece::file("implied/twice/second", b"2"),
        Piece::file("opaque/second", b"2"),
        // Of the first layer: changed.
        Piece::file("etc/own", b"2").mode(0o600).owner(5, 6),
        Piece::dir("d").mode(0o711).owner(3, 4).changed(2000),
        Piece::file("d/new", b"2").changed(3000),
        Piece::file("was-a-file", b"again"),
        Piece::file("tool", b"u"),
    ];
    let third = [
        Piece::symlink("f", "etc/own"),
        Piece::file("s", b"a file now"),
        Piece::file("d/third", b"3"),
        Piece::file("new/dir/file", b"3"),
    ];
    vec![packed(&short(&first)), plain(short(&second)), packed(&short(&third))]
}

#[test]
fn several_are_one_snapshot_and_as_they_were() {
    let node = Node::new();
    let registry = Registry::start(node.private.dir(), "", "");
    let unpacker = node.witness(&cricket());
    let base = || vec![packed(&tape(&lowest(), 1))];
    let images = [(base(), above()), (base(), plainer()), (vec![], plainer())];
    for (n, (base, above)) in images.into_iter().enumerate() {
        let lowest = base.len();
        let layers: Vec<Layer> = base.into_iter().chain(above).collect();
        registry.push("many", &n.to_string(), &layers);
        let name = format!("{}/many:{n}", registry.address);
        node.pull_by(unpacker.clone(), &name).expect("pull");
        assert_eq!(node.ended(), vec!["0"; lowest + 1]);
        assert_eq!(node.snapshots(), lowest + 1);
        let undated = [
            "etc/prefixed",
            "kept",
            "kept/below",
            "implied",
            "implied/twice",
            "opaque",
            "d",
            "etc",
            "new",
            "new/dir",
            "usr",
            "deep",
        ];
        // Those of the noise's directories as well.
        let deep: Vec<String> = (1..=15).map(|n| format!("deep/{}", vec!["0123456789"; n].join("/"))).collect();
        let undated: Vec<&str> = undated.into_iter().chain(deep.iter().map(String::as_str)).collect();
        node.assert_as_by_containerd(&name, &layers, &undated);
        node.assert_removable(&name);
    }
}

/// Something is taken away in a directory that no lower layer has.
const NOT_BELOW: [&str; 2] = ["gone from what is new", "gone from what is implied"];

#[test]
fn what_cannot_share_has_a_snapshot_each() {
    let node = Node::new();
    let registry = Registry::start(node.private.dir(), "", "");
    let unpacker = node.witness(&cricket());
    let file = |name: &str| Piece::file(name, b"f");
    let odd: [(&str, Vec<Piece>, Vec<Piece>); 12] = [
        ("gone again", vec![file("a")], vec![Piece::file(".wh.a", b"")]),
        ("a directory gone again", vec![Piece::dir("d"), file("d/f")], vec![Piece::file(".wh.d", b"")]),
        ("opaque", vec![Piece::dir("d"), file("d/f")], vec![Piece::dir("d"), Piece::file("d/.wh..wh..opq", b"")]),
        ("a link of its own", vec![file("a")], vec![file("b"), Piece::hard_link("c", "b")]),
        ("a directory for a file", vec![file("base-dir")], vec![Piece::dir("base-dir"), file("base-dir/g")]),
        ("a directory for what is gone", vec![Piece::file(".wh.base-dir", b"")], vec![Piece::dir("base-dir")]),
        ("attributes", vec![Piece::dir("d").pax("SCHILY.xattr.user.x", b"1")], vec![Piece::dir("d")]),
        ("implied before", vec![file("base-dir/g")], vec![Piece::dir("base-dir").mode(0o700)]),
        ("through a link", vec![Piece::dir("d"), Piece::symlink("l", "d")], vec![file("l/f")]),
        (
            "gone from what is opaque",
            vec![Piece::dir("base-dir"), Piece::file("base-dir/.wh..wh..opq", b"")],
            vec![Piece::file("base-dir/.wh.f", b"")],
        ),
        // The last two are for the daemon to see, and it says no.
        (NOT_BELOW[0], vec![Piece::dir("d"), file("d/f")], vec![Piece::file("d/.wh.g", b"")]),
        (NOT_BELOW[1], vec![Piece::file("d/.wh.g", b"")], vec![file("d/f")]),
    ];
    for (n, (what, first, second)) in odd.iter().enumerate() {
        let base = [Piece::dir("base-dir").mode(0o750), file("base-dir/f")];
        let layers = [packed(&tape(&base, n as u64)), packed(&short(first)), packed(&short(second))];
        registry.push("odd", &n.to_string(), &layers);
        let name = format!("{}/odd:{n}", registry.address);
        node.pull_by(unpacker.clone(), &name).expect(what);
        let mut ended = node.ended();
        ended.sort();
        let code = if NOT_BELOW.contains(what) { "0" } else { "1" };
        assert_eq!(ended, ["0", code], "{what}");
        assert_eq!(node.snapshots(), 3, "{what}");
        node.assert_as_by_containerd(&name, &layers, &["d", "base-dir", "l"]);
        node.assert_complete(&name, 3);
        node.assert_removable(&name);
    }
}

/// Layers with a file each.
fn files(names: &[&str]) -> Vec<Layer> {
    names.iter().map(|name| Layer::gzip(name, name.as_bytes())).collect()
}

#[test]
fn images_share_what_they_begin_with() {
    let node = Node::new();
    let registry = Registry::start(node.private.dir(), "", "");
    let unpacker = node.witness(&cricket());
    let steps: [(&str, &[&str], usize, usize); 5] = [
        ("two", &["a", "b"], 1, 1),
        // On that one.
        ("four", &["a", "b", "c", "d"], 1, 2),
        ("four again", &["a", "b", "c", "d"], 0, 2),
        // One layer more is left to containerd.
        ("three", &["a", "b", "x"], 0, 3),
        // It ends where nobody else does.
        ("one", &["a"], 0, 4),
    ];
    for (n, (what, names, processes, snapshots)) in steps.into_iter().enumerate() {
        registry.push("shared", &n.to_string(), &files(names));
        let name = format!("{}/shared:{n}", registry.address);
        node.pull_by(unpacker.clone(), &name).expect(what);
        assert_eq!(node.ended(), vec!["0"; processes], "{what}");
        assert_eq!(node.snapshots(), snapshots, "{what}");
        let seen = node.seen(&node.chain_id(&name), &[]);
        let expected: Vec<&Path> = [""].iter().chain(names).map(Path::new).collect();
        assert_eq!(seen.keys().map(PathBuf::as_path).collect::<Vec<_>>(), expected, "{what}");
    }
    node.collect_garbage();
    assert_eq!(node.snapshots(), 4);
}

#[test]
fn layers_that_were_discarded_are_found_in_what_they_share() {
    let node = Node::new();
    let registry = Registry::start(node.private.dir(), "", "");
    let unpacker = node.witness(&cricket());
    let proxy = Proxy::start(&registry.address, |_| None);
    for (n, names) in [&["a", "b"][..], &["a", "b", "c", "d"]].into_iter().enumerate() {
        registry.push("shared", &n.to_string(), &files(names));
        let name = format!("{}/shared:{n}", proxy.address);
        node.pull_discarding(unpacker.clone(), &name).expect("pull");
        // Those of its own and the configuration.
        assert_eq!(proxy.asked().iter().filter(|asked| asked.is_blob()).count(), (n + 1) * 3);
        assert_eq!(node.ended(), ["0"]);
        node.collect_garbage();
        assert_eq!(node.ctr(&["content", "list", "--quiet"]).lines().count(), (n + 1) * 2, "documents alone");
        let seen = node.seen(&node.chain_id(&name), &[]);
        assert_eq!(seen.len(), 1 + names.len());
    }
    assert_eq!(node.snapshots(), 2);
}

#[test]
fn whatever_becomes_of_the_process_all_layers_are_there() {
    let node = Node::new();
    let registry = Registry::start(node.private.dir(), "", "");
    let layers = files(&["a", "b", "c"]);
    registry.push("many", "1", &layers);
    let name = format!("{}/many:1", registry.address);
    let less = format!("head -c 100 | {} \"$@\"", binary().display());
    for body in ["exit 3", "kill -9 $$", "cat >/dev/null; echo rubbish; true", less.as_str()] {
        let unpacker = node.witness(body);
        node.pull_by(unpacker, &name).expect(body);
        node.assert_complete(&name, 3);
        node.assert_removable(&name);
    }
}

#[test]
fn one_that_is_something_else_is_refused() {
    let node = Node::new();
    let registry = Registry::start(node.private.dir(), "", "");
    let mut layers = files(&["a", "b", "c"]);
    layers[1].diff_id = files(&["else"])[0].diff_id.clone();
    registry.push("many", "1", &layers);
    let unpacker = node.witness(&cricket());
    let e = node.pull_by(unpacker, &format!("{}/many:1", registry.address)).expect_err("another diff id");
    assert_eq!(e.kind(), Kind::InvalidArgument);
    assert!(e.to_string().contains(&layers[1].digest()), "{e}");
    assert_eq!(node.ended(), ["0"]);
    node.collect_garbage();
    assert_eq!(node.snapshots(), 0);
}
