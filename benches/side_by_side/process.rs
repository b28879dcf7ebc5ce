//! What the kernel says of processes.

use std::fs;

use cricket::error::{Context, Result};

/// A figure in kB from a file of the kernel's about a process, in bytes; 0 if it has ended.
fn bytes(pid: u32, file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) << 10
}

/// Bytes of these processes in memory; a page that several processes share counts in parts.
pub fn pss_bytes(pids: &[u32]) -> u64 {
    pids.iter().map(|pid| bytes(*pid, "smaps_rollup", "Pss")).sum()
}

/// Bytes of a process in memory, shared ones too.
pub fn rss_bytes(pid: u32) -> u64 {
    bytes(pid, "status", "VmRSS")
}

/// The most of that since the process began, or since [`forget_peak`].
pub fn peak_rss_bytes(pid: u32) -> u64 {
    bytes(pid, "status", "VmHWM")
}

/// From now on.
pub fn forget_peak(pid: u32) -> Result<()> {
    let file = format!("/proc/{pid}/clear_refs");
    fs::write(&file, "5").with_context(|| format!("write {file}"))
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
