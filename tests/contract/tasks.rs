//! Tasks and execs.

use std::fmt::Debug;
use std::time::Duration;

use cricket::call::Call;
use cricket::containerd::{Exit, NewExec, NewTask, Record, TaskState};
use cricket::error::{Idempotent, Kind, Result};

use crate::{assert_fails, kept, overlay, World};

const TERM: u32 = 15;
const KILL: u32 = 9;
const WINCH: u32 = 28;

/// The shim refuses what does not fit the state; some versions have a code for that, others say `Unknown`.
#[track_caller]
fn assert_wrong_state<T: Debug>(result: Result<T>) {
    let kind = result.expect_err("it is in the wrong state").kind();
    assert!(matches!(kind, Kind::Unknown | Kind::FailedPrecondition), "{kind:?}");
}

pub fn a_life(world: &World) {
    let (c, call) = (&world.containerd, &world.call);
    let state = || c.task(call, "life", None).expect("get").state;
    let pid = world.created("life", "sleep");
    assert!(pid > 0);
    assert_eq!(state(), TaskState::Created);
    assert_eq!(c.start_task(call, "life", None).expect("start"), pid);
    let task = c.task(call, "life", None).expect("get");
    assert_eq!((task.id.as_str(), task.pid, task.state), ("life", pid, TaskState::Running));
    assert_eq!(task.exit, Exit::default());
    let all = c.tasks(call).expect("list");
    assert_eq!(all, [task]);

    assert_wrong_state(c.delete_task(call, "life", None));
    c.kill(call, "life", None, KILL, false).expect("kill");
    let exit = c.wait_task(call, "life", None).expect("wait");
    assert_eq!(exit.code, 137);
    assert!(exit.at > 1_600_000_000_000_000_000);
    assert_eq!(state(), TaskState::Stopped);
    assert_eq!(c.task(call, "life", None).expect("get").exit, exit);
    assert_eq!(c.wait_task(call, "life", None).expect("wait again"), exit);
    assert_fails(Kind::NotFound, c.kill(call, "life", None, KILL, false));
    // Some versions find nobody, others nothing to do.
    c.kill(call, "life", None, KILL, true).or_gone().expect("either way");
    assert_eq!(c.delete_task(call, "life", None).expect("delete"), exit);
    assert_fails(Kind::NotFound, c.delete_task(call, "life", None));
    assert_fails(Kind::NotFound, c.task(call, "life", None));
    c.delete_container(call, "life").expect("delete");
    c.remove_snapshot(call, &overlay("life")).expect("remove");
}

pub fn exit_codes(world: &World) {
    let (c, call) = (&world.containerd, &world.call);
    for (id, what, code) in [("zero", "0", 0), ("seven", "7", 7)] {
        world.running(id, what);
        world.ended(id, None, code);
        assert_eq!(c.wait_task(call, id, None).expect("wait").code, code);
        assert_eq!(c.delete_task(call, id, None).expect("delete").code, code);
        c.delete_container(call, id).expect("delete");
        c.remove_snapshot(call, &overlay(id)).expect("remove");
    }
}

pub fn signals(world: &World) {
    let (c, call) = (&world.containerd, &world.call);
    // Not the first process of a PID namespace, which has no default actions.
    world.created_in("sig", "sleep", &["mount", "ipc", "uts", "network"]);
    c.start_task(call, "sig", None).expect("start");
    c.kill(call, "sig", None, WINCH, false).expect("harmless");
    c.kill(call, "sig", None, 0, false).expect("harmless");
    assert_eq!(c.task(call, "sig", None).expect("get").state, TaskState::Running);
    c.kill(call, "sig", None, TERM, false).expect("kill");
    assert_eq!(c.wait_task(call, "sig", None).expect("wait").code, 143);
    world.remove("sig");

    if let Some(fake) = &world.fake {
        fake.ignore_signal(TERM);
    }
    world.asleep(world.running("init", "sleep"));
    c.kill(call, "init", None, TERM, false).expect("accepted");
    let soon = call.at_most(Duration::from_millis(300));
    assert_fails(Kind::DeadlineExceeded, c.wait_task(&soon, "init", None));
    world.remove("init");
}

pub fn execs(world: &World) {
    let (c, call) = (&world.containerd, &world.call);
    let first = world.running("ex", "sleep");
    world.prepared_exec("ex", "five", "5");
    let exec = c.task(call, "ex", Some("five")).expect("get");
    assert_eq!((exec.id.as_str(), exec.pid, exec.state), ("ex", 0, TaskState::Created));
    assert_fails(
        Kind::AlreadyExists,
        c.exec(
            call,
            &NewExec { id: "ex".into(), exec_id: "five".into(), process: b"{}".to_vec(), ..NewExec::default() },
        ),
    );
    assert_fails(Kind::FailedPrecondition, c.kill(call, "ex", Some("five"), KILL, false));
    let pid = c.start_task(call, "ex", Some("five")).expect("start");
    assert!(pid > 0 && pid != first);
    world.ended("ex", Some("five"), 5);
    let exit = c.wait_task(call, "ex", Some("five")).expect("wait");
    assert_eq!(exit.code, 5);
    assert_eq!(c.task(call, "ex", Some("five")).expect("get").state, TaskState::Stopped);
    assert_fails(Kind::NotFound, c.kill(call, "ex", Some("five"), KILL, false));
    assert_eq!(c.delete_task(call, "ex", Some("five")).expect("delete"), exit);
    assert_fails(Kind::NotFound, c.delete_task(call, "ex", Some("five")));
    assert_fails(Kind::NotFound, c.task(call, "ex", Some("five")));
    assert_fails(Kind::NotFound, c.wait_task(call, "ex", Some("five")));

    world.prepared_exec("ex", "nap", "sleep");
    c.start_task(call, "ex", Some("nap")).expect("start");
    assert_wrong_state(c.delete_task(call, "ex", Some("nap")));
    c.kill(call, "ex", Some("nap"), KILL, false).expect("kill");
    assert_eq!(c.wait_task(call, "ex", Some("nap")).expect("wait").code, 137);
    // One that was never started can be deleted; those that ended go with their task.
    world.prepared_exec("ex", "unstarted", "0");
    c.delete_task(call, "ex", Some("unstarted")).expect("delete");
    assert_eq!(c.tasks(call).expect("list").len(), 1);
    world.remove("ex");
}

pub fn execs_die_with_the_first_process(world: &World) {
    let (c, call) = (&world.containerd, &world.call);
    world.running("both", "sleep");
    world.prepared_exec("both", "nap", "sleep");
    c.start_task(call, "both", Some("nap")).expect("start");
    c.kill(call, "both", None, KILL, false).expect("kill");
    assert_eq!(c.wait_task(call, "both", Some("nap")).expect("wait").code, 137);
    assert_eq!(c.wait_task(call, "both", None).expect("wait").code, 137);
    let late = NewExec { id: "both".into(), exec_id: "late".into(), process: b"{}".to_vec(), ..NewExec::default() };
    assert_wrong_state(c.exec(call, &late));
    world.remove("both");
}

pub fn created_and_killed(world: &World) {
    let (c, call) = (&world.containerd, &world.call);
    world.created("early", "sleep");
    c.kill(call, "early", None, KILL, false).expect("kill");
    assert_eq!(c.wait_task(call, "early", None).expect("wait").code, 137);
    assert_wrong_state(c.start_task(call, "early", None));
    world.remove("early");

    // Never started, deleted as it is.
    world.created("unborn", "sleep");
    c.delete_task(call, "unborn", None).expect("delete");
    assert_fails(Kind::NotFound, c.task(call, "unborn", None));
    c.delete_container(call, "unborn").expect("delete");
    c.remove_snapshot(call, &overlay("unborn")).expect("remove");
}

pub fn what_is_refused(world: &World) {
    let (c, call) = (&world.containerd, &world.call);
    let task = |id: &str| NewTask { id: id.to_owned(), ..NewTask::default() };
    assert_fails(Kind::NotFound, c.create_task(call, &task("nobody")));
    assert_fails(Kind::NotFound, c.start_task(call, "nobody", None));
    assert_fails(Kind::NotFound, c.delete_task(call, "nobody", None));
    assert_fails(Kind::NotFound, c.task(call, "nobody", None));
    assert_fails(Kind::NotFound, c.kill(call, "nobody", None, KILL, true));
    assert_fails(Kind::NotFound, c.wait_task(call, "nobody", None));
    assert_fails(Kind::NotFound, c.update_task(call, "nobody", b"{}"));
    assert_fails(Kind::NotFound, c.resize_pty(call, "nobody", None, 80, 24));
    assert_fails(Kind::NotFound, c.close_stdin(call, "nobody", None));

    world.running("some", "sleep");
    assert_fails(Kind::AlreadyExists, c.create_task(call, &task("some")));
    assert_wrong_state(c.start_task(call, "some", None));
    assert_fails(Kind::NotFound, c.start_task(call, "some", Some("nobody")));
    assert_fails(Kind::NotFound, c.task(call, "some", Some("nobody")));
    assert_fails(Kind::NotFound, c.kill(call, "some", Some("nobody"), KILL, false));
    assert_fails(Kind::NotFound, c.resize_pty(call, "some", Some("nobody"), 80, 24));
    assert_fails(Kind::NotFound, c.close_stdin(call, "some", Some("nobody")));
    let odd = NewExec { id: "some".into(), exec_id: "not good".into(), process: b"{}".to_vec(), ..NewExec::default() };
    assert_fails(Kind::InvalidArgument, c.exec(call, &odd));
    assert_fails(Kind::NotFound, c.exec(call, &NewExec { id: "nobody".into(), exec_id: "e".into(), ..odd }));
    c.close_stdin(call, "some", None).expect("nothing to close");
    world.remove("some");
}

pub fn a_snapshot_that_is_gone(world: &World) {
    let (c, call) = (&world.containerd, &world.call);
    let rootfs = c.prepare_snapshot(call, &overlay("gone"), "", &kept()).expect("prepare");
    let record = Record {
        id: "gone".to_owned(),
        runtime: world.runtime.clone(),
        spec: b"{}".to_vec(),
        snapshotter: "overlayfs".to_owned(),
        snapshot_key: "gone".to_owned(),
        ..Record::default()
    };
    c.create_container(call, &record).expect("create");
    c.remove_snapshot(call, &overlay("gone")).expect("a record does not hold it");
    let task = NewTask { id: "gone".to_owned(), rootfs, options: world.options.clone(), ..NewTask::default() };
    assert_fails(Kind::Unknown, c.create_task(call, &task));
    assert_fails(Kind::NotFound, c.task(call, "gone", None));
    c.delete_container(call, "gone").expect("delete");
}

/// The record is the way to the task: it must go last.
pub fn no_record_no_way_to_the_task(world: &World) {
    let (c, call) = (&world.containerd, &world.call);
    let pid = world.running("lost", "sleep");
    let record = c.container(call, "lost").expect("get");
    c.delete_container(call, "lost").expect("delete");
    assert_fails(Kind::NotFound, c.task(call, "lost", None));
    assert_fails(Kind::NotFound, c.kill(call, "lost", None, KILL, true));
    assert_fails(Kind::NotFound, c.delete_task(call, "lost", None));
    assert_fails(Kind::NotFound, c.wait_task(call, "lost", None));
    assert_eq!(c.tasks(call).expect("list")[0].pid, pid);
    c.create_container(call, &record).expect("the way back");
    assert_eq!(c.task(call, "lost", None).expect("get").pid, pid);
    world.remove("lost");
}

pub fn resources(world: &World) {
    let (c, call) = (&world.containerd, &world.call);
    world.running("res", "sleep");
    c.update_task(call, "res", br#"{"cpu":{"shares":512}}"#).expect("update");
    assert_fails(Kind::Unknown, c.update_task(call, "res", b"not json"));
    world.remove("res");
}

pub fn waiting_has_a_deadline(world: &World) {
    let c = &world.containerd;
    world.running("long", "sleep");
    let soon = Call::within(Duration::from_millis(300));
    assert_fails(Kind::DeadlineExceeded, c.wait_task(&soon, "long", None));
    world.remove("long");
}
