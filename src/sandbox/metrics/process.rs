//! Processes, and what they have open.

use super::row::Row;
use super::row::Source::{Each, One};

pub const ROWS: &[Row] = &[
    Row::gauge("container_processes", "Processes that run in it.", One(|s| Some(s.processes?.count))),
    Row::gauge("container_threads", "Threads that run in it.", One(|s| s.usage.processes)),
    Row::gauge(
        "container_threads_max",
        "Threads that may run in it; 0 without a limit.",
        One(|s| s.detail.threads_max),
    ),
    Row::gauge(
        "container_file_descriptors",
        "Files, sockets and the like that its processes have open; absent where they are too many to count.",
        One(|s| s.processes?.descriptors),
    ),
    Row::gauge(
        "container_sockets",
        "Sockets that its processes have open; absent where they are too many to count.",
        One(|s| s.processes?.sockets),
    ),
    Row::gauge(
        "container_ulimits_soft",
        "Soft limits of its first process; absent without a limit.",
        Each(&["ulimit"], |s, values| {
            if let Some(files) = s.max_open_files {
                values.put(&["max_open_files"], files);
            }
        }),
    ),
];
