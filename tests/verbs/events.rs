//! What a client hears: every change of a pod and its containers, in order, with the pod as it is then.

use std::sync::Mutex;

use cricket::call::Call;
use cricket::error::{Error, Kind};
use cricket::sandbox;
use cricket_proto::runtime::ContainerEventType::{
    self, CONTAINER_CREATED_EVENT as CREATED, CONTAINER_DELETED_EVENT as DELETED, CONTAINER_STARTED_EVENT as STARTED,
    CONTAINER_STOPPED_EVENT as STOPPED,
};
use cricket_proto::runtime::{ContainerEventResponse, ContainerState, PodSandboxState};

use crate::world::{eventually, World};

/// What is heard while `act` runs, until `count` events are there.
fn heard(world: &World, count: usize, act: impl FnOnce()) -> Vec<ContainerEventResponse> {
    let heard = Mutex::new(Vec::new());
    let len = || heard.lock().expect("no panic").len();
    let client = Call::unbounded();
    let end = std::thread::scope(|scope| {
        let listening = scope.spawn(|| {
            sandbox::events(world, &client, Default::default(), &mut |event| {
                heard.lock().expect("no panic").push(event);
                Ok(())
            })
        });
        eventually("it listens", || world.rt().events.listeners() == 1);
        act();
        eventually("all is heard", || len() >= count);
        client.cancel();
        listening.join().expect("no panic")
    });
    assert_eq!(end.map_err(|e| e.kind()), Err(Kind::Canceled), "it ends with its client");
    assert_eq!(world.rt().events.listeners(), 0);
    heard.into_inner().expect("no panic")
}

fn kinds(events: &[ContainerEventResponse]) -> Vec<(&str, ContainerEventType)> {
    events.iter().map(|e| (e.container_id.as_str(), e.container_event_type.enum_value().expect("known"))).collect()
}

#[test]
fn a_life_from_first_to_last() {
    let world = World::new();
    let (mut pod, mut id) = (String::new(), String::new());
    let events = heard(&world, 8, || {
        pod = world.pod("a");
        id = world.container(&pod, "c");
        world.start(&id).expect("start");
        world.exit(&id, 3);
        world.remove(&id).expect("remove");
        world.stop_pod(&pod).expect("stop");
        world.stop_pod(&pod).expect("stop again");
        world.remove_pod(&pod).expect("remove");
    });
    let (pod, id) = (pod.as_str(), id.as_str());
    let expected = [
        (pod, CREATED),
        (pod, STARTED),
        (id, CREATED),
        (id, STARTED),
        (id, STOPPED),
        (id, DELETED),
        (pod, STOPPED),
        (pod, DELETED),
    ];
    assert_eq!(kinds(&events), expected);
    assert!(events.windows(2).all(|w| w[0].created_at <= w[1].created_at));
    let last = events.last().expect("events");
    assert_eq!((last.pod_sandbox_status.id.as_str(), last.pod_sandbox_status.metadata.name.as_str()), (pod, "a"));
    assert_eq!(last.pod_sandbox_status.state, PodSandboxState::SANDBOX_NOTREADY.into());
    assert!(last.containers_statuses.is_empty());
}

#[test]
fn the_pod_comes_with_it() {
    let world = World::new();
    let (pod, id) = world.running("c");
    let events = heard(&world, 1, || world.exit(&id, 3));
    assert_eq!(kinds(&events), [(id.as_str(), STOPPED)]);
    let event = &events[0];
    assert_eq!(event.pod_sandbox_status.id, pod);
    assert_eq!(event.pod_sandbox_status.state, PodSandboxState::SANDBOX_READY.into());
    let [status] = event.containers_statuses.as_slice() else { panic!("{event:?}") };
    assert_eq!((status.id.as_str(), status.exit_code), (id.as_str(), 3));
    assert_eq!(status.state, ContainerState::CONTAINER_EXITED.into());
}

#[test]
fn a_client_that_cannot_be_told_ends_it() {
    let world = World::new();
    let told = std::thread::scope(|scope| {
        let listening = scope.spawn(|| {
            let gone = || Error::new(Kind::Canceled, "the client is gone");
            sandbox::events(&world, &Call::unbounded(), Default::default(), &mut |_| Err(gone()))
        });
        eventually("it listens", || world.rt().events.listeners() == 1);
        world.pod("a");
        listening.join().expect("no panic")
    });
    assert_eq!(told.map_err(|e| e.kind()), Err(Kind::Canceled));
    world.rt().events.close();
    let ended = sandbox::events(&world, &Call::unbounded(), Default::default(), &mut |_| Ok(()));
    assert_eq!(ended.map_err(|e| e.kind()), Err(Kind::Unavailable), "the daemon is about to end");
}
