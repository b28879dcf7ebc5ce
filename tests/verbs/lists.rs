//! What the kubelet sees: lists with their filters, and every field of a status.

use cricket::clock;
use cricket::container;
use cricket::sandbox;
use cricket_proto::runtime::{
    ContainerFilter, ContainerState, ContainerStateValue, ContainerStatusRequest, ListContainersRequest,
    ListPodSandboxRequest, PodSandboxFilter, PodSandboxState, PodSandboxStateValue, PodSandboxStatusRequest,
};

use crate::requests::IMAGE;
use crate::world::{call, World};

fn pods(world: &World, filter: PodSandboxFilter) -> Vec<String> {
    let request = ListPodSandboxRequest { filter: Some(filter).into(), ..Default::default() };
    let items = sandbox::list(world, &call(), request).and_then(|list| list.decode()).expect("a list").items;
    let mut names: Vec<String> = items.iter().map(|item| item.metadata.name.clone()).collect();
    names.sort();
    names
}

fn containers(world: &World, filter: ContainerFilter) -> Vec<String> {
    let request = ListContainersRequest { filter: Some(filter).into(), ..Default::default() };
    let items = container::list(world, &call(), request).and_then(|list| list.decode()).expect("a list").containers;
    let mut names: Vec<String> = items.iter().map(|item| item.metadata.name.clone()).collect();
    names.sort();
    names
}

fn labels(pairs: &[(&str, &str)]) -> std::collections::HashMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn pod_sandboxes() {
    let world = World::new();
    let first = world.pod("first");
    let second = world.pod("second");
    world.stop_pod(&second).expect("stop");
    let all = PodSandboxFilter::default;
    let in_state = |state: PodSandboxState| PodSandboxFilter {
        state: Some(PodSandboxStateValue { state: state.into(), ..Default::default() }).into(),
        ..all()
    };
    assert_eq!(pods(&world, all()), ["first", "second"]);
    assert_eq!(pods(&world, PodSandboxFilter { id: first.clone(), ..all() }), ["first"]);
    assert_eq!(pods(&world, PodSandboxFilter { id: first[..13].into(), ..all() }), ["first"]);
    assert!(pods(&world, PodSandboxFilter { id: "0".repeat(64), ..all() }).is_empty());
    assert_eq!(pods(&world, in_state(PodSandboxState::SANDBOX_READY)), ["first"]);
    assert_eq!(pods(&world, in_state(PodSandboxState::SANDBOX_NOTREADY)), ["second"]);
    assert_eq!(pods(&world, PodSandboxFilter { label_selector: labels(&[("pod", "second")]), ..all() }), ["second"]);
    let both = labels(&[("pod", "second"), ("other", "x")]);
    assert!(pods(&world, PodSandboxFilter { label_selector: both, ..all() }).is_empty());
    let mixed = PodSandboxFilter { id: first, ..in_state(PodSandboxState::SANDBOX_NOTREADY) };
    assert!(pods(&world, mixed).is_empty());
}

#[test]
fn containers_of_pods() {
    let world = World::new();
    let (first, running) = world.running("running");
    world.container(&first, "created");
    let (second, exited) = world.running("exited");
    world.exit(&exited, 1);
    let all = ContainerFilter::default;
    let in_state = |state: ContainerState| ContainerFilter {
        state: Some(ContainerStateValue { state: state.into(), ..Default::default() }).into(),
        ..all()
    };
    let calls = world.fake.calls().len();
    assert_eq!(containers(&world, all()), ["created", "exited", "running"]);
    assert_eq!(containers(&world, ContainerFilter { id: running[..13].into(), ..all() }), ["running"]);
    assert_eq!(containers(&world, ContainerFilter { pod_sandbox_id: first, ..all() }), ["created", "running"]);
    assert_eq!(containers(&world, ContainerFilter { pod_sandbox_id: second[..13].into(), ..all() }), ["exited"]);
    assert_eq!(containers(&world, in_state(ContainerState::CONTAINER_CREATED)), ["created"]);
    assert_eq!(containers(&world, in_state(ContainerState::CONTAINER_RUNNING)), ["running"]);
    assert_eq!(containers(&world, in_state(ContainerState::CONTAINER_EXITED)), ["exited"]);
    assert!(containers(&world, in_state(ContainerState::CONTAINER_UNKNOWN)).is_empty());
    let labelled = ContainerFilter { label_selector: labels(&[("container", "created")]), ..all() };
    assert_eq!(containers(&world, labelled), ["created"]);
    let mixed = ContainerFilter { pod_sandbox_id: second, ..in_state(ContainerState::CONTAINER_RUNNING) };
    assert!(containers(&world, mixed).is_empty());
    assert_eq!(world.fake.calls().len(), calls, "lists never leave the process");
}

#[test]
fn the_status_of_a_pod_sandbox() {
    let world = World::new();
    let before = clock::now();
    let mut request = world.request("a");
    request.config.mut_or_insert_default().annotations.insert("k".into(), "v".into());
    let pod = world.run(request).expect("run");
    let status = world.pod_status(&pod);
    assert!((before..=clock::now()).contains(&status.created_at));
    assert_eq!((status.id.as_str(), status.metadata.uid.as_str()), (pod.as_str(), "uid-of-a"));
    assert_eq!(status.state.enum_value(), Ok(PodSandboxState::SANDBOX_READY));
    assert_eq!((status.labels["pod"].as_str(), status.annotations["k"].as_str()), ("a", "v"));
    let request = PodSandboxStatusRequest { pod_sandbox_id: pod.clone(), verbose: true, ..Default::default() };
    let verbose = sandbox::status(&world, &call(), request).expect("a status");
    assert!(verbose.info["info"].contains(&format!("netns/cricket-{pod}")), "{:?}", verbose.info);

    world.stop_pod(&pod).expect("stop");
    let stopped = world.pod_status(&pod);
    assert_eq!(stopped.state.enum_value(), Ok(PodSandboxState::SANDBOX_NOTREADY));
    assert_eq!((stopped.created_at, stopped.network.ip.as_str()), (status.created_at, ""));
}

#[test]
fn the_status_of_a_container() {
    let world = World::new();
    let before = clock::now();
    let pod = world.pod("a");
    let id = world.container(&pod, "a");
    let created = world.status(&id);
    assert_eq!(created.state.enum_value(), Ok(ContainerState::CONTAINER_CREATED));
    assert!((before..=clock::now()).contains(&created.created_at));
    assert_eq!((created.started_at, created.finished_at, created.exit_code), (0, 0, 0));
    let image = world.images.get(IMAGE).expect("the image");
    assert_eq!((created.image.image.as_str(), created.image_id.as_str()), (IMAGE, image.id.as_str()));
    assert_eq!(created.image_ref, image.repo_digests[0]);
    assert_eq!(created.log_path, world.dir.path().join("logs/a.log").display().to_string());
    assert_eq!(created.labels["container"], "a");

    world.start(&id).expect("start");
    let running = world.status(&id);
    assert_eq!(running.state.enum_value(), Ok(ContainerState::CONTAINER_RUNNING));
    assert!((created.created_at..=clock::now()).contains(&running.started_at));
    assert_eq!(running.finished_at, 0);

    world.exit(&id, 3);
    let exited = world.status(&id);
    assert_eq!((exited.created_at, exited.started_at), (created.created_at, running.started_at));
    assert!((running.started_at..=clock::now()).contains(&exited.finished_at));
    assert_eq!((exited.exit_code, exited.reason.as_str()), (3, "Error"));

    let request = ContainerStatusRequest { container_id: id, verbose: true, ..Default::default() };
    let verbose = container::status(&world, &call(), request).expect("a status");
    let info: serde_json::Value = serde_json::from_str(&verbose.info["info"]).expect("JSON");
    assert_eq!(info["sandboxID"], pod);
    assert_eq!(info["runtimeSpec"]["process"]["args"][0], "/bin/app");
}
