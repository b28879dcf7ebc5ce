//! Counters of the kernel as the messages of the CRI, for containers and pods.

use cricket_proto::runtime::{CpuUsage, IoUsage, MemoryUsage, PsiData, PsiStats, SwapUsage, UInt64Value};
use protobuf::MessageField;

use crate::cgroup::{Pressure, Reading, Stall, Usage};

/// Processor time; absent where it cannot be read.
pub fn cpu(reading: &Reading, now: i64) -> MessageField<CpuUsage> {
    let usage = |used| CpuUsage {
        timestamp: now,
        usage_core_nano_seconds: count(used),
        usage_nano_cores: optional(reading.nano_cores),
        psi: psi(reading.usage.cpu_pressure),
        ..Default::default()
    };
    reading.usage.cpu_nanoseconds.map(usage).into()
}

/// Memory; absent where it cannot be read.
pub fn memory(usage: &Usage, now: i64) -> MessageField<MemoryUsage> {
    let memory = usage.memory.map(|memory| MemoryUsage {
        timestamp: now,
        working_set_bytes: count(memory.working_set_bytes),
        available_bytes: optional(memory.available_bytes),
        usage_bytes: count(memory.usage_bytes),
        rss_bytes: count(memory.rss_bytes),
        page_faults: count(memory.page_faults),
        major_page_faults: count(memory.major_page_faults),
        psi: psi(usage.memory_pressure),
        ..Default::default()
    });
    memory.into()
}

/// Swap; absent where it is not counted.
pub fn swap(usage: &Usage, now: i64) -> MessageField<SwapUsage> {
    let swap = usage.swap.map(|swap| SwapUsage {
        timestamp: now,
        swap_available_bytes: optional(swap.available_bytes),
        swap_usage_bytes: count(swap.usage_bytes),
        ..Default::default()
    });
    swap.into()
}

/// Waiting for disks; absent where it is not counted.
pub fn io(usage: &Usage, now: i64) -> MessageField<IoUsage> {
    let io = usage.io_pressure.map(|p| IoUsage { timestamp: now, psi: psi(Some(p)), ..Default::default() });
    io.into()
}

/// A number that is there.
pub fn count(value: u64) -> MessageField<UInt64Value> {
    MessageField::some(UInt64Value { value, ..Default::default() })
}

/// A number that may not be there.
pub fn optional(value: Option<u64>) -> MessageField<UInt64Value> {
    value.map_or_else(MessageField::none, count)
}

fn psi(pressure: Option<Pressure>) -> MessageField<PsiStats> {
    let data = |stall: Stall| PsiData {
        Total: stall.total_nanoseconds,
        Avg10: stall.avg10,
        Avg60: stall.avg60,
        Avg300: stall.avg300,
        ..Default::default()
    };
    let stats =
        |p: Pressure| PsiStats { Full: p.full.map(data).into(), Some: p.some.map(data).into(), ..Default::default() };
    pressure.map(stats).into()
}
