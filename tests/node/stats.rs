//! Stats are what the kernel counts: more work is more processor, more memory is more memory, a file is a file.

use std::net::TcpListener;

use cricket_proto::methods::runtime_service as rpc;
use cricket_proto::runtime::{
    LinuxContainerResources, ListContainerStatsRequest, PodSandboxStats, PodSandboxStatsRequest,
    StreamContainersRequest,
};
use protobuf::MessageField;

use crate::container::remove_group;
use crate::cri::{container, pod_config, Pod, POLITE};
use crate::node::{until, Node};

const LIMIT_BYTES: u64 = 64 << 20;

#[test]
fn counters_of_a_container() {
    let node = Node::shared();
    let pod = Pod::run(&node, "stats");
    let mut config = container("main", POLITE);
    config.linux.mut_or_insert_default().resources = MessageField::some(LinuxContainerResources {
        memory_limit_in_bytes: i64::try_from(LIMIT_BYTES).expect("small"),
        ..Default::default()
    });
    let id = pod.create(config);
    let created = node.cri.stats(&id);
    assert!(created.cpu.is_none() && created.memory.is_none(), "it does not run: {created:?}");
    assert!(created.writable_layer.is_some(), "it has a layer: {created:?}");
    node.cri.start(&id).expect("StartContainer");

    let before = node.cri.stats(&id);
    assert!(before.cpu.timestamp > 0 && before.cpu.usage_nano_cores.is_none(), "no rate at first: {before:?}");
    let memory = before.memory.as_ref().expect("memory");
    assert!(memory.usage_bytes.value > 0 && memory.working_set_bytes.value <= memory.usage_bytes.value, "{before:?}");
    let (available, used) = (memory.available_bytes.value, memory.working_set_bytes.value);
    assert_eq!(available + used, LIMIT_BYTES, "up to the limit");
    assert!(memory.page_faults.value > 0, "{before:?}");

    // Half a second of one processor and 8 MiB of shared memory at least.
    node.cri
        .sh(&id, "t=$(($(cut -d. -f1 /proc/uptime) + 2)); while [ $(cut -d. -f1 /proc/uptime) -lt $t ]; do :; done");
    node.cri.sh(&id, "busybox dd if=/dev/zero of=/dev/shm/eight bs=1M count=8");
    let after = node.cri.stats(&id);
    let spent = after.cpu.usage_core_nano_seconds.value - before.cpu.usage_core_nano_seconds.value;
    assert!(spent > 0, "{before:?} {after:?}");
    assert!(after.cpu.usage_nano_cores.value > 0, "a rate: {after:?}");
    let grown = after.memory.usage_bytes.value.saturating_sub(memory.usage_bytes.value);
    assert!(grown >= 4 << 20, "{before:?} {after:?}");
    assert!(after.memory.page_faults.value > memory.page_faults.value);

    // The same by the list, beside another pod's.
    let other = Pod::run(&node, "stats-other");
    let second = other.start(container("second", POLITE));
    let mut request = ListContainerStatsRequest::new();
    request.filter.mut_or_insert_default().pod_sandbox_id = pod.id.clone();
    let listed = node.cri.call(&rpc::LIST_CONTAINER_STATS, &request).expect("ListContainerStats").stats;
    assert_eq!(listed.iter().map(|s| s.attributes.id.as_str()).collect::<Vec<_>>(), [id.as_str()]);
    let all = node.cri.call(&rpc::LIST_CONTAINER_STATS, &Default::default()).expect("ListContainerStats").stats;
    assert!(all.iter().any(|s| s.attributes.id == second && s.cpu.is_some()));
    assert!(all.iter().any(|s| s.attributes.id == id && s.memory.is_some()));

    node.cri.stop(&id, 0).expect("StopContainer");
    let stopped = node.cri.stats(&id);
    assert!(stopped.cpu.is_none() && stopped.writable_layer.is_some(), "{stopped:?}");
    pod.remove();
    other.remove();
}

#[test]
fn counters_after_a_restart_of_the_daemon() {
    let mut node = Node::start();
    let id = {
        let pod = Pod::run(&node, "stats");
        pod.start(container("main", POLITE))
    };
    let before = node.cri.stats(&id).cpu.usage_core_nano_seconds.value;
    node.end_daemon("KILL");
    node.start_daemon();
    until("the container is known", || node.cri.containers().is_ok_and(|all| !all.is_empty()));
    let after = node.cri.stats(&id);
    assert!(after.cpu.usage_core_nano_seconds.value >= before, "{after:?}");
    assert!(after.memory.is_some() && after.writable_layer.is_some(), "{after:?}");
}

fn pod_stats(node: &Node, id: &str) -> PodSandboxStats {
    let request = PodSandboxStatsRequest { pod_sandbox_id: id.into(), ..Default::default() };
    node.cri.call(&rpc::POD_SANDBOX_STATS, &request).expect("PodSandboxStats").stats.unwrap_or_default()
}

#[test]
fn counters_of_a_pod() {
    let node = Node::shared();
    let mut config = pod_config(&node, "pod-stats");
    // As the kubelet does, which makes the pod's own control group.
    let parent = format!("/cricket-stats-{}", std::process::id());
    config.linux.mut_or_insert_default().cgroup_parent.clone_from(&parent);
    let pod = Pod::run_as(&node, config);
    let id = pod.start(container("main", POLITE));
    pod.start(container("second", POLITE));
    let before = pod_stats(&node, &pod.id);
    let linux = &before.linux;
    assert!(linux.process.process_count.value >= 2, "{before:?}");
    assert!(linux.memory.usage_bytes.value > 0 && linux.cpu.usage_core_nano_seconds.value > 0, "{before:?}");
    assert_eq!(linux.containers.len(), 2);
    let parts: u64 = linux.containers.iter().map(|c| c.memory.usage_bytes.value).sum();
    assert!(linux.memory.usage_bytes.value * 2 > parts, "the pod holds its containers: {before:?}");
    assert_eq!(linux.network.default_interface.name, "eth0");
    assert!(linux.network.interfaces.iter().all(|i| i.name != "lo"), "{before:?}");

    // Half a mebibyte to the host, which reads it.
    let listener = TcpListener::bind((node.gateway.as_str(), 0)).expect("the bridge's address");
    let port = listener.local_addr().expect("bound").port();
    let received = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut connection, _) = listener.accept().expect("the container connects");
            std::io::copy(&mut connection, &mut std::io::sink()).expect("read")
        });
        node.cri.sh(&id, &format!("busybox dd if=/dev/zero bs=1024 count=512 | busybox nc {} {port}", node.gateway));
        reader.join().expect("no panic")
    });
    assert_eq!(received, 512 << 10);
    let after = pod_stats(&node, &pod.id);
    let sent = |stats: &PodSandboxStats| stats.linux.network.default_interface.tx_bytes.value;
    assert!(sent(&after) >= sent(&before) + (512 << 10), "{} then {}", sent(&before), sent(&after));
    assert!(after.linux.cpu.usage_core_nano_seconds.value > linux.cpu.usage_core_nano_seconds.value);
    pod.remove();
    remove_group(&parent);
}

#[test]
fn lists_stream() {
    let node = Node::shared();
    let pod = Pod::run(&node, "streamed");
    let id = pod.create(container("main", POLITE));
    let mut request = StreamContainersRequest::default();
    request.filter.mut_or_insert_default().id.clone_from(&id);
    let parts = node.cri.stream(&rpc::STREAM_CONTAINERS, &request).expect("StreamContainers");
    let ids: Vec<&str> = parts.iter().flat_map(|part| &part.containers).map(|c| c.id.as_str()).collect();
    assert_eq!(ids, [id.as_str()]);
    let parts = node.cri.stream(&rpc::STREAM_POD_SANDBOXES, &Default::default()).expect("StreamPodSandboxes");
    assert!(parts.iter().flat_map(|part| &part.pod_sandboxes).any(|p| p.id == pod.id));
    pod.remove();
}
