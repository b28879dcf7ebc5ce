//! ContainerStats and ListContainerStats: the kernel's counters, read from their files; no shim is asked.

use cricket_proto::runtime::{
    ContainerAttributes, ContainerStats, ContainerStatsRequest, ContainerStatsResponse, CpuUsage, FilesystemIdentifier,
    FilesystemUsage, IoUsage, ListContainerStatsRequest, ListContainerStatsResponse, MemoryUsage, PsiData, PsiStats,
    SwapUsage, UInt64Value,
};
use protobuf::MessageField;

use super::list::selected;
use crate::call::Call;
use crate::cgroup::{Memory, Pressure, Reading, Stall, Swap};
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
    let filter = request.filter.unwrap_or_default();
    let mut containers = rt.containers.list();
    containers.retain(|c| selected(c, &filter.id, &filter.pod_sandbox_id, &filter.label_selector));
    let keys: Vec<&str> = containers.iter().map(|c| c.id.as_str()).collect();
    let layers = if keys.is_empty() { None } else { layers(rt, call, &keys) };
    let stats = containers.iter().map(|container| describe(container, layers.as_ref())).collect();
    Ok(ListContainerStatsResponse { stats, ..Default::default() })
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
        stats.cpu = cpu(&reading, now).into();
        stats.memory = reading.usage.memory.map(|m| memory(m, reading.usage.memory_pressure, now)).into();
        stats.swap = reading.usage.swap.map(|s| swap(s, now)).into();
        let io = reading.usage.io_pressure;
        stats.io = io.map(|p| IoUsage { timestamp: now, psi: psi(p), ..Default::default() }).into();
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

fn cpu(reading: &Reading, now: i64) -> Option<CpuUsage> {
    let used = reading.usage.cpu_nanoseconds?;
    Some(CpuUsage {
        timestamp: now,
        usage_core_nano_seconds: count(used),
        usage_nano_cores: reading.nano_cores.map_or_else(MessageField::none, count),
        psi: reading.usage.cpu_pressure.map_or_else(MessageField::none, psi),
        ..Default::default()
    })
}

fn memory(memory: Memory, pressure: Option<Pressure>, now: i64) -> MemoryUsage {
    MemoryUsage {
        timestamp: now,
        working_set_bytes: count(memory.working_set_bytes),
        available_bytes: memory.available_bytes.map_or_else(MessageField::none, count),
        usage_bytes: count(memory.usage_bytes),
        rss_bytes: count(memory.rss_bytes),
        page_faults: count(memory.page_faults),
        major_page_faults: count(memory.major_page_faults),
        psi: pressure.map_or_else(MessageField::none, psi),
        ..Default::default()
    }
}

fn swap(swap: Swap, now: i64) -> SwapUsage {
    SwapUsage {
        timestamp: now,
        swap_available_bytes: swap.available_bytes.map_or_else(MessageField::none, count),
        swap_usage_bytes: count(swap.usage_bytes),
        ..Default::default()
    }
}

fn psi(pressure: Pressure) -> MessageField<PsiStats> {
    let data = |stall: Stall| PsiData {
        Total: stall.total_nanoseconds,
        Avg10: stall.avg10,
        Avg60: stall.avg60,
        Avg300: stall.avg300,
        ..Default::default()
    };
    let (some, full) = (pressure.some.map(data), pressure.full.map(data));
    MessageField::some(PsiStats { Full: full.into(), Some: some.into(), ..Default::default() })
}

fn count(value: u64) -> MessageField<UInt64Value> {
    MessageField::some(UInt64Value { value, ..Default::default() })
}
