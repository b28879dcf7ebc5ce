//! Where the counters of a process are, in either generation of control groups.

use std::fs;
use std::path::{Path, PathBuf};

use super::MOUNT;

/// Directories. On a machine with both generations the counters are where the controllers are: in v1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Groups {
    V1(Box<Hierarchies>),
    V2(PathBuf),
}

/// Those of v1, by controller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hierarchies {
    pub cpuacct: Option<PathBuf>,
    pub cpu: Option<PathBuf>,
    pub memory: Option<PathBuf>,
    pub pids: Option<PathBuf>,
    pub blkio: Option<PathBuf>,
    pub hugetlb: Option<PathBuf>,
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
        let (mut v1, mut unified) = (Hierarchies::default(), None);
        for line in proc_cgroup.lines() {
            let mut parts = line.splitn(3, ':');
            let (hierarchy, controllers, path) = (parts.next()?, parts.next()?, parts.next()?.trim_start_matches('/'));
            let path = instead.unwrap_or(Path::new(path));
            for controller in controllers.split(',') {
                let place = match controller {
                    "cpuacct" => &mut v1.cpuacct,
                    "cpu" => &mut v1.cpu,
                    "memory" => &mut v1.memory,
                    "pids" => &mut v1.pids,
                    "blkio" => &mut v1.blkio,
                    "hugetlb" => &mut v1.hugetlb,
                    _ => continue,
                };
                *place = Some(mount.join(controllers).join(path));
            }
            if hierarchy == "0" {
                unified = Some(mount.join(path));
            }
        }
        let counts = v1.cpuacct.is_some() || v1.memory.is_some();
        match unified {
            Some(path) if !counts => Some(Groups::V2(path)),
            _ if !counts => None,
            _ => Some(Groups::V1(Box::new(v1))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_generations() {
        let parse = |text| Groups::parse(text, Path::new("/m"), None);
        let v1 = "5:cpu,cpuacct:/pods/x\n3:memory:/pods/x\n2:pids:/pods\n6:blkio:/b\n1:name=systemd:/\n0::/init\n";
        let of = |counts: &str, memory: &str, pids: &str, blkio: &str| {
            Some(Groups::V1(Box::new(Hierarchies {
                cpuacct: Some(counts.into()),
                cpu: Some(counts.into()),
                memory: Some(memory.into()),
                pids: Some(pids.into()),
                blkio: Some(blkio.into()),
                hugetlb: None,
            })))
        };
        assert_eq!(parse(v1), of("/m/cpu,cpuacct/pods/x", "/m/memory/pods/x", "/m/pids/pods", "/m/blkio/b"));
        let elsewhere = |text| Groups::parse(text, Path::new("/m"), Some(Path::new("pods/z")));
        let z = ["/m/cpu,cpuacct/pods/z", "/m/memory/pods/z", "/m/pids/pods/z", "/m/blkio/pods/z"];
        assert_eq!(elsewhere(v1), of(z[0], z[1], z[2], z[3]));
        assert_eq!(elsewhere("0::/init\n"), Some(Groups::V2("/m/pods/z".into())));
        assert_eq!(parse("0::/pods/y\n"), Some(Groups::V2("/m/pods/y".into())));
        assert_eq!(parse("1:name=systemd:/\n"), None);
        assert_eq!(parse("nonsense"), None);
        assert_eq!(Groups::of(u32::MAX), None);
    }
}
