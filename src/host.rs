//! Facts about the machine, read once at start.

pub mod accounts;
pub mod base_spec;
pub mod cdi;
pub mod devices;
pub mod features;
pub mod mounts;
pub mod profiles;
pub mod selinux;
pub mod shims;
#[cfg(test)]
mod testing;

use std::fs;
use std::path::Path;

use crate::error::{Context, Error, Kind, Result};
use crate::oci::capabilities::CapSet;
use crate::oci::facts::{Arch, CgroupMode, HostFacts};
use crate::oci::seccomp;

const CGROUP_ROOT: &str = "sys/fs/cgroup";

/// Flags of a v2 hierarchy that a mount of it sets or clears for the whole machine.
const CGROUP2_FLAGS: [&str; 5] =
    ["nsdelegate", "favordynmods", "memory_localevents", "memory_recursiveprot", "memory_hugetlb_accounting"];

/// The machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// What runtime specs depend on.
    pub facts: HostFacts,
    /// systemd is the service manager: the systemd cgroup driver can work.
    pub systemd: bool,
    /// The kernel's release: `6.1.0-18-amd64`.
    pub kernel: String,
    /// The node's host name.
    pub hostname: String,
}

impl Host {
    /// Reads a few files of `/proc` and `/sys`. What is not there is off; a fact that can change while the daemon runs
    /// is not among them.
    ///
    /// # Errors
    /// `Unknown` or `Internal` if `/proc` cannot be read or says what we do not understand.
    pub fn read() -> Result<Host> {
        Host::read_below(Path::new("/"))
    }

    fn read_below(root: &Path) -> Result<Host> {
        let status = required(root, "proc/self/status")?;
        let last_cap = required(root, "proc/sys/kernel/cap_last_cap")?;
        let cgroups = cgroup_mode(root);
        let kernel = required(root, "proc/sys/kernel/osrelease")?.trim().to_owned();
        Ok(Host {
            facts: HostFacts {
                cgroups,
                cgroup2_flags: cgroup2_flags(&required(root, "proc/self/mountinfo")?),
                hugetlb: hugetlb(root, cgroups),
                swap: swap(root, cgroups),
                capabilities: effective(&status, &last_cap)?,
                oom_score_adj: number(&required(root, "proc/self/oom_score_adj")?)?,
                apparmor: optional(root, "sys/module/apparmor/parameters/enabled").starts_with('Y'),
                selinux: exists(root, "sys/fs/selinux/enforce"),
                seccomp: status.lines().any(|line| line.starts_with("Seccomp:")),
                arch: arch(std::env::consts::ARCH),
                kernel: seccomp::kernel_version(&kernel).unwrap_or_default(),
            },
            systemd: exists(root, "run/systemd/system"),
            kernel,
            hostname: required(root, "proc/sys/kernel/hostname")?.trim().into(),
        })
    }
}

fn arch(name: &str) -> Arch {
    match name {
        "x86_64" => Arch::X86_64,
        "aarch64" => Arch::Aarch64,
        _ => Arch::Other,
    }
}

fn cgroup_mode(root: &Path) -> CgroupMode {
    let at = |path: &str| exists(&root.join(CGROUP_ROOT), path);
    if at("cgroup.controllers") {
        CgroupMode::V2
    } else if at("unified/cgroup.controllers") {
        CgroupMode::Hybrid
    } else {
        CgroupMode::V1
    }
}

fn hugetlb(root: &Path, cgroups: CgroupMode) -> bool {
    let root = root.join(CGROUP_ROOT);
    match cgroups {
        CgroupMode::V2 => optional(&root, "cgroup.controllers").split_whitespace().any(|c| c == "hugetlb"),
        CgroupMode::V1 | CgroupMode::Hybrid => exists(&root, "hugetlb"),
    }
}

/// The kernel shows the limit only where swap is accounted for, and never in the topmost v2 group: there its children
/// tell.
fn swap(root: &Path, cgroups: CgroupMode) -> bool {
    const V2_LIMIT: &str = "memory.swap.max";
    let top = root.join(CGROUP_ROOT);
    if cgroups != CgroupMode::V2 {
        return exists(&top, "memory/memory.memsw.limit_in_bytes");
    }
    let membership = optional(root, "proc/self/cgroup");
    let own = membership.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    if exists(&top.join(own), V2_LIMIT) {
        return true;
    }
    // An unreadable directory shows no limit.
    let children = fs::read_dir(&top).into_iter().flatten().flatten();
    children.into_iter().any(|child| exists(&child.path(), V2_LIMIT))
}

fn cgroup2_flags(mountinfo: &str) -> Vec<String> {
    let all = mounts::parse(mountinfo);
    let hierarchy = all.iter().find(|m| m.fs_type == "cgroup2");
    let options = hierarchy.map(|m| m.super_options.as_str()).unwrap_or_default();
    options.split(',').filter(|o| CGROUP2_FLAGS.contains(o)).map(String::from).collect()
}

/// `CapEff` of a process, without what the kernel itself does not know: old ones set every bit.
fn effective(status: &str, last_cap: &str) -> Result<CapSet> {
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .ok_or_else(|| Error::internal("/proc/self/status shows no CapEff"))?;
    let last: u32 = number(last_cap)?;
    let known = u64::MAX >> 63u32.saturating_sub(last);
    Ok(CapSet::from_bits(mask & known))
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T> {
    text.trim().parse().map_err(|_| Error::new(Kind::Internal, format!("{text:?} is not a number")))
}

fn required(root: &Path, path: &str) -> Result<String> {
    fs::read_to_string(root.join(path)).with_context(|| format!("read /{path}"))
}

/// What is absent or unreadable is off.
fn optional(root: &Path, path: &str) -> String {
    fs::read_to_string(root.join(path)).unwrap_or_default()
}

fn exists(root: &Path, path: &str) -> bool {
    root.join(path).exists()
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::Capability;
    use std::path::PathBuf;

    const BASE: &[(&str, &str)] = &[
        ("proc/self/status", "Name:\tcricket\nCapEff:\t000001fffeffffff\nSeccomp:\t0\n"),
        ("proc/self/oom_score_adj", "-999\n"),
        ("proc/self/mountinfo", ""),
        ("proc/self/cgroup", "0::/system.slice/cricket.service\n"),
        ("proc/sys/kernel/cap_last_cap", "40\n"),
        ("proc/sys/kernel/osrelease", "6.1.0-18-amd64\n"),
        ("proc/sys/kernel/hostname", "node-1\n"),
    ];

    /// A root directory with these files, removed when dropped.
    struct Root(PathBuf);

    impl Root {
        fn new(name: &str, files: &[(&str, &str)]) -> Root {
            let root = std::env::temp_dir().join(format!("cricket-host-{name}-{}", std::process::id()));
            for (path, text) in files {
                let path = root.join(path);
                fs::create_dir_all(path.parent().expect("has a parent")).expect("mkdir");
                fs::write(path, text).expect("write");
            }
            Root(root)
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).expect("our own directory");
        }
    }

    fn read(name: &str, more: &[(&str, &str)]) -> Result<Host> {
        let root = Root::new(name, &[BASE, more].concat());
        Host::read_below(&root.0)
    }

    #[test]
    fn a_v2_host() {
        let host = read(
            "v2",
            &[
                ("sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory hugetlb pids\n"),
                ("sys/fs/cgroup/system.slice/cricket.service/memory.swap.max", "max\n"),
                ("sys/module/apparmor/parameters/enabled", "Y\n"),
                ("run/systemd/system/x", ""),
                (
                    "proc/self/mountinfo",
                    "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n",
                ),
            ],
        )
        .expect("readable");
        assert_eq!(host.facts.cgroups, CgroupMode::V2);
        assert_eq!(host.facts.cgroup2_flags, ["nsdelegate", "memory_recursiveprot"]);
        assert!(host.facts.hugetlb && host.facts.swap && host.facts.apparmor && host.facts.seccomp && host.systemd);
        assert!(!host.facts.selinux);
        assert_eq!(
            (host.facts.oom_score_adj, host.kernel.as_str(), host.hostname.as_str()),
            (-999, "6.1.0-18-amd64", "node-1")
        );
        assert_eq!(host.facts.kernel, (6, 1));
        assert!(!host.facts.capabilities.contains(Capability::SysResource));
        assert!(host.facts.capabilities.contains(Capability::CheckpointRestore));
    }

    #[test]
    fn v1_and_hybrid_hosts() {
        let bare = read("v1", &[("sys/fs/cgroup/memory/tasks", "")]).expect("readable");
        let expected = (CgroupMode::V1, false, false, false, false, false);
        let facts =
            |h: &Host| (h.facts.cgroups, h.facts.swap, h.facts.hugetlb, h.facts.apparmor, h.facts.selinux, h.systemd);
        assert_eq!(facts(&bare), expected);
        let full = read(
            "hybrid",
            &[
                ("sys/fs/cgroup/unified/cgroup.controllers", "\n"),
                ("sys/fs/cgroup/memory/memory.memsw.limit_in_bytes", "1"),
                ("sys/fs/cgroup/hugetlb/tasks", ""),
                ("sys/fs/selinux/enforce", "1"),
            ],
        )
        .expect("readable");
        assert_eq!(facts(&full), (CgroupMode::Hybrid, true, true, false, true, false));
    }

    #[test]
    fn swap_in_the_topmost_group_shows_in_its_children() {
        let top = [("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/cgroup.controllers", "memory\n")];
        let with = [&top[..], &[("sys/fs/cgroup/init.scope/memory.swap.max", "max\n")]].concat();
        assert!(!read("top", &top).expect("readable").facts.swap);
        assert!(read("children", &with).expect("readable").facts.swap);
    }

    #[test]
    fn capabilities_the_kernel_does_not_know_are_nobodys() {
        let all = "CapEff:\tffffffffffffffff\n";
        let some = effective(all, "37\n").expect("valid");
        assert!(some.contains(Capability::AuditRead) && !some.contains(Capability::Perfmon));
        assert_eq!(effective(all, "63").expect("valid"), CapSet::from_bits(u64::MAX));
        assert!(effective("CapPrm:\t0\n", "40").is_err());
        assert!(effective("CapEff:\tzz\n", "40").is_err());
        assert!(effective(all, "many").is_err());
    }

    #[test]
    fn without_proc_there_are_no_facts() {
        let root = Root::new("none", &[("proc/x", "")]);
        let refused = Host::read_below(&root.0).expect_err("no status");
        assert!(refused.to_string().starts_with("read /proc/self/status"), "{refused}");
    }

    #[test]
    fn this_machine_has_facts() {
        assert!(!Host::read().expect("readable").kernel.is_empty());
    }
}
