//! PodSandboxStats, ListPodSandboxStats and StreamPodSandboxStats: counters of the pod's control group and network.

use std::path::PathBuf;
use std::sync::Arc;

use cricket_proto::runtime::{
    LinuxPodSandboxStats, ListPodSandboxStatsRequest, ListPodSandboxStatsResponse, NetworkInterfaceUsage, NetworkUsage,
    PodSandboxAttributes, PodSandboxStats, PodSandboxStatsFilter, PodSandboxStatsRequest, PodSandboxStatsResponse,
    ProcessUsage, StreamPodSandboxStatsRequest, StreamPodSandboxStatsResponse,
};
use protobuf::MessageField;

use super::interfaces::{self, Interfaces};
use super::list::selected;
use crate::call::Call;
use crate::clock;
use crate::container::counters::{self, count, optional};
use crate::container::{self, BATCH};
use crate::error::{Error, Kind, Result};
use crate::oci;
use crate::runtime::Runtime;
use crate::store::{Sandbox, SandboxState};

/// What a pod uses: its control group as a whole, its network, and each of its containers.
///
/// # Errors
/// `NotFound`; `Unavailable` for a sandbox that is not ready.
pub fn stats(rt: &Runtime, call: &Call, request: PodSandboxStatsRequest) -> Result<PodSandboxStatsResponse> {
    let sandbox = rt.sandboxes.get(&request.pod_sandbox_id)?;
    if sandbox.state() != SandboxState::Ready {
        return Err(Error::new(Kind::Unavailable, format!("pod sandbox {} is not ready: it uses nothing", sandbox.id)));
    }
    let stats = of_all(rt, call, &[sandbox]).pop();
    Ok(PodSandboxStatsResponse { stats: stats.into(), ..Default::default() })
}

/// The same of every pod that is ready and matches the filter.
///
/// # Errors
/// None of its own.
pub fn list_stats(
    rt: &Runtime,
    call: &Call,
    request: ListPodSandboxStatsRequest,
) -> Result<ListPodSandboxStatsResponse> {
    let stats = of_all(rt, call, &ready(rt, &request.filter.unwrap_or_default()));
    Ok(ListPodSandboxStatsResponse { stats, ..Default::default() })
}

/// The same, some at a time. Blocks as long as `send` does.
///
/// # Errors
/// Those of `send`.
pub fn stream_stats(
    rt: &Runtime,
    call: &Call,
    request: StreamPodSandboxStatsRequest,
    send: &mut dyn FnMut(StreamPodSandboxStatsResponse) -> Result<()>,
) -> Result<()> {
    for batch in ready(rt, &request.filter.unwrap_or_default()).chunks(BATCH) {
        let pod_sandbox_stats = of_all(rt, call, batch);
        send(StreamPodSandboxStatsResponse { pod_sandbox_stats, ..Default::default() })?;
    }
    Ok(())
}

fn ready(rt: &Runtime, filter: &PodSandboxStatsFilter) -> Vec<Arc<Sandbox>> {
    let mut sandboxes = rt.sandboxes.list();
    sandboxes.retain(|s| s.state() == SandboxState::Ready && selected(s, &filter.id, &filter.label_selector));
    sandboxes
}

/// Of several at once: writable layers are asked for together, and one thread visits all the networks.
fn of_all(rt: &Runtime, call: &Call, sandboxes: &[Arc<Sandbox>]) -> Vec<PodSandboxStats> {
    let mut containers = rt.containers.list();
    containers.retain(|c| sandboxes.iter().any(|s| s.id == c.sandbox_id));
    let used = container::stats_of(rt, call, &containers);
    let mut used: Vec<_> = containers.into_iter().zip(used).collect();
    let networks: Vec<Option<PathBuf>> = sandboxes.iter().map(|s| s.netns.clone()).collect();
    let networks = interfaces::read_all(&networks);
    let mut all = Vec::with_capacity(sandboxes.len());
    for (sandbox, network) in sandboxes.iter().zip(networks) {
        let (own, others) = used.into_iter().partition(|(c, _)| c.sandbox_id == sandbox.id);
        used = others;
        let own: Vec<_> = own;
        let mut stats = describe(sandbox, network);
        stats.linux.mut_or_insert_default().containers = own.into_iter().map(|(_, stats)| stats).collect();
        all.push(stats);
    }
    all
}

fn describe(sandbox: &Sandbox, network: Option<Interfaces>) -> PodSandboxStats {
    let attributes = PodSandboxAttributes {
        id: sandbox.id.to_string(),
        metadata: sandbox.config.metadata.clone(),
        labels: sandbox.config.labels.clone(),
        annotations: sandbox.config.annotations.clone(),
        ..Default::default()
    };
    let now = clock::now();
    let group = oci::cgroup::directory(&sandbox.config.linux.cgroup_parent);
    let reading = group.map(|path| sandbox.meter.read_at(&path, now)).unwrap_or_default();
    let processes =
        reading.usage.processes.map(|n| ProcessUsage { timestamp: now, process_count: count(n), ..Default::default() });
    let linux = LinuxPodSandboxStats {
        cpu: counters::cpu(&reading, now),
        memory: counters::memory(&reading.usage, now),
        network: network.map(|n| usage(n, now)).into(),
        process: processes.into(),
        io: counters::io(&reading.usage, now),
        ..Default::default()
    };
    PodSandboxStats {
        attributes: MessageField::some(attributes),
        linux: MessageField::some(linux),
        ..Default::default()
    }
}

/// Loopback is nobody's traffic.
fn usage(network: Interfaces, now: i64) -> NetworkUsage {
    let mut usage = NetworkUsage { timestamp: now, ..Default::default() };
    for interface in network.all {
        let is_default = network.default.as_ref() == Some(&interface.name);
        let counted = NetworkInterfaceUsage {
            name: interface.name,
            rx_bytes: optional(interface.received.bytes),
            rx_errors: optional(interface.received.errors),
            tx_bytes: optional(interface.sent.bytes),
            tx_errors: optional(interface.sent.errors),
            ..Default::default()
        };
        match is_default {
            true => usage.default_interface = MessageField::some(counted),
            false => usage.interfaces.push(counted),
        }
    }
    usage
}
