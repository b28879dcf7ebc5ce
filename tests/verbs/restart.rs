//! The daemon ends and another one takes over: what was, is.

use std::fs;
use std::path::PathBuf;
use std::sync::mpsc::{channel, Receiver};

use cricket::containerd::fake::Fault;
use cricket::containerd::{Containerd, Record, SnapshotRef};
use cricket::ids::{ContainerId, SandboxId};
use cricket::store::record::{self, Durability};
use cricket::sys::{mount, namespace};
use cricket_proto::records::{self, container_status::Start, sandbox::Phase};
use cricket_proto::runtime::{ContainerState, ContainerStatus, PodSandboxState, PodSandboxStatus};

use crate::plugin::Mood;
use crate::requests::{self, namespaces, on_host};
use crate::world::{call, eventually, World};

/// Two pods, one stopped, and a container in every state.
struct Node {
    pods: Vec<String>,
    containers: Vec<String>,
}

impl Node {
    fn new(world: &World) -> Self {
        let (pod, running) = world.running("running");
        let start = |name: &str| {
            let id = world.container(&pod, name);
            world.start(&id).expect("start");
            id
        };
        let (failed, killed) = (start("failed"), start("killed"));
        world.exit(&failed, 3);
        world.sync_events(&killed);
        world.exit(&killed, 137);
        let broken = world.container(&pod, "broken");
        world.fake.fail_at(2, Fault::Refused);
        world.start(&broken).expect_err("a fault");
        let created = world.container(&pod, "created");
        let stopped = world.pod("stopped");
        world.stop_pod(&stopped).expect("stop");
        Node { pods: vec![pod, stopped], containers: vec![running, failed, killed, broken, created] }
    }

    fn see(&self, world: &World) -> (Vec<PodSandboxStatus>, Vec<ContainerStatus>) {
        let pods = self.pods.iter().map(|id| world.pod_status(id)).collect();
        (pods, self.containers.iter().map(|id| world.status(id)).collect())
    }
}

#[test]
fn everything_comes_back_as_it_was() {
    let mut world = World::new();
    let node = Node::new(&world);
    let (seen, left) = (node.see(&world), world.leftovers());
    assert_eq!(seen.0[0].state.enum_value(), Ok(PodSandboxState::SANDBOX_READY));
    assert!(!seen.0[0].network.ip.is_empty());
    let states: Vec<ContainerState> = seen.1.iter().map(|s| s.state.enum_value().unwrap()).collect();
    use ContainerState::{CONTAINER_CREATED, CONTAINER_EXITED, CONTAINER_RUNNING};
    assert_eq!(states, [CONTAINER_RUNNING, CONTAINER_EXITED, CONTAINER_EXITED, CONTAINER_EXITED, CONTAINER_CREATED]);
    for _ in 0..2 {
        world.restart();
        assert_eq!(node.see(&world), seen);
        assert_eq!(world.leftovers(), left);
    }
    // It all works on.
    assert!(world.run(world.request("running")).is_err(), "names are taken");
    assert!(world.create(requests::container(&node.pods[0], "failed")).is_err());
    world.exit(&node.containers[0], 5);
    assert_eq!(world.status(&node.containers[0]).exit_code, 5);
    world.start(&node.containers[4]).expect("start what was created before");
    for pod in &node.pods {
        world.remove_pod(pod).expect("remove");
    }
    world.assert_clean(&["running", "stopped"]);
}

#[test]
fn a_containerd_that_fails_during_recovery_is_asked_again() {
    for fault in [Fault::Refused, Fault::LostReply] {
        // Each call of the first session, and a few beyond it.
        for n in 1..=16 {
            let mut world = World::new();
            let (_, id) = world.running("a");
            let (_, ended) = world.running("b");
            let created = world.container(&world.pod("c"), "c");
            world.shut_down();
            world.fake.exit(&ended, None, 3);
            world.fake.fail_at(n, fault);
            world.boot();
            world.await_exit(&ended);
            if world.fake.fault_pending() {
                // Recovery makes fewer calls than that.
                break;
            }
            let codes = [&id, &ended].map(|id| world.status(id).exit_code);
            assert_eq!(codes, [0, 3], "{fault:?} at call {n}");
            assert_eq!(world.state(&id), ContainerState::CONTAINER_RUNNING, "{fault:?} at call {n}");
            world.start(&created).expect("start");
            world.exit(&id, 4);
            for name in ["a", "b", "c"] {
                let pod = world.sandboxes.list().into_iter().find(|p| p.config.metadata.name == name).expect(name);
                world.remove_pod(pod.id.as_str()).expect("remove");
            }
            world.assert_clean(&["a", "b", "c"]);
        }
    }
}

#[test]
fn what_ended_meanwhile_has_its_code() {
    let mut world = World::new();
    let (pod, id) = world.running("a");
    let started_at = world.status(&id).started_at;
    world.shut_down();
    world.fake.exit(&id, None, 6);
    world.boot();
    world.await_exit(&id);
    let status = world.status(&id);
    assert_eq!((status.exit_code, status.reason.as_str(), status.started_at), (6, "Error", started_at));
    world.remove_pod(&pod).expect("remove");
    world.assert_clean(&["a"]);
}

#[test]
fn an_exit_that_was_recorded_before_its_task_could_be_deleted() {
    let mut world = World::new();
    let (pod, id) = world.running("a");
    world.sync_events(&id);
    // The task survives its exit, as when the shim hangs.
    world.fake.fail_at(1, Fault::Refused);
    world.exit(&id, 137);
    let status = world.status(&id);
    assert_eq!(status.reason, "OOMKilled");
    assert!(world.leftovers().contains(&format!("task:{id}")));
    world.restart();
    assert_eq!(world.status(&id), status);
    world.remove_pod(&pod).expect("remove");
    world.assert_clean(&["a"]);
}

#[test]
fn a_task_that_disappeared_was_ended_unseen() {
    let mut world = World::new();
    let (_, id) = world.running("a");
    world.shut_down();
    world.fake.exit(&id, None, 6);
    world.fake.delete_task(&call(), &id, None).expect("somebody deletes it");
    world.boot();
    let status = world.status(&id);
    assert_eq!((status.exit_code, status.reason.as_str()), (255, "Unknown"));
}

#[test]
fn what_comes_to_its_end_while_it_is_taken_away_has_run() {
    let mut world = World::new();
    let pod = world.pod("a");
    let id = world.container(&pod, "a");
    mark(&world, &id, Start::STARTING);
    world.shut_down();
    late_task(&world, &id);
    let (fake, own) = (world.fake.clone(), id.clone());
    world.fake.after("tasks", move || {
        fake.start_task(&call(), &own, None).expect("the call of the last daemon goes on");
        fake.exit(&own, None, 4);
    });
    world.boot();
    let status = world.status(&id);
    assert_eq!((status.exit_code, status.reason.as_str()), (4, "Error"));
    world.restart();
    assert_eq!(world.status(&id), status);
    world.remove_pod(&pod).expect("remove");
    world.assert_clean(&["a"]);
}

/// As when its shim died with the daemon, or the power failed.
#[test]
fn what_was_asked_to_run_and_is_gone_does_not_run_twice() {
    let mut world = World::new();
    let pod = world.pod("a");
    let ids = ["asked", "taken"].map(|name| world.container(&pod, name));
    for (id, start) in ids.iter().zip([Start::STARTING, Start::RETRACTING]) {
        let record = records::ContainerStatus { start: start.into(), started_at: 7, ..Default::default() };
        record::write(&status_file(&world, id), &record, Durability::Memory).expect("write");
    }
    world.restart();
    let status = world.status(&ids[0]);
    assert_eq!((status.exit_code, status.reason.as_str(), status.started_at), (255, "Unknown", 7));
    world.start(&ids[0]).expect_err("it has ended");
    assert_eq!(world.state(&ids[1]), ContainerState::CONTAINER_CREATED);
    world.start(&ids[1]).expect("start");
    world.remove_pod(&pod).expect("remove");
    world.assert_clean(&["a"]);
}

#[test]
fn a_start_that_was_cut_short_can_be_repeated() {
    let mut world = World::new();
    let pod = world.pod("a");
    let id = world.container(&pod, "a");
    world.shut_down();
    let task = cricket::containerd::NewTask { id: id.clone(), ..Default::default() };
    world.fake.create_task(&call(), &task).expect("a task that was never started");
    world.boot();
    assert_eq!(world.state(&id), ContainerState::CONTAINER_CREATED);
    world.start(&id).expect("start");
    world.remove_pod(&pod).expect("remove");
    world.assert_clean(&["a"]);
}

/// What was asked of containerd by a daemon that is gone, and done after the next one had looked.
fn late_task(world: &World, id: &str) {
    let task = cricket::containerd::NewTask { id: id.to_owned(), ..Default::default() };
    world.fake.create_task(&call(), &task).expect("a task");
}

/// As a daemon leaves a container that is killed while it starts it.
fn mark(world: &World, id: &str, start: Start) {
    let record = records::ContainerStatus { start: start.into(), ..Default::default() };
    record::write(&status_file(world, id), &record, Durability::Memory).expect("write");
}

/// Where a container's status is on disk.
fn status_file(world: &World, id: &str) -> PathBuf {
    world.layout.container_status(&ContainerId::from_record(id))
}

/// What is in that file at the next deletion of a task.
fn at_deletion(world: &World, file: PathBuf) -> Receiver<records::ContainerStatus> {
    let (told, seen) = channel();
    world.fake.after("delete_task", move || {
        told.send(record::read(&file).expect("readable").expect("there")).expect("somebody waits");
    });
    seen
}

#[test]
fn what_was_never_asked_to_run_can_be_started_whatever_containerd_says_of_its_task() {
    let mut world = World::new();
    let pod = world.pod("a");
    let ids = ["made", "ended", "ran"].map(|name| world.container(&pod, name));
    mark(&world, &ids[0], Start::CREATING);
    mark(&world, &ids[1], Start::CREATING);
    mark(&world, &ids[2], Start::STARTING);
    world.shut_down();
    ids.iter().for_each(|id| late_task(&world, id));
    // containerd takes it back at this moment; the last one has come to its end by itself.
    for (id, code) in [(&ids[1], 137), (&ids[2], 4)] {
        world.fake.start_task(&call(), id, None).expect("it runs");
        world.fake.exit(id, None, code);
    }
    world.boot();
    for id in &ids[..2] {
        assert_eq!(world.state(id), ContainerState::CONTAINER_CREATED);
        world.start(id).expect("start");
    }
    world.await_exit(&ids[2]);
    assert_eq!(world.status(&ids[2]).exit_code, 4);
    world.remove_pod(&pod).expect("remove");
    world.assert_clean(&["a"]);
}

#[test]
fn a_task_that_is_taken_away_is_not_taken_for_one_that_ran() {
    let mut world = World::new();
    let pod = world.pod("a");
    let id = world.container(&pod, "a");
    mark(&world, &id, Start::STARTING);
    let file = status_file(&world, &id);
    world.shut_down();
    late_task(&world, &id);
    let seen = at_deletion(&world, file);
    world.boot();
    assert_eq!(seen.recv().expect("what was on disk").start, Start::RETRACTING.into());
    world.start(&id).expect("start");
    world.remove_pod(&pod).expect("remove");
    world.assert_clean(&["a"]);
}

/// The first daemon asked it to run, the second wanted to take it away and was killed before it knew whether it could.
#[test]
fn what_runs_although_it_was_to_be_taken_away_was_started() {
    let mut world = World::new();
    let pod = world.pod("a");
    let ids = ["waits", "runs", "ended", "killed"].map(|name| world.container(&pod, name));
    ids.iter().for_each(|id| mark(&world, id, Start::RETRACTING));
    world.shut_down();
    ids.iter().for_each(|id| late_task(&world, id));
    for id in &ids[1..] {
        world.fake.start_task(&call(), id, None).expect("it runs");
    }
    world.fake.exit(&ids[2], None, 4);
    world.fake.exit(&ids[3], None, 137);
    world.boot();
    assert_eq!(world.state(&ids[1]), ContainerState::CONTAINER_RUNNING);
    world.await_exit(&ids[2]);
    assert_eq!(world.status(&ids[2]).exit_code, 4);
    for id in [&ids[0], &ids[3]] {
        assert_eq!(world.state(id), ContainerState::CONTAINER_CREATED);
        world.start(id).expect("start");
    }
    world.remove_pod(&pod).expect("remove");
    world.assert_clean(&["a"]);
}

#[test]
fn a_start_that_failed_is_written_down_before_it_is_undone() {
    let mut world = World::new();
    let pod = world.pod("a");
    let id = world.container(&pod, "a");
    let seen = at_deletion(&world, status_file(&world, &id));
    world.fake.fail_at(2, Fault::LostReply);
    world.start(&id).expect_err("a fault");
    let (record, status) = (seen.recv().expect("what was on disk"), world.status(&id));
    assert_eq!((record.reason.as_str(), record.finished_at), ("StartError", status.finished_at));
    // A daemon that is killed then leaves it so; the next one says the same at once.
    world.shut_down();
    late_task(&world, &id);
    world.fake.start_task(&call(), &id, None).expect("it ran");
    world.fake.exit(&id, None, 137);
    world.boot();
    assert_eq!(world.status(&id), status);
    world.remove_pod(&pod).expect("remove");
    world.assert_clean(&["a"]);
}

#[test]
fn a_task_that_an_earlier_daemon_asked_for_and_that_came_late_does_not_hold_up_a_start() {
    let mut world = World::new();
    let pod = world.pod("a");
    let (id, unused) = (world.container(&pod, "a"), world.container(&pod, "b"));
    mark(&world, &id, Start::CREATING);
    mark(&world, &unused, Start::CREATING);
    world.restart();
    late_task(&world, &unused);
    late_task(&world, &id);
    // Its end is told while the start is under way, and is none of the new one.
    world.start(&id).expect("start");
    assert_eq!(world.state(&id), ContainerState::CONTAINER_RUNNING);
    world.exit(&id, 3);
    world.remove_pod(&pod).expect("remove");
    world.assert_clean(&["a"]);
}

#[test]
fn a_start_is_written_down_before_it_is_asked_for() {
    let world = World::new();
    let id = world.container(&world.pod("a"), "a");
    let file = status_file(&world, &id);
    let now = |file: &PathBuf| record::read::<records::ContainerStatus>(file).expect("readable").expect("there");
    let (told, seen) = channel();
    let (at, fake) = (file.clone(), world.fake.clone());
    world.fake.after("create_task", move || {
        told.send(now(&at).start).expect("somebody waits");
        fake.after("start_task", move || told.send(now(&at).start).expect("somebody waits"));
    });
    world.start(&id).expect("start");
    assert_eq!(seen.iter().collect::<Vec<_>>(), [Start::CREATING.into(), Start::STARTING.into()]);
    let record = now(&file);
    assert!(record.start == Start::NONE.into() && record.started_at != 0, "{record:?}");
}

#[test]
fn a_start_that_nobody_wrote_down_has_one_time() {
    let mut world = World::new();
    let pod = world.pod("a");
    let id = world.container(&pod, "a");
    late_task(&world, &id);
    world.fake.start_task(&call(), &id, None).expect("it runs");
    world.restart();
    assert_eq!(world.state(&id), ContainerState::CONTAINER_RUNNING);
    let status = world.status(&id);
    world.restart();
    assert_eq!(world.status(&id), status);
    world.remove_pod(&pod).expect("remove");
    world.assert_clean(&["a"]);
}

#[test]
fn an_exit_is_written_down_before_its_task_goes() {
    let world = World::new();
    let (_, id) = world.running("a");
    let seen = at_deletion(&world, status_file(&world, &id));
    world.exit(&id, 6);
    let (record, status) = (seen.recv().expect("what was on disk"), world.status(&id));
    assert_eq!((record.exit_code, record.finished_at), (6, status.finished_at));
}

/// A pod with a container whose start failed, and the undo of that had no success, as when containerd was away by then: its
/// task runs.
fn failed_and_left_running(world: &World) -> (String, String, ContainerStatus) {
    let pod = world.pod("a");
    let id = world.container(&pod, "a");
    world.fake.fail_at(2, Fault::Refused);
    world.start(&id).expect_err("a fault");
    let status = world.status(&id);
    late_task(world, &id);
    world.fake.start_task(&call(), &id, None).expect("it runs");
    (pod, id, status)
}

#[test]
fn an_end_that_was_told_stays_whatever_is_found_of_the_task() {
    for (reconnects, ends) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut world = World::new();
        let (pod, id, status) = failed_and_left_running(&world);
        if ends {
            world.fake.exit(&id, None, 137);
        }
        if reconnects {
            world.fake.break_streams();
        } else {
            world.restart();
        }
        eventually("the task is gone", || !world.leftovers().contains(&format!("task:{id}")));
        assert_eq!(world.status(&id), status);
        world.remove_pod(&pod).expect("remove");
        world.assert_clean(&["a"]);
    }
}

#[test]
fn an_end_that_was_told_stays_although_its_task_could_not_be_ended_at_once() {
    // Each call of the recovery, so that each that ends the task is among them.
    let mut unknown = 0;
    for n in 1..=16 {
        let mut world = World::new();
        let (pod, id, status) = failed_and_left_running(&world);
        world.shut_down();
        world.fake.fail_at(n, Fault::Refused);
        world.boot();
        if world.fake.fault_pending() {
            // Recovery makes fewer calls than that.
            break;
        }
        if world.state(&id) == ContainerState::CONTAINER_UNKNOWN {
            unknown += 1;
        }
        if n % 2 == 0 {
            world.stop(&id, 0).expect("stop");
        } else {
            // Nobody does anything: it is asked again by itself.
            world.await_exit(&id);
        }
        assert_eq!(world.status(&id), status, "a fault at call {n}");
        world.remove_pod(&pod).expect("remove");
        world.assert_clean(&["a"]);
    }
    assert!(unknown > 0, "some fault was in the way of the task's end");
}

#[test]
fn a_task_that_cannot_be_deleted_at_its_end_is_deleted_later() {
    let world = World::new();
    let (pod, id) = world.running("a");
    world.sync_events(&id);
    world.fake.fail_at(1, Fault::Refused);
    world.exit(&id, 3);
    assert!(world.leftovers().contains(&format!("task:{id}")));
    eventually("the task is gone", || !world.leftovers().contains(&format!("task:{id}")));
    assert_eq!(world.status(&id).exit_code, 3);
    world.remove_pod(&pod).expect("remove");
    world.assert_clean(&["a"]);
}

#[test]
fn what_containerd_makes_for_an_earlier_daemon_after_the_next_has_looked_is_swept() {
    let mut world = World::new();
    let (pod, id) = world.running("a");
    let record = world.fake.container(&call(), &id).expect("its record");
    world.restart();
    let before = world.leftovers();
    for (late, whole) in [("1".repeat(64), false), ("2".repeat(64), true)] {
        let key = SnapshotRef { snapshotter: &record.snapshotter, key: &late };
        let labels = [("cricket/container", "feed"), ("containerd.io/gc.root", "x")];
        let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        world.fake.prepare_snapshot(&call(), &key, "", &labels).expect("a snapshot");
        if whole {
            let record = Record { id: late.clone(), snapshot_key: late.clone(), ..record.clone() };
            world.fake.create_container(&call(), &record).expect("a record");
        }
    }
    assert_eq!(world.leftovers().len(), before.len() + 3);
    // What is made meanwhile is left alone.
    let other = world.container(&pod, "b");
    eventually("what came late is gone", || !world.leftovers().iter().any(|l| l.contains(&"2".repeat(64))));
    world.remove(&other).expect("it is whole");
    assert_eq!(world.leftovers(), before);
    assert_eq!(world.state(&id), ContainerState::CONTAINER_RUNNING);
    world.remove_pod(&pod).expect("remove");
    world.assert_clean(&["a"]);
}

/// The record of a sandbox on disk.
fn record_file(world: &World, pod: &str) -> PathBuf {
    world.layout.sandbox_record(&SandboxId::from_record(pod))
}

#[test]
fn a_half_made_sandbox_is_undone() {
    let mut world = World::new();
    let pod = world.pod("a");
    let file = record_file(&world, &pod);
    let mut record: records::Sandbox = record::read(&file).expect("readable").expect("there");
    world.shut_down();
    record.phase = Phase::PREPARING.into();
    record::write(&file, &record, Durability::Memory).expect("write");
    world.boot();
    assert!(world.sandboxes.list().is_empty());
    assert_eq!(world.cni.ran(), [format!("ADD {pod}"), format!("DEL {pod}")]);
    world.assert_clean(&["a"]);
}

#[test]
fn a_sandbox_whose_namespace_was_not_pinned_yet_is_undone() {
    let mut world = World::new();
    let pod = world.pod("a");
    let file = record_file(&world, &pod);
    let mut record: records::Sandbox = record::read(&file).expect("readable").expect("there");
    world.shut_down();
    record.phase = Phase::PREPARING.into();
    record::write(&file, &record, Durability::Memory).expect("write");
    // The file is made, and then the namespace mounted on it.
    let pin = world.dir.path().join(format!("netns/cricket-{pod}"));
    namespace::unpin(&pin).expect("unpin");
    fs::write(&pin, "").expect("write");
    world.boot();
    assert!(world.sandboxes.list().is_empty());
    assert_eq!(world.cni.last_netns(), "", "plugins are not told of what is no namespace");
    world.assert_clean(&["a"]);
}

#[test]
fn a_sandbox_without_a_record_is_not_shown_although_it_cannot_be_undone_at_once() {
    let mut world = World::new();
    let pod = world.pod("a");
    let file = record_file(&world, &pod);
    world.shut_down();
    fs::remove_file(&file).expect("remove the record");
    world.cni.set("DEL", Some(Mood::Fail));
    world.boot();
    assert!(world.sandboxes.list().is_empty());
    assert!(!world.leftovers().is_empty());
    world.cni.set("DEL", None);
    eventually("what is left of it is swept", || world.leftovers().is_empty());
    world.assert_clean(&["a"]);
}

#[test]
fn a_sandbox_whose_record_was_not_written_yet_is_undone() {
    let mut world = World::new();
    let at = world.dir.path().to_owned();
    for dir in ["root/sandboxes/0123", "state/sandboxes/0123"] {
        fs::create_dir_all(at.join(dir)).expect("make a directory");
    }
    world.restart();
    world.assert_clean(&["a"]);
}

/// What a boot does: namespaces, mounts, everything volatile and all processes are gone.
fn reboot(world: &mut World) {
    let pods: Vec<_> = world.sandboxes.list();
    world.shut_down();
    let at = world.dir.path();
    for pod in pods {
        let state = at.join("state/sandboxes").join(pod.id.as_str());
        for pin in [at.join(format!("netns/cricket-{}", pod.id)), state.join("ipc"), state.join("uts")] {
            namespace::unpin(&pin).expect("unpin");
        }
        mount::detach(&state.join("shm")).expect("unmount");
    }
    fs::remove_dir_all(at.join("state")).expect("remove the state");
    fs::remove_dir_all(at.join("netns")).ok(); // pods of the host's network made none
    for task in world.fake.tasks(&call()).expect("tasks") {
        world.fake.exit(&task.id, None, 255);
        world.fake.delete_task(&call(), &task.id, None).expect("delete");
    }
    world.boot();
}

#[test]
fn after_a_reboot_nothing_runs_and_everything_can_be_removed() {
    let mut world = World::new();
    let (pod, id) = world.running("a");
    let created = world.container(&pod, "created");
    let before = world.pod_status(&pod);
    reboot(&mut world);
    let status = world.pod_status(&pod);
    assert_eq!(status.state.enum_value(), Ok(PodSandboxState::SANDBOX_NOTREADY));
    assert_eq!((status.created_at, status.network.ip.as_str()), (before.created_at, ""));
    let (ended, waiting) = (world.status(&id), world.status(&created));
    assert_eq!((ended.exit_code, ended.reason.as_str()), (255, "Unknown"));
    assert_eq!(waiting.state.enum_value(), Ok(ContainerState::CONTAINER_CREATED));
    assert!(world.start(&created).is_err());
    world.stop_pod(&pod).expect("stop");
    assert_eq!(world.cni.ran().last(), Some(&format!("DEL {pod}")), "its addresses are given back");
    assert_eq!(world.cni.last_netns(), "");
    world.remove_pod(&pod).expect("remove");
    world.assert_clean(&["a"]);
}

#[test]
fn after_a_reboot_a_pod_of_the_hosts_network_is_not_ready_either() {
    let mut world = World::new();
    let mut request = world.request("a");
    *namespaces(&mut request) = on_host();
    let pod = world.run(request).expect("run");
    world.restart();
    assert_eq!(world.pod_status(&pod).state.enum_value(), Ok(PodSandboxState::SANDBOX_READY));
    reboot(&mut world);
    assert_eq!(world.pod_status(&pod).state.enum_value(), Ok(PodSandboxState::SANDBOX_NOTREADY));
    world.remove_pod(&pod).expect("remove");
    world.assert_clean(&["a"]);
}

#[test]
fn what_has_no_record_is_swept() {
    let mut world = World::new();
    let (pod, id) = world.running("a");
    let before = world.leftovers();
    let at = world.dir.path().to_owned();
    for dir in ["root/containers/feed", "state/containers/feed/io"] {
        fs::create_dir_all(at.join(dir)).expect("make a directory");
    }
    fs::write(at.join("root/containers/feed/status"), "x").expect("write");
    let own = SnapshotRef { snapshotter: "overlayfs", key: "feed" };
    let labels = [("cricket/container", "feed"), ("containerd.io/gc.root", "x")];
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    world.fake.prepare_snapshot(&call(), &own, "", &labels).expect("prepare");
    let foreign = SnapshotRef { snapshotter: "overlayfs", key: "foreign" };
    let labels = [("containerd.io/gc.root".to_owned(), "x".to_owned())].into();
    world.fake.prepare_snapshot(&call(), &foreign, "", &labels).expect("prepare");
    world.restart();
    world.fake.remove_snapshot(&call(), &foreign).expect("that of others is left alone");
    assert_eq!(world.leftovers(), before);
    assert_eq!(world.state(&id), ContainerState::CONTAINER_RUNNING);
    world.remove_pod(&pod).expect("remove");
    world.assert_clean(&["a"]);
}

#[test]
fn containers_without_a_sandbox_can_be_removed() {
    let mut world = World::new();
    let (first, a) = world.running("a");
    let second = world.pod("b");
    let b = world.container(&second, "a");
    world.shut_down();
    for pod in [&first, &second] {
        fs::remove_file(world.dir.path().join(format!("root/sandboxes/{pod}/record"))).expect("remove a record");
    }
    world.boot();
    assert!(world.sandboxes.list().is_empty());
    for id in [&a, &b] {
        world.remove(id).expect("remove");
    }
    assert!(world.containers.list().is_empty());
    assert!(!world.leftovers().iter().any(|l| l.starts_with("container:") || l.starts_with("snapshot:")));
}

#[test]
fn a_snapshotter_that_is_not_there_does_not_keep_the_daemon_from_serving() {
    let mut world =
        World::with("[runtime.runc]\n[runtime.kata]\ntype = \"io.containerd.kata.v2\"\nsnapshotter = \"absent\"\n");
    let (_, id) = world.running("a");
    world.restart();
    assert_eq!(world.state(&id), ContainerState::CONTAINER_RUNNING);
}

#[test]
fn a_damaged_record_harms_nobody_else() {
    let mut world = World::new();
    let (_, id) = world.running("a");
    let broken = world.pod("b");
    let file = record_file(&world, &broken);
    world.shut_down();
    fs::write(file, [0xff; 40]).expect("damage the record");
    world.boot();
    assert_eq!(world.state(&id), ContainerState::CONTAINER_RUNNING);
    assert_eq!(world.sandboxes.list().len(), 1);
}
