//! Counters of a container as containerd's metrics messages, for clients that ask the task service.

use std::fs;
use std::path::Path;

use super::cgroup::{number_after, Cgroups};
use super::wire::Message;

/// `memory.stat` of v1: the first field with each name, in the order of the message; those of the whole subtree follow
/// as `total_…`.
const V1_MEMORY: [&str; 15] = [
    "cache",
    "rss",
    "rss_huge",
    "mapped_file",
    "dirty",
    "writeback",
    "pgpgin",
    "pgpgout",
    "pgfault",
    "pgmajfault",
    "inactive_anon",
    "active_anon",
    "inactive_file",
    "active_file",
    "unevictable",
];
/// `memory.stat` of v2 in the order of the message, from field 1 on.
const V2_MEMORY: [&str; 31] = [
    "anon",
    "file",
    "kernel_stack",
    "slab",
    "sock",
    "shmem",
    "file_mapped",
    "file_dirty",
    "file_writeback",
    "anon_thp",
    "inactive_anon",
    "active_anon",
    "inactive_file",
    "active_file",
    "unevictable",
    "slab_reclaimable",
    "slab_unreclaimable",
    "pgfault",
    "pgmajfault",
    "workingset_refault",
    "workingset_activate",
    "workingset_nodereclaim",
    "pgrefill",
    "pgscan",
    "pgsteal",
    "pgactivate",
    "pgdeactivate",
    "pglazyfree",
    "pglazyfreed",
    "thp_fault_alloc",
    "thp_collapse_alloc",
];
/// `cpu.stat` of v2, from field 1 on.
const V2_CPU: [&str; 6] = ["usage_usec", "user_usec", "system_usec", "nr_periods", "nr_throttled", "throttled_usec"];
const V2_EVENTS: [&str; 5] = ["low", "high", "max", "oom", "oom_kill"];
/// `USER_HZ`, in nanoseconds: a promise of the kernel to programs.
const TICK: u64 = 10_000_000;

/// The metrics as an `Any`.
pub fn metrics(cgroups: &Cgroups) -> Message {
    let (kind, metrics) = match cgroups.v2() {
        Some(dir) => ("io.containerd.cgroups.v2.Metrics", v2(&dir)),
        None => ("io.containerd.cgroups.v1.Metrics", v1(cgroups)),
    };
    Message::new().bytes(1, kind).bytes(2, metrics.done())
}

fn v1(cgroups: &Cgroups) -> Message {
    let mut metrics = Message::new();
    if let Some(dir) = cgroups.v1("pids") {
        metrics = metrics.message(2, pids(&dir));
    }
    if let Some(dir) = cgroups.v1("cpuacct") {
        let ticks = text(&dir, "cpuacct.stat");
        let usage = Message::new().number(1, number(&dir, "cpuacct.usage"));
        let usage = usage.number(2, number_after(&ticks, "system").unwrap_or(0) * TICK);
        let usage = usage.number(3, number_after(&ticks, "user").unwrap_or(0) * TICK);
        let throttling = cgroups.v1("cpu").map_or_else(String::new, |dir| text(&dir, "cpu.stat"));
        let throttling = fields(Message::new(), 1, &throttling, &["nr_periods", "nr_throttled", "throttled_time"]);
        metrics = metrics.message(3, Message::new().message(1, usage).message(2, throttling));
    }
    if let Some(dir) = cgroups.v1("memory") {
        let stat = text(&dir, "memory.stat");
        let total = V1_MEMORY.map(|name| format!("total_{name}"));
        let mut memory = fields(Message::new(), 1, &stat, &V1_MEMORY);
        memory = fields(memory, 16, &stat, &["hierarchical_memory_limit", "hierarchical_memsw_limit"]);
        memory = fields(memory, 18, &stat, &total);
        for (field, prefix) in (33..).zip(["memory", "memory.memsw", "memory.kmem", "memory.kmem.tcp"]) {
            let names = ["limit_in_bytes", "usage_in_bytes", "max_usage_in_bytes", "failcnt"];
            let entry = (1..).zip(names);
            let entry = entry.fold(Message::new(), |entry, (field, name)| {
                entry.number(field, number(&dir, &format!("{prefix}.{name}")))
            });
            memory = memory.message(field, entry);
        }
        metrics = metrics.message(4, memory);
    }
    metrics
}

fn v2(dir: &Path) -> Message {
    let memory = fields(Message::new(), 1, &text(dir, "memory.stat"), &V2_MEMORY);
    let files = ["memory.current", "memory.max", "memory.swap.current", "memory.swap.max"];
    let memory = (32..).zip(files).fold(memory, |memory, (field, name)| memory.number(field, number(dir, name)));
    Message::new()
        .message(1, pids(dir))
        .message(2, fields(Message::new(), 1, &text(dir, "cpu.stat"), &V2_CPU))
        .message(4, memory)
        .message(6, io(&text(dir, "io.stat")))
        .message(8, fields(Message::new(), 1, &text(dir, "memory.events"), &V2_EVENTS))
}

fn pids(dir: &Path) -> Message {
    // "max" is no number and means no limit, which the message writes as none.
    let limit = text(dir, "pids.max").trim().parse().unwrap_or(0);
    Message::new().number(1, number(dir, "pids.current")).number(2, limit)
}

/// A line for each device: `major:minor rbytes=1 wbytes=2 rios=3 wios=4 …`.
fn io(stat: &str) -> Message {
    let line = |line: &str| {
        let mut words = line.split(' ');
        let (major, minor) = words.next()?.split_once(':')?;
        let device = Message::new().number(1, major.parse().ok()?).number(2, minor.parse().ok()?);
        let value = |name: &str| {
            let mut words = line.split(' ');
            words.find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok()).unwrap_or(0)
        };
        let names = ["rbytes", "wbytes", "rios", "wios"];
        Some((3..).zip(names).fold(device, |device, (field, name)| device.number(field, value(name))))
    };
    stat.lines().filter_map(line).fold(Message::new(), |io, device| io.message(1, device))
}

fn fields<S: AsRef<str>>(message: Message, first: u32, text: &str, names: &[S]) -> Message {
    (first..)
        .zip(names)
        .fold(message, |message, (field, name)| message.number(field, number_after(text, name.as_ref()).unwrap_or(0)))
}

/// A counter file; what does not exist here counts nothing.
fn text(dir: &Path, name: &str) -> String {
    fs::read_to_string(dir.join(name)).unwrap_or_default()
}

/// A file with one number; "max" is the greatest there is.
fn number(dir: &Path, name: &str) -> u64 {
    match text(dir, name).trim() {
        "max" => u64::MAX,
        number => number.parse().unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_taken_apart() {
        let expected = Message::new().number(1, 8).number(2, 16).number(3, 4096).number(5, 2);
        assert_eq!(
            io("8:16 rbytes=4096 wbytes=0 rios=2 wios=0 dbytes=0\nrubbish\n"),
            Message::new().message(1, expected)
        );
    }

    #[test]
    fn what_is_not_there_counts_nothing() {
        let nowhere = Path::new("/nonexistent");
        assert_eq!((number(nowhere, "x"), text(nowhere, "x").as_str()), (0, ""));
        assert_eq!(fields(Message::new(), 3, "b 5\na 4\n", &["a", "b"]), Message::new().number(3, 4).number(4, 5));
    }
}
