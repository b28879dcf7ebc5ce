//! What the counters of a control group say.

use std::path::Path;

use super::files::{field, number, text, NO_LIMIT};
use super::groups::Groups;

const MEMORY: &str = "memory.stat";

/// What a control group uses. What cannot be read is absent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    /// Of all processors together, since it was made.
    pub cpu_nanoseconds: Option<u64>,
    pub memory: Option<Memory>,
    pub swap: Option<Swap>,
    /// Processes and threads, those of the groups below included.
    pub processes: Option<u64>,
    /// Pressure is counted in v2 only.
    pub cpu_pressure: Option<Pressure>,
    pub memory_pressure: Option<Pressure>,
    pub io_pressure: Option<Pressure>,
}

/// Memory of a control group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    pub usage_bytes: u64,
    /// Without pages of files that nobody used for a while.
    pub working_set_bytes: u64,
    /// Up to the limit; `None` without one.
    pub available_bytes: Option<u64>,
    pub rss_bytes: u64,
    pub page_faults: u64,
    pub major_page_faults: u64,
    /// `None` without one.
    pub limit_bytes: Option<u64>,
    pub files: FilePages,
}

/// Memory that holds pages of files. What this kernel does not count is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FilePages {
    pub cache_bytes: Option<u64>,
    pub mapped_bytes: Option<u64>,
    pub active_bytes: Option<u64>,
    pub inactive_bytes: Option<u64>,
}

/// Swap of a control group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swap {
    pub usage_bytes: u64,
    /// Up to the limit; `None` without one.
    pub available_bytes: Option<u64>,
    /// In v1 of memory and swap together; `None` without one.
    pub limit_bytes: Option<u64>,
}

/// How long processes waited for something: any of them, and all at once.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pressure {
    pub some: Option<Stall>,
    pub full: Option<Stall>,
}

/// Per cent of the last 10, 60 and 300 seconds, and all of it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stall {
    pub avg10: f64,
    pub avg60: f64,
    pub avg300: f64,
    pub total_nanoseconds: u64,
}

/// Reads what there is. A group that is gone has nothing.
pub fn read(groups: &Groups) -> Usage {
    read_with(groups, &Texts::of(groups))
}

/// Files that hold more than one answer, so that they are read once.
pub struct Texts {
    /// v2 only.
    pub cpu: Option<String>,
    pub memory: Option<String>,
}

impl Texts {
    /// Reads them.
    pub fn of(groups: &Groups) -> Texts {
        match groups {
            Groups::V1(v1) => Texts { cpu: None, memory: v1.memory.as_deref().and_then(|dir| text(dir, MEMORY)) },
            Groups::V2(dir) => Texts { cpu: text(dir, "cpu.stat"), memory: text(dir, MEMORY) },
        }
    }
}

/// As [`read`], with these files.
pub fn read_with(groups: &Groups, texts: &Texts) -> Usage {
    let stat = texts.memory.as_deref();
    match groups {
        Groups::V1(v1) => {
            let dir = v1.memory.as_deref();
            let memory = dir.and_then(|dir| memory_v1(dir, stat?));
            Usage {
                cpu_nanoseconds: v1.cpuacct.as_deref().and_then(|dir| number(dir, "cpuacct.usage")),
                memory,
                swap: dir.and_then(|dir| swap_v1(dir, memory?)),
                processes: v1.pids.as_deref().and_then(|dir| number(dir, "pids.current")),
                ..Usage::default()
            }
        }
        Groups::V2(dir) => Usage {
            cpu_nanoseconds: texts
                .cpu
                .as_deref()
                .and_then(|text| field(text, "usage_usec"))
                .map(|n| n.saturating_mul(1000)),
            memory: stat.and_then(|stat| memory_v2(dir, stat)),
            swap: swap_v2(dir),
            processes: number(dir, "pids.current"),
            cpu_pressure: pressure(dir, "cpu.pressure"),
            memory_pressure: pressure(dir, "memory.pressure"),
            io_pressure: pressure(dir, "io.pressure"),
        },
    }
}

fn memory_v1(dir: &Path, stat: &str) -> Option<Memory> {
    let usage = number(dir, "memory.usage_in_bytes")?;
    let limit = number(dir, "memory.limit_in_bytes");
    let names = ["total_inactive_file", "total_rss", "total_pgfault", "total_pgmajfault"];
    let others = ["total_cache", "total_mapped_file", "total_active_file"];
    Some(memory(usage, limit, stat, names, others))
}

fn memory_v2(dir: &Path, stat: &str) -> Option<Memory> {
    let usage = number(dir, "memory.current")?;
    // "max" is no number, and no limit.
    let limit = number(dir, "memory.max");
    let names = ["inactive_file", "anon", "pgfault", "pgmajfault"];
    Some(memory(usage, limit, stat, names, ["file", "file_mapped", "active_file"]))
}

fn memory(
    usage: u64,
    limit: Option<u64>,
    stat: &str,
    [inactive, rss, faults, major]: [&str; 4],
    [cache, mapped, active]: [&str; 3],
) -> Memory {
    let of = |name| field(stat, name).unwrap_or(0);
    let inactive = field(stat, inactive);
    let working_set = usage.saturating_sub(inactive.unwrap_or(0));
    let limit = limit.filter(|l| *l < NO_LIMIT);
    Memory {
        usage_bytes: usage,
        working_set_bytes: working_set,
        available_bytes: limit.map(|l| l.saturating_sub(working_set)),
        rss_bytes: of(rss),
        page_faults: of(faults),
        major_page_faults: of(major),
        limit_bytes: limit,
        files: FilePages {
            cache_bytes: field(stat, cache),
            mapped_bytes: field(stat, mapped),
            active_bytes: field(stat, active),
            inactive_bytes: inactive,
        },
    }
}

/// v1 counts memory and swap together, where swap is counted at all.
fn swap_v1(dir: &Path, memory: Memory) -> Option<Swap> {
    let both = number(dir, "memory.memsw.usage_in_bytes")?;
    let usage = both.saturating_sub(memory.usage_bytes);
    let limit = number(dir, "memory.memsw.limit_in_bytes").filter(|l| *l < NO_LIMIT);
    let available = limit.map(|l| l.saturating_sub(memory.limit_bytes.unwrap_or(0)));
    let available = available.map(|a| a.saturating_sub(usage));
    Some(Swap { usage_bytes: usage, available_bytes: available, limit_bytes: limit })
}

fn swap_v2(dir: &Path) -> Option<Swap> {
    let usage = number(dir, "memory.swap.current")?;
    let limit = number(dir, "memory.swap.max").filter(|l| *l < NO_LIMIT);
    let available = limit.map(|l| l.saturating_sub(usage));
    Some(Swap { usage_bytes: usage, available_bytes: available, limit_bytes: limit })
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, microseconds; `full` is absent for the processor of old kernels.
fn pressure(dir: &Path, file: &str) -> Option<Pressure> {
    let text = text(dir, file)?;
    let stall = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        let of = |key: &str| line.split(' ').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
        let average = |key| of(key).and_then(|n| n.parse().ok());
        Some(Stall {
            avg10: average("avg10")?,
            avg60: average("avg60")?,
            avg300: average("avg300")?,
            total_nanoseconds: of("total")?.parse::<u64>().ok()?.saturating_mul(1000),
        })
    };
    Some(Pressure { some: stall("some"), full: stall("full") })
}

#[cfg(test)]
mod tests {
    use super::super::files::testing::Dir;
    use super::super::groups::Hierarchies;
    use super::*;

    #[test]
    fn version_2() {
        let dir = Dir::new(&[
            ("cpu.stat", "usage_usec 1500\nuser_usec 1000\n"),
            ("pids.current", "3\n"),
            ("memory.current", "1000\n"),
            ("memory.max", "4000\n"),
            ("memory.stat", "anon 300\nfile 700\ninactive_file 400\npgfault 7\npgmajfault 2\n"),
            ("memory.swap.current", "50\n"),
            ("memory.swap.max", "150\n"),
            ("cpu.pressure", "some avg10=1.50 avg60=0.25 avg300=0.01 total=12\n"),
            (
                "io.pressure",
                "some avg10=0.00 avg60=0.00 avg300=0.00 total=3\nfull avg10=2.00 avg60=1.00 avg300=0.50 total=4\n",
            ),
        ]);
        let usage = read(&Groups::V2(dir.0.clone()));
        assert_eq!((usage.cpu_nanoseconds, usage.processes), (Some(1_500_000), Some(3)));
        let memory = Memory {
            usage_bytes: 1000,
            working_set_bytes: 600,
            available_bytes: Some(3400),
            rss_bytes: 300,
            page_faults: 7,
            major_page_faults: 2,
            limit_bytes: Some(4000),
            files: FilePages { cache_bytes: Some(700), inactive_bytes: Some(400), ..FilePages::default() },
        };
        assert_eq!(usage.memory, Some(memory));
        assert_eq!(usage.swap, Some(Swap { usage_bytes: 50, available_bytes: Some(100), limit_bytes: Some(150) }));
        let some = Stall { avg10: 1.5, avg60: 0.25, avg300: 0.01, total_nanoseconds: 12_000 };
        assert_eq!(usage.cpu_pressure, Some(Pressure { some: Some(some), full: None }));
        let io = usage.io_pressure.unwrap();
        assert_eq!((io.full.unwrap().avg10, io.full.unwrap().total_nanoseconds), (2.0, 4000));
        assert_eq!(usage.memory_pressure, None);
    }

    #[test]
    fn version_1() {
        let (cpu, memory) = (
            Dir::new(&[("cpuacct.usage", "123456\n"), ("pids.current", "2\n")]),
            Dir::new(&[
                ("memory.usage_in_bytes", "1000\n"),
                ("memory.limit_in_bytes", "2000\n"),
                ("memory.memsw.usage_in_bytes", "1100\n"),
                ("memory.memsw.limit_in_bytes", "2500\n"),
                ("memory.stat", "rss 1\ninactive_file 1\ntotal_rss 300\ntotal_inactive_file 1500\ntotal_pgfault 9\n"),
            ]),
        );
        let usage = read(&Groups::V1(Box::new(Hierarchies {
            cpuacct: Some(cpu.0.clone()),
            memory: Some(memory.0.clone()),
            pids: Some(cpu.0.clone()),
            ..Hierarchies::default()
        })));
        assert_eq!((usage.cpu_nanoseconds, usage.processes), (Some(123_456), Some(2)));
        let seen = usage.memory.unwrap();
        assert_eq!((seen.usage_bytes, seen.working_set_bytes, seen.available_bytes), (1000, 0, Some(2000)));
        assert_eq!((seen.rss_bytes, seen.page_faults, seen.major_page_faults), (300, 9, 0));
        assert_eq!(usage.swap, Some(Swap { usage_bytes: 100, available_bytes: Some(400), limit_bytes: Some(2500) }));
    }

    #[test]
    fn no_limit_is_no_number() {
        let stat = ("memory.stat", "anon 1\n");
        let v2 = Dir::new(&[("memory.current", "5\n"), ("memory.max", "max\n"), stat]);
        assert_eq!(read(&Groups::V2(v2.0.clone())).memory.unwrap().available_bytes, None);
        let huge = "9223372036854771712\n";
        let v1 = Dir::new(&[("memory.usage_in_bytes", "5\n"), ("memory.limit_in_bytes", huge), stat]);
        let v1_only = Hierarchies { memory: Some(v1.0.clone()), ..Hierarchies::default() };
        let usage = read(&Groups::V1(Box::new(v1_only)));
        assert_eq!((usage.memory.unwrap().available_bytes, usage.swap, usage.cpu_nanoseconds), (None, None, None));
    }

    #[test]
    fn what_is_gone_or_not_a_number_is_absent() {
        assert_eq!(read(&Groups::V2("/does/not/exist".into())), Usage::default());
        let dir = Dir::new(&[
            ("cpu.stat", "usage_usec many\n"),
            ("memory.current", "-1\n"),
            ("io.pressure", "some avg10=x\n"),
        ]);
        let usage = read(&Groups::V2(dir.0.clone()));
        assert_eq!((usage.cpu_nanoseconds, usage.memory), (None, None));
        assert_eq!(usage.io_pressure, Some(Pressure::default()));
    }
}
