//! Snapshots.

use cricket::containerd::{SnapshotKind, SnapshotRef};
use cricket::error::Kind;

use crate::{assert_fails, kept, overlay, World};

pub fn a_chain_of_parents(world: &World) {
    let (c, call) = (&world.containerd, &world.call);
    for snapshotter in ["overlayfs", "native"] {
        let at = |key| SnapshotRef { snapshotter, key };
        let root = kept();
        c.prepare_snapshot(call, &at("work"), "", &root).expect("prepare");
        c.commit_snapshot(call, &at("work"), "lower", &root).expect("commit");
        assert_fails(Kind::NotFound, c.snapshot(call, &at("work")));
        c.prepare_snapshot(call, &at("top"), "lower", &root).expect("prepare");
        c.view_snapshot(call, &at("look"), "lower", &root).expect("view");

        let lower = c.snapshot(call, &at("lower")).expect("stat");
        assert_eq!((lower.key.as_str(), lower.parent.as_str()), ("lower", ""));
        assert_eq!((lower.kind, &lower.labels), (SnapshotKind::Committed, &root));
        assert!(lower.created_at > 1_600_000_000_000_000_000);
        let top = c.snapshot(call, &at("top")).expect("stat");
        assert_eq!((top.kind, top.parent.as_str()), (SnapshotKind::Active, "lower"));
        let mut all = c.snapshots(call, snapshotter).expect("list");
        all.sort_by(|a, b| a.key.cmp(&b.key));
        let all: Vec<_> = all.iter().map(|s| (s.key.as_str(), s.kind)).collect();
        let expected =
            [("look", SnapshotKind::View), ("lower", SnapshotKind::Committed), ("top", SnapshotKind::Active)];
        assert_eq!(all, expected);
        assert!(c.snapshot_usage(call, &at("top")).expect("usage").inodes >= 1);

        assert_fails(Kind::FailedPrecondition, c.remove_snapshot(call, &at("lower")));
        for key in ["look", "top", "lower"] {
            c.remove_snapshot(call, &at(key)).expect("remove");
        }
        assert_fails(Kind::NotFound, c.remove_snapshot(call, &at("lower")));
    }
}

pub fn mounts_by_kind(world: &World) {
    let (c, call) = (&world.containerd, &world.call);
    let root = kept();
    let made = c.prepare_snapshot(call, &overlay("m"), "", &root).expect("prepare");
    assert_eq!(made.len(), 1);
    assert_eq!(made[0].kind, "bind");
    assert!(made[0].options.contains(&"rw".to_owned()), "{made:?}");
    assert_eq!(c.snapshot_mounts(call, &overlay("m")).expect("mounts"), made);
    c.commit_snapshot(call, &overlay("m"), "base", &root).expect("commit");
    // A committed one has none.
    assert_fails(Kind::FailedPrecondition, c.snapshot_mounts(call, &overlay("base")));
    let view = c.view_snapshot(call, &overlay("v"), "base", &root).expect("view");
    assert!(view[0].options.contains(&"ro".to_owned()), "{view:?}");
    for key in ["v", "base"] {
        c.remove_snapshot(call, &overlay(key)).expect("remove");
    }
}

pub fn what_is_refused(world: &World) {
    let (c, call) = (&world.containerd, &world.call);
    let root = kept();
    let stranger = SnapshotRef { snapshotter: "stranger", key: "a" };
    assert_fails(Kind::InvalidArgument, c.prepare_snapshot(call, &stranger, "", &root));
    assert_fails(Kind::InvalidArgument, c.snapshots(call, "stranger"));
    assert_fails(Kind::NotFound, c.prepare_snapshot(call, &overlay("a"), "nobody", &root));
    assert_fails(Kind::NotFound, c.snapshot(call, &overlay("a")));
    assert_fails(Kind::NotFound, c.snapshot_mounts(call, &overlay("a")));
    assert_fails(Kind::NotFound, c.snapshot_usage(call, &overlay("a")));
    assert_fails(Kind::NotFound, c.commit_snapshot(call, &overlay("a"), "b", &root));
    c.prepare_snapshot(call, &overlay("a"), "", &root).expect("prepare");
    assert_fails(Kind::AlreadyExists, c.prepare_snapshot(call, &overlay("a"), "", &root));
    assert_fails(Kind::AlreadyExists, c.view_snapshot(call, &overlay("a"), "", &root));
    // An active one cannot be a parent.
    assert_fails(Kind::InvalidArgument, c.prepare_snapshot(call, &overlay("b"), "a", &root));
    c.prepare_snapshot(call, &overlay("b"), "", &root).expect("prepare");
    c.commit_snapshot(call, &overlay("b"), "c", &root).expect("commit");
    assert_fails(Kind::AlreadyExists, c.commit_snapshot(call, &overlay("a"), "c", &root));
    assert_fails(Kind::FailedPrecondition, c.commit_snapshot(call, &overlay("c"), "d", &root));
    let leased = call.with_lease("nobody");
    assert_fails(Kind::NotFound, c.prepare_snapshot(&leased, &overlay("l"), "", &root));
    for key in ["a", "c"] {
        c.remove_snapshot(call, &overlay(key)).expect("remove");
    }
}
