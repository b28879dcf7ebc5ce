//! Ending containers: signals, escalation, and asking twice.

use std::thread;
use std::time::{Duration, Instant};

use cricket::call::Call;
use cricket::container;
use cricket::error::Kind;
use cricket_proto::runtime::ContainerState;

use crate::requests;
use crate::world::{assert_refused, eventually, World};

const SIGTERM: u32 = 15;

#[test]
fn the_stop_signal_ends_it() {
    let world = World::new();
    let (_, id) = world.running("a");
    world.stop(&id, 3600).expect("stop");
    assert_eq!(world.status(&id).exit_code, 128 + 15);
    assert_eq!(world.count("kill"), 1);
}

#[test]
fn a_signal_that_is_ignored_is_followed_by_a_kill() {
    let world = World::new();
    world.fake.ignore_signal(SIGTERM);
    let (_, id) = world.running("a");
    world.stop(&id, 1).expect("stop");
    let status = world.status(&id);
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "Error"));
    assert_eq!(world.count("kill"), 2);
}

#[test]
fn without_grace_it_is_killed_at_once() {
    for timeout in [0, -1, i64::MIN] {
        let world = World::new();
        let (_, id) = world.running("a");
        world.stop(&id, timeout).expect("stop");
        assert_eq!(world.status(&id).exit_code, 137);
        assert_eq!(world.count("kill"), 1);
    }
}

#[test]
fn a_grace_without_end_is_one() {
    let world = World::new();
    world.fake.ignore_signal(SIGTERM);
    let (_, id) = world.running("a");
    thread::scope(|scope| {
        let stop = scope.spawn(|| world.stop(&id, i64::MAX));
        eventually("the signal is sent", || world.count("kill") == 1);
        world.fake.exit(&id, None, 0);
        stop.join().expect("no panic").expect("stop");
    });
    assert_eq!(world.status(&id).exit_code, 0);
}

#[test]
fn two_stops_send_one_stop_signal() {
    let world = World::new();
    world.fake.ignore_signal(SIGTERM);
    let (_, id) = world.running("a");
    thread::scope(|scope| {
        let patient = scope.spawn(|| world.stop(&id, 3600));
        eventually("the signal is sent", || world.count("kill") == 1);
        // The second has less patience; both end with the container.
        world.stop(&id, 1).expect("the second stop");
        patient.join().expect("no panic").expect("the first stop");
    });
    assert_eq!(world.status(&id).exit_code, 137);
    assert_eq!(world.count("kill"), 2, "SIGTERM once, SIGKILL once");
}

#[test]
fn a_deadline_within_the_grace_leaves_it_running() {
    let world = World::new();
    world.fake.ignore_signal(SIGTERM);
    let (_, id) = world.running("a");
    let begun = Instant::now();
    let done = container::stop(&world, &Call::within(Duration::from_millis(100)), requests::stop(&id, 3600));
    assert_refused(done, Kind::DeadlineExceeded, &["stop container"]);
    assert!(begun.elapsed() < Duration::from_secs(60), "not the grace");
    assert_eq!(world.state(&id), ContainerState::CONTAINER_RUNNING);
    world.stop(&id, 0).expect("and it can be stopped later");
}

#[test]
fn what_does_not_run_is_stopped() {
    let world = World::new();
    let pod = world.pod("a");
    let id = world.container(&pod, "a");
    world.stop(&id, 10).expect("created");
    assert_eq!(world.state(&id), ContainerState::CONTAINER_CREATED);
    world.start(&id).expect("it can still start");
    world.exit(&id, 4);
    world.stop(&id, 10).expect("exited");
    assert_eq!((world.count("kill"), world.status(&id).exit_code), (0, 4));
    world.remove(&id).expect("remove");
    world.remove(&id).expect("again");
    world.stop(&id, 10).expect("gone");
    for _ in 0..2 {
        world.stop_pod(&pod).expect("stop the pod, again");
    }
    for _ in 0..2 {
        world.remove_pod(&pod).expect("remove the pod, again");
    }
    world.stop_pod(&pod).expect("gone");
    world.assert_clean(&["a"]);
}

#[test]
fn a_removal_kills_what_runs() {
    let world = World::new();
    world.fake.ignore_signal(SIGTERM);
    let (pod, id) = world.running("a");
    world.remove(&id).expect("remove");
    assert_eq!(world.count("kill"), 1, "SIGKILL alone");
    world.remove_pod(&pod).expect("remove the pod");
    world.assert_clean(&["a"]);
}

#[test]
fn a_log_outlives_its_container() {
    let world = World::new();
    let (pod, id) = world.running("a");
    let log = world.dir.path().join("logs/a.log");
    world.remove(&id).expect("remove");
    world.remove_pod(&pod).expect("remove the pod");
    assert!(log.exists(), "it is the kubelet's");
}
