//! ListMetricDescriptors, ListPodSandboxMetrics and StreamPodSandboxMetrics: what cAdvisor says of pods and containers,
//! under its names. Descriptors and values come from the same rows.

mod disk;
mod gather;
mod life;
mod memory;
mod network;
mod process;
mod processor;
mod row;
mod write;

use std::sync::Arc;

use cricket_proto::runtime::{
    ListMetricDescriptorsRequest, ListMetricDescriptorsResponse, ListPodSandboxMetricsRequest,
    ListPodSandboxMetricsResponse, MetricDescriptor, StreamPodSandboxMetricsRequest, StreamPodSandboxMetricsResponse,
};

use crate::call::Call;
use crate::encoded::Encoded;
use crate::error::Result;
use crate::runtime::Runtime;
use crate::store::{Sandbox, SandboxState};

/// Pods in one message of a stream. The metrics of one container are about 6 kB, with long names twice that.
const PODS: usize = 10;
/// runtime.v1: `ListPodSandboxMetricsResponse.pod_metrics`, `StreamPodSandboxMetricsResponse.pod_sandbox_metrics`.
const POD_METRICS: u32 = 1;
/// What every metric is labelled with, before its own labels. Empty for a pod: container and image.
const LABELS: [&str; 5] = ["id", "image", "namespace", "pod", "container"];

/// All the metrics that there are. Never leaves the process.
pub fn list_metric_descriptors(
    _: &Runtime,
    _: &Call,
    _: ListMetricDescriptorsRequest,
) -> Result<ListMetricDescriptorsResponse> {
    let describe = |row: &row::Row| MetricDescriptor {
        name: row.name.to_owned(),
        help: row.help.to_owned(),
        label_keys: LABELS.iter().chain(row.labels()).map(|&key| key.to_owned()).collect(),
        ..Default::default()
    };
    Ok(ListMetricDescriptorsResponse { descriptors: row::all().map(describe).collect(), ..Default::default() })
}

/// Those of every pod that is ready, and of its containers that run. What this kernel cannot tell is left out. Blocks for
/// some dozens of files a container.
///
/// # Errors
/// `Canceled` and `DeadlineExceeded`.
pub fn list_metrics(
    rt: &Runtime,
    call: &Call,
    _: ListPodSandboxMetricsRequest,
) -> Result<Encoded<ListPodSandboxMetricsResponse>> {
    of_all(rt, call, &ready(rt))
}

/// The same, some at a time. Blocks as long as `send` does.
///
/// # Errors
/// Those of `send`.
pub fn stream_metrics(
    rt: &Runtime,
    call: &Call,
    _: StreamPodSandboxMetricsRequest,
    send: &mut dyn FnMut(Encoded<StreamPodSandboxMetricsResponse>) -> Result<()>,
) -> Result<()> {
    ready(rt).chunks(PODS).try_for_each(|batch| send(of_all(rt, call, batch)?))
}

fn ready(rt: &Runtime) -> Vec<Arc<Sandbox>> {
    let mut sandboxes = rt.sandboxes.list();
    sandboxes.retain(|s| s.state() == SandboxState::Ready);
    sandboxes
}

fn of_all<R>(rt: &Runtime, call: &Call, sandboxes: &[Arc<Sandbox>]) -> Result<Encoded<R>> {
    let mut answer = Encoded::default();
    gather::each(rt, call, sandboxes, &mut |pod| answer.add(POD_METRICS, pod))?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_name_is_there_once_and_says_what_it_is() {
        let mut names = HashSet::new();
        for row in row::all() {
            assert!(row.name.starts_with("container_") && names.insert(row.name), "{}", row.name);
            assert!(row.help.ends_with('.') && row.help.len() > 10, "{}", row.name);
            let mut labels: Vec<&str> = LABELS.iter().chain(row.labels()).copied().collect();
            let all = labels.len();
            labels.sort_unstable();
            labels.dedup();
            assert_eq!(labels.len(), all, "{}: a label twice", row.name);
        }
        assert_eq!(names.len(), 58);
    }
}
