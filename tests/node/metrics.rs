//! Metrics are what cAdvisor would say: each that the machine can tell is there, and tells what happened.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use cricket_proto::methods::runtime_service as rpc;
use cricket_proto::runtime::{
    ContainerConfig, LinuxContainerResources, Metric, MetricDescriptor, MetricType, NamespaceMode, PodSandboxMetrics,
};
use protobuf::MessageField;

use crate::container::remove_group;
use crate::cri::{container, namespaces, pod_config, Pod, POLITE};
use crate::node::{until, Node, IMAGE};

const MIB: u64 = 1 << 20;
/// What critest asks for, but for more memory.
const LIMIT_BYTES: u64 = 128 * MIB;

fn descriptors(node: &Node) -> BTreeMap<String, MetricDescriptor> {
    let answer = node.cri.call(&rpc::LIST_METRIC_DESCRIPTORS, &Default::default()).expect("ListMetricDescriptors");
    answer.descriptors.into_iter().map(|d| (d.name.clone(), d)).collect()
}

fn all(node: &Node) -> Vec<PodSandboxMetrics> {
    node.cri.call(&rpc::LIST_POD_SANDBOX_METRICS, &Default::default()).expect("ListPodSandboxMetrics").pod_metrics
}

fn of(node: &Node, pod: &str) -> Option<PodSandboxMetrics> {
    all(node).into_iter().find(|p| p.pod_sandbox_id == pod)
}

/// The metrics of one pod or container.
struct Told(Vec<Metric>);

impl Told {
    fn pod(node: &Node, pod: &str) -> Told {
        Told(of(node, pod).expect("the pod is there").metrics)
    }

    fn container(node: &Node, pod: &str, id: &str) -> Told {
        let containers = of(node, pod).expect("the pod is there").container_metrics;
        Told(containers.into_iter().find(|c| c.container_id == id).expect("the container is there").metrics)
    }

    /// All values of a metric, by the labels that it has beside those of all.
    fn each(&self, name: &str) -> BTreeMap<Vec<String>, u64> {
        let of_name = self.0.iter().filter(|m| m.name == name);
        of_name.map(|m| (m.label_values[5..].to_vec(), m.value.value)).collect()
    }

    fn with(&self, name: &str, labels: &[&str]) -> u64 {
        let labels: Vec<String> = labels.iter().map(|l| (*l).to_owned()).collect();
        *self.each(name).get(&labels).unwrap_or_else(|| panic!("no {name} {labels:?} in {:?}", self.each(name)))
    }

    /// That of a metric with one value.
    fn one(&self, name: &str) -> u64 {
        let values = self.each(name);
        assert_eq!(values.len(), 1, "{name}: {values:?}");
        *values.values().next().expect("one")
    }
}

/// Whether `value` is `wanted` and at most a twentieth more.
fn is_about(what: &str, value: u64, wanted: u64) {
    assert!(value >= wanted && value <= wanted + wanted / 20, "{what}: {value}, not {wanted} and a little");
}

fn limited(name: &str, script: &str) -> ContainerConfig {
    let mut config = container(name, script);
    config.linux.mut_or_insert_default().resources = MessageField::some(LinuxContainerResources {
        cpu_period: 100_000,
        cpu_quota: 20_000,
        cpu_shares: 512,
        memory_limit_in_bytes: i64::try_from(LIMIT_BYTES).expect("small"),
        ..Default::default()
    });
    config
}

/// A pod that has a control group, as the kubelet makes it.
fn pod_with_group<'a>(node: &'a Node, name: &str) -> (Pod<'a>, String) {
    let mut config = pod_config(node, name);
    let parent = format!("/cricket-{name}-{}", std::process::id());
    config.linux.mut_or_insert_default().cgroup_parent.clone_from(&parent);
    (Pod::run_as(node, config), parent)
}

/// Metrics that this machine's kernel does not count.
fn untold(pid: u32) -> BTreeSet<&'static str> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it lives");
    let controller = |name: &str| {
        let mut lines = groups.lines().map(|line| line.splitn(3, ':').collect::<Vec<_>>());
        let line = lines.find(|p| p[1].split(',').any(|c| c == name) || (name.is_empty() && p[0] == "0"))?;
        Some(format!("/sys/fs/cgroup/{}{}", line[1], line[2]))
    };
    let mut untold = BTreeSet::new();
    let v1 = controller("memory").is_some();
    let own = controller("").unwrap_or_default();
    if v1 || !Path::new(&own).join("cpu.pressure").exists() {
        untold.extend([
            "container_pressure_cpu_stalled_seconds_total",
            "container_pressure_cpu_waiting_seconds_total",
            "container_pressure_io_stalled_seconds_total",
            "container_pressure_io_waiting_seconds_total",
            "container_pressure_memory_stalled_seconds_total",
            "container_pressure_memory_waiting_seconds_total",
        ]);
    }
    let disks = match controller("blkio") {
        Some(group) => ["bfq", "throttle"].iter().any(|who| {
            let text = fs::read_to_string(format!("{group}/blkio.{who}.io_service_bytes_recursive"));
            text.is_ok_and(|text| text.contains(':'))
        }),
        None => fs::read_to_string(format!("{own}/io.stat")).is_ok_and(|text| text.contains("rbytes")),
    };
    if !disks {
        untold.extend([
            "container_blkio_device_usage_total",
            "container_fs_reads_bytes_total",
            "container_fs_reads_total",
            "container_fs_writes_bytes_total",
            "container_fs_writes_total",
        ]);
    }
    let huge = controller("hugetlb").is_some() || (!v1 && Path::new(&own).join("hugetlb.2MB.current").exists());
    if !huge {
        untold.insert("container_hugetlb_usage_bytes");
    }
    if !huge || !v1 {
        untold.insert("container_hugetlb_max_usage_bytes");
    }
    untold
}

#[test]
fn every_metric_that_the_machine_can_tell() {
    let node = Node::shared();
    let (pod, parent) = pod_with_group(&node, "metrics");
    let id = pod.start(limited("main", &format!("echo written > /written; {POLITE}")));
    let descriptors = descriptors(&node);
    for (name, descriptor) in &descriptors {
        assert!(!descriptor.help.is_empty() && descriptor.label_keys.len() >= 5, "{name}");
        assert_eq!(descriptor.label_keys[..5], ["id", "image", "namespace", "pod", "container"], "{name}");
    }
    let told = of(&node, &pod.id).expect("the pod is there");
    assert_eq!(told.container_metrics.len(), 1);
    assert_eq!(told.container_metrics[0].container_id, id);
    let of_pod = [pod.id.as_str(), "", "default", "metrics", ""];
    let of_container = [id.as_str(), IMAGE, "default", "metrics", "main"];
    let mut seen = BTreeSet::new();
    for (metrics, labels) in [(&told.metrics, of_pod), (&told.container_metrics[0].metrics, of_container)] {
        let mut series = BTreeSet::new();
        for metric in metrics {
            let descriptor =
                descriptors.get(&metric.name).unwrap_or_else(|| panic!("{} is not described", metric.name));
            assert_eq!(metric.label_values.len(), descriptor.label_keys.len(), "{metric:?}");
            assert_eq!(metric.label_values[..5], labels, "{}", metric.name);
            assert!(metric.value.is_some(), "{metric:?}");
            assert!(series.insert((&metric.name, &metric.label_values)), "twice: {metric:?}");
            let counts = metric.name.ends_with("_total") && metric.name != "container_fs_inodes_total";
            let counts = counts || metric.name == "container_memory_failcnt";
            let kind = if counts { MetricType::COUNTER } else { MetricType::GAUGE };
            assert_eq!(metric.metric_type, kind.into(), "{}", metric.name);
            // Only what was measured earlier says when.
            assert_eq!(metric.timestamp > 0, metric.name == "container_fs_usage_bytes", "{metric:?}");
            seen.insert(metric.name.as_str());
        }
    }
    let untold = untold(node.cri.pid(&id));
    let missing: Vec<&String> =
        descriptors.keys().filter(|name| seen.contains(name.as_str()) == untold.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "missing, or there although the machine cannot tell: {missing:?}");
    // The pod's own group holds its containers, and has no layer, image or processes of its own.
    let whole = Told(told.metrics);
    let part = Told(told.container_metrics.into_iter().next().expect("one").metrics);
    assert!(whole.one("container_memory_usage_bytes") * 2 > part.one("container_memory_usage_bytes"));
    for name in ["container_processes", "container_fs_usage_bytes", "container_ulimits_soft"] {
        assert!(whole.each(name).is_empty() && part.each(name).len() == 1, "{name}");
    }
    assert!(part.each("container_network_receive_bytes_total").is_empty(), "the network is the pod's");
    assert_eq!(whole.each("container_network_receive_bytes_total").into_keys().collect::<Vec<_>>(), [["eth0"]]);
    pod.remove();
    remove_group(&parent);
}

#[test]
fn a_busy_container() {
    // Of its own, so that nobody asks before it has written: what a layer takes is measured twice a minute.
    let node = Node::start();
    let pod = Pod::run(&node, "busy");
    let script = format!(
        "busybox dd if=/dev/urandom of=/written bs=1M count=16; exec 3</written 4</written 5</written; touch /dev/shm/ok;
         {POLITE}"
    );
    let id = pod.start(limited("main", &script));
    until("it has written", || {
        node.cri.exec(&id, &["/bin/busybox", "test", "-e", "/dev/shm/ok"], 5).is_ok_and(|r| r.exit_code == 0)
    });
    let told = || Told::container(&node, &pod.id, &id);
    // What each processor has counted, a megabyte or more in all, is put together every two seconds.
    sleep(Duration::from_millis(2500));
    let before = told();
    is_about(
        "written",
        before.0.iter().find(|m| m.name == "container_fs_usage_bytes").expect("told").value.value,
        16 * MIB,
    );
    let device = before.each("container_fs_usage_bytes").into_keys().next().expect("one").remove(0);
    assert!(before.with("container_fs_limit_bytes", &[&device]) > 16 * MIB, "{device}");
    let (free, inodes) =
        (before.with("container_fs_inodes_free", &[&device]), before.with("container_fs_inodes_total", &[&device]));
    assert!(free > 0 && free < inodes, "{free} of {inodes}");

    // What it was given.
    for (name, value) in [
        ("container_spec_cpu_period", 100_000),
        ("container_spec_cpu_quota", 20_000),
        ("container_spec_cpu_shares", 512),
        ("container_spec_memory_limit_bytes", LIMIT_BYTES),
    ] {
        assert_eq!(before.one(name), value, "{name}");
    }
    let started = u64::try_from(node.cri.status(&id).started_at).expect("positive") / 1_000_000_000;
    assert_eq!(before.one("container_start_time_seconds"), started);
    let limit: u64 = node.cri.sh(&id, "ulimit -n").parse().expect("a number");
    assert_eq!(before.with("container_ulimits_soft", &["max_open_files"]), limit);

    // Five seconds at its quota's pace, 32 MiB of shared memory, and what counts them.
    let script = "busybox dd if=/dev/zero of=/dev/shm/more bs=1M count=32
        busybox timeout 5 busybox sh -c 'while :; do :; done' || true";
    node.cri.sh(&id, script);
    let cache = |told: &Told| told.one("container_memory_cache");
    let more = |told: &Told| cache(told).saturating_sub(cache(&before));
    until("the kernel has counted it", || more(&told()) >= 32 * MIB);
    let seconds =
        |stats: &cricket_proto::runtime::ContainerStats| stats.cpu.usage_core_nano_seconds.value / 1_000_000_000;
    let (least, after, most) = (seconds(&node.cri.stats(&id)), told(), seconds(&node.cri.stats(&id)));
    let used = after.with("container_cpu_usage_seconds_total", &["total"]);
    assert!(used >= least && used <= most, "{used} s of a processor, not between {least} and {most}");
    let parts = after.one("container_cpu_user_seconds_total") + after.one("container_cpu_system_seconds_total");
    assert!(parts <= used + 1 && used <= parts + 2, "{used} s, and {parts} s in parts, each rounded down");
    let grown = |name: &str| after.one(name).saturating_sub(before.one(name));
    is_about("cached", more(&after), 32 * MIB);
    assert!(grown("container_memory_usage_bytes") >= 31 * MIB, "{}", grown("container_memory_usage_bytes"));
    assert!(after.one("container_memory_max_usage_bytes") >= after.one("container_memory_usage_bytes"));
    assert!(grown("container_cpu_cfs_throttled_periods_total") > 5, "a fifth of a processor is less than it wanted");
    assert!(grown("container_cpu_cfs_periods_total") >= grown("container_cpu_cfs_throttled_periods_total"));
    let faults = |told: &Told| told.with("container_memory_failures_total", &["pgfault", "hierarchy"]);
    assert!(faults(&after) > faults(&before));
    only_grows(&before, &after);

    // A process of its own that is killed for want of memory.
    assert_eq!(after.one("container_oom_events_total"), 0);
    let killed = node.cri.exec(&id, &["/bin/busybox", "tail", "/dev/zero"], 30).expect("ExecSync");
    assert_ne!(killed.exit_code, 0);
    let last = told();
    assert_eq!(last.one("container_oom_events_total"), 1);
    only_grows(&after, &last);
    pod.remove();
}

fn only_grows(before: &Told, after: &Told) {
    for metric in before.0.iter().filter(|m| m.metric_type == MetricType::COUNTER.into()) {
        let mut later = after.0.iter().filter(|m| m.name == metric.name && m.label_values == metric.label_values);
        let later = later.next().unwrap_or_else(|| panic!("no longer there: {metric:?}"));
        assert!(later.value.value >= metric.value.value, "{metric:?} then {later:?}");
    }
}

/// The processes in the control group of `pid`, threads, descriptors and sockets, as /proc has them.
fn counted(pid: u32) -> [u64; 4] {
    let group = |pid: &str| fs::read_to_string(format!("/proc/{pid}/cgroup")).ok();
    let own = group(&pid.to_string()).expect("it lives");
    let mut counted = [0; 4];
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let name = entry.file_name().into_string().expect("ASCII");
        if !name.starts_with(|c: char| c.is_ascii_digit()) || group(&name).as_ref() != Some(&own) {
            continue;
        }
        let threads = fs::read_dir(entry.path().join("task")).expect("it lives").count() as u64;
        let open: Vec<_> = fs::read_dir(entry.path().join("fd")).expect("it lives").flatten().collect();
        let socket = |entry: &fs::DirEntry| {
            fs::read_link(entry.path()).is_ok_and(|target| target.display().to_string().starts_with("socket:"))
        };
        let sockets = open.iter().filter(|entry| socket(entry)).count() as u64;
        let one = [1, threads, open.len() as u64, sockets];
        (0..4).for_each(|n| counted[n] += one[n]);
    }
    counted
}

#[test]
fn what_processes_have_open() {
    let node = Node::shared();
    let pod = Pod::run(&node, "open");
    let script = "exec 3</etc/passwd 4</etc/passwd 5</etc/passwd; trap 'exit 7' TERM
        busybox nc -l -p 9001 & busybox nc -l -p 9002 & while :; do sleep 1000 & wait $!; done";
    let id = pod.start(container("main", script));
    let pid = node.cri.pid(&id);
    until("all of it runs", || counted(pid)[3] == 2 && counted(pid)[0] == 4);
    let told = Told::container(&node, &pod.id, &id);
    let names = ["container_processes", "container_threads", "container_file_descriptors", "container_sockets"];
    assert_eq!(names.map(|name| told.one(name)), counted(pid));
    assert_eq!(told.one("container_threads_max"), 0, "no limit");
    pod.remove();
}

#[test]
fn bytes_that_a_pod_sends() {
    let node = Node::shared();
    let pod = Pod::run(&node, "sends");
    let id = pod.start(container("main", POLITE));
    let sent = || {
        let told = Told::pod(&node, &pod.id);
        ["bytes", "packets"].map(|what| told.with(&format!("container_network_transmit_{what}_total"), &["eth0"]))
    };
    let before = sent();
    let listener = TcpListener::bind((node.gateway.as_str(), 0)).expect("the bridge's address");
    let port = listener.local_addr().expect("bound").port();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut connection, _) = listener.accept().expect("the container connects");
            std::io::copy(&mut connection, &mut std::io::sink()).expect("read")
        });
        node.cri.sh(&id, &format!("busybox dd if=/dev/zero bs=1M count=8 | busybox nc {} {port}", node.gateway));
        assert_eq!(reader.join().expect("no panic"), 8 * MIB);
    });
    // As the pod sees it; headers are in it, which are a twentieth of small packets.
    let inside = || node.cri.sh(&id, "cat /sys/class/net/eth0/statistics/tx_bytes").parse::<u64>().expect("a number");
    let (least, after, most) = (inside(), sent(), inside());
    assert!(after[0] >= least && after[0] <= most, "{} bytes sent, not between {least} and {most}", after[0]);
    let grown = after[0] - before[0];
    assert!((8 * MIB..9 * MIB).contains(&grown), "{grown} bytes sent, not 8 MiB and their headers");
    assert!(after[1] > before[1]);
    pod.remove();
}

#[test]
fn what_does_not_run_has_none() {
    let node = Node::shared();
    let pod = Pod::run(&node, "ends");
    let id = pod.create(container("main", POLITE));
    let containers = || of(&node, &pod.id).map(|p| p.container_metrics.len());
    assert_eq!(containers(), Some(0), "created");
    node.cri.start(&id).expect("StartContainer");
    assert_eq!(containers(), Some(1), "running");
    let streamed = node.cri.stream(&rpc::STREAM_POD_SANDBOX_METRICS, &Default::default()).expect("streamed");
    let streamed = streamed.into_iter().flat_map(|part| part.pod_sandbox_metrics).find(|p| p.pod_sandbox_id == pod.id);
    assert_eq!(streamed.map(|p| p.container_metrics.len()), Some(1), "streamed");
    node.cri.stop(&id, 0).expect("StopContainer");
    assert_eq!(containers(), Some(0), "stopped");
    node.cri.stop_pod(&pod.id).expect("StopPodSandbox");
    assert_eq!(containers(), None, "a pod that is not ready");
    pod.remove();
}

#[test]
fn the_network_of_the_host_is_not_the_pod_s() {
    let node = Node::shared();
    let mut config = pod_config(&node, "host-network");
    let security = config.linux.mut_or_insert_default().security_context.mut_or_insert_default();
    security.namespace_options = MessageField::some(namespaces(NamespaceMode::NODE));
    let pod = Pod::run_as(&node, config);
    let mut main = container("main", POLITE);
    let security = main.linux.mut_or_insert_default().security_context.mut_or_insert_default();
    security.namespace_options = MessageField::some(namespaces(NamespaceMode::NODE));
    let id = pod.start(main);
    let told = of(&node, &pod.id).expect("the pod is there");
    assert!(told.metrics.iter().all(|m| !m.name.contains("_network_")), "{:?}", told.metrics);
    let main = Told::container(&node, &pod.id, &id);
    assert!(main.0.iter().all(|m| !m.name.contains("_network_")) && main.one("container_processes") > 0);
    pod.remove();
}

#[test]
fn metrics_after_a_restart_of_the_daemon() {
    let mut node = Node::start();
    let (pod_id, id) = {
        let pod = Pod::run(&node, "metrics");
        let id = pod.start(container("main", POLITE));
        (pod.id, id)
    };
    let before = Told::container(&node, &pod_id, &id);
    node.end_daemon("KILL");
    node.start_daemon();
    let after = Told::container(&node, &pod_id, &id);
    assert_eq!(after.one("container_start_time_seconds"), before.one("container_start_time_seconds"));
    only_grows(&before, &after);
}
