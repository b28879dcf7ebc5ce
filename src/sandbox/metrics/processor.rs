//! Processor time, and waiting for it.

use super::life::quota;
use super::row::Source::{Each, One};
use super::row::{seconds, Row};
use crate::cgroup::Pressure;

pub const ROWS: &[Row] = &[
    Row::counter(
        "container_cpu_usage_seconds_total",
        "Processor time used, in seconds.",
        Each(&["cpu"], |s, values| {
            if let Some(used) = seconds(s.usage.cpu_nanoseconds) {
                values.put(&["total"], used);
            }
        }),
    ),
    Row::counter(
        "container_cpu_user_seconds_total",
        "Processor time used by programs, in seconds.",
        One(|s| seconds(s.detail.user_nanoseconds)),
    ),
    Row::counter(
        "container_cpu_system_seconds_total",
        "Processor time used by the kernel for them, in seconds.",
        One(|s| seconds(s.detail.system_nanoseconds)),
    ),
    Row::counter(
        "container_cpu_cfs_periods_total",
        "Periods of the processor quota; absent without one.",
        One(|s| quota(s).and(s.detail.periods)),
    ),
    Row::counter(
        "container_cpu_cfs_throttled_periods_total",
        "Periods in which the processor quota was used up; absent without one.",
        One(|s| quota(s).and(s.detail.throttled_periods)),
    ),
    Row::counter(
        "container_cpu_cfs_throttled_seconds_total",
        "Time spent waiting for the next period of the processor quota, in seconds; absent without one.",
        One(|s| quota(s).and(seconds(s.detail.throttled_nanoseconds))),
    ),
    Row::counter(
        "container_pressure_cpu_waiting_seconds_total",
        "Time in which some task waited for a processor, in seconds.",
        One(|s| waiting(s.usage.cpu_pressure)),
    ),
    Row::counter(
        "container_pressure_cpu_stalled_seconds_total",
        "Time in which all tasks waited for a processor, in seconds.",
        One(|s| stalled(s.usage.cpu_pressure)),
    ),
];

/// How long some waited.
pub fn waiting(pressure: Option<Pressure>) -> Option<u64> {
    seconds(pressure?.some.map(|stall| stall.total_nanoseconds))
}

/// How long all waited.
pub fn stalled(pressure: Option<Pressure>) -> Option<u64> {
    seconds(pressure?.full.map(|stall| stall.total_nanoseconds))
}
