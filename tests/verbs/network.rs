//! RunPodSandbox and StopPodSandbox on a network that does not work.

use std::time::Duration;

use cricket::call::Call;
use cricket::error::Kind;
use cricket::sandbox;
use cricket_proto::runtime::{NamespaceMode, PodSandboxState, PortMapping, RunPodSandboxRequest, StatusRequest};

use crate::plugin::Mood;
use crate::requests::{namespaces, on_host, stop_pod};
use crate::world::{assert_refused, call, World};

/// Long enough for the plugin to start, mostly; the outcome is the same if not.
const SHORT: Duration = Duration::from_millis(500);

#[test]
fn addresses_ipv4_first() {
    let world = World::new();
    let pod = world.pod("a");
    let network = world.pod_status(&pod).network.unwrap_or_default();
    assert_eq!(network.ip, "10.88.0.1");
    assert_eq!(network.additional_ips[0].ip, "fd00::1");
    world.remove_pod(&pod).expect("remove");
    assert_eq!(world.cni.ran(), [format!("ADD {pod}"), format!("DEL {pod}")]);
    world.assert_clean(&["a"]);
}

#[test]
fn a_failing_add_leaves_nothing() {
    for (mood, text) in [(Mood::Fail, "the pool is dry (CNI error code 11)"), (Mood::Garbage, "not JSON")] {
        let world = World::new();
        world.cni.set("ADD", Some(mood));
        assert_refused(world.run(world.request("a")), Kind::Unknown, &["run pod sandbox a_default", text]);
        assert_eq!(world.cni.ran().len(), 2, "DEL follows a failed ADD");
        assert_eq!(world.leftovers(), Vec::<String>::new());
        world.cni.set("ADD", None);
        world.assert_clean(&["a"]);
    }
}

#[test]
fn a_network_without_addresses_leaves_nothing() {
    let world = World::new();
    world.cni.set("ADD", Some(Mood::Addressless));
    let texts = ["gave the pod no address: check its ipam section"];
    assert_refused(world.run(world.request("a")), Kind::FailedPrecondition, &texts);
    assert_eq!(world.leftovers(), Vec::<String>::new());
}

#[test]
fn a_hanging_add_ends_at_the_deadline_and_leaves_nothing() {
    let world = World::new();
    world.cni.set("ADD", Some(Mood::Hang));
    let done = sandbox::run(&world, &Call::within(SHORT), world.request("a"));
    assert_refused(done, Kind::DeadlineExceeded, &["run pod sandbox a_default"]);
    assert_eq!(world.leftovers(), Vec::<String>::new());
    world.cni.set("ADD", None);
    world.assert_clean(&["a"]);
}

#[test]
fn what_cannot_be_given_back_stays_until_it_can() {
    for mood in [Mood::Fail, Mood::Garbage] {
        let mut world = World::new();
        world.cni.set("ADD", Some(mood));
        world.cni.set("DEL", Some(Mood::Fail));
        // The first error is the answer, not that of the undo.
        assert_refused(world.run(world.request("a")), Kind::Unknown, &["run pod sandbox"]);
        let pods = world.sandboxes.list();
        let [pod] = pods.as_slice() else { panic!("one sandbox stays: {pods:?}") };
        let pod = pod.id.to_string();
        assert_eq!(world.pod_status(&pod).state.enum_value(), Ok(PodSandboxState::SANDBOX_NOTREADY));
        assert_refused(world.run(world.request("a")), Kind::AlreadyExists, &["remove it first", &pod]);
        assert_refused(world.stop_pod(&pod), Kind::Unknown, &["stop pod sandbox", "the pool is dry"]);
        assert_refused(world.remove_pod(&pod), Kind::Unknown, &["remove pod sandbox", "the pool is dry"]);
        // A restart changes nothing about it.
        drop(pods);
        world.restart();
        assert_eq!(world.pod_status(&pod).state.enum_value(), Ok(PodSandboxState::SANDBOX_NOTREADY));
        world.cni.set("DEL", None);
        world.cni.set("ADD", None);
        world.stop_pod(&pod).expect("the network is repaired");
        world.remove_pod(&pod).expect("and the sandbox can go");
        world.assert_clean(&["a"]);
    }
}

#[test]
fn a_hanging_del_ends_at_the_deadline_and_is_tried_again() {
    let world = World::new();
    let pod = world.pod("a");
    world.cni.set("DEL", Some(Mood::Hang));
    let done = sandbox::stop(&world, &Call::within(SHORT), stop_pod(&pod));
    assert_refused(done, Kind::DeadlineExceeded, &["stop pod sandbox"]);
    assert_eq!(world.pod_status(&pod).state.enum_value(), Ok(PodSandboxState::SANDBOX_NOTREADY));
    world.cni.set("DEL", None);
    world.stop_pod(&pod).expect("a retry");
    assert!(world.cni.attached().is_empty());
    world.remove_pod(&pod).expect("remove");
    world.assert_clean(&["a"]);
}

#[test]
fn a_network_that_is_not_configured_is_told_with_its_directory() {
    let world = World::new();
    world.cni.configure_as("{");
    let texts = ["cni plugin not initialized", "10-scripted.conflist", "conf"];
    assert_refused(world.run(world.request("a")), Kind::FailedPrecondition, &texts);
    world.cni.configure_as(r#"{"cniVersion":"1.0.0","name":"x","plugins":[{"type":"absent"}]}"#);
    let texts = ["CNI plugin \"absent\" is not installed", "bin"];
    assert_refused(world.run(world.request("a")), Kind::FailedPrecondition, &texts);
    world.cni.unconfigure();
    let texts = ["no network config in", "the network add-on puts one there"];
    assert_refused(world.run(world.request("a")), Kind::FailedPrecondition, &texts);
    assert_eq!(world.leftovers(), Vec::<String>::new());

    let status = cricket::node::status(&world, &call(), StatusRequest::default()).expect("a status");
    let conditions = status.status.unwrap_or_default().conditions;
    let network = conditions.iter().find(|c| c.type_ == "NetworkReady").expect("there is one");
    assert!(!network.status && network.message.contains("no network config"), "{network:?}");
    world.cni.configure();
    world.assert_clean(&["a"]);
}

#[test]
fn the_hosts_network_needs_none() {
    let world = World::new();
    world.cni.unconfigure();
    let mut request = world.request("a");
    *namespaces(&mut request) = on_host();
    let pod = world.run(request).expect("run");
    let status = world.pod_status(&pod);
    assert_eq!(status.network.ip, "");
    let options = status.linux.namespaces.options.clone().unwrap_or_default();
    assert_eq!(options.network.enum_value(), Ok(NamespaceMode::NODE));
    let id = world.container(&pod, "a");
    world.start(&id).expect("start");
    world.remove_pod(&pod).expect("remove");
    assert!(world.cni.ran().is_empty());
    assert_eq!(world.leftovers(), Vec::<String>::new());
}

fn with_port(request: &mut RunPodSandboxRequest, host_port: i32) {
    let mapping = PortMapping { host_port, container_port: 80, ..Default::default() };
    request.config.mut_or_insert_default().port_mappings.push(mapping);
}

#[test]
fn a_port_that_is_none_is_refused_before_anything_is_made() {
    let world = World::new();
    let mut request = world.request("a");
    with_port(&mut request, 70000);
    assert_refused(world.run(request), Kind::InvalidArgument, &["70000 is not a port"]);
    assert!(world.cni.ran().is_empty());
    world.assert_clean(&["a"]);
}
