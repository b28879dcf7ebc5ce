//! The profile RuntimeDefault: what an ordinary program needs, and beyond it what a capability has been granted for.
//!
//! Everything that is not named fails with EPERM. The set is the one that images have come to expect of every engine:
//! a call stays out if it reaches kernel code that is rarely used by programs and often by exploits (keys, io_uring,
//! userfaultfd, modules, new namespaces), or something that no namespace confines (clocks, swap, reboot). A call that
//! needs a capability is let through only with it, so that the filter never takes back what was granted.

use oci_spec::runtime::{Capability, LinuxSeccompAction as Action, LinuxSeccompArg as Arg, LinuxSeccompOperator as Is};

use super::{architectures, arg, Condition, Names, Profile, Rule};
use crate::error::Result;
use crate::oci::facts::Arch;

const ENOSYS: u32 = 38;

/// Flags of `clone` that make namespaces: mount, cgroup, UTS, IPC, user, PID, network.
const NEW_NAMESPACES: u64 = 0x7e02_0000;

/// Domains of sockets that no network namespace confines: the kernel's cryptography, and the hypervisor's host.
const AF_ALG: u64 = 38;
const AF_VSOCK: u64 = 40;

/// Kernels before this one let a traced process slip out of its filter.
const PTRACE_IS_SAFE: (u32, u32) = (4, 8);

/// `personality`: as it was, 16 bit uids, 32 bit addresses without and with the former, and "just tell me".
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// For everybody, by what they are for.
const ALWAYS: &[&str] = &[
    // Files by name.
    "access chdir chmod chown chown32 creat faccessat faccessat2 fchmodat fchmodat2 fchownat fstatat64 futimesat getcwd \
     lchown lchown32 link linkat lstat lstat64 mkdir mkdirat mknod mknodat name_to_handle_at newfstatat open openat \
     openat2 readlink readlinkat rename renameat renameat2 rmdir stat stat64 statfs statfs64 statx symlink symlinkat \
     truncate truncate64 umask unlink unlinkat utime utimensat utimensat_time64 utimes",
    // Files that are open.
    "_llseek close close_range copy_file_range dup dup2 dup3 fadvise64 fadvise64_64 fallocate fchdir fchmod fchown \
     fchown32 fcntl fcntl64 fdatasync flock fstat fstat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 getdents \
     getdents64 ioctl lseek pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readv sendfile sendfile64 \
     splice sync sync_file_range syncfs tee vmsplice write writev cachestat",
    "fgetxattr flistxattr fremovexattr fsetxattr getxattr getxattrat lgetxattr listxattr listxattrat llistxattr \
     lremovexattr lsetxattr removexattr removexattrat setxattr setxattrat",
    // One's own mounts, looked at.
    "listmount statmount",
    // Waiting for something.
    "_newselect epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old \
     eventfd eventfd2 fanotify_mark inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy \
     io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit pause pipe pipe2 poll ppoll ppoll_time64 \
     pselect6 pselect6_time64 select signalfd signalfd4",
    // Memory.
    "brk madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap mmap2 \
     mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect process_mrelease \
     remap_file_pages",
    // Processes and threads.
    "execve execveat exit exit_group fork futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake \
     get_robust_list get_thread_area getcpu getpgid getpgrp getpid getppid getpriority getrlimit getrusage getsid \
     gettid ioprio_get ioprio_set pidfd_open pidfd_send_signal prctl prlimit64 rseq sched_get_priority_max \
     sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval \
     sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield \
     set_robust_list set_thread_area set_tid_address setpgid setpriority setrlimit setsid sysinfo times ugetrlimit \
     uname uretprobe vfork wait4 waitid waitpid",
    // Signals.
    "kill restart_syscall rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend \
     rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack sigprocmask sigreturn tgkill tkill",
    // Who one is, and giving rights up.
    "capget capset getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getresgid getresgid32 \
     getresuid getresuid32 getuid getuid32 landlock_add_rule landlock_create_ruleset landlock_restrict_self seccomp \
     setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setregid setregid32 setresgid \
     setresgid32 setresuid setresuid32 setreuid setreuid32 setuid setuid32",
    // Time. Setting it needs CAP_SYS_TIME, which the kernel itself asks for in `adjtimex`; reading does not.
    "adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 \
     clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep setitimer time timer_create timer_delete \
     timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime \
     timerfd_gettime64 timerfd_settime timerfd_settime64",
    // Sockets; `socket` itself is below. `socketcall` is all of them on 32 bit x86.
    "accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg recvmmsg_time64 \
     recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socketcall socketpair",
    // System V and POSIX communication; the pod's namespace confines it.
    "ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 \
     mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop semtimedop semtimedop_time64 shmat shmctl shmdt shmget",
    "getrandom",
];

/// Only with a capability.
const GRANTED: &[(Capability, &str)] = &[
    (Capability::DacReadSearch, "open_by_handle_at"),
    (
        Capability::SysAdmin,
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr \
         lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree open_tree_attr perf_event_open \
         quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    (Capability::SysBoot, "reboot"),
    (Capability::SysChroot, "chroot"),
    (Capability::SysModule, "delete_module finit_module init_module"),
    (Capability::SysPacct, "acct"),
    (Capability::SysPtrace, "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace"),
    (Capability::SysRawio, "ioperm iopl"),
    (Capability::SysTime, "clock_settime clock_settime64 settimeofday stime"),
    (Capability::SysTtyConfig, "vhangup"),
    (Capability::SysNice, "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    (Capability::Syslog, "syslog"),
    (Capability::Bpf, "bpf"),
    (Capability::Perfmon, "perf_event_open"),
];

/// Only on some machines.
const NATIVE: &[(&str, &str)] = &[
    ("amd64", "arch_prctl modify_ldt"),
    ("arm64", "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2"),
];

/// The default profile for a machine.
///
/// # Errors
/// None in practice: a condition that cannot be built is a bug.
pub fn default_profile(arch: Arch) -> Result<Profile> {
    let admin = Condition { capabilities: [Capability::SysAdmin].into_iter().collect(), ..Condition::default() };
    let mut rules: Vec<Rule> = ALWAYS.iter().map(|names| allow(names)).collect();
    let since = Condition { kernel: Some(PTRACE_IS_SAFE), ..Condition::default() };
    rules.push(Rule { only: since, ..allow("process_vm_readv process_vm_writev ptrace") });
    let domains = [(AF_ALG, Is::ScmpCmpLt), (AF_ALG + 1, Is::ScmpCmpEq), (AF_VSOCK, Is::ScmpCmpGt)];
    for (domain, is) in domains {
        rules.push(Rule { args: vec![arg(0, domain, 0, is)?], ..allow("socket") });
    }
    for personality in PERSONALITIES {
        rules.push(Rule { args: vec![arg(0, personality, 0, Is::ScmpCmpEq)?], ..allow("personality") });
    }
    for (arch, names) in NATIVE {
        let only = Condition { architectures: vec![(*arch).to_owned()], ..Condition::default() };
        rules.push(Rule { only, ..allow(names) });
    }
    for (capability, names) in GRANTED {
        let only = Condition { capabilities: [*capability].into_iter().collect(), ..Condition::default() };
        rules.push(Rule { only, ..allow(names) });
    }
    // Without CAP_SYS_ADMIN no new namespaces. A filter cannot look into the structure that clone3 takes, so that is
    // said not to exist, and libraries fall back to clone.
    let masked = vec![arg(0, NEW_NAMESPACES, 0, Is::ScmpCmpMaskedEq)?];
    rules.push(Rule { args: masked, unless: admin.clone(), ..allow("clone") });
    rules.push(Rule { action: Action::ScmpActErrno, errno: Some(ENOSYS), unless: admin, ..allow("clone3") });
    Ok(Profile {
        default: Action::ScmpActErrno,
        default_errno: None,
        architectures: architectures(arch),
        flags: Vec::new(),
        listener_path: None,
        listener_metadata: None,
        rules,
    })
}

/// A rule that lets the calls of a list through, whatever the rest says.
fn allow(names: &'static str) -> Rule {
    Rule {
        names: Names::Listed(names),
        action: Action::ScmpActAllow,
        errno: None,
        args: Vec::<Arg>::new(),
        only: Condition::default(),
        unless: Condition::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::capabilities::CapSet;
    use crate::oci::facts::HostFacts;
    use std::collections::BTreeSet;

    /// The calls that are let through without a look at their arguments.
    fn allowed(capabilities: &[Capability], host: &HostFacts) -> BTreeSet<String> {
        let held: CapSet = capabilities.iter().copied().collect();
        let filter = default_profile(host.arch).expect("built").filter(held, host);
        let rules = filter.syscalls().clone().unwrap_or_default();
        let free = rules.into_iter().filter(|r| r.action() == Action::ScmpActAllow && r.args().is_none());
        free.flat_map(|r| r.names().clone()).collect()
    }

    fn host(arch: Arch) -> HostFacts {
        HostFacts { arch, kernel: (6, 1), ..Default::default() }
    }

    #[test]
    fn it_is_a_profile_that_runtimes_load() {
        for arch in [Arch::X86_64, Arch::Aarch64, Arch::Other] {
            default_profile(arch).and_then(|p| p.check()).expect("loadable");
        }
    }

    #[test]
    fn no_call_stands_twice() {
        let mut seen = BTreeSet::new();
        for name in ALWAYS.iter().flat_map(|names| names.split_whitespace()) {
            assert!(seen.insert(name), "{name} twice");
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{name}");
        }
        for (capability, names) in GRANTED {
            for name in names.split_whitespace() {
                assert!(!seen.contains(name), "{name} is for everybody, not only with {capability}");
            }
        }
    }

    #[test]
    fn an_ordinary_program_gets_on_and_an_exploit_does_not() {
        let free = allowed(&[], &host(Arch::X86_64));
        for name in ["read", "openat", "execve", "futex", "sendmsg", "clock_gettime", "statx", "arch_prctl", "rseq"] {
            assert!(free.contains(name), "{name}");
        }
        let never = "add_key request_key keyctl io_uring_setup io_uring_enter userfaultfd kexec_load swapon pivot_root \
                     init_module bpf mount umount2 unshare setns perf_event_open open_by_handle_at reboot clock_settime \
                     socket clone clone3 personality create_module nfsservctl move_pages migrate_pages";
        for name in never.split_whitespace() {
            assert!(!free.contains(name), "{name}");
        }
    }

    #[test]
    fn a_capability_brings_its_calls() {
        let x86 = host(Arch::X86_64);
        let plain = allowed(&[], &x86);
        for (capability, names) in GRANTED {
            let more = allowed(&[*capability], &x86);
            for name in names.split_whitespace() {
                assert!(more.contains(name), "{name} with {capability}");
            }
            let expected: BTreeSet<String> = names.split_whitespace().map(String::from).collect();
            let gained: BTreeSet<String> = more.difference(&plain).cloned().collect();
            assert!(gained.is_subset(&expected), "{capability} brings {gained:?}");
        }
    }

    #[test]
    fn what_depends_on_the_machine() {
        let arm = allowed(&[], &host(Arch::Aarch64));
        assert!(arm.contains("cacheflush") && !arm.contains("modify_ldt"));
        let old = HostFacts { kernel: (4, 7), ..host(Arch::X86_64) };
        assert!(!allowed(&[], &old).contains("ptrace"));
        assert!(allowed(&[Capability::SysPtrace], &old).contains("ptrace"));
        let of = |arch| default_profile(arch).expect("built").architectures;
        assert_eq!((of(Arch::X86_64).len(), of(Arch::Aarch64).len(), of(Arch::Other).len()), (3, 2, 0));
    }

    #[test]
    fn new_namespaces_need_an_administrator() {
        let x86 = host(Arch::X86_64);
        let filter = |capabilities: &[Capability]| {
            let held: CapSet = capabilities.iter().copied().collect();
            default_profile(Arch::X86_64).expect("built").filter(held, &x86).syscalls().clone().unwrap_or_default()
        };
        let rules = |capabilities: &[Capability], name: &str| {
            filter(capabilities).into_iter().filter(|r| r.names().iter().any(|n| n == name)).collect::<Vec<_>>()
        };
        let [clone] = &rules(&[], "clone")[..] else { panic!("one rule for clone") };
        let args = clone.args().clone().expect("masked");
        assert_eq!((args[0].value(), args[0].value_two()), (NEW_NAMESPACES, Some(0)));
        let [clone3] = &rules(&[], "clone3")[..] else { panic!("one rule for clone3") };
        assert_eq!((clone3.action(), clone3.errno_ret()), (Action::ScmpActErrno, Some(ENOSYS)));
        let [clone] = &rules(&[Capability::SysAdmin], "clone")[..] else { panic!("one rule for clone") };
        assert_eq!(clone.args(), &None);
        // Every domain but the two.
        let socket = rules(&[], "socket");
        let passes = |domain: u64| {
            socket.iter().flat_map(|r| r.args().clone().unwrap_or_default()).any(|a| match a.op() {
                Is::ScmpCmpLt => domain < a.value(),
                Is::ScmpCmpEq => domain == a.value(),
                Is::ScmpCmpGt => domain > a.value(),
                other => panic!("{other:?}"),
            })
        };
        for domain in 0..64 {
            assert_eq!(passes(domain), ![AF_ALG, AF_VSOCK].contains(&domain), "domain {domain}");
        }
    }
}
