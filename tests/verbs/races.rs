//! Verbs that meet in the middle of each other.

use std::collections::HashSet;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use cricket::call::Call;
use cricket::error::Kind;
use cricket::{container, sandbox};
use cricket_proto::runtime::ContainerState;

use crate::plugin::Mood;
use crate::requests;
use crate::world::{assert_refused, call, eventually, World, PATIENCE};

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
        eventually("the pod takes no containers any more", || {
            !world.sandboxes.get(&pod).expect("it is there").is_open()
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
        eventually("the pod takes no containers any more", || {
            !world.sandboxes.get(&pod).expect("it is there").is_open()
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
            let short = Call::within(Duration::from_secs(3));
            sandbox::stop(&world, &short, requests::stop_pod(&pod))
        });
        eventually("DEL runs", || world.cni.ran().len() == 2);
        let impatient = Call::within(Duration::from_millis(50));
        let second = sandbox::stop(&world, &impatient, requests::stop_pod(&pod));
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

/// Holds the next creation of a container until it is told to go on.
fn hold_creation(world: &World) -> mpsc::Sender<()> {
    let (go, wait) = mpsc::channel::<()>();
    world.fake.after("prepare_snapshot", move || wait.recv_timeout(PATIENCE).expect("told to go on"));
    go
}

#[test]
fn an_equal_creation_at_the_same_time_joins_and_another_is_refused() {
    let world = World::new();
    let pod = world.pod("a");
    let go = hold_creation(&world);
    thread::scope(|scope| {
        let first = scope.spawn(|| world.create(requests::container(&pod, "a")));
        eventually("it is being created", || world.count("prepare_snapshot") == 1);
        let second = scope.spawn(|| world.create(requests::container(&pod, "a")));
        let mut other = requests::container(&pod, "a");
        other.config.mut_or_insert_default().args = vec!["else".into()];
        assert_refused(world.create(other), Kind::AlreadyExists, &["different request", "another attempt"]);
        go.send(()).expect("the first waits");
        let (first, second) = (first.join().expect("no panic"), second.join().expect("no panic"));
        assert_eq!(first.expect("create"), second.expect("joined"));
    });
    assert_eq!(world.count("create_container"), 1);
    world.remove_pod(&pod).expect("remove the pod");
    world.assert_clean(&["a"]);
}

#[test]
fn a_creation_that_nobody_waits_for_is_undone_and_a_retry_begins_anew() {
    let world = World::new();
    let pod = world.pod("a");
    let before = world.leftovers();
    let go = hold_creation(&world);
    let gone = call();
    let create = |call: &Call| container::create(&world, call, requests::container(&pod, "a"));
    thread::scope(|scope| {
        let first = scope.spawn(|| create(&gone));
        eventually("it is being created", || world.count("prepare_snapshot") == 1);
        gone.cancel();
        let retry = scope.spawn(|| create(&call()));
        go.send(()).expect("the first waits");
        assert_refused(first.join().expect("no panic"), Kind::Canceled, &[]);
        let id = retry.join().expect("no panic").expect("it came after the undo").container_id;
        world.remove(&id).expect("remove it");
    });
    assert_eq!(world.leftovers(), before);
    world.remove_pod(&pod).expect("remove the pod");
    world.assert_clean(&["a"]);
}

#[test]
fn a_creation_whose_client_left_at_the_last_moment_is_undone() {
    let world = World::new();
    let pod = world.pod("a");
    let before = world.leftovers();
    let gone = call();
    let leaves = gone.clone();
    world.fake.after("create_container", move || leaves.cancel());
    let created = container::create(&world, &gone, requests::container(&pod, "a"));
    assert_refused(created, Kind::Canceled, &[]);
    assert_eq!(world.leftovers(), before);
    world.remove_pod(&pod).expect("remove the pod");
    world.assert_clean(&["a"]);
}

#[test]
fn a_creation_whose_answer_was_lost_is_answered_again_until_something_is_done_with_it() {
    let mut world = World::new();
    let pod = world.pod("a");
    let id = world.container(&pod, "a");
    assert_eq!(world.container(&pod, "a"), id);
    let mut other = requests::container(&pod, "a");
    other.config.mut_or_insert_default().args = vec!["else".into()];
    assert_refused(world.create(other), Kind::AlreadyExists, &["exists with id", &id]);
    world.restart();
    assert_eq!(world.container(&pod, "a"), id, "nor does the end of the daemon change that");
    world.start(&id).expect("start");
    assert_refused(world.create(requests::container(&pod, "a")), Kind::AlreadyExists, &["exists with id", &id]);
    world.remove_pod(&pod).expect("remove the pod");
    world.assert_clean(&["a"]);
}

#[test]
fn equal_pods_at_the_same_time_are_one() {
    let world = World::new();
    world.cni.set("ADD", Some(Mood::Hang));
    thread::scope(|scope| {
        let run = || sandbox::run(&world, &Call::within(Duration::from_secs(3)), world.request("a"));
        let waiting: Vec<_> = (0..3).map(|_| scope.spawn(run)).collect();
        eventually("ADD runs", || !world.cni.ran().is_empty());
        let mut other = world.request("a");
        other.config.mut_or_insert_default().hostname = "else".into();
        assert_refused(world.run(other), Kind::AlreadyExists, &["different request"]);
        for run in waiting {
            assert_refused(run.join().expect("no panic"), Kind::DeadlineExceeded, &[]);
        }
    });
    assert_eq!(world.leftovers(), Vec::<String>::new());
    world.cni.set("ADD", None);
    let request = world.request("a");
    thread::scope(|scope| {
        let run = || world.run(request.clone()).expect("run");
        let all: Vec<_> = (0..8).map(|_| scope.spawn(run)).collect();
        let ids: HashSet<String> = all.into_iter().map(|run| run.join().expect("no panic")).collect();
        assert_eq!(ids.len(), 1, "{ids:?}");
        world.remove_pod(ids.iter().next().expect("one")).expect("remove it");
    });
    world.assert_clean(&["a"]);
}

#[test]
fn a_pod_whose_answer_was_lost_is_answered_again_until_it_is_used() {
    let mut world = World::new();
    let pod = world.pod("a");
    assert_eq!(world.pod("a"), pod);
    world.restart();
    assert_eq!(world.pod("a"), pod, "nor does the end of the daemon change that");
    let mut other = world.request("a");
    other.config.mut_or_insert_default().hostname = "else".into();
    assert_refused(world.run(other), Kind::AlreadyExists, &["exists with id", &pod]);
    let container = world.container(&pod, "a");
    assert_refused(world.run(world.request("a")), Kind::AlreadyExists, &["exists with id", &pod]);
    world.remove(&container).expect("remove the container");
    world.stop_pod(&pod).expect("stop");
    assert_refused(world.run(world.request("a")), Kind::AlreadyExists, &["exists with id", &pod]);
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
