//! When something was there, and what it was given.

use super::gather::Sample;
use super::row::{seconds, Row, Source::One};

pub const ROWS: &[Row] = &[
    Row::gauge(
        "container_last_seen",
        "When it was seen last, in seconds since the epoch.",
        One(|s| u64::try_from(s.now / 1_000_000_000).ok()),
    ),
    Row::gauge(
        "container_start_time_seconds",
        "When it was started, in seconds since the epoch.",
        One(|s| seconds(u64::try_from(s.started_at).ok())),
    ),
    Row::gauge(
        "container_spec_cpu_period",
        "The period that the processor quota is for, in microseconds.",
        One(|s| s.detail.period_microseconds),
    ),
    Row::gauge(
        "container_spec_cpu_quota",
        "Processor time that may be used in a period, in microseconds; absent without a limit.",
        One(quota),
    ),
    Row::gauge(
        "container_spec_cpu_shares",
        "The share of the processors where there are not enough of them, 1024 for one.",
        One(|s| s.detail.shares.or(s.shares)),
    ),
    Row::gauge(
        "container_spec_memory_limit_bytes",
        "Memory that may be used; 0 without a limit.",
        One(|s| Some(s.usage.memory?.limit_bytes.unwrap_or(0))),
    ),
    Row::gauge(
        "container_spec_memory_swap_limit_bytes",
        "Swap that may be used, on cgroup v1 together with memory; 0 without a limit.",
        One(|s| Some(s.usage.swap?.limit_bytes.unwrap_or(0))),
    ),
    Row::gauge(
        "container_spec_memory_reservation_limit_bytes",
        "Memory that is kept for it when there is not enough; 0 for none in particular.",
        One(|s| s.detail.reservation_bytes),
    ),
];

/// Processor time in a period; `None` without a limit.
pub fn quota(sample: &Sample<'_>) -> Option<u64> {
    sample.detail.quota_microseconds.filter(|quota| *quota > 0)
}
