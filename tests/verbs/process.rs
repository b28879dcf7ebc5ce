//! Sandboxes with a process: those that share a PID namespace, or all of them.

use std::fs;

use cricket::containerd::{Containerd, NewTask, Record};
use cricket::error::Kind;
use cricket::oci::labels;
use cricket::sys::mount;
use cricket_proto::runtime::{NamespaceMode, PodSandboxState};
use serde_json::Value;

use crate::requests::{self, namespaces, shared_pids};
use crate::world::{assert_refused, call, eventually, World};

const ALWAYS: &str = "sandbox_process = \"always\"\n";

fn pod(world: &World, name: &str) -> String {
    // Whose namespaces can be pinned.
    world.fake.tasks_are(std::process::id());
    let mut request = world.request(name);
    *namespaces(&mut request) = shared_pids();
    world.run(request).expect("run a pod sandbox")
}

fn state(world: &World, pod: &str) -> PodSandboxState {
    world.pod_status(pod).state.enum_value().expect("a known state")
}

/// The OCI spec in containerd's record.
fn spec(world: &World, id: &str) -> Value {
    let record = world.fake.container(&call(), id).expect("a record");
    serde_json::from_slice(&record.spec).expect("JSON")
}

/// Path of the PID namespace in a spec; `None` for one of its own.
fn pid_namespace(spec: &Value) -> Option<String> {
    let all = spec["linux"]["namespaces"].as_array().expect("namespaces");
    let pid = all.iter().find(|n| n["type"] == "pid").expect("a PID namespace");
    pid["path"].as_str().map(str::to_owned)
}

#[test]
fn containers_join_the_pid_namespace_of_the_pods_process() {
    let world = World::new();
    let pod = pod(&world, "a");
    let pin = world.dir.path().join(format!("state/sandboxes/{pod}/pid"));
    assert!(mount::is_namespace(&pin));
    let record = world.fake.container(&call(), &pod).expect("a record named like the sandbox");
    assert_eq!(record.labels[labels::KIND], "sandbox");
    assert_eq!(record.labels["pod"], "a", "cAdvisor reads them");
    assert_eq!(record.snapshot_key, "", "no image");
    let process = spec(&world, &pod);
    assert_eq!(pid_namespace(&process), None);
    let root = process["root"]["path"].as_str().expect("a root");
    assert!(fs::metadata(format!("{root}/pause")).expect("a program").len() > 0);

    let mut request = requests::container(&pod, "a");
    requests::security(&mut request).namespace_options = Some(shared_pids()).into();
    let shared = world.create(request).expect("create");
    assert_eq!(pid_namespace(&spec(&world, &shared)), Some(pin.display().to_string()));
    let alone = world.container(&pod, "b");
    assert_eq!(pid_namespace(&spec(&world, &alone)), None);
    world.remove_pod(&pod).expect("remove");
    world.assert_clean(&["a"]);
}

#[test]
fn every_sandbox_has_one_if_so_configured() {
    let world = World::with(ALWAYS);
    let mut request = world.request("a");
    namespaces(&mut request).pid = NamespaceMode::NODE.into();
    let on_host = world.run(request).expect("run");
    assert!(spec(&world, &on_host)["linux"]["namespaces"].as_array().expect("some").iter().all(|n| n["type"] != "pid"));
    let plain = world.pod("b");
    assert!(!world.dir.path().join(format!("state/sandboxes/{plain}/pid")).exists(), "nobody joins it");
    assert_eq!(world.count("start_task"), 2);
    for pod in [on_host, plain] {
        world.remove_pod(&pod).expect("remove");
    }
    assert_eq!(world.leftovers(), Vec::<String>::new());
}

#[test]
fn no_options_at_all_share_nothing() {
    let world = World::new();
    let mut request = world.request("a");
    let linux = request.config.mut_or_insert_default().linux.mut_or_insert_default();
    linux.security_context.mut_or_insert_default().namespace_options.clear();
    world.run(request).expect("run");
    assert_eq!(world.count("create_task"), 0);
}

#[test]
fn a_sandbox_whose_process_ends_is_not_ready() {
    let mut world = World::new();
    let pod = pod(&world, "a");
    let created = world.container(&pod, "a");
    world.fake.exit(&pod, None, 137);
    eventually("its end is noticed", || state(&world, &pod) == PodSandboxState::SANDBOX_NOTREADY);
    assert_eq!(world.pod_status(&pod).network.ip, "");
    assert_refused(world.create(requests::container(&pod, "b")), Kind::FailedPrecondition, &["is not ready"]);
    assert_refused(world.start(&created), Kind::FailedPrecondition, &["is not ready"]);
    world.restart();
    assert_eq!(state(&world, &pod), PodSandboxState::SANDBOX_NOTREADY);
    world.stop_pod(&pod).expect("stop");
    world.remove_pod(&pod).expect("remove");
    world.assert_clean(&["a"]);
}

#[test]
fn a_process_that_ends_before_the_sandbox_can_be_found() {
    let world = World::new();
    let fake = world.fake.clone();
    world.fake.after("start_task", move || {
        let pod = fake.leftovers().into_iter().find_map(|l| l.strip_prefix("task:").map(str::to_owned));
        fake.exit(&pod.expect("its process"), None, 1);
    });
    let pod = pod(&world, "a");
    assert_eq!(state(&world, &pod), PodSandboxState::SANDBOX_NOTREADY);
    world.remove_pod(&pod).expect("remove");
    world.assert_clean(&["a"]);
}

#[test]
fn it_comes_back_after_a_restart_unless_its_process_ended_meanwhile() {
    let mut world = World::new();
    let (kept, lost) = (pod(&world, "kept"), pod(&world, "lost"));
    world.restart();
    assert_eq!(world.sandboxes.get(&kept).expect("there").pid(), Some(std::process::id()));
    for pod in [&kept, &lost] {
        assert_eq!(state(&world, pod), PodSandboxState::SANDBOX_READY);
    }
    world.shut_down();
    world.fake.exit(&lost, None, 137);
    world.boot();
    assert_eq!(state(&world, &kept), PodSandboxState::SANDBOX_READY);
    assert_eq!(state(&world, &lost), PodSandboxState::SANDBOX_NOTREADY);
    for pod in [&kept, &lost] {
        world.remove_pod(pod).expect("remove");
    }
    world.assert_clean(&["kept", "lost"]);
}

#[test]
fn an_end_that_was_missed_is_found_after_a_reconnect() {
    let world = World::new();
    let pod = pod(&world, "a");
    world.fake.break_streams();
    world.fake.exit(&pod, None, 137);
    eventually("its end is noticed", || state(&world, &pod) == PodSandboxState::SANDBOX_NOTREADY);
}

#[test]
fn a_process_without_its_sandbox_is_swept_and_that_of_others_is_not() {
    let mut world = World::new();
    let pod = pod(&world, "a");
    world.shut_down();
    let foreign = Record { id: "foreign".into(), runtime: "io.containerd.runc.v2".into(), ..Record::default() };
    world.fake.create_container(&call(), &foreign).expect("create");
    world.fake.create_task(&call(), &NewTask { id: "foreign".into(), ..NewTask::default() }).expect("create");
    fs::remove_file(world.dir.path().join(format!("root/sandboxes/{pod}/record"))).expect("lose the record");
    world.boot();
    let of_containerd = |l: &String| l.starts_with("container:") || l.starts_with("task:");
    let left: Vec<String> = world.leftovers().into_iter().filter(of_containerd).collect();
    assert_eq!(left, ["container:foreign", "task:foreign"]);
}

#[test]
fn roots_of_other_versions_go_at_the_next_start() {
    let mut world = World::new();
    let pod = pod(&world, "a");
    let roots = world.dir.path().join("root/pause");
    let own = fs::read_dir(&roots).expect("roots").next().expect("one").expect("readable").path();
    fs::create_dir_all(roots.join("old/proc")).expect("make a directory");
    fs::write(own.join("pause.0123"), "half").expect("write");
    world.restart();
    let left = |dir| fs::read_dir(dir).expect("readable").map(|e| e.expect("readable").path()).collect::<Vec<_>>();
    assert_eq!(left(&roots), std::slice::from_ref(&own));
    let mut names = left(&own);
    names.sort();
    assert_eq!(names, ["dev", "pause", "proc"].map(|name| own.join(name)));
    world.remove_pod(&pod).expect("remove");
}
