//! ContainerStats, ListContainerStats and StreamContainerStats: the kernel's counters, read from their files; no shim is asked.

use std::sync::Arc;

use cricket_proto::runtime::{
    ContainerAttributes, ContainerStats, ContainerStatsFilter, ContainerStatsRequest, ContainerStatsResponse,
    FilesystemIdentifier, FilesystemUsage, ListContainerStatsRequest, ListContainerStatsResponse,
    StreamContainerStatsRequest, StreamContainerStatsResponse,
};
use protobuf::MessageField;

use super::counters::{self, count};
use super::list::{selected, BATCH};
use crate::call::Call;
use crate::clock;
use crate::error::Result;
use crate::image;
use crate::runtime::Runtime;
use crate::store::fs_usage::Measured;
use crate::store::{Container, ContainerState};

/// What one container uses. One that does not run uses only its writable layer.
///
/// # Errors
/// `NotFound`.
pub fn stats(rt: &Runtime, call: &Call, request: ContainerStatsRequest) -> Result<ContainerStatsResponse> {
    let container = rt.containers.get(&request.container_id)?;
    let layers = layers(rt, call, &[container.id.as_str()]);
    let stats = MessageField::some(describe(&container, layers.as_ref()));
    Ok(ContainerStatsResponse { stats, ..Default::default() })
}

/// The same of every container that matches the filter.
///
/// # Errors
/// None of its own.
pub fn list_stats(rt: &Runtime, call: &Call, request: ListContainerStatsRequest) -> Result<ListContainerStatsResponse> {
    let stats = of_all(rt, call, &found(rt, &request.filter.unwrap_or_default()));
    Ok(ListContainerStatsResponse { stats, ..Default::default() })
}

/// The same, some at a time. Blocks as long as `send` does.
///
/// # Errors
/// Those of `send`.
pub fn stream_stats(
    rt: &Runtime,
    call: &Call,
    request: StreamContainerStatsRequest,
    send: &mut dyn FnMut(StreamContainerStatsResponse) -> Result<()>,
) -> Result<()> {
    for batch in found(rt, &request.filter.unwrap_or_default()).chunks(BATCH) {
        let container_stats = of_all(rt, call, batch);
        send(StreamContainerStatsResponse { container_stats, ..Default::default() })?;
    }
    Ok(())
}

fn found(rt: &Runtime, filter: &ContainerStatsFilter) -> Vec<Arc<Container>> {
    let mut containers = rt.containers.list();
    containers.retain(|c| selected(c, &filter.id, &filter.pod_sandbox_id, &filter.label_selector));
    containers
}

/// What each of them uses.
pub fn of_all(rt: &Runtime, call: &Call, containers: &[Arc<Container>]) -> Vec<ContainerStats> {
    let keys: Vec<&str> = containers.iter().map(|c| c.id.as_str()).collect();
    let layers = if keys.is_empty() { None } else { layers(rt, call, &keys) };
    containers.iter().map(|container| describe(container, layers.as_ref())).collect()
}

/// What writable layers take. Without containerd the counters are still worth an answer.
fn layers(rt: &Runtime, call: &Call, keys: &[&str]) -> Option<Measured> {
    let measured = image::usage_of(rt, call, keys);
    measured.inspect_err(|e| log::debug!("usage of writable layers: {e}")).ok()
}

fn describe(container: &Container, layers: Option<&Measured>) -> ContainerStats {
    let config = &container.config;
    let attributes = ContainerAttributes {
        id: container.id.to_string(),
        metadata: config.metadata.clone(),
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
        ..Default::default()
    };
    let now = clock::now();
    let mut stats = ContainerStats { attributes: MessageField::some(attributes), ..Default::default() };
    stats.writable_layer = layers.and_then(|layers| writable_layer(container, layers, now)).into();
    if let ContainerState::Running { pid, .. } = container.state() {
        let reading = container.meter.read(pid, now);
        stats.cpu = counters::cpu(&reading, now);
        stats.memory = counters::memory(&reading.usage, now);
        stats.swap = counters::swap(&reading.usage, now);
        stats.io = counters::io(&reading.usage, now);
    }
    stats
}

fn writable_layer(container: &Container, layers: &Measured, now: i64) -> Option<FilesystemUsage> {
    let usage = layers.usage.get(container.id.as_str())?;
    let fs_id = FilesystemIdentifier { mountpoint: layers.mountpoint.clone()?, ..Default::default() };
    Some(FilesystemUsage {
        timestamp: now,
        fs_id: MessageField::some(fs_id),
        used_bytes: count(usage.size_bytes),
        inodes_used: count(usage.inodes),
        ..Default::default()
    })
}
