//! AppArmor: the text of the default profile, and which profiles the kernel has.

/// The profile of a container that names none.
pub const DEFAULT: &str = "cricket-default";

/// Files below `/etc/apparmor.d` that a profile may include where they exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Includes {
    /// `abi/3.0`: without it, newer parsers decide by themselves which classes of rules there are.
    pub abi: bool,
    /// `tunables/global`: variables such as the one for `/proc`.
    pub tunables: bool,
    /// `abstractions/base`: what every program needs.
    pub base: bool,
}

/// The default profile for `apparmor_parser`.
///
/// Files, the network and capabilities are the business of namespaces, the device cgroup and the capability sets;
/// what is denied is the rest of a kernel that a container sees through `/proc` and `/sys`, and mounting. Processes may
/// signal and trace each other, and be signalled by the node.
pub fn default_profile(includes: Includes) -> String {
    let abi = if includes.abi { "abi <abi/3.0>,\n" } else { "" };
    let tunables = if includes.tunables { "include <tunables/global>\n" } else { "@{PROC}=/proc/\n" };
    let base = if includes.base { "  include <abstractions/base>\n" } else { "" };
    format!("{abi}{tunables}profile {DEFAULT} flags=(attach_disconnected, mediate_deleted) {{\n{base}{RULES}}}\n")
}

const RULES: &str = r"  capability,
  file,
  network,
  umount,
  deny mount,

  signal (receive) peer=unconfined,
  signal (receive) peer=runc,
  signal (receive) peer=crun,
  signal (send, receive) peer=cricket-default,
  ptrace (read, readby, trace, tracedby) peer=cricket-default,

  # Below /proc a process writes to what is its own, and to the sizes of its System V shared memory.
  deny @{PROC}/* w,
  deny @{PROC}/[^1-9s]*/** w,
  deny @{PROC}/s[^y]*/** w,
  deny @{PROC}/sy[^s]*/** w,
  deny @{PROC}/sys[^/]*/** w,
  deny @{PROC}/sys/[^k]** w,
  deny @{PROC}/sys/kernel/[^s]** w,
  deny @{PROC}/sys/kernel/s[^h]** w,
  deny @{PROC}/sys/kernel/sh[^m]** w,
  deny @{PROC}/kcore rwklx,
  deny @{PROC}/sysrq-trigger rwklx,

  # Below /sys to its cgroup.
  deny /sys/[^f]*/** wklx,
  deny /sys/f[^s]*/** wklx,
  deny /sys/fs/[^c]*/** wklx,
  deny /sys/fs/c[^g]*/** wklx,
  deny /sys/fs/cg[^r]*/** wklx,
  deny /sys/firmware/** rwklx,
  deny /sys/kernel/security/** rwklx,
  deny /sys/devices/virtual/powercap/** rwklx,
";

/// Whether the kernel's list, lines of `name (mode)`, holds `profile`. A name may hold spaces.
pub fn is_loaded(list: &str, profile: &str) -> bool {
    list.lines().any(|line| line.rsplit_once(" (").is_some_and(|(name, _)| name == profile))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_list() {
        let list = "/usr/sbin/ntpd (complain)\nmy profile (enforce)\ncricket-default (enforce)\nbad line\n";
        for name in ["/usr/sbin/ntpd", "my profile", DEFAULT] {
            assert!(is_loaded(list, name), "{name}");
        }
        for name in ["my", "profile", "cricket", "", "bad line", "my profile (enforce)"] {
            assert!(!is_loaded(list, name), "{name}");
        }
    }

    #[test]
    fn only_what_exists_is_included() {
        let bare = default_profile(Includes::default());
        assert!(!bare.contains("include") && bare.contains("@{PROC}=/proc/"), "{bare}");
        let full = default_profile(Includes { abi: true, tunables: true, base: true });
        assert!(full.starts_with("abi <abi/3.0>,\ninclude <tunables/global>\nprofile cricket-default "), "{full}");
        assert!(full.contains("{\n  include <abstractions/base>\n") && !full.contains("@{PROC}=/proc/"), "{full}");
        // The rules name the profile itself.
        assert_eq!(RULES.matches(&format!("peer={DEFAULT},")).count(), 2);
    }
}
