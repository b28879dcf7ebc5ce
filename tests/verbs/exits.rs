//! Containers that end by themselves, however the news comes.

use cricket::containerd::{Containerd, TaskState};
use cricket_proto::runtime::ContainerState;

use crate::world::{call, World};

#[test]
fn code_and_reason() {
    let world = World::new();
    for (name, code, oom, reason) in [
        ("fine", 0, false, "Completed"),
        ("fine-after-oom", 0, true, "Completed"),
        ("failed", 2, false, "Error"),
        ("killed", 137, false, "Error"),
        ("oom-killed", 137, true, "OOMKilled"),
        ("child-oom-killed", 1, true, "OOMKilled"),
    ] {
        let (_, id) = world.running(name);
        if oom {
            world.sync_events(&id);
        }
        world.exit(&id, code);
        let status = world.status(&id);
        assert_eq!((status.exit_code, status.reason.as_str()), (i32::try_from(code).unwrap(), reason), "{name}");
    }
    assert!(!world.leftovers().iter().any(|l| l.starts_with("task:")), "a container that ended has no task");
}

#[test]
fn an_exit_before_the_start_is_acknowledged() {
    let world = World::new();
    let pod = world.pod("a");
    let id = world.container(&pod, "a");
    let (fake, container) = (world.fake.clone(), world.rt().containers.get(&id).expect("the container"));
    let same = id.clone();
    world.fake.after("start_task", move || {
        // The kernel kills it for want of memory, and the monitor hears of it before the start verb.
        fake.oom(&same);
        fake.exit(&same, None, 137);
        fake.oom(&same);
        crate::world::eventually("the monitor is through", || container.saw_oom());
    });
    world.start(&id).expect("it did start");
    world.await_exit(&id);
    let status = world.status(&id);
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"));
    assert!(status.started_at > 0 && status.finished_at > 0);
    world.remove_pod(&pod).expect("remove");
    world.assert_clean(&["a"]);
}

#[test]
fn an_exit_while_the_event_stream_is_broken() {
    let world = World::new();
    let (_, first) = world.running("a");
    let (_, second) = world.running("b");
    let (_, third) = world.running("c");
    world.fake.break_streams();
    world.exit(&first, 9);
    assert_eq!((world.status(&first).exit_code, world.status(&first).reason.as_str()), (9, "Error"));
    // Somebody else deleted its task meanwhile: nobody knows how it ended.
    world.fake.break_streams();
    world.fake.exit(&second, None, 9);
    world.fake.delete_task(&call(), &second, None).ok(); // unless we were faster
    world.await_exit(&second);
    assert!([9, 255].contains(&world.status(&second).exit_code));
    assert_eq!(world.state(&third), ContainerState::CONTAINER_RUNNING, "this one lives");
    let task = world.fake.task(&call(), &third, None).expect("its task");
    assert_eq!(task.state, TaskState::Running);
    assert!(world.connected());
}

#[test]
fn a_lost_exit_is_found_by_the_next_stop() {
    // No monitor hears of it at all: the stream is open and silent.
    let world = World::new();
    let (pod, id) = world.running("a");
    world.fake.break_streams();
    world.fake.exit(&id, None, 5);
    world.stop(&id, 10).expect("stop");
    assert_eq!(world.status(&id).exit_code, 5);
    world.remove_pod(&pod).expect("remove");
    world.assert_clean(&["a"]);
}
