//! Every verb, with containerd failing at each of its calls: refused, and done but the reply lost.

use cricket::container;
use cricket::containerd::fake::Fault;
use cricket::containerd::{Containerd, SnapshotRef};
use cricket::error::{Error, Kind, Result};
use cricket::image::at;
use cricket_proto::runtime::ContainerState;

use crate::requests;
use crate::world::{call, World};

/// More calls than any verb makes.
const MANY: usize = 60;

/// Lets the verb meet a fault at each call that it makes; `check` looks at what came of it. Returns how many calls there are.
fn every_fault<S>(
    prepare: impl Fn(&World) -> S,
    verb: impl Fn(&World, &S) -> Result<()>,
    check: impl Fn(&World, &S, Result<()>),
) -> usize {
    let mut calls = 0;
    for fault in [Fault::Refused, Fault::LostReply] {
        for n in 1..MANY {
            let world = World::new();
            let subject = prepare(&world);
            world.fake.fail_at(n, fault);
            let done = verb(&world, &subject);
            if world.fake.fault_pending() {
                done.expect("nothing failed");
                calls = n - 1;
                break;
            }
            if let Err(e) = &done {
                assert_eq!(e.kind(), Kind::Unavailable, "{fault:?} at call {n}: {e}");
            }
            check(&world, &subject, done);
        }
    }
    calls
}

/// What was created is gone again, and the same request works.
pub fn creates_all_or_nothing<S>(prepare: impl Fn(&World) -> S, verb: impl Fn(&World, &S) -> Result<()>) -> usize {
    let before = |world: &World| {
        let subject = prepare(world);
        (world.leftovers(), subject)
    };
    every_fault(
        before,
        |world, (_, subject)| verb(world, subject),
        |world, (before, subject), done| {
            if done.is_err() {
                assert_eq!(world.leftovers(), *before);
            }
            verb(world, subject).or_else(|e| done.is_ok().then_some(()).ok_or(e)).expect("the same request");
        },
    )
}

/// A retry does the rest, and then nothing is left.
fn ends_on_retry<S>(
    prepare: impl Fn(&World) -> S,
    verb: impl Fn(&World, &S) -> Result<()>,
    remove: impl Fn(&World, &S),
) -> usize {
    every_fault(prepare, &verb, |world, subject, _| {
        verb(world, subject).expect("the retry");
        remove(world, subject);
        world.assert_clean(&["a"]);
    })
}

#[test]
fn run_pod_sandbox_does_not_depend_on_containerd() {
    let calls = creates_all_or_nothing(|_| (), |world, ()| world.run(world.request("a")).map(drop));
    assert_eq!(calls, 0);
}

fn with_shared_pids(world: &World) -> cricket_proto::runtime::RunPodSandboxRequest {
    // Whose namespaces can be pinned.
    world.fake.tasks_are(std::process::id());
    let mut request = world.request("a");
    *requests::namespaces(&mut request) = requests::shared_pids();
    request
}

#[test]
fn run_pod_sandbox_with_a_process() {
    let calls = creates_all_or_nothing(|_| (), |world, ()| world.run(with_shared_pids(world)).map(drop));
    assert_eq!(calls, 4, "record, task, its start, and a look whether it lives");
}

#[test]
fn the_end_of_a_pod_sandbox_with_a_process() {
    let pod = |world: &World| {
        let pod = world.run(with_shared_pids(world)).expect("run a pod sandbox");
        let id = world.container(&pod, "a");
        world.start(&id).expect("start");
        pod
    };
    let remove = |world: &World, pod: &String| world.remove_pod(pod).expect("remove the pod");
    assert!(ends_on_retry(pod, |world, pod| world.stop_pod(pod), remove) >= 6);
    assert!(ends_on_retry(pod, |world, pod| world.remove_pod(pod), |_, _| ()) >= 9);
}

#[test]
fn create_container() {
    let verb = |world: &World, pod: &String| world.create(requests::container(pod, "a")).map(drop);
    assert!(creates_all_or_nothing(|world| world.pod("a"), verb) >= 3);
}

#[test]
fn create_container_that_unpacks_its_image() {
    let prepare = |world: &World| {
        let image = world.images.get(requests::IMAGE).expect("the image");
        let root = SnapshotRef { snapshotter: "overlayfs", key: &image.chain_id };
        world.fake.remove_snapshot(&call(), &root).expect("remove the unpacked image");
        world.pod("a")
    };
    let verb = |world: &World, pod: &String| world.create(requests::container(pod, "a")).map(drop);
    assert!(creates_all_or_nothing(prepare, verb) >= 10);
}

#[test]
fn start_container() {
    assert_eq!(starts_or_not(false), 2, "the task, created and started");
    assert_eq!(starts_or_not(true), 4, "first the record and the mounts, of what another daemon has created");
}

/// How many calls a start makes; whichever fails, the container has ended then.
fn starts_or_not(of_another: bool) -> usize {
    let prepare = |world: &World| {
        let pod = world.pod("a");
        let id = world.container(&pod, "a");
        if of_another {
            drop(world.containers.get(&id).expect("created").take_parts());
        }
        (pod, id)
    };
    every_fault(
        prepare,
        |world, (_, id)| world.start(id),
        |world, (pod, id), done| {
            let e = done.expect_err("every call of it matters");
            let status = world.status(id);
            assert_eq!(status.state.enum_value(), Ok(ContainerState::CONTAINER_EXITED));
            assert_eq!((status.exit_code, status.reason.as_str()), (128, "StartError"));
            assert_eq!(status.message, e.to_string());
            assert!(!world.leftovers().iter().any(|l| l.starts_with("task:")));
            world.remove(id).expect("remove it");
            let again = world.container(pod, "a");
            world.start(&again).expect("the next one starts");
            world.remove_pod(pod).expect("remove the pod");
            world.assert_clean(&["a"]);
        },
    )
}

#[test]
fn exec_sync() {
    let exec = |world: &World, (_, id): &(String, String)| {
        let answer = container::exec_sync(world, &call(), requests::exec(id, 0))?;
        assert_eq!(answer.exit_code, 3);
        Ok(())
    };
    let prepare = |world: &World| {
        world.fake.execs_exit(Some(3));
        world.running("a")
    };
    assert!(creates_all_or_nothing(prepare, exec) >= 5);
}

#[test]
fn exec_sync_of_a_command_that_still_runs() {
    // The fault comes while the command runs: it is killed and leaves nothing.
    let prepare = |world: &World| {
        let (pod, id) = world.running("a");
        (pod, id, world.leftovers())
    };
    for fault in [Fault::Refused, Fault::LostReply] {
        let world = World::new();
        let (_, id, before) = prepare(&world);
        // record, exec, start, wait
        world.fake.fail_at(3, fault);
        let e: Error = container::exec_sync(&world, &call(), requests::exec(&id, 0)).expect_err("the fault");
        assert_eq!(e.kind(), Kind::Unavailable);
        assert_eq!(world.leftovers(), before);
    }
}

#[test]
fn stop_container() {
    for grace in [10, 0] {
        let remove = |world: &World, (pod, id): &(String, String)| {
            assert_eq!(world.state(id), ContainerState::CONTAINER_EXITED);
            world.remove_pod(pod).expect("remove the pod");
        };
        let calls = ends_on_retry(|world| world.running("a"), |world, (_, id)| world.stop(id, grace), remove);
        assert!(calls >= 2, "kill, and delete the task");
    }
}

#[test]
fn remove_container() {
    let running = |world: &World| world.running("a");
    let exited = |world: &World| {
        let (pod, id) = world.running("a");
        world.exit(&id, 0);
        (pod, id)
    };
    let created = |world: &World| {
        let pod = world.pod("a");
        let id = world.container(&pod, "a");
        (pod, id)
    };
    let verb = |world: &World, (_, id): &(String, String)| world.remove(id);
    let remove = |world: &World, (pod, _): &(String, String)| {
        let again = world.container(pod, "a");
        world.remove(&again).expect("its name is free");
        assert!(world.leftovers().iter().all(|l| l.contains(pod.as_str())), "{:?}", world.leftovers());
        world.remove_pod(pod).expect("remove the pod");
    };
    assert!(ends_on_retry(running, verb, remove) >= 5);
    assert!(ends_on_retry(exited, verb, remove) >= 4);
    assert!(ends_on_retry(created, verb, remove) >= 4);
}

/// A running, an exited and a created container.
fn full_pod(world: &World) -> String {
    let (pod, _) = world.running("a");
    let second = world.container(&pod, "b");
    world.start(&second).expect("start");
    let third = world.container(&pod, "c");
    world.start(&third).expect("start");
    world.exit(&third, 1);
    world.container(&pod, "d");
    pod
}

#[test]
fn stop_pod_sandbox() {
    let remove = |world: &World, pod: &String| world.remove_pod(pod).expect("remove the pod");
    assert!(ends_on_retry(full_pod, |world, pod| world.stop_pod(pod), remove) >= 4);
}

#[test]
fn remove_pod_sandbox() {
    assert!(ends_on_retry(full_pod, |world, pod| world.remove_pod(pod), |_, _| ()) >= 20);
}

#[test]
fn a_reconnect_that_fails_is_tried_again() {
    // Namespace, subscription, images, tasks.
    for n in 1..=4 {
        let world = World::new();
        let (_, id) = world.running("a");
        world.fake.fail_at(n, Fault::Refused);
        world.fake.break_streams();
        world.exit(&id, 7);
        assert_eq!(world.status(&id).exit_code, 7);
        let unread = cricket::image::load::refresh_all(&at(&world), &call());
        unread.expect("the images are readable");
    }
}
