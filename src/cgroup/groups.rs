//! Where the counters of a process are, in either generation of control groups.

use std::fs;
use std::path::{Path, PathBuf};

use super::MOUNT;

/// Directories. On a machine with both generations the counters are where the controllers are: in v1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Groups {
    V1 { cpu: Option<PathBuf>, memory: Option<PathBuf>, pids: Option<PathBuf> },
    V2(PathBuf),
}

impl Groups {
    /// Those of process `pid`; `None` if it is gone.
    pub fn of(pid: u32) -> Option<Groups> {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        Groups::parse(&text, Path::new(MOUNT), None)
    }

    /// Those at `path` below every hierarchy.
    pub fn at(path: &Path) -> Option<Groups> {
        let text = fs::read_to_string("/proc/self/cgroup").ok()?;
        Groups::parse(&text, Path::new(MOUNT), Some(path))
    }

    /// The hierarchies of a process, and in them its own path, or `instead`.
    fn parse(proc_cgroup: &str, mount: &Path, instead: Option<&Path>) -> Option<Groups> {
        let (mut cpu, mut memory, mut pids, mut unified) = (None, None, None, None);
        for line in proc_cgroup.lines() {
            let mut parts = line.splitn(3, ':');
            let (hierarchy, controllers, path) = (parts.next()?, parts.next()?, parts.next()?.trim_start_matches('/'));
            let path = instead.unwrap_or(Path::new(path));
            let names = |wanted: &str| controllers.split(',').any(|c| c == wanted);
            if names("cpuacct") {
                cpu = Some(mount.join(controllers).join(path));
            }
            if names("memory") {
                memory = Some(mount.join(controllers).join(path));
            }
            if names("pids") {
                pids = Some(mount.join(controllers).join(path));
            }
            if hierarchy == "0" {
                unified = Some(mount.join(path));
            }
        }
        match unified {
            Some(path) if cpu.is_none() && memory.is_none() => Some(Groups::V2(path)),
            _ if cpu.is_none() && memory.is_none() => None,
            _ => Some(Groups::V1 { cpu, memory, pids }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_generations() {
        let parse = |text| Groups::parse(text, Path::new("/m"), None);
        let v1 = "5:cpu,cpuacct:/pods/x\n3:memory:/pods/x\n2:pids:/pods\n1:name=systemd:/\n0::/init\n";
        let (cpu, memory) = (Some("/m/cpu,cpuacct/pods/x".into()), Some("/m/memory/pods/x".into()));
        assert_eq!(parse(v1), Some(Groups::V1 { cpu, memory, pids: Some("/m/pids/pods".into()) }));
        let elsewhere = |text| Groups::parse(text, Path::new("/m"), Some(Path::new("pods/z")));
        let (cpu, memory) = (Some("/m/cpu,cpuacct/pods/z".into()), Some("/m/memory/pods/z".into()));
        assert_eq!(elsewhere(v1), Some(Groups::V1 { cpu, memory, pids: Some("/m/pids/pods/z".into()) }));
        assert_eq!(elsewhere("0::/init\n"), Some(Groups::V2("/m/pods/z".into())));
        assert_eq!(parse("0::/pods/y\n"), Some(Groups::V2("/m/pods/y".into())));
        assert_eq!(parse("1:name=systemd:/\n"), None);
        assert_eq!(parse("nonsense"), None);
        assert_eq!(Groups::of(u32::MAX), None);
    }
}
