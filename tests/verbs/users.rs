//! Pods with users of their own, as far as no container has to run.

use std::fs;
use std::os::unix::fs::MetadataExt;

use cricket::config::Handler;
use cricket::containerd::{Containerd, SnapshotRef};
use cricket::error::Kind;
use cricket::sys::mount::is_namespace;
use cricket_proto::runtime::{IDMapping, NamespaceMode, RunPodSandboxRequest, UserNamespace};
use serde_json::Value;

use crate::plugin::Mood;
use crate::requests::{self, namespaces};
use crate::world::{assert_refused, call, World};

/// 65536 of each kind.
pub fn users() -> UserNamespace {
    let mapping = |host_id| vec![IDMapping { host_id, container_id: 0, length: 65536, ..Default::default() }];
    UserNamespace {
        mode: NamespaceMode::POD.into(),
        uids: mapping(100_000),
        gids: mapping(200_000),
        ..Default::default()
    }
}

/// RunPodSandbox with them.
pub fn request(world: &World) -> RunPodSandboxRequest {
    let mut request = world.request("a");
    namespaces(&mut request).userns_options = Some(users()).into();
    request
}

/// An OCI runtime that says that it can, and nothing else.
const ABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/able-runtime");

/// A node whose runtime can; whether its snapshotter can is containerd's to say.
pub fn world(able: bool) -> World {
    let mut world = World::with(&format!("[runtime.runc]\nbinary = {ABLE:?}\n"));
    if able {
        world.fake.remap_owners();
        world.restart();
    }
    world
}

#[test]
fn namespaces_and_files_belong_to_the_pods_root() {
    let mut world = world(true);
    let handler: &Handler = world.handler("").expect("the default one");
    world.learn_features();
    assert_eq!(world.lacks_for_users(handler), None);
    let pod = world.run(request(&world)).expect("run");
    let state = world.dir.path().join(format!("state/sandboxes/{pod}"));
    for name in ["user", "ipc", "uts"] {
        assert!(is_namespace(&state.join(name)), "{name}");
    }
    let root = world.dir.path().join(format!("root/sandboxes/{pod}"));
    for file in [state.join("shm"), root.join("hostname"), root.join("hosts"), root.join("resolv.conf")] {
        let meta = fs::metadata(&file).expect("there");
        assert_eq!((meta.uid(), meta.gid()), (100_000, 200_000), "{}", file.display());
    }
    let mut asked = requests::container(&pod, "a");
    requests::security(&mut asked).namespace_options.mut_or_insert_default().userns_options = Some(users()).into();
    let id = world.create(asked).expect("create");
    let record = world.fake.container(&call(), &id).expect("a record");
    let spec: Value = serde_json::from_slice(&record.spec).expect("JSON");
    let all = spec["linux"]["namespaces"].as_array().expect("namespaces").clone();
    let user = all.iter().find(|n| n["type"] == "user").expect("a user namespace");
    assert_eq!(user["path"], state.join("user").display().to_string());
    assert_eq!(spec["linux"]["uidMappings"][0]["hostID"], 100_000);
    let at = SnapshotRef { snapshotter: "overlayfs", key: &id };
    let snapshot = world.fake.snapshot(&call(), &at).expect("a snapshot");
    assert_eq!(snapshot.labels["containerd.io/snapshot/uidmapping"], "0:100000:65536");
    assert_eq!(snapshot.labels["containerd.io/snapshot/gidmapping"], "0:200000:65536");
    world.restart();
    assert!(world.sandboxes.get(&pod).expect("there").join().is_ok(), "it stands");
    world.remove_pod(&pod).expect("remove");
    assert_eq!(world.leftovers(), Vec::<String>::new());
}

#[test]
fn where_it_cannot_be_the_refusal_says_what_is_missing() {
    let unable = World::with("[runtime.runc]\nbinary = \"/bin/false\"\n");
    assert_refused(unable.run(request(&unable)), Kind::FailedPrecondition, &["an OCI runtime", "hostUsers: true"]);
    let half = world(false);
    assert_refused(half.run(request(&half)), Kind::FailedPrecondition, &["a snapshotter", "containerd 2.0"]);
    let able = world(true);
    let mut on_host = request(&able);
    namespaces(&mut on_host).network = NamespaceMode::NODE.into();
    assert_refused(able.run(on_host), Kind::InvalidArgument, &["the node's network"]);
    for world in [unable, half, able] {
        world.assert_clean(&["a"]);
    }
}

#[test]
fn a_failing_plugin_leaves_no_namespace() {
    let world = world(true);
    world.cni.set("ADD", Some(Mood::Fail));
    assert!(world.run(request(&world)).is_err());
    world.cni.set("ADD", None);
    world.assert_clean(&["a"]);
}
