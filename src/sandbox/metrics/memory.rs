//! Memory: how much, of what kind, and what came of too little.

use super::gather::Sample;
use super::processor::{stalled, waiting};
use super::row::Row;
use super::row::Source::{Each, One};
use super::write::Values;
use crate::cgroup::{FilePages, HugePages};

pub const ROWS: &[Row] = &[
    Row::gauge(
        "container_memory_usage_bytes",
        "Memory in use, whenever it was used last.",
        One(|s| Some(s.usage.memory?.usage_bytes)),
    ),
    Row::gauge(
        "container_memory_max_usage_bytes",
        "The most memory that ever was in use.",
        One(|s| s.detail.max_usage_bytes),
    ),
    Row::gauge(
        "container_memory_working_set_bytes",
        "Memory in use without pages of files that nobody used for a while.",
        One(|s| Some(s.usage.memory?.working_set_bytes)),
    ),
    Row::gauge(
        "container_memory_rss",
        "Memory that belongs to no file, in bytes.",
        One(|s| Some(s.usage.memory?.rss_bytes)),
    ),
    Row::gauge("container_memory_cache", "Memory that holds pages of files, in bytes.", One(|s| files(s)?.cache_bytes)),
    Row::gauge(
        "container_memory_mapped_file",
        "Memory that holds mapped pages of files, in bytes.",
        One(|s| files(s)?.mapped_bytes),
    ),
    Row::gauge(
        "container_memory_total_active_file_bytes",
        "Memory that holds pages of files that were used of late.",
        One(|s| files(s)?.active_bytes),
    ),
    Row::gauge(
        "container_memory_total_inactive_file_bytes",
        "Memory that holds pages of files that nobody used for a while.",
        One(|s| files(s)?.inactive_bytes),
    ),
    Row::gauge(
        "container_memory_kernel_usage",
        "Memory that the kernel has for it, in bytes.",
        One(|s| s.detail.kernel_bytes),
    ),
    Row::gauge("container_memory_swap", "Swap in use, in bytes.", One(|s| s.detail.swap_bytes)),
    Row::counter("container_memory_failcnt", "How often the limit of memory was hit.", One(|s| s.detail.limit_hits)),
    Row::counter(
        "container_memory_failures_total",
        "Page faults: pgfault, and of these pgmajfault had to read; of its own processes, or of those below as well.",
        Each(&["failure_type", "scope"], faults),
    ),
    Row::counter(
        "container_oom_events_total",
        "Processes that the kernel killed for want of memory.",
        One(|s| s.detail.oom_kills),
    ),
    Row::counter(
        "container_pressure_memory_waiting_seconds_total",
        "Time in which some task waited for memory, in seconds.",
        One(|s| waiting(s.usage.memory_pressure)),
    ),
    Row::counter(
        "container_pressure_memory_stalled_seconds_total",
        "Time in which all tasks waited for memory, in seconds.",
        One(|s| stalled(s.usage.memory_pressure)),
    ),
    Row::gauge(
        "container_hugetlb_usage_bytes",
        "Huge pages in use, in bytes, by their size.",
        Each(&["pagesize"], |s, values| huge(s, values, |pages| pages.usage_bytes)),
    ),
    Row::gauge(
        "container_hugetlb_max_usage_bytes",
        "The most huge pages that ever were in use, in bytes, by their size.",
        Each(&["pagesize"], |s, values| huge(s, values, |pages| pages.max_usage_bytes)),
    ),
];

fn files(sample: &Sample<'_>) -> Option<FilePages> {
    sample.usage.memory.map(|memory| memory.files)
}

fn faults(sample: &Sample<'_>, values: &mut Values<'_>) {
    let all = sample.usage.memory;
    let faults = [
        ("pgfault", "container", sample.detail.own_page_faults),
        ("pgmajfault", "container", sample.detail.own_major_page_faults),
        ("pgfault", "hierarchy", all.map(|memory| memory.page_faults)),
        ("pgmajfault", "hierarchy", all.map(|memory| memory.major_page_faults)),
    ];
    for (kind, scope, count) in faults {
        if let Some(count) = count {
            values.put(&[kind, scope], count);
        }
    }
}

fn huge(sample: &Sample<'_>, values: &mut Values<'_>, of: fn(&HugePages) -> Option<u64>) {
    for pages in &sample.detail.huge_pages {
        if let Some(bytes) = of(pages) {
            values.put(&[&pages.size], bytes);
        }
    }
}
