//! Control groups of a running process: where they are, and what their files say.

mod ahead;
mod detail;
mod files;
mod groups;
mod left;
mod meter;
mod processes;
mod usage;

pub use ahead::expect_move;
pub use detail::{huge_pages, read as read_in_detail, Detail, HugePages, Io, Operation};
pub use groups::Groups;
pub use left::remove;
pub use meter::{Meter, Reading};
pub use processes::{max_open_files, Processes};
pub use usage::{FilePages, Memory, Pressure, Stall, Swap, Usage};

use std::fs;
use std::path::{Path, PathBuf};

/// Where the hierarchies are mounted.
const MOUNT: &str = "/sys/fs/cgroup";

/// The file that counts the kernel's out-of-memory kills in the memory cgroup of process `pid`; `None` without one.
pub fn oom_file(pid: u32) -> Option<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let file = oom_file_of(&text, Path::new(MOUNT))?;
    file.exists().then_some(file)
}

/// How many processes the kernel killed for want of memory, as that file says; 0 if it is gone.
pub fn oom_kills(file: &Path) -> u64 {
    fs::read_to_string(file).map_or(0, |text| count(&text))
}

/// v1: `memory.oom_control` in the hierarchy that `/proc/<pid>/cgroup` lists with the memory controller;
/// v2: `memory.events` in the line with hierarchy 0.
fn oom_file_of(proc_cgroup: &str, mount: &Path) -> Option<PathBuf> {
    let mut unified = None;
    for line in proc_cgroup.lines() {
        let mut parts = line.splitn(3, ':');
        let (hierarchy, controllers, path) = (parts.next()?, parts.next()?, parts.next()?.trim_start_matches('/'));
        if controllers.split(',').any(|c| c == "memory") {
            return Some(mount.join(controllers).join(path).join("memory.oom_control"));
        }
        if hierarchy == "0" {
            unified = Some(mount.join(path).join("memory.events"));
        }
    }
    unified
}

fn count(text: &str) -> u64 {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")).and_then(|n| n.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_generations() {
        let mount = Path::new("/m");
        let v1 = "5:cpu,cpuacct:/kubepods/x\n3:memory:/kubepods/x\n0::/init\n";
        assert_eq!(oom_file_of(v1, mount), Some("/m/memory/kubepods/x/memory.oom_control".into()));
        assert_eq!(oom_file_of("0::/kubepods/y\n", mount), Some("/m/kubepods/y/memory.events".into()));
        assert_eq!(oom_file_of("1:name=systemd:/\n", mount), None);
    }

    #[test]
    fn the_kills_are_counted() {
        assert_eq!(count("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"), 2);
        assert_eq!(count("low 0\noom 3\noom_kill 1\noom_group_kill 0\n"), 1);
        assert_eq!(count(""), 0);
        assert_eq!(oom_kills(Path::new("/does/not/exist")), 0);
    }
}
