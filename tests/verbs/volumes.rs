//! Images as volumes: once for a pod, read-only, gone with it, whatever fails.

use std::fs;
use std::path::PathBuf;

use cricket::containerd::fake::Fault;
use cricket::containerd::{Containerd, SnapshotRef};
use cricket::error::Kind;
use cricket::sys::mount::is_mounted;
use cricket_proto::runtime::{CreateContainerRequest, ImageSpec, Mount};
use serde_json::Value;

use crate::requests::{self, config, IMAGE};
use crate::world::{assert_refused, call, World};

fn with_image(pod: &str, name: &str, sub_path: &str) -> CreateContainerRequest {
    let mut request = requests::container(pod, name);
    config(&mut request).mounts.push(Mount {
        container_path: "/content".into(),
        readonly: true,
        image: Some(ImageSpec { image: IMAGE.into(), ..Default::default() }).into(),
        image_sub_path: sub_path.into(),
        ..Default::default()
    });
    request
}

/// Where the image is mounted for a pod.
fn place(world: &World, pod: &str) -> PathBuf {
    let id = world.images.get(IMAGE).expect("the image").id.clone();
    world.dir.path().join(format!("state/sandboxes/{pod}/images/{}", id.trim_start_matches("sha256:")))
}

/// Where the fake has the content.
fn content(world: &World, pod: &str) -> PathBuf {
    let place = place(world, pod);
    let name = place.file_name().expect("a name").to_string_lossy().into_owned();
    world.dir.path().join(format!("snapshots/overlayfs/volume-{pod}-{name}"))
}

/// The source of the mount on `/content` in a container's spec.
fn source(world: &World, id: &str) -> PathBuf {
    let record = world.fake.container(&call(), id).expect("a record");
    let spec: Value = serde_json::from_slice(&record.spec).expect("JSON");
    let mounts = spec["mounts"].as_array().expect("mounts").clone();
    let mount = mounts.into_iter().find(|m| m["destination"] == "/content").expect("mounted");
    mount["source"].as_str().expect("a path").into()
}

#[test]
fn an_image_is_mounted_once_for_a_pod_and_unmounted_with_it() {
    let world = World::new();
    let (pod, other) = (world.pod("a"), world.pod("b"));
    let at = place(&world, &pod);
    fs::create_dir_all(content(&world, &pod).join("deep/er")).expect("content");
    let first = world.create(with_image(&pod, "a", "")).expect("create");
    let second = world.create(with_image(&pod, "b", "deep/er")).expect("create");
    assert_eq!((source(&world, &first), source(&world, &second)), (at.clone(), at.join("deep/er")));
    assert_eq!(world.count("view_snapshot"), 1);
    let refused = fs::write(at.join("file"), "x").map_err(|e| e.raw_os_error());
    assert_eq!(refused, Err(Some(30)), "EROFS");
    let of_other = world.create(with_image(&other, "a", "")).expect("create");
    assert_ne!(source(&world, &of_other), at);
    let mounts = world.status(&first).mounts;
    assert_eq!(mounts[0].image.image_ref, world.images.get(IMAGE).expect("the image").id);

    world.remove(&first).expect("remove");
    assert!(is_mounted(&at).expect("the mount table"), "it is the pod's");
    world.stop_pod(&pod).expect("stop");
    assert!(!at.exists());
    world.remove_pod(&pod).expect("remove");
    world.remove_pod(&other).expect("remove");
    world.assert_clean(&["a", "b"]);
}

#[test]
fn what_the_kubelet_looks_for_begins_the_message() {
    let world = World::new();
    let pod = world.pod("a");
    let before = world.leftovers();
    let mut unknown = with_image(&pod, "a", "");
    config(&mut unknown).mounts[0].image.as_mut().expect("set").image = "cricket.local/absent:1".into();
    let mut writable = with_image(&pod, "a", "");
    config(&mut writable).mounts[0].readonly = false;
    for (request, kind) in [(unknown, Kind::NotFound), (writable, Kind::InvalidArgument)] {
        let e = assert_refused(world.create(request), kind, &[]);
        assert!(e.to_string().starts_with("ImageVolumeMountFailed: "), "{e}");
        assert_eq!(world.leftovers(), before);
    }
    let e = assert_refused(world.create(with_image(&pod, "a", "absent")), Kind::InvalidArgument, &["image_sub_path"]);
    assert!(e.to_string().starts_with("ImageVolumeMountFailed: "), "{e}");
    world.create(with_image(&pod, "a", "")).expect("its name is free");
    world.remove_pod(&pod).expect("remove");
    world.assert_clean(&["a"]);
}

#[test]
fn whatever_fails_at_most_the_pod_has_something_more_to_unmount() {
    for fault in [Fault::Refused, Fault::LostReply] {
        for n in 1.. {
            let world = World::new();
            let pod = world.pod("a");
            let before = world.leftovers();
            world.fake.fail_at(n, fault);
            let done = world.create(with_image(&pod, "a", ""));
            if world.fake.fault_pending() {
                done.expect("nothing failed");
                assert!(n > 5, "{n}");
                break;
            }
            let e = done.expect_err("every call of it matters");
            assert_eq!(e.kind(), Kind::Unavailable, "{fault:?} at call {n}: {e}");
            let of_pod = |l: &String| l.contains("images") || l.contains("snapshot:volume-");
            let (own, left): (Vec<String>, Vec<String>) = world.leftovers().into_iter().partition(of_pod);
            assert_eq!(left, before, "{fault:?} at call {n}");
            assert_eq!(
                own.iter().any(|l| l.starts_with("snapshot:")),
                is_mounted(&place(&world, &pod)).expect("mounts")
            );
            world.create(with_image(&pod, "a", "")).expect("the same request");
            world.remove_pod(&pod).expect("remove");
            world.assert_clean(&["a"]);
        }
    }
}

#[test]
fn the_end_of_a_pod_with_an_image_is_done_on_a_retry() {
    for fault in [Fault::Refused, Fault::LostReply] {
        for n in 1.. {
            let world = World::new();
            let pod = world.pod("a");
            world.create(with_image(&pod, "a", "")).expect("create");
            world.fake.fail_at(n, fault);
            let done = world.stop_pod(&pod);
            let pending = world.fake.fault_pending();
            assert_eq!(done.is_ok(), pending, "{fault:?} at call {n}");
            if !pending {
                world.stop_pod(&pod).expect("the retry");
            }
            assert!(!place(&world, &pod).exists());
            if pending {
                break;
            }
            world.remove_pod(&pod).expect("remove");
            world.assert_clean(&["a"]);
        }
    }
}

#[test]
fn mounts_are_found_again_after_a_restart_and_made_again_after_a_crash() {
    let mut world = World::new();
    let pod = world.pod("a");
    let at = place(&world, &pod);
    world.create(with_image(&pod, "a", "")).expect("create");
    world.restart();
    world.create(with_image(&pod, "b", "")).expect("create");
    assert_eq!(world.count("view_snapshot"), 1, "it is still there");
    // As if we had been killed before the mount.
    cricket::sys::mount::detach(&at).expect("unmount");
    world.restart();
    world.create(with_image(&pod, "c", "")).expect("create");
    assert!(is_mounted(&at).expect("the mount table"));
    world.remove_pod(&pod).expect("remove");
    world.assert_clean(&["a"]);
}

#[test]
fn snapshots_of_pods_that_are_gone_are_swept() {
    let mut world = World::new();
    let pod = world.pod("a");
    world.create(with_image(&pod, "a", "")).expect("create");
    let before = world.leftovers();
    let at = SnapshotRef { snapshotter: "overlayfs", key: "volume-x" };
    let labels = [("cricket/image-volume", "feed"), ("containerd.io/gc.root", "x")];
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    world.fake.view_snapshot(&call(), &at, "", &labels).expect("view");
    world.restart();
    assert_eq!(world.leftovers(), before);
    world.remove_pod(&pod).expect("remove");
    world.assert_clean(&["a"]);
}
