//! UpdateContainerResources: record, task and status agree, whatever fails.

use cricket::container;
use cricket::containerd::fake::Fault;
use cricket::containerd::Containerd;
use cricket::error::{Kind, Result};
use cricket::sandbox;
use cricket_proto::runtime::{
    LinuxContainerResources, PodSandboxState, PodSandboxStatusRequest, UpdateContainerResourcesRequest,
    UpdatePodSandboxResourcesRequest,
};
use serde_json::{json, Value};

use crate::requests;
use crate::world::{assert_refused, call, World};

fn limits() -> LinuxContainerResources {
    LinuxContainerResources { cpu_shares: 256, memory_limit_in_bytes: 64 << 20, ..Default::default() }
}

fn update(world: &World, id: &str, linux: LinuxContainerResources) -> Result<()> {
    let request =
        UpdateContainerResourcesRequest { container_id: id.into(), linux: Some(linux).into(), ..Default::default() };
    container::update_resources(world, &call(), request).map(drop)
}

fn create(world: &World, pod: &str) -> String {
    let mut request = requests::container(pod, "a");
    let linux = requests::config(&mut request).linux.mut_or_insert_default();
    linux.resources = Some(LinuxContainerResources {
        cpu_shares: 512,
        cpu_period: 100_000,
        oom_score_adj: 1000,
        ..Default::default()
    })
    .into();
    world.create(request).expect("create")
}

fn recorded(world: &World, id: &str) -> Value {
    let record = world.fake.container(&call(), id).expect("a record");
    let spec: Value = serde_json::from_slice(&record.spec).expect("JSON");
    spec["linux"]["resources"].clone()
}

fn shown(world: &World, id: &str) -> LinuxContainerResources {
    world.status(id).resources.linux.clone().unwrap_or_default()
}

#[test]
fn a_created_container_has_other_limits_from_its_start_on() {
    let mut world = World::new();
    let pod = world.pod("a");
    let id = create(&world, &pod);
    update(&world, &id, limits()).expect("update");
    assert_eq!(world.count("update_task"), 0, "it has none");
    let resources = recorded(&world, &id);
    assert_eq!(resources["cpu"], json!({"shares": 256, "period": 100_000}));
    assert_eq!(resources["memory"]["limit"], json!(64 << 20));
    assert!(resources["devices"].is_array(), "the rest is as it was");
    let expected = LinuxContainerResources { cpu_period: 100_000, oom_score_adj: 1000, ..limits() };
    assert_eq!(shown(&world, &id), expected);
    world.restart();
    assert_eq!(shown(&world, &id), expected);
    world.start(&id).expect("start");
    world.remove_pod(&pod).expect("remove");
    world.assert_clean(&["a"]);
}

#[test]
fn a_running_one_at_once_and_one_that_has_ended_only_on_paper() {
    let world = World::new();
    let pod = world.pod("a");
    let id = create(&world, &pod);
    world.start(&id).expect("start");
    update(&world, &id, limits()).expect("update");
    assert_eq!(world.count("update_task"), 1);
    assert_eq!(shown(&world, &id).memory_limit_in_bytes, 64 << 20);
    world.exit(&id, 0);
    update(&world, &id, LinuxContainerResources { cpu_shares: 2, ..Default::default() }).expect("update");
    assert_eq!(world.count("update_task"), 1);
    let now = shown(&world, &id);
    assert_eq!((now.cpu_shares, now.memory_limit_in_bytes), (2, 64 << 20), "what is zero stays");
}

#[test]
fn whatever_fails_the_old_limits_are_shown_and_recorded() {
    for fault in [Fault::Refused, Fault::LostReply] {
        for n in 1.. {
            let world = World::new();
            let pod = world.pod("a");
            let id = create(&world, &pod);
            world.start(&id).expect("start");
            let (before, status) = (recorded(&world, &id), shown(&world, &id));
            world.fake.fail_at(n, fault);
            let done = update(&world, &id, limits());
            if world.fake.fault_pending() {
                done.expect("nothing failed");
                assert_eq!(n, 4, "record, its update, the task's");
                break;
            }
            assert_refused(done, Kind::Unavailable, &["update container"]);
            assert_eq!((recorded(&world, &id), shown(&world, &id)), (before, status), "{fault:?} at call {n}");
            update(&world, &id, limits()).expect("the same request");
            world.remove_pod(&pod).expect("remove");
            world.assert_clean(&["a"]);
        }
    }
}

#[test]
fn limits_that_cannot_be_change_nothing() {
    let world = World::new();
    let pod = world.pod("a");
    let id = create(&world, &pod);
    let before = recorded(&world, &id);
    let bad = LinuxContainerResources { cpu_period: -1, cpu_shares: 7, ..Default::default() };
    assert_refused(update(&world, &id, bad), Kind::InvalidArgument, &["cpu_period"]);
    assert_eq!(recorded(&world, &id), before);
    assert_refused(update(&world, &"0".repeat(64), limits()), Kind::NotFound, &["does not exist"]);
    assert_refused(update(&world, "", limits()), Kind::InvalidArgument, &["id is empty"]);
}

#[test]
fn one_thing_at_a_time() {
    let world = World::new();
    let pod = world.pod("a");
    let id = create(&world, &pod);
    let container = world.containers.get(&id).expect("there");
    let updating = container.begin_update().expect("free");
    assert_refused(update(&world, &id, limits()), Kind::FailedPrecondition, &["is being updated"]);
    assert_refused(world.start(&id), Kind::FailedPrecondition, &["is being updated"]);
    drop(updating);
    world.start(&id).expect("start");
    update(&world, &id, limits()).expect("update");
    let removing = container.begin_remove().expect("free");
    assert_refused(update(&world, &id, limits()), Kind::FailedPrecondition, &["is being removed"]);
    drop(removing);
}

#[test]
fn the_limits_of_a_pod_are_kept() {
    let mut world = World::new();
    let pod = world.pod("a");
    let ask = |world: &World, id: &str, resources| {
        let request = UpdatePodSandboxResourcesRequest {
            pod_sandbox_id: id.into(),
            resources: Some(resources).into(),
            ..Default::default()
        };
        sandbox::update_resources(world, &call(), request).map(drop)
    };
    assert_refused(ask(&world, "f00", limits()), Kind::NotFound, &["f00"]);
    ask(&world, &pod, limits()).expect("update");
    ask(&world, &pod, LinuxContainerResources { cpu_shares: 300, ..limits() }).expect("update again");
    world.restart();
    let request = PodSandboxStatusRequest { pod_sandbox_id: pod.clone(), verbose: true, ..Default::default() };
    let info = sandbox::status(&world, &call(), request).expect("a status").info;
    let info: Value = serde_json::from_str(&info["info"]).expect("JSON");
    assert_eq!(info["resources"]["cpuShares"], json!(300));
    assert_eq!(info["resources"]["memoryLimitInBytes"], json!(64 << 20));
    assert_eq!(info["overhead"], Value::Null, "nobody said any");
    world.stop_pod(&pod).expect("stop");
    assert_refused(ask(&world, &pod, limits()), Kind::FailedPrecondition, &["not ready"]);
    world.restart();
    assert_eq!(world.pod_status(&pod).state, PodSandboxState::SANDBOX_NOTREADY.into(), "still stopped");
}
