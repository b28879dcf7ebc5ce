//! Verbs that meet in the middle of each other.

use std::sync::mpsc;
use std::thread;

use cricket::error::Kind;
use cricket::store::SandboxState;
use cricket_proto::runtime::ContainerState;

use crate::plugin::Mood;
use crate::requests;
use crate::world::{assert_refused, eventually, World, PATIENCE};

#[test]
fn a_pod_that_is_stopped_while_its_container_starts() {
    let world = World::new();
    let pod = world.pod("a");
    let id = world.container(&pod, "a");
    let (go, wait) = mpsc::channel::<()>();
    world.fake.after("start_task", move || wait.recv_timeout(PATIENCE).expect("told to go on"));
    thread::scope(|scope| {
        let start = scope.spawn(|| world.start(&id));
        eventually("the task runs", || world.count("start_task") == 1);
        let stop = scope.spawn(|| world.stop_pod(&pod));
        eventually("the pod is not ready any more", || {
            world.sandboxes.get(&pod).expect("it is there").state() == SandboxState::NotReady
        });
        go.send(()).expect("the start waits");
        start.join().expect("no panic").expect("it was there first");
        stop.join().expect("no panic").expect("the stop waited for it, and killed it");
    });
    world.await_exit(&id);
    assert!(!world.leftovers().iter().any(|l| l.starts_with("task:")), "nothing runs in a stopped pod");
    world.remove_pod(&pod).expect("remove the pod");
    world.assert_clean(&["a"]);
}

#[test]
fn a_pod_that_is_removed_while_its_container_is_created() {
    let world = World::new();
    let pod = world.pod("a");
    let (go, wait) = mpsc::channel::<()>();
    world.fake.after("create_container", move || wait.recv_timeout(PATIENCE).expect("told to go on"));
    thread::scope(|scope| {
        let create = scope.spawn(|| world.create(requests::container(&pod, "a")));
        eventually("the record is there", || world.count("create_container") == 1);
        let remove = scope.spawn(|| world.remove_pod(&pod));
        eventually("the pod is not ready any more", || {
            world.sandboxes.get(&pod).expect("it is there").state() == SandboxState::NotReady
        });
        go.send(()).expect("the creation waits");
        create.join().expect("no panic").expect("it was there first");
        remove.join().expect("no panic").expect("the removal waited for it, and took it along");
    });
    world.assert_clean(&["a"]);
}

#[test]
fn a_pod_is_torn_down_by_one_call_at_a_time() {
    // CNI forbids two operations for one container at once.
    let world = World::new();
    let pod = world.pod("a");
    world.cni.set("DEL", Some(Mood::Hang));
    thread::scope(|scope| {
        let first = scope.spawn(|| {
            let short = cricket::call::Call::within(std::time::Duration::from_secs(3));
            cricket::sandbox::stop(&world, &short, requests::stop_pod(&pod))
        });
        eventually("DEL runs", || world.cni.ran().len() == 2);
        let impatient = cricket::call::Call::within(std::time::Duration::from_millis(50));
        let second = cricket::sandbox::stop(&world, &impatient, requests::stop_pod(&pod));
        assert_refused(second, Kind::DeadlineExceeded, &["is busy"]);
        assert_eq!(world.cni.ran().len(), 2);
        assert_refused(first.join().expect("no panic"), Kind::DeadlineExceeded, &[]);
    });
    world.cni.set("DEL", None);
    world.remove_pod(&pod).expect("now it is free");
    world.assert_clean(&["a"]);
}

#[test]
fn a_container_is_started_and_removed_by_one_call_at_a_time() {
    let world = World::new();
    let pod = world.pod("a");
    let id = world.container(&pod, "a");
    let (go, wait) = mpsc::channel::<()>();
    world.fake.after("start_task", move || wait.recv_timeout(PATIENCE).expect("told to go on"));
    thread::scope(|scope| {
        let start = scope.spawn(|| world.start(&id));
        eventually("the task runs", || world.count("start_task") == 1);
        assert_refused(world.start(&id), Kind::FailedPrecondition, &["is being started"]);
        assert_refused(world.remove(&id), Kind::FailedPrecondition, &["is being started: try again"]);
        go.send(()).expect("the start waits");
        start.join().expect("no panic").expect("start");
    });
    assert_eq!(world.state(&id), ContainerState::CONTAINER_RUNNING);
    let (go, wait) = mpsc::channel::<()>();
    world.fake.after("remove_snapshot", move || wait.recv_timeout(PATIENCE).expect("told to go on"));
    thread::scope(|scope| {
        let removal = scope.spawn(|| world.remove(&id));
        eventually("the snapshot is gone", || world.count("remove_snapshot") == 1);
        assert_refused(world.remove(&id), Kind::FailedPrecondition, &["is being removed already"]);
        assert_refused(world.start(&id), Kind::FailedPrecondition, &["is being removed"]);
        go.send(()).expect("the removal waits");
        removal.join().expect("no panic").expect("remove");
    });
    world.remove_pod(&pod).expect("remove the pod");
    world.assert_clean(&["a"]);
}

#[test]
fn the_same_name_twice_at_once_makes_one() {
    let world = World::new();
    let pod = world.pod("a");
    let (go, wait) = mpsc::channel::<()>();
    world.fake.after("prepare_snapshot", move || wait.recv_timeout(PATIENCE).expect("told to go on"));
    thread::scope(|scope| {
        let first = scope.spawn(|| world.create(requests::container(&pod, "a")));
        eventually("it is being created", || world.count("prepare_snapshot") == 1);
        let second = world.create(requests::container(&pod, "a"));
        assert_refused(second, Kind::AlreadyExists, &["is being created with id"]);
        go.send(()).expect("the first waits");
        first.join().expect("no panic").expect("create");
    });
    world.remove_pod(&pod).expect("remove the pod");
    world.assert_clean(&["a"]);
}

#[test]
fn many_pods_at_once() {
    let world = World::new();
    thread::scope(|scope| {
        for n in 0..8 {
            let world = &world;
            scope.spawn(move || {
                let (pod, id) = world.running(&format!("p{n}"));
                world.stop(&id, 10).expect("stop");
                world.remove_pod(&pod).expect("remove");
            });
        }
    });
    world.assert_clean(&["p0", "p7"]);
}
