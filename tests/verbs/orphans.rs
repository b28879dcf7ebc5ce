//! What belongs to nothing is found and swept; what cannot be read is set aside.

use std::fs;
use std::path::{Path, PathBuf};

use cricket::ids::SandboxId;
use cricket::recover::orphans::{self, Place};
use cricket::store::record::{self, Durability};
use cricket::sys::{mount, namespace};
use cricket_proto::records;
use cricket_proto::runtime::ContainerState;

use crate::world::{call, eventually, World};

fn found(world: &World) -> Vec<String> {
    let records = || world.containerd.containers(&call(), &[]);
    let found = orphans::find(&Place::of(world), &call(), records).expect("orphans");
    found.iter().map(ToString::to_string).collect()
}

fn root_of(world: &World, pod: &str) -> PathBuf {
    world.layout.sandbox_root(&SandboxId::from_record(pod))
}

#[test]
fn on_a_whole_node_there_are_none() {
    let world = World::new();
    let (pod, id) = world.running("a");
    assert_eq!(found(&world), Vec::<String>::new());
    world.remove(&id).expect("remove");
    world.stop_pod(&pod).expect("stop");
    assert_eq!(found(&world), Vec::<String>::new());
}

#[test]
fn a_sandbox_whose_record_is_lost_gives_everything_back() {
    let mut world = World::new();
    let (kept, id) = world.running("a");
    let before = world.leftovers();
    let lost = world.pod("b");
    fs::remove_dir_all(root_of(&world, &lost)).expect("lose its record");
    let told = found(&world);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains(&lost) && told[0].ends_with("its pod sandbox does not exist"), "{told:?}");
    world.restart();
    assert_eq!(world.cni.ran().last(), Some(&format!("DEL {lost}")));
    assert_eq!(world.leftovers(), before);
    assert_eq!(world.state(&id), ContainerState::CONTAINER_RUNNING);
    world.remove_pod(&kept).expect("remove");
    world.assert_clean(&["a", "b"]);
}

/// A power cut takes the namespaces and all that is volatile, and the record, if it was not on disk yet.
fn lose_all_but_the_network(world: &mut World, pod: &str) {
    world.shut_down();
    let (at, id) = (world.dir.path().to_owned(), SandboxId::from_record(pod));
    let state = at.join("state/sandboxes").join(&id);
    for pin in [at.join(format!("netns/cricket-{id}")), state.join("ipc"), state.join("uts")] {
        namespace::unpin(&pin).expect("unpin");
    }
    mount::detach(&state.join("shm")).expect("unmount");
    fs::remove_dir_all(state).expect("remove the state");
    fs::remove_dir_all(at.join("root/sandboxes").join(&id)).expect("lose its record");
}

#[test]
fn the_addresses_of_a_pod_that_a_power_cut_took_are_given_back() {
    let mut world = World::new();
    let kept = world.pod("a");
    let lost = world.pod("b");
    lose_all_but_the_network(&mut world, &lost);
    world.boot();
    assert_eq!(world.cni.ran().last(), Some(&format!("DEL {lost}")));
    world.remove_pod(&kept).expect("remove");
    world.assert_clean(&["a", "b"]);
}

#[test]
fn an_attachment_whose_namespace_lives_is_left_alone() {
    let mut world = World::new();
    let other = world.pod("a");
    // As that of another runtime which keeps its records where we do.
    let id = SandboxId::from_record(&other);
    world.shut_down();
    let state = world.dir.path().join("state/sandboxes").join(&id);
    let aside = [(root(&world).join(&id), "aside-root"), (state, "aside-state")];
    let aside = aside.map(|(from, to)| (from, world.dir.path().join(to)));
    // What is mounted in the state directory moves along with it.
    aside.iter().for_each(|(from, to)| fs::rename(from, to).expect("set aside"));
    let ran = world.cni.ran();
    world.boot();
    assert_eq!(world.cni.ran(), ran, "nothing was detached");
    world.shut_down();
    aside.iter().for_each(|(from, to)| fs::rename(to, from).expect("put back"));
    world.boot();
    world.remove_pod(&other).expect("remove");
    world.assert_clean(&["a"]);
}

fn root(world: &World) -> PathBuf {
    world.dir.path().join("root/sandboxes")
}

#[test]
fn a_record_that_cannot_be_read_is_set_aside() {
    let mut world = World::new();
    let (_, id) = world.running("a");
    let broken = world.pod("b");
    let file = root_of(&world, &broken).join("record");
    world.shut_down();
    fs::write(file, [0xff; 40]).expect("damage the record");
    world.boot();
    assert_eq!(world.state(&id), ContainerState::CONTAINER_RUNNING);
    assert_eq!(world.sandboxes.list().len(), 1);
    let aside = world.dir.path().join(format!("root/damaged/sandbox-{broken}"));
    assert_eq!(fs::read(aside).expect("it is kept"), [0xff; 40]);
    assert!(!root_of(&world, &broken).exists());
    assert_eq!(world.cni.ran().last(), Some(&format!("DEL {broken}")), "all that it held is given back");
}

/// Writes `change`d what is at `path`, while the daemon is down; the daemon refuses to serve, until that is undone.
fn refused_until_undone<M: record::Record>(world: &mut World, path: &Path, change: impl Fn(&mut M)) {
    world.shut_down();
    let old: M = record::read(path).expect("readable").expect("there");
    let mut newer: M = record::read(path).expect("readable").expect("there");
    change(&mut newer);
    record::write(path, &newer, Durability::Memory).expect("write");
    world.begin();
    eventually("it says why it does not serve", || {
        world.not_ready().is_some_and(|why| why.contains("from a newer cricket: install that again"))
    });
    world.shut_down();
    record::write(path, &old, Durability::Memory).expect("write");
    world.boot();
}

#[test]
fn what_a_newer_daemon_wrote_is_not_made_again() {
    let mut world = World::new();
    let (pod, id) = world.running("a");
    let (record, status) = {
        let id = cricket::ids::ContainerId::from_record(&id);
        (root_of(&world, &pod).join("record"), world.layout.container_status(&id))
    };
    refused_until_undone::<records::Sandbox>(&mut world, &record, |r| r.format = 1);
    refused_until_undone::<records::ContainerStatus>(&mut world, &status, |r| r.format = 1);
    assert_eq!(world.state(&id), ContainerState::CONTAINER_RUNNING);
    world.remove_pod(&pod).expect("remove");
    world.assert_clean(&["a"]);
}
