//! What the counters of a control group say.

use std::fs;
use std::path::Path;

use super::groups::Groups;

/// Above it a limit is none: v1 writes the largest number of pages.
const NO_LIMIT: u64 = 1 << 62;

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
}

/// Swap of a control group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swap {
    pub usage_bytes: u64,
    /// Up to the limit; `None` without one.
    pub available_bytes: Option<u64>,
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
    match groups {
        Groups::V1 { cpu, memory, pids } => Usage {
            cpu_nanoseconds: cpu.as_deref().and_then(|dir| number(dir, "cpuacct.usage")),
            memory: memory.as_deref().and_then(memory_v1),
            swap: memory.as_deref().and_then(swap_v1),
            processes: pids.as_deref().and_then(|dir| number(dir, "pids.current")),
            ..Usage::default()
        },
        Groups::V2(dir) => Usage {
            cpu_nanoseconds: text(dir, "cpu.stat")
                .and_then(|t| field(&t, "usage_usec"))
                .map(|n| n.saturating_mul(1000)),
            memory: memory_v2(dir),
            swap: swap_v2(dir),
            processes: number(dir, "pids.current"),
            cpu_pressure: pressure(dir, "cpu.pressure"),
            memory_pressure: pressure(dir, "memory.pressure"),
            io_pressure: pressure(dir, "io.pressure"),
        },
    }
}

fn memory_v1(dir: &Path) -> Option<Memory> {
    let usage = number(dir, "memory.usage_in_bytes")?;
    let stat = text(dir, "memory.stat")?;
    let limit = number(dir, "memory.limit_in_bytes");
    let names = ["total_inactive_file", "total_rss", "total_pgfault", "total_pgmajfault"];
    Some(memory(usage, limit, &stat, names))
}

fn memory_v2(dir: &Path) -> Option<Memory> {
    let usage = number(dir, "memory.current")?;
    let stat = text(dir, "memory.stat")?;
    // "max" is no number, and no limit.
    let limit = number(dir, "memory.max");
    Some(memory(usage, limit, &stat, ["inactive_file", "anon", "pgfault", "pgmajfault"]))
}

fn memory(usage: u64, limit: Option<u64>, stat: &str, [inactive, rss, faults, major]: [&str; 4]) -> Memory {
    let of = |name| field(stat, name).unwrap_or(0);
    let working_set = usage.saturating_sub(of(inactive));
    Memory {
        usage_bytes: usage,
        working_set_bytes: working_set,
        available_bytes: limit.filter(|l| *l < NO_LIMIT).map(|l| l.saturating_sub(working_set)),
        rss_bytes: of(rss),
        page_faults: of(faults),
        major_page_faults: of(major),
    }
}

/// v1 counts memory and swap together, where swap is counted at all.
fn swap_v1(dir: &Path) -> Option<Swap> {
    let both = number(dir, "memory.memsw.usage_in_bytes")?;
    let usage = both.saturating_sub(number(dir, "memory.usage_in_bytes")?);
    let limit = number(dir, "memory.memsw.limit_in_bytes").filter(|l| *l < NO_LIMIT);
    let available = limit.map(|l| l.saturating_sub(number(dir, "memory.limit_in_bytes").unwrap_or(0)));
    Some(Swap { usage_bytes: usage, available_bytes: available.map(|a| a.saturating_sub(usage)) })
}

fn swap_v2(dir: &Path) -> Option<Swap> {
    let usage = number(dir, "memory.swap.current")?;
    let limit = number(dir, "memory.swap.max").filter(|l| *l < NO_LIMIT);
    Some(Swap { usage_bytes: usage, available_bytes: limit.map(|l| l.saturating_sub(usage)) })
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

fn text(dir: &Path, file: &str) -> Option<String> {
    fs::read_to_string(dir.join(file)).ok()
}

fn number(dir: &Path, file: &str) -> Option<u64> {
    text(dir, file)?.trim().parse().ok()
}

/// The number after `name` at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    struct Dir(PathBuf);

    impl Dir {
        fn new(files: &[(&str, &str)]) -> Dir {
            let path = std::env::temp_dir().join(format!("cricket-usage-{}", crate::ids::random_hex().unwrap()));
            fs::create_dir(&path).unwrap();
            for (name, text) in files {
                fs::write(path.join(name), text).unwrap();
            }
            Dir(path)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

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
        };
        assert_eq!(usage.memory, Some(memory));
        assert_eq!(usage.swap, Some(Swap { usage_bytes: 50, available_bytes: Some(100) }));
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
        let usage =
            read(&Groups::V1 { cpu: Some(cpu.0.clone()), memory: Some(memory.0.clone()), pids: Some(cpu.0.clone()) });
        assert_eq!((usage.cpu_nanoseconds, usage.processes), (Some(123_456), Some(2)));
        let seen = usage.memory.unwrap();
        assert_eq!((seen.usage_bytes, seen.working_set_bytes, seen.available_bytes), (1000, 0, Some(2000)));
        assert_eq!((seen.rss_bytes, seen.page_faults, seen.major_page_faults), (300, 9, 0));
        assert_eq!(usage.swap, Some(Swap { usage_bytes: 100, available_bytes: Some(400) }));
    }

    #[test]
    fn no_limit_is_no_number() {
        let stat = ("memory.stat", "anon 1\n");
        let v2 = Dir::new(&[("memory.current", "5\n"), ("memory.max", "max\n"), stat]);
        assert_eq!(read(&Groups::V2(v2.0.clone())).memory.unwrap().available_bytes, None);
        let huge = "9223372036854771712\n";
        let v1 = Dir::new(&[("memory.usage_in_bytes", "5\n"), ("memory.limit_in_bytes", huge), stat]);
        let usage = read(&Groups::V1 { cpu: None, memory: Some(v1.0.clone()), pids: None });
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
