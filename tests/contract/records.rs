//! Container records.

use cricket::containerd::{Any, Record};
use cricket::error::Kind;

use crate::{assert_fails, labels, World};

fn record(id: &str) -> Record {
    Record {
        id: id.to_owned(),
        labels: labels(&[("io.cri-containerd.kind", "container"), ("app", id)]),
        image: "example.org/a:1".to_owned(),
        runtime: "io.containerd.runc.v2".to_owned(),
        runtime_options: Some(Any { type_url: "containerd.runc.v1.Options".to_owned(), value: vec![0x48, 1] }),
        spec: br#"{"ociVersion":"1.0.2"}"#.to_vec(),
        snapshotter: "overlayfs".to_owned(),
        snapshot_key: id.to_owned(),
        extensions: [("cricket".to_owned(), Any { type_url: "cricket/metadata".to_owned(), value: b"{}".to_vec() })]
            .into(),
        created_at: 0,
    }
}

pub fn create_get_list_update_delete(world: &World) {
    let (c, call) = (&world.containerd, &world.call);
    let (a, b) = (record("a"), record("b"));
    c.create_container(call, &a).expect("create");
    c.create_container(call, &b).expect("create");
    let stored = c.container(call, "a").expect("get");
    assert!(stored.created_at > 1_600_000_000_000_000_000, "{stored:?}");
    assert_eq!(stored, Record { created_at: stored.created_at, ..a.clone() });

    let ids = |filters: &[&str]| {
        let filters: Vec<String> = filters.iter().map(|&f| f.to_owned()).collect();
        let mut ids: Vec<_> = c.containers(call, &filters).expect("list").into_iter().map(|r| r.id).collect();
        ids.sort();
        ids
    };
    assert_eq!(ids(&[]), ["a", "b"]);
    assert_eq!(ids(&[r#"labels."app"==b"#]), ["b"]);
    assert_eq!(ids(&[r#"labels."app"==b"#, r#"labels."app"==a"#]), ["a", "b"]);
    assert_eq!(ids(&[r#"labels."io.cri-containerd.kind"==sandbox"#]), Vec::<String>::new());

    let changed = Record { labels: labels(&[("app", "z")]), spec: b"{}".to_vec(), image: "other".to_owned(), ..a };
    c.update_container(call, &changed).expect("update");
    let updated = c.container(call, "a").expect("get");
    assert_eq!(updated, Record { labels: changed.labels, spec: changed.spec, ..stored });

    c.delete_container(call, "a").expect("delete");
    assert_fails(Kind::NotFound, c.container(call, "a"));
    assert_fails(Kind::NotFound, c.delete_container(call, "a"));
    c.delete_container(call, "b").expect("delete");
}

pub fn what_is_refused(world: &World) {
    let (c, call) = (&world.containerd, &world.call);
    assert_fails(Kind::NotFound, c.container(call, "nobody"));
    assert_fails(Kind::NotFound, c.update_container(call, &record("nobody")));
    for id in ["", "two words", "-a", "a..b", &"x".repeat(77)] {
        assert_fails(Kind::InvalidArgument, c.create_container(call, &record(id)));
    }
    let nameless = Record { runtime: String::new(), ..record("a") };
    assert_fails(Kind::InvalidArgument, c.create_container(call, &nameless));
    let long = Record { labels: labels(&[("k", &"v".repeat(4096))]), ..record("a") };
    assert_fails(Kind::InvalidArgument, c.create_container(call, &long));
    let longest = Record { labels: labels(&[("k", &"v".repeat(4095))]), ..record(&"x".repeat(76)) };
    c.create_container(call, &longest).expect("as long as it may be");
    assert_fails(Kind::AlreadyExists, c.create_container(call, &longest));
    c.delete_container(call, &longest.id).expect("delete");
}
