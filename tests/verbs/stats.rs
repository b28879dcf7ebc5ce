//! Stats: which containers are in the answer, and what an answer costs.

use std::collections::HashMap;

use cricket::container;
use cricket::containerd::fake::Fault;
use cricket::error::Kind;
use cricket::sandbox;
use cricket_proto::runtime::{
    ContainerStats, ContainerStatsFilter, ContainerStatsRequest, ListContainerStatsRequest, ListPodSandboxStatsRequest,
    PodSandboxStatsFilter, PodSandboxStatsRequest,
};

use crate::world::{call, World};

fn list(world: &World, filter: ContainerStatsFilter) -> Vec<ContainerStats> {
    let request = ListContainerStatsRequest { filter: Some(filter).into(), ..Default::default() };
    let mut stats = container::list_stats(world, &call(), request).expect("a list").stats;
    stats.sort_by(|a, b| a.attributes.metadata.name.cmp(&b.attributes.metadata.name));
    stats
}

fn names(world: &World, filter: ContainerStatsFilter) -> Vec<String> {
    list(world, filter).iter().map(|s| s.attributes.metadata.name.clone()).collect()
}

/// How many calls containerd got meanwhile.
fn cost(world: &World, ask: impl FnOnce()) -> usize {
    let before = world.fake.calls().len();
    ask();
    world.fake.calls().len() - before
}

#[test]
fn the_filter_chooses() {
    let world = World::new();
    let all = ContainerStatsFilter::default;
    assert!(names(&world, all()).is_empty());
    let (first, running) = world.running("running");
    world.container(&first, "created");
    let (second, exited) = world.running("exited");
    world.exit(&exited, 1);
    assert_eq!(names(&world, all()), ["created", "exited", "running"]);
    let request = ListContainerStatsRequest::default();
    assert_eq!(container::list_stats(&world, &call(), request).expect("a list").stats.len(), 3, "no filter");
    assert_eq!(names(&world, ContainerStatsFilter { id: running[..13].into(), ..all() }), ["running"]);
    assert_eq!(names(&world, ContainerStatsFilter { pod_sandbox_id: first, ..all() }), ["created", "running"]);
    let label_selector = HashMap::from([("container".to_owned(), "created".to_owned())]);
    let labelled = ContainerStatsFilter { label_selector, ..all() };
    assert_eq!(names(&world, labelled.clone()), ["created"]);
    assert!(names(&world, ContainerStatsFilter { pod_sandbox_id: second, ..labelled }).is_empty());
}

#[test]
fn every_container_has_attributes_and_a_layer() {
    let world = World::new();
    let (pod, running) = world.running("running");
    world.container(&pod, "created");
    for stats in list(&world, ContainerStatsFilter::default()) {
        let name = &stats.attributes.metadata.name;
        assert_eq!(stats.attributes.labels["container"], *name);
        assert_eq!(stats.writable_layer.used_bytes.value, 4096, "{name}");
        assert!(stats.writable_layer.timestamp > 0 && !stats.writable_layer.fs_id.mountpoint.is_empty(), "{name}");
        // The fake's processes are none of the kernel's, so nothing counts for them.
        assert!(stats.cpu.is_none() && stats.memory.is_none(), "{name}");
    }
    let request = ContainerStatsRequest { container_id: running[..20].into(), ..Default::default() };
    let one = container::stats(&world, &call(), request).expect("stats").stats.unwrap_or_default();
    assert_eq!((one.attributes.id.as_str(), one.writable_layer.used_bytes.value), (running.as_str(), 4096));
}

#[test]
fn an_unknown_container_is_not_found() {
    let world = World::new();
    for id in ["", "f00"] {
        let request = ContainerStatsRequest { container_id: id.into(), ..Default::default() };
        let e = container::stats(&world, &call(), request).expect_err(id);
        assert!([Kind::NotFound, Kind::InvalidArgument].contains(&e.kind()), "{id}: {e}");
    }
}

#[test]
fn containerd_is_asked_only_for_what_may_have_changed() {
    let world = World::new();
    world.running("a");
    let ask = || drop(list(&world, ContainerStatsFilter::default()));
    assert!(cost(&world, ask) > 0);
    assert_eq!(cost(&world, ask), 0, "measured a moment ago");
    let nobody = ContainerStatsFilter { id: "0".repeat(64), ..Default::default() };
    world.running("b");
    assert_eq!(cost(&world, || drop(list(&world, nobody))), 0, "nobody to ask for");
    assert!(cost(&world, ask) > 0, "a new one");
}

#[test]
fn without_containerd_the_layer_is_absent_and_the_rest_is_there() {
    let world = World::new();
    world.running("a");
    world.fake.fail_at(1, Fault::Refused);
    let stats = list(&world, ContainerStatsFilter::default());
    assert_eq!((stats.len(), stats[0].writable_layer.is_none()), (1, true));
    assert_eq!(stats[0].attributes.metadata.name, "a");
    assert!(list(&world, ContainerStatsFilter::default())[0].writable_layer.is_some(), "the next time");
}

#[test]
fn pods_that_are_ready_with_their_containers() {
    let world = World::new();
    let (first, running) = world.running("a");
    world.container(&first, "created");
    let (second, _) = world.running("b");
    let gone = world.pod("gone");
    world.stop_pod(&gone).expect("stop");
    let list = |filter: PodSandboxStatsFilter| {
        let request = ListPodSandboxStatsRequest { filter: Some(filter).into(), ..Default::default() };
        sandbox::list_stats(&world, &call(), request).expect("a list").stats
    };
    let all = PodSandboxStatsFilter::default;
    let ids = |filter| {
        let mut ids: Vec<String> = list(filter).iter().map(|s| s.attributes.id.clone()).collect();
        ids.sort();
        ids
    };
    let mut both = [first.clone(), second.clone()];
    both.sort();
    assert_eq!(ids(all()), both);
    assert_eq!(ids(PodSandboxStatsFilter { id: first[..9].into(), ..all() }), [first.as_str()]);
    let label_selector = HashMap::from([("pod".to_owned(), "b".to_owned())]);
    assert_eq!(ids(PodSandboxStatsFilter { label_selector, ..all() }), [second]);

    let stats = list(PodSandboxStatsFilter { id: first.clone(), ..all() }).remove(0);
    let mut containers: Vec<&str> =
        stats.linux.containers.iter().map(|c| c.attributes.metadata.name.as_str()).collect();
    containers.sort_unstable();
    assert_eq!(containers, ["a", "created"]);
    assert!(stats.linux.containers.iter().any(|c| c.attributes.id == running));
    // The scripted plugins make no interface.
    assert!(stats.linux.network.interfaces.is_empty() && stats.linux.network.timestamp > 0, "{stats:?}");

    let one = |id: &str| {
        let request = PodSandboxStatsRequest { pod_sandbox_id: id.into(), ..Default::default() };
        sandbox::stats(&world, &call(), request).map_err(|e| e.kind())
    };
    assert_eq!(one(&first).map(|s| s.stats.attributes.id.clone()), Ok(first));
    assert_eq!(one(&gone).map(drop), Err(Kind::Unavailable));
    assert_eq!(one("f00").map(drop), Err(Kind::NotFound));
}

#[test]
fn streams_say_the_same_in_parts() {
    let world = World::new();
    let pod = world.pod("a");
    for n in 0..150 {
        world.container(&pod, &format!("c{n}"));
    }
    let mut sizes = Vec::new();
    container::stream_stats(&world, &call(), Default::default(), &mut |part| {
        sizes.push(part.container_stats.len());
        Ok(())
    })
    .expect("streamed");
    assert_eq!(sizes, [100, 50]);
    let mut ids = Vec::new();
    container::stream(&world, Default::default(), &mut |part| {
        ids.extend(part.decode()?.containers.into_iter().map(|c| c.id));
        Ok(())
    })
    .expect("streamed");
    let list = container::list(&world, &call(), Default::default()).and_then(|list| list.decode()).expect("a list");
    let mut listed: Vec<String> = list.containers.into_iter().map(|c| c.id).collect();
    ids.sort();
    listed.sort();
    assert_eq!(ids, listed);
    let mut pods = Vec::new();
    sandbox::stream(&world, Default::default(), &mut |part| {
        pods.extend(part.decode()?.pod_sandboxes.into_iter().map(|p| p.id));
        Ok(())
    })
    .expect("streamed");
    assert_eq!(pods, [pod]);
    let mut stats = Vec::new();
    sandbox::stream_stats(&world, &call(), Default::default(), &mut |part| {
        stats.extend(part.pod_sandbox_stats.into_iter().map(|s| s.linux.containers.len()));
        Ok(())
    })
    .expect("streamed");
    assert_eq!(stats, [150]);
}
