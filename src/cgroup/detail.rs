//! What a control group says beyond its usage: for metrics, which are asked for less often and say more.

use std::fs;
use std::path::Path;

use super::files::{field, limit, number, text};
use super::groups::{Groups, Hierarchies};
use super::usage::{self, Texts, Usage};

/// v1 counts times in ticks of which there are always this many a second.
const NANOSECONDS_A_TICK: u64 = 1_000_000_000 / 100;
/// Where the kernel lists the sizes of its huge pages.
const HUGE_PAGES: &str = "/sys/kernel/mm/hugepages";

/// What this kernel cannot tell is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Detail {
    /// Processor time in user mode, and in the kernel.
    pub user_nanoseconds: Option<u64>,
    pub system_nanoseconds: Option<u64>,
    /// A quota counts for a period; 0: none.
    pub period_microseconds: Option<u64>,
    pub quota_microseconds: Option<u64>,
    /// Periods since there is a quota, those in which it was used up, and for how long.
    pub periods: Option<u64>,
    pub throttled_periods: Option<u64>,
    pub throttled_nanoseconds: Option<u64>,
    /// v1 only: in v2 the kernel has a weight, which others compute from shares in more than one way.
    pub shares: Option<u64>,
    pub max_usage_bytes: Option<u64>,
    pub kernel_bytes: Option<u64>,
    pub swap_bytes: Option<u64>,
    /// How often the limit was hit.
    pub limit_hits: Option<u64>,
    /// What is kept for it even if memory is short; 0: nothing in particular.
    pub reservation_bytes: Option<u64>,
    /// Of the processes of this group alone; [`super::Memory`] has those of the groups below as well.
    pub own_page_faults: Option<u64>,
    pub own_major_page_faults: Option<u64>,
    /// Processes that the kernel killed for want of memory.
    pub oom_kills: Option<u64>,
    /// Threads; 0: no limit.
    pub threads_max: Option<u64>,
    /// Bytes and requests; only disks that count.
    pub io_bytes: Vec<Io>,
    pub io_requests: Vec<Io>,
    pub huge_pages: Vec<HugePages>,
}

/// What a group asked of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Io {
    /// Major and minor number.
    pub device: (u32, u32),
    pub operation: Operation,
    pub count: u64,
}

/// Which requests. All but the first two and `Discard` are v1's sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Read,
    Write,
    Sync,
    Async,
    Discard,
    Total,
}

/// Huge pages of one size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HugePages {
    /// As the kernel writes it: `2MB`.
    pub size: String,
    pub usage_bytes: Option<u64>,
    /// v1 only.
    pub max_usage_bytes: Option<u64>,
}

impl Operation {
    const ALL: [Operation; 6] =
        [Operation::Read, Operation::Write, Operation::Sync, Operation::Async, Operation::Discard, Operation::Total];

    /// As v1 writes it.
    pub fn name(self) -> &'static str {
        match self {
            Operation::Read => "Read",
            Operation::Write => "Write",
            Operation::Sync => "Sync",
            Operation::Async => "Async",
            Operation::Discard => "Discard",
            Operation::Total => "Total",
        }
    }
}

/// Usage and detail, each file read once. `sizes` are those of [`huge_pages`].
pub fn read(groups: &Groups, sizes: &[String]) -> (Usage, Detail) {
    let texts = Texts::of(groups);
    let usage = usage::read_with(groups, &texts);
    let memory = texts.memory.as_deref().unwrap_or_default();
    let detail = match groups {
        Groups::V1(v1) => of_v1(v1, memory, sizes),
        Groups::V2(dir) => of_v2(dir, &usage, texts.cpu.as_deref().unwrap_or_default(), memory, sizes),
    };
    (usage, detail)
}

/// The sizes of huge pages that this machine has.
pub fn huge_pages() -> Vec<String> {
    let entries = fs::read_dir(HUGE_PAGES).into_iter().flatten().flatten();
    let mut sizes: Vec<String> = entries.filter_map(|e| size_name(e.file_name().to_str()?)).collect();
    sizes.sort_unstable();
    sizes
}

/// `hugepages-2048kB` as control groups call it.
fn size_name(directory: &str) -> Option<String> {
    let kib: u64 = directory.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
    Some(match kib {
        kib if kib >= 1 << 20 => format!("{}GB", kib >> 20),
        kib if kib >= 1 << 10 => format!("{}MB", kib >> 10),
        kib => format!("{kib}KB"),
    })
}

fn of_v1(v1: &Hierarchies, memory: &str, sizes: &[String]) -> Detail {
    let mut detail = Detail {
        swap_bytes: field(memory, "total_swap"),
        own_page_faults: field(memory, "pgfault"),
        own_major_page_faults: field(memory, "pgmajfault"),
        threads_max: v1.pids.as_deref().and_then(|dir| limit(dir, "pids.max")),
        ..Detail::default()
    };
    if let Some(stat) = v1.cpuacct.as_deref().and_then(|dir| text(dir, "cpuacct.stat")) {
        let ticks = |name| field(&stat, name).map(|n| n.saturating_mul(NANOSECONDS_A_TICK));
        detail.user_nanoseconds = ticks("user");
        detail.system_nanoseconds = ticks("system");
    }
    if let Some(dir) = v1.cpu.as_deref() {
        detail.shares = number(dir, "cpu.shares");
        detail.period_microseconds = number(dir, "cpu.cfs_period_us");
        detail.quota_microseconds = limit(dir, "cpu.cfs_quota_us");
        let stat = text(dir, "cpu.stat").unwrap_or_default();
        detail.periods = field(&stat, "nr_periods");
        detail.throttled_periods = field(&stat, "nr_throttled");
        detail.throttled_nanoseconds = field(&stat, "throttled_time");
    }
    if let Some(dir) = v1.memory.as_deref() {
        detail.max_usage_bytes = number(dir, "memory.max_usage_in_bytes");
        detail.kernel_bytes = number(dir, "memory.kmem.usage_in_bytes");
        detail.limit_hits = number(dir, "memory.failcnt");
        detail.reservation_bytes = limit(dir, "memory.soft_limit_in_bytes");
        detail.oom_kills = text(dir, "memory.oom_control").and_then(|text| field(&text, "oom_kill"));
    }
    if let Some(dir) = v1.blkio.as_deref() {
        detail.io_bytes = disks_v1(dir, "io_service_bytes_recursive");
        detail.io_requests = disks_v1(dir, "io_serviced_recursive");
    }
    if let Some(dir) = v1.hugetlb.as_deref() {
        let pages = |size: &String| HugePages {
            usage_bytes: number(dir, &format!("hugetlb.{size}.usage_in_bytes")),
            max_usage_bytes: number(dir, &format!("hugetlb.{size}.max_usage_in_bytes")),
            size: size.clone(),
        };
        detail.huge_pages = sizes.iter().map(pages).collect();
    }
    detail
}

/// Where the files do not say what is of the groups below, as in v2, all of it counts.
fn of_v2(dir: &Path, usage: &Usage, cpu: &str, memory: &str, sizes: &[String]) -> Detail {
    let nanoseconds = |name| field(cpu, name).map(|n| n.saturating_mul(1000));
    let max = text(dir, "cpu.max");
    let max = max.as_deref().and_then(|text| text.trim().split_once(' '));
    let events = text(dir, "memory.events").unwrap_or_default();
    let (io_bytes, io_requests) = disks_v2(&text(dir, "io.stat").unwrap_or_default());
    let pages = |size: &String| {
        let usage_bytes = number(dir, &format!("hugetlb.{size}.current"))?;
        Some(HugePages { size: size.clone(), usage_bytes: Some(usage_bytes), max_usage_bytes: None })
    };
    Detail {
        user_nanoseconds: nanoseconds("user_usec"),
        system_nanoseconds: nanoseconds("system_usec"),
        period_microseconds: max.and_then(|(_, period)| period.parse().ok()),
        quota_microseconds: max.and_then(|(quota, _)| if quota == "max" { Some(0) } else { quota.parse().ok() }),
        periods: field(cpu, "nr_periods"),
        throttled_periods: field(cpu, "nr_throttled"),
        throttled_nanoseconds: nanoseconds("throttled_usec"),
        shares: None,
        max_usage_bytes: number(dir, "memory.peak"),
        kernel_bytes: field(memory, "kernel").or_else(|| kernel_parts(memory)),
        swap_bytes: usage.swap.map(|swap| swap.usage_bytes),
        limit_hits: field(&events, "max"),
        reservation_bytes: limit(dir, "memory.min"),
        own_page_faults: field(memory, "pgfault"),
        own_major_page_faults: field(memory, "pgmajfault"),
        oom_kills: field(&events, "oom_kill"),
        threads_max: limit(dir, "pids.max"),
        io_bytes,
        io_requests,
        huge_pages: sizes.iter().map_while(pages).collect(),
    }
}

/// What the kernel has for itself, of kernels that do not add it up.
fn kernel_parts(memory: &str) -> Option<u64> {
    let parts = ["pagetables", "percpu", "slab"].iter().filter_map(|name| field(memory, name));
    Some(field(memory, "kernel_stack")? + parts.sum::<u64>())
}

/// `254:0 Read 4096` a line, of the scheduler that counts: BFQ for its own disks, else the throttle.
fn disks_v1(dir: &Path, what: &str) -> Vec<Io> {
    let of = |who| parse_v1(&text(dir, &format!("blkio.{who}.{what}")).unwrap_or_default());
    let counted = of("bfq");
    if counted.is_empty() {
        return of("throttle");
    }
    counted
}

fn parse_v1(text: &str) -> Vec<Io> {
    let line = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let (device, operation, count) = (device(words.next()?)?, words.next()?, words.next()?.parse().ok()?);
        let operation = Operation::ALL.into_iter().find(|o| o.name() == operation)?;
        Some(Io { device, operation, count })
    };
    text.lines().filter_map(line).collect()
}

/// `254:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0` a line, bytes and requests.
fn disks_v2(text: &str) -> (Vec<Io>, Vec<Io>) {
    let (mut bytes, mut requests) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some(device) = words.next().and_then(device) else { continue };
        for (name, count) in words.filter_map(|word| word.split_once('=')) {
            let (operation, list) = match name {
                "rbytes" => (Operation::Read, &mut bytes),
                "wbytes" => (Operation::Write, &mut bytes),
                "dbytes" => (Operation::Discard, &mut bytes),
                "rios" => (Operation::Read, &mut requests),
                "wios" => (Operation::Write, &mut requests),
                "dios" => (Operation::Discard, &mut requests),
                _ => continue,
            };
            list.extend(count.parse().ok().map(|count| Io { device, operation, count }));
        }
    }
    (bytes, requests)
}

fn device(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::super::files::testing::Dir;
    use super::*;

    fn v1() -> ([Dir; 4], Groups) {
        let cpu = Dir::new(&[
            ("cpuacct.usage", "5123456789\n"),
            ("cpuacct.stat", "user 301\nsystem 211\n"),
            ("cpu.shares", "1024\n"),
            ("cpu.cfs_period_us", "100000\n"),
            ("cpu.cfs_quota_us", "20000\n"),
            ("cpu.stat", "nr_periods 812\nnr_throttled 601\nthrottled_time 48123456789\nnr_bursts 0\nburst_time 0\n"),
            ("pids.current", "3\n"),
            ("pids.max", "max\n"),
        ]);
        let memory = Dir::new(&[
            ("memory.usage_in_bytes", "9437184\n"),
            ("memory.limit_in_bytes", "67108864\n"),
            ("memory.max_usage_in_bytes", "12582912\n"),
            ("memory.kmem.usage_in_bytes", "1048576\n"),
            ("memory.failcnt", "4\n"),
            ("memory.soft_limit_in_bytes", "9223372036854771712\n"),
            ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"),
            (
                "memory.stat",
                "cache 3\nrss 4\npgfault 100\npgmajfault 2\ntotal_cache 8388608\ntotal_rss 524288\n\
                 total_mapped_file 4096\ntotal_swap 0\ntotal_pgfault 190\ntotal_pgmajfault 3\n\
                 total_inactive_file 1048576\ntotal_active_file 2097152\n",
            ),
        ]);
        let disks = "254:0 Read 4096\n254:0 Write 8192\n254:0 Sync 8192\n254:0 Async 4096\n254:0 Discard 0\n\
                     254:0 Total 12288\nTotal 12288\n";
        let blkio = Dir::new(&[
            ("blkio.bfq.io_service_bytes_recursive", "Total 0\n"),
            ("blkio.throttle.io_service_bytes_recursive", disks),
            ("blkio.throttle.io_serviced_recursive", "254:0 Read 1\n254:0 Write 2\n254:0 Total 3\nTotal 3\n"),
        ]);
        let huge =
            Dir::new(&[("hugetlb.2MB.usage_in_bytes", "4194304\n"), ("hugetlb.2MB.max_usage_in_bytes", "6291456\n")]);
        let groups = Groups::V1(Box::new(Hierarchies {
            cpuacct: Some(cpu.0.clone()),
            cpu: Some(cpu.0.clone()),
            memory: Some(memory.0.clone()),
            pids: Some(cpu.0.clone()),
            blkio: Some(blkio.0.clone()),
            hugetlb: Some(huge.0.clone()),
        }));
        ([cpu, memory, blkio, huge], groups)
    }

    #[test]
    fn version_1() {
        let (_dirs, groups) = v1();
        let (usage, detail) = read(&groups, &["2MB".to_owned()]);
        assert_eq!((usage.cpu_nanoseconds, usage.processes), (Some(5_123_456_789), Some(3)));
        let memory = usage.memory.expect("memory");
        assert_eq!((memory.working_set_bytes, memory.limit_bytes), (8_388_608, Some(64 << 20)));
        assert_eq!(memory.files.active_bytes, Some(2 << 20));
        let expected = Detail {
            user_nanoseconds: Some(3_010_000_000),
            system_nanoseconds: Some(2_110_000_000),
            period_microseconds: Some(100_000),
            quota_microseconds: Some(20_000),
            periods: Some(812),
            throttled_periods: Some(601),
            throttled_nanoseconds: Some(48_123_456_789),
            shares: Some(1024),
            max_usage_bytes: Some(12 << 20),
            kernel_bytes: Some(1 << 20),
            swap_bytes: Some(0),
            limit_hits: Some(4),
            reservation_bytes: Some(0),
            own_page_faults: Some(100),
            own_major_page_faults: Some(2),
            oom_kills: Some(1),
            threads_max: Some(0),
            io_bytes: [4096, 8192, 8192, 4096, 0, 12288]
                .into_iter()
                .zip(Operation::ALL)
                .map(|(count, operation)| Io { device: (254, 0), operation, count })
                .collect(),
            io_requests: [(Operation::Read, 1), (Operation::Write, 2), (Operation::Total, 3)]
                .into_iter()
                .map(|(operation, count)| Io { device: (254, 0), operation, count })
                .collect(),
            huge_pages: vec![HugePages {
                size: "2MB".into(),
                usage_bytes: Some(4 << 20),
                max_usage_bytes: Some(6 << 20),
            }],
        };
        assert_eq!(detail, expected);
    }

    const MEMORY_V2: &str = "\
anon 217088
file 8437760
kernel 589824
kernel_stack 32768
pagetables 98304
sec_pagetables 0
percpu 2304
sock 0
vmalloc 0
shmem 0
file_mapped 4096
file_dirty 0
file_writeback 0
swapcached 0
inactive_anon 204800
active_anon 4096
inactive_file 8388608
active_file 49152
unevictable 0
slab_reclaimable 252120
slab_unreclaimable 125832
slab 377952
workingset_refault_anon 0
workingset_refault_file 0
pgscan 0
pgsteal 0
pgfault 2413
pgmajfault 7
";

    #[test]
    fn version_2() {
        let dir = Dir::new(&[
            (
                "cpu.stat",
                "usage_usec 5123456\nuser_usec 3012345\nsystem_usec 2111111\nnice_usec 0\ncore_sched.force_idle_usec 0\n\
                 nr_periods 812\nnr_throttled 601\nthrottled_usec 48123456\nnr_bursts 0\nburst_usec 0\n",
            ),
            ("cpu.max", "20000 100000\n"),
            ("memory.current", "9437184\n"),
            ("memory.max", "67108864\n"),
            ("memory.min", "0\n"),
            ("memory.peak", "12582912\n"),
            ("memory.swap.current", "4096\n"),
            ("memory.swap.max", "max\n"),
            ("memory.events", "low 0\nhigh 0\nmax 4\noom 1\noom_kill 1\noom_group_kill 0\n"),
            ("memory.stat", MEMORY_V2),
            ("pids.current", "3\n"),
            ("pids.max", "512\n"),
            ("io.stat", "254:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n7:3 \n"),
            ("hugetlb.2MB.current", "0\n"),
        ]);
        let (usage, detail) = read(&Groups::V2(dir.0.clone()), &["2MB".to_owned()]);
        assert_eq!(usage.cpu_nanoseconds, Some(5_123_456_000));
        let files = usage.memory.expect("memory").files;
        assert_eq!((files.cache_bytes, files.mapped_bytes), (Some(8_437_760), Some(4096)));
        let io = |counts: [u64; 3]| {
            let operations = [Operation::Read, Operation::Write, Operation::Discard];
            let io = |(count, operation)| Io { device: (254, 0), operation, count };
            counts.into_iter().zip(operations).map(io).collect::<Vec<_>>()
        };
        let expected = Detail {
            user_nanoseconds: Some(3_012_345_000),
            system_nanoseconds: Some(2_111_111_000),
            period_microseconds: Some(100_000),
            quota_microseconds: Some(20_000),
            periods: Some(812),
            throttled_periods: Some(601),
            throttled_nanoseconds: Some(48_123_456_000),
            shares: None,
            max_usage_bytes: Some(12 << 20),
            kernel_bytes: Some(589_824),
            swap_bytes: Some(4096),
            limit_hits: Some(4),
            reservation_bytes: Some(0),
            own_page_faults: Some(2413),
            own_major_page_faults: Some(7),
            oom_kills: Some(1),
            threads_max: Some(512),
            io_bytes: io([4096, 8192, 0]),
            io_requests: io([1, 2, 0]),
            huge_pages: vec![HugePages { size: "2MB".into(), usage_bytes: Some(0), max_usage_bytes: None }],
        };
        assert_eq!(detail, expected);
        // Before 5.18 the kernel does not add up what is its own.
        let old: String = MEMORY_V2.lines().filter(|l| !l.starts_with("kernel ")).map(|l| format!("{l}\n")).collect();
        assert_eq!(kernel_parts(&old), Some(32768 + 98304 + 2304 + 377_952));
    }

    #[test]
    fn what_is_gone_or_no_number_is_absent() {
        let gone = Groups::V2("/does/not/exist".into());
        assert_eq!(read(&gone, &["2MB".to_owned()]), (Usage::default(), Detail::default()));
        let gone = Groups::V1(Box::default());
        assert_eq!(read(&gone, &["2MB".to_owned()]), (Usage::default(), Detail::default()));
        let dir = Dir::new(&[("cpu.max", "max\n"), ("io.stat", "x:0 rbytes=1\n1:2 rbytes=-1\n"), ("pids.max", "\n")]);
        assert_eq!(read(&Groups::V2(dir.0.clone()), &[]), (Usage::default(), Detail::default()));
        assert!(parse_v1("254:0 Read\n254 Read 1\n254:0 Trim 1\nTotal 0\n").is_empty());
    }

    #[test]
    fn sizes_of_huge_pages() {
        for (directory, name) in [("64kB", "64KB"), ("2048kB", "2MB"), ("1048576kB", "1GB")] {
            assert_eq!(size_name(&format!("hugepages-{directory}")).as_deref(), Some(name));
        }
        assert_eq!(size_name("other"), None);
    }
}
