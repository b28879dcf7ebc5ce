//! Metrics: of which pods and containers, and what an answer costs.

use cricket::containerd::fake::Fault;
use cricket::error::Kind;
use cricket::sandbox;
use cricket_proto::runtime::{Metric, PodSandboxMetrics};

use crate::world::{call, World};

fn list(world: &World) -> Vec<PodSandboxMetrics> {
    let answer = sandbox::list_metrics(world, &call(), Default::default()).and_then(|answer| answer.decode());
    answer.expect("an answer").pod_metrics
}

fn names(metrics: &[Metric]) -> Vec<&str> {
    metrics.iter().map(|m| m.name.as_str()).collect()
}

#[test]
fn of_pods_that_are_ready_and_containers_that_run() {
    let world = World::new();
    assert!(list(&world).is_empty());
    let (pod, running) = world.running("a");
    world.container(&pod, "created");
    let (other, exited) = world.running("b");
    world.exit(&exited, 1);
    let gone = world.pod("gone");
    world.stop_pod(&gone).expect("stop");
    let mut pods = list(&world);
    pods.sort_by_key(|p| p.pod_sandbox_id != pod);
    let ids: Vec<&str> = pods.iter().map(|p| p.pod_sandbox_id.as_str()).collect();
    assert_eq!(ids, [pod.as_str(), other.as_str()]);
    assert!(pods[1].container_metrics.is_empty(), "it has ended");
    let [container] = &pods[0].container_metrics[..] else { panic!("one runs: {pods:?}") };
    assert_eq!(container.container_id, running);
    // The fake's processes are none of the kernel's: what is known without it is all there is.
    let known = ["container_last_seen", "container_start_time_seconds"];
    assert_eq!(names(&pods[0].metrics), known);
    let of_container = names(&container.metrics);
    assert!(known.iter().all(|name| of_container.contains(name)), "{of_container:?}");
    assert!(of_container.contains(&"container_fs_usage_bytes"), "{of_container:?}");
    assert!(
        !of_container.iter().any(|name| name.contains("_cpu_usage_") || name.contains("_memory_")),
        "{of_container:?}"
    );
    let layer = container.metrics.iter().find(|m| m.name == "container_fs_usage_bytes").expect("checked");
    assert_eq!((layer.value.value, layer.timestamp > 0), (4096, true), "{layer:?}");
    assert_eq!(layer.label_values[0], running);
    assert_eq!(layer.label_values[4], "a");
}

#[test]
fn every_row_is_described() {
    let world = World::new();
    let answer = sandbox::list_metric_descriptors(&world, &call(), Default::default()).expect("descriptors");
    assert!(answer.descriptors.iter().all(|d| d.label_keys[..5] == ["id", "image", "namespace", "pod", "container"]));
    let of = |name: &str| {
        let found = answer.descriptors.iter().find(|d| d.name == name).expect(name);
        found.label_keys[5..].iter().map(String::as_str).collect::<Vec<_>>()
    };
    assert_eq!(of("container_cpu_usage_seconds_total"), ["cpu"]);
    assert_eq!(of("container_memory_failures_total"), ["failure_type", "scope"]);
    assert_eq!(of("container_blkio_device_usage_total"), ["device", "major", "minor", "operation"]);
    assert!(of("container_memory_rss").is_empty());

    // The documents have them all, with the labels of each.
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/cri.md")).expect("docs/cri.md");
    let (_, section) = text.split_once("## Metrics").expect("a chapter on metrics");
    let (section, _) = section.split_once("\n## ").expect("another one after it");
    let code = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let mut documented = Vec::new();
    for row in section.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.split('|').collect();
        let labels: Vec<String> =
            code(cells[2]).into_iter().filter(|l| l != "total" && l != "max_open_files").collect();
        documented.extend(code(cells[1]).into_iter().map(|name| (format!("container_{name}"), labels.clone())));
    }
    documented.sort();
    let described = answer.descriptors.iter().map(|d| (d.name.clone(), d.label_keys[5..].to_vec()));
    let mut described: Vec<_> = described.collect();
    described.sort();
    assert_eq!(documented, described);
}

#[test]
fn without_containerd_only_the_layer_is_absent() {
    let world = World::new();
    world.running("a");
    world.fake.fail_at(1, Fault::Refused);
    let has_layer = || names(&list(&world)[0].container_metrics[0].metrics).contains(&"container_fs_usage_bytes");
    assert!(!has_layer());
    assert!(has_layer(), "the next time");
    let before = world.fake.calls().len();
    assert!(has_layer());
    assert_eq!(world.fake.calls().len(), before, "measured a moment ago");
}

#[test]
fn a_stream_says_the_same_in_parts() {
    let world = World::new();
    for n in 0..23 {
        world.pod(&format!("p{n}"));
    }
    let (mut sizes, mut ids) = (Vec::new(), Vec::new());
    sandbox::stream_metrics(&world, &call(), Default::default(), &mut |part| {
        let part = part.decode()?.pod_sandbox_metrics;
        sizes.push(part.len());
        ids.extend(part.into_iter().map(|p| p.pod_sandbox_id));
        Ok(())
    })
    .expect("streamed");
    assert_eq!(sizes, [10, 10, 3]);
    let mut listed: Vec<String> = list(&world).into_iter().map(|p| p.pod_sandbox_id).collect();
    ids.sort();
    listed.sort();
    assert_eq!(ids, listed);
}

#[test]
fn who_has_gone_is_not_answered() {
    let world = World::new();
    world.pod("a");
    let call = call();
    call.cancel();
    let e = sandbox::list_metrics(&world, &call, Default::default()).expect_err("cancelled");
    assert_eq!(e.kind(), Kind::Canceled);
}
