//! What the kernel says of processes.

use std::fs;

use cricket::error::{Context, Result};

/// Bytes of these processes in memory; a page that several processes share counts in parts.
pub fn pss_bytes(pids: &[u32]) -> u64 {
    let of = |pid: &u32| {
        // One that has ended takes none.
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.trim().trim_end_matches(" kB").parse::<u64>().ok()
    };
    pids.iter().filter_map(of).sum::<u64>() << 10
}

/// Bytes of a process in memory, shared ones too; 0 if it has ended.
pub fn rss_bytes(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) << 10
}

/// The name of a process; "" if it has ended.
pub fn name(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

/// How often the threads of a process have gone to sleep by themselves.
pub fn voluntary_switches(pid: u32) -> Result<u64> {
    let dir = format!("/proc/{pid}/task");
    let mut all = 0;
    for thread in fs::read_dir(&dir).with_context(|| format!("read {dir}"))?.flatten() {
        let text = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        let count = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        all += count.and_then(|count| count.trim().parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(all)
}
