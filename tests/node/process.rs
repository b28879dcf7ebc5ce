//! Pods with a process of their own: their containers see each other, and the process sees to the orphans.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use cricket::call::Call;
use cricket::containerd::Containerd;
use cricket_proto::runtime::{ContainerConfig, NamespaceMode, NamespaceOption, PodSandboxConfig, PodSandboxState};
use protobuf::MessageField;

use crate::census::{self, Census};
use crate::cri::{container, pod_config, Pod, POLITE};
use crate::node::{until, Node, Tuning, PATIENCE};

fn shared() -> MessageField<NamespaceOption> {
    MessageField::some(NamespaceOption { pid: NamespaceMode::POD.into(), ..Default::default() })
}

fn sharing_pod(node: &Node, name: &str) -> PodSandboxConfig {
    let mut config = pod_config(node, name);
    config.linux.mut_or_insert_default().security_context.mut_or_insert_default().namespace_options = shared();
    config
}

fn sharing(name: &str, script: &str) -> ContainerConfig {
    let mut config = container(name, script);
    config.linux.mut_or_insert_default().security_context.mut_or_insert_default().namespace_options = shared();
    config
}

fn namespace(pid: u32, kind: &str) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("it lives")
}

fn status(pid: u32, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).expect(field);
    value.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn containers_of_a_pod_with_shared_pids_see_each_other_and_their_orphans_are_buried() {
    let node = Node::start();
    let empty = Census::take(&node);
    let pod = Pod::run_as(&node, sharing_pod(&node, "shared"));
    let cri = &node.cri;
    let process = cri.pod_pid(&pod.id);
    let one = pod.start(sharing("one", POLITE));
    let two = pod.start(sharing("two", "exec sleep 4321"));
    let alone = pod.start(container("alone", POLITE));

    for id in [&one, &two] {
        assert_eq!(namespace(cri.pid(id), "pid"), namespace(process, "pid"));
    }
    assert_ne!(namespace(cri.pid(&alone), "pid"), namespace(process, "pid"));
    for kind in ["net", "ipc", "uts"] {
        assert_eq!(namespace(cri.pid(&one), kind), namespace(process, kind), "{kind}");
    }
    assert_eq!(cri.sh(&one, "tr '\\0' ' ' < /proc/1/cmdline"), "/pause pause");
    assert!(cri.sh(&one, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '").contains("sleep 4321"), "its neighbour");
    assert!(!cri.sh(&alone, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '").contains("sleep 4321"));

    // It may do nothing, and it is as small as one of us can be.
    for (field, value) in [("CapEff", "0000000000000000"), ("CapBnd", "0000000000000000"), ("NoNewPrivs", "1")] {
        assert_eq!(status(process, field), value, "{field}");
    }
    assert_eq!(status(process, "Uid"), "65535 65535 65535 65535");
    assert_eq!(status(process, "Threads"), "1");
    let cgroup = fs::read_to_string(format!("/proc/{process}/cgroup")).expect("it lives");
    assert!(cgroup.contains(&format!("/{}\n", pod.id)), "cAdvisor finds it by its id: {cgroup}");

    // Whose parent has ended has the pod's process for a parent, and does not stay a zombie.
    let before = cri.sh(&two, "cat /proc/[0-9]*/stat | grep -c ') Z' || true");
    cri.sh(&one, "for i in 1 2 3 4 5; do (sleep 0.1 &); done; sleep 0.5");
    until("the orphans are buried", || cri.sh(&two, "cat /proc/[0-9]*/stat | grep -c ') Z' || true") == before);

    assert_eq!(census::shims(&node).len(), 1, "one shim serves the pod and its process");
    pod.remove();
    let left = Census::take(&node).new_since(&empty);
    assert!(left.is_empty(), "{left:#?}");
}

#[test]
fn a_pod_without_its_process_is_not_ready_and_can_be_removed() {
    let mut node = Node::start();
    let empty = Census::take(&node);
    let config = sharing_pod(&node, "orphaned");
    let id = node.cri.run_pod(&config).expect("RunPodSandbox");
    let container = node.cri.create(&id, &config, sharing("c", POLITE)).expect("CreateContainer");
    node.cri.start(&container).expect("StartContainer");
    let ready = |node: &Node| node.cri.pod_status(&id).expect("PodSandboxStatus").state;

    let (pid, ip) = (node.cri.pod_pid(&id), node.cri.pod_status(&id).expect("PodSandboxStatus").network.ip.clone());
    node.end_daemon("KILL");
    node.start_daemon();
    assert_eq!(node.cri.pod_pid(&id), pid, "it is found again");
    let status = node.cri.pod_status(&id).expect("PodSandboxStatus");
    assert_eq!((status.state, &status.network.ip), (PodSandboxState::SANDBOX_READY.into(), &ip));

    // It lets no signal from inside do anything; from outside, SIGTERM ends it.
    node.cri.sh(&container, "kill -TERM 1 2>/dev/null; kill -KILL 1 2>/dev/null; true");
    assert_eq!(ready(&node), PodSandboxState::SANDBOX_READY.into());
    let sent = Command::new("kill").args(["-TERM", &pid.to_string()]).status();
    assert!(sent.expect("run kill").success());
    until("the pod is not ready", || ready(&node) == PodSandboxState::SANDBOX_NOTREADY.into());
    assert_eq!(node.cri.ended(&container).exit_code, 137, "the kernel ends them all with their first process");
    let refused = node.cri.create(&id, &config, sharing("d", POLITE)).map_err(|e| e.kind());
    assert_eq!(refused, Err(cricket::error::Kind::FailedPrecondition));

    node.cri.stop_pod(&id).expect("StopPodSandbox");
    node.cri.remove_pod(&id).expect("RemovePodSandbox");
    let left = Census::take(&node).new_since(&empty);
    assert!(left.is_empty(), "{left:#?}");
}

#[test]
fn every_pod_has_a_process_where_that_is_configured() {
    let node = Node::start_as(Tuning { top: "sandbox_process = \"always\"".into(), ..Tuning::default() });
    let empty = Census::take(&node);
    let mut config = pod_config(&node, "always");
    config.labels = [("io.kubernetes.pod.name".to_owned(), "always".to_owned())].into();
    let pod = Pod::run_as(&node, config);
    let record = node.containerd_client().container(&Call::within(PATIENCE), &pod.id).expect("a record");
    assert_eq!(record.labels["io.cri-containerd.kind"], "sandbox");
    assert_eq!(record.labels["io.kubernetes.pod.name"], "always");
    let (process, id) = (node.cri.pod_pid(&pod.id), pod.start(container("c", POLITE)));
    assert_eq!(namespace(process, "net"), namespace(node.cri.pid(&id), "net"), "its counters are the pod's");
    assert_ne!(namespace(process, "pid"), namespace(node.cri.pid(&id), "pid"), "pids are not shared");
    pod.remove();
    let left = Census::take(&node).new_since(&empty);
    assert!(left.is_empty(), "{left:#?}");
}
