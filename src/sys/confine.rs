//! A process that gives up what its work does not take: another root, few capabilities, no way to get more.

use std::io;
use std::os::unix::fs::chroot;
use std::path::Path;

use super::{check, reap};
use crate::error::{Context, Result};

/// Capabilities that making files of others takes: any owner, any permissions, devices, capabilities of programs.
const KEPT: [u32; 6] = [CHOWN, DAC_OVERRIDE, FOWNER, FSETID, MKNOD, SETFCAP];
const CHOWN: u32 = 0;
const DAC_OVERRIDE: u32 = 1;
const FOWNER: u32 = 3;
const FSETID: u32 = 4;
const MKNOD: u32 = 27;
const SETFCAP: u32 = 31;

/// The kernel's `__user_cap_header_struct`, version 3, of the calling thread.
#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

/// One half of the kernel's `__user_cap_data_struct`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Capabilities {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const VERSION_3: u32 = 0x2008_0522;

/// Who is short of memory takes it from here, as from any pod that was promised none: what this process does, somebody else
/// can do.
const OOM_SCORE: &str = "1000";

/// Makes `root` the root directory of this process, which has one thread, for good. From then on it has only the three
/// standard streams, at most `memory_bytes` of address space, and the capabilities that making files takes; new files get
/// the permissions that are asked for.
///
/// # Errors
/// What the kernel says; the process should end then.
pub fn enter(root: &Path, memory_bytes: u64) -> Result<()> {
    reap::close_inherited();
    for (which, bytes) in [(libc::RLIMIT_AS, memory_bytes), (libc::RLIMIT_CORE, 0)] {
        let limit = libc::rlimit { rlim_cur: bytes as libc::rlim_t, rlim_max: bytes as libc::rlim_t };
        // SAFETY: `limit` is an initialised rlimit that outlives the call.
        check(unsafe { libc::setrlimit(which, &raw const limit) }).context("limit what it may use")?;
    }
    // Without it the work can be done as well.
    std::fs::write("/proc/self/oom_score_adj", OOM_SCORE).ok();
    // SAFETY: takes an integer and cannot fail.
    unsafe { libc::umask(0) };
    chroot(root).with_context(|| format!("make {} the root directory", root.display()))?;
    std::env::set_current_dir("/").context("enter the root directory")?;
    // SAFETY: the option takes integers.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1 as libc::c_ulong, 0, 0, 0) }).context("gain nothing")?;
    keep(&KEPT).context("drop capabilities")
}

/// Drops all capabilities but these.
fn keep(kept: &[u32]) -> io::Result<()> {
    let header = Header { version: VERSION_3, pid: 0 };
    let bits = kept.iter().fold(0, |bits, number| bits | 1 << number);
    // A container's root may have fewer than all of them.
    let mut have = [Capabilities { effective: 0, permitted: 0, inheritable: 0 }; 2];
    // SAFETY: a header of version 3 and the two halves that it is of; the kernel writes those.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw const header, have.as_mut_ptr()) } as libc::c_int)?;
    let low = have[0].permitted & bits;
    let none = Capabilities { effective: 0, permitted: 0, inheritable: 0 };
    let data = [Capabilities { effective: low, permitted: low, inheritable: 0 }, none];
    // SAFETY: as above; the kernel reads those.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) } as libc::c_int).map(drop)
}
