//! Image records, leases, garbage, layers.

use std::io::Write;
use std::time::Duration;

use cricket::containerd::{Descriptor, ImageRecord, Labels};
use cricket::error::Kind;

use crate::content::{blob, digest};
use crate::{assert_fails, kept, labels, overlay, World};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn descriptor(media_type: &str, data: &[u8]) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest: digest(data),
        size_bytes: data.len() as u64,
        annotations: Labels::new(),
    }
}

fn image(name: &str, data: &[u8]) -> ImageRecord {
    ImageRecord {
        name: name.to_owned(),
        target: descriptor(MANIFEST, data),
        labels: labels(&[("io.cri-containerd.image", "managed")]),
        created_at: 0,
    }
}

pub fn put_update_delete(world: &World) {
    let (c, call) = (&world.containerd, &world.call);
    let first = image("example.org/a:1", b"one");
    c.put_image(call, &first).expect("create");
    let stored = c.image(call, &first.name).expect("get");
    assert!(stored.created_at > 1_600_000_000_000_000_000);
    assert_eq!(stored, ImageRecord { created_at: stored.created_at, ..first.clone() });
    let second = ImageRecord { labels: labels(&[("b", "c")]), ..image("example.org/a:1", b"two") };
    c.put_image(call, &second).expect("update");
    let moved = c.image(call, &first.name).expect("get");
    assert_eq!(moved, ImageRecord { created_at: stored.created_at, ..second });
    assert_eq!(c.images(call).expect("list"), [moved]);
    c.delete_image(call, &first.name, false).expect("delete");
    assert_fails(Kind::NotFound, c.image(call, &first.name));
    assert_fails(Kind::NotFound, c.delete_image(call, &first.name, true));
}

pub fn what_is_refused(world: &World) {
    let (c, call) = (&world.containerd, &world.call);
    let good = image("a", b"one");
    let target = |change: fn(&mut Descriptor)| {
        let mut bad = good.clone();
        change(&mut bad.target);
        bad
    };
    for bad in [
        ImageRecord { name: String::new(), ..good.clone() },
        target(|t| t.size_bytes = 0),
        target(|t| t.media_type.clear()),
        target(|t| t.digest = "sha256:1".to_owned()),
        ImageRecord { labels: labels(&[("k", &"v".repeat(4096))]), ..good.clone() },
    ] {
        assert_fails(Kind::InvalidArgument, c.put_image(call, &bad));
    }
}

pub fn leases(world: &World) {
    let (c, call) = (&world.containerd, &world.call);
    c.create_lease(call, "one", Duration::from_secs(3600)).expect("create");
    assert_fails(Kind::AlreadyExists, c.create_lease(call, "one", Duration::from_secs(1)));
    assert_eq!(c.leases(call).expect("list"), ["one"]);
    c.delete_lease(call, "one", false).expect("delete");
    assert_fails(Kind::NotFound, c.delete_lease(call, "one", true));
}

pub fn garbage(world: &World) {
    let (c, call) = (&world.containerd, &world.call);
    let write = |call, name: &str, data: &[u8], kept: &Labels| {
        c.write_content(call, name, &blob(data, kept), &mut &data[..]).expect("write");
    };
    c.create_lease(call, "pull", Duration::from_secs(3600)).expect("lease");
    let leased = call.with_lease("pull");
    let (manifest, config, stray) = (b"gc manifest", b"gc config", b"gc stray");
    write(&leased, "gc-stray", stray, &Labels::new());
    let keeps_snapshot = labels(&[("containerd.io/gc.ref.snapshot.overlayfs", "chain")]);
    write(&leased, "gc-config", config, &keeps_snapshot);
    let keeps_config = labels(&[("containerd.io/gc.ref.content.config", &digest(config))]);
    write(&leased, "gc-manifest", manifest, &keeps_config);
    c.prepare_snapshot(&leased, &overlay("work"), "", &Labels::new()).expect("prepare");
    c.commit_snapshot(&leased, &overlay("work"), "base", &Labels::new()).expect("commit");
    c.prepare_snapshot(&leased, &overlay("work"), "base", &Labels::new()).expect("prepare");
    c.commit_snapshot(&leased, &overlay("work"), "chain", &Labels::new()).expect("commit");
    c.prepare_snapshot(&leased, &overlay("stray"), "base", &Labels::new()).expect("prepare");
    c.put_image(&leased, &image("kept", manifest)).expect("image");
    let snapshots = || {
        let mut keys: Vec<_> = c.snapshots(call, "overlayfs").expect("list").into_iter().map(|s| s.key).collect();
        keys.sort();
        keys
    };
    assert_eq!(snapshots(), ["base", "chain", "stray"]);
    // The lease goes: the image still keeps what it needs.
    c.delete_lease(call, "pull", true).expect("delete the lease");
    assert_fails(Kind::NotFound, c.content(call, &digest(stray)));
    c.content(call, &digest(config)).expect("the config is referred to");
    assert_eq!(snapshots(), ["base", "chain"]);
    // The image goes: nothing is left.
    c.delete_image(call, "kept", true).expect("delete the image");
    for data in [&manifest[..], &config[..]] {
        assert_fails(Kind::NotFound, c.content(call, &digest(data)));
    }
    assert_eq!(snapshots(), Vec::<String>::new());
}

pub fn layers(world: &World) {
    let (c, call) = (&world.containerd, &world.call);
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(5);
    header.set_mode(0o644);
    tar.append_data(&mut header, "etc/name", &b"layer"[..]).expect("in memory");
    let tar = tar.into_inner().expect("in memory");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar).expect("in memory");
    let gzip = gzip.finish().expect("in memory");

    let mounts = c.prepare_snapshot(call, &overlay("apply"), "", &kept()).expect("prepare");
    for (media_type, data) in [
        ("application/vnd.oci.image.layer.v1.tar", &tar),
        ("application/vnd.oci.image.layer.v1.tar+gzip", &gzip),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", &gzip),
    ] {
        let layer = descriptor(media_type, data);
        assert_fails(
            Kind::NotFound,
            c.apply_layer(call, &Descriptor { digest: digest(b"no"), ..layer.clone() }, &mounts),
        );
        c.write_content(call, "layer", &blob(data, &Labels::new()), &mut data.as_slice()).expect("write");
        assert_eq!(c.apply_layer(call, &layer, &mounts).expect("apply"), digest(&tar));
    }
    let config = descriptor("application/vnd.oci.image.config.v1+json", &tar);
    assert_fails(Kind::Unknown, c.apply_layer(call, &config, &mounts));
    c.remove_snapshot(call, &overlay("apply")).expect("remove");
}
