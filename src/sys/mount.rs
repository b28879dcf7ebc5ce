//! Mounts: bind, tmpfs, and taking them down.

use std::ffi::CString;
use std::io;
use std::path::Path;

use super::{c_path, check};

/// How often a busy or stacked mount point is tried; mounts may lie over each other.
const MAX_STACKED: usize = 16;

/// `mount(2)`.
pub(super) fn mount(source: &Path, target: &Path, kind: &str, flags: libc::c_ulong, data: &str) -> io::Result<()> {
    let (source, target) = (c_path(source)?, c_path(target)?);
    let kind = CString::new(kind).map_err(io::Error::other)?;
    let data = CString::new(data).map_err(io::Error::other)?;
    // SAFETY: all four pointers are NUL-terminated strings that outlive the call.
    check(unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, data.as_ptr().cast()) })
        .map(drop)
}

/// Binds `source` on the existing file or directory `target`.
pub fn bind(source: &Path, target: &Path) -> io::Result<()> {
    mount(source, target, "", libc::MS_BIND, "")
}

/// Cuts the calling thread's mount namespace off: what is mounted in it from now on stays in it. Only in a namespace of
/// the thread's own.
pub(super) fn make_private() -> io::Result<()> {
    mount(Path::new(""), Path::new("/"), "", libc::MS_REC | libc::MS_PRIVATE, "")
}

/// A tmpfs for a pod's `/dev/shm`: world-writable with the sticky bit, no devices, no setuid, no exec.
pub fn shm(target: &Path, size_bytes: u64) -> io::Result<()> {
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    mount(Path::new("shm"), target, "tmpfs", flags, &format!("mode=1777,size={size_bytes}"))
}

/// Mounts a file system as a mount table describes it: options that are flags become flags, the rest its data.
///
/// # Errors
/// `InvalidInput` for an option that only mount(8) knows how to honour.
pub fn described(kind: &str, source: &Path, target: &Path, options: &[String]) -> io::Result<()> {
    let (mut flags, mut data) = (0, Vec::new());
    for option in options {
        match flag(option) {
            Some((bits, true)) => flags |= bits,
            Some((bits, false)) => flags &= !bits,
            None if matches!(option.as_str(), "loop" | "uidmap" | "gidmap") || option.starts_with("loop=") => {
                let why = format!("mount option {option} is not supported");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
            }
            // A note of one program to another.
            None if option.starts_with("X-") || option.starts_with("x-") => {}
            None => data.push(option.as_str()),
        }
    }
    // The kernel takes flags of a bind mount only when it is mounted again.
    let bind = flags & libc::MS_BIND != 0;
    let first = if bind { flags & (libc::MS_BIND | libc::MS_REC) } else { flags };
    mount(source, target, kind, first, &data.join(","))?;
    if bind && flags & !(libc::MS_BIND | libc::MS_REC) != 0 {
        mount(source, target, kind, flags | libc::MS_REMOUNT, "")?;
    }
    Ok(())
}

/// The flag that an option is, and whether it sets it.
fn flag(option: &str) -> Option<(libc::c_ulong, bool)> {
    Some(match option {
        "ro" => (libc::MS_RDONLY, true),
        "rw" => (libc::MS_RDONLY, false),
        "bind" => (libc::MS_BIND, true),
        "rbind" => (libc::MS_BIND | libc::MS_REC, true),
        "nosuid" => (libc::MS_NOSUID, true),
        "suid" => (libc::MS_NOSUID, false),
        "nodev" => (libc::MS_NODEV, true),
        "dev" => (libc::MS_NODEV, false),
        "noexec" => (libc::MS_NOEXEC, true),
        "exec" => (libc::MS_NOEXEC, false),
        "sync" => (libc::MS_SYNCHRONOUS, true),
        "async" => (libc::MS_SYNCHRONOUS, false),
        "dirsync" => (libc::MS_DIRSYNC, true),
        "mand" => (libc::MS_MANDLOCK, true),
        "nomand" => (libc::MS_MANDLOCK, false),
        "noatime" => (libc::MS_NOATIME, true),
        "atime" => (libc::MS_NOATIME, false),
        "nodiratime" => (libc::MS_NODIRATIME, true),
        "diratime" => (libc::MS_NODIRATIME, false),
        "relatime" => (libc::MS_RELATIME, true),
        "norelatime" => (libc::MS_RELATIME, false),
        "strictatime" => (libc::MS_STRICTATIME, true),
        "nostrictatime" => (libc::MS_STRICTATIME, false),
        "defaults" => (0, true),
        _ => return None,
    })
}

/// Detaches everything mounted on `target`. Nothing there is success.
pub fn detach(target: &Path) -> io::Result<()> {
    let path = c_path(target)?;
    for _ in 0..MAX_STACKED {
        // SAFETY: the pointer is a NUL-terminated string that outlives the call.
        match check(unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW) }) {
            Ok(_) => {}
            // EINVAL: not (any more) a mount point.
            Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::ENOENT | libc::ENOTDIR)) => return Ok(()),
            Err(e) => return Err(e),
        }
    }
    Err(io::Error::other(format!("more than {MAX_STACKED} mounts on {}", target.display())))
}

/// Whether something is mounted on `target`.
pub fn is_mounted(target: &Path) -> io::Result<bool> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    // Paths of ours hold nothing that the kernel would have to write in another way.
    let wanted = target.to_string_lossy();
    Ok(table.lines().any(|line| line.split(' ').nth(4) == Some(&*wanted)))
}

/// How much a file system holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    pub bytes: u64,
    /// 0 where their number has no bound.
    pub inodes: u64,
    pub inodes_free: u64,
}

/// That of the file system that `path` lies on.
pub fn capacity(path: &Path) -> io::Result<Capacity> {
    let facts = facts(path)?;
    // The types differ between targets.
    #[allow(clippy::unnecessary_cast, clippy::useless_conversion)]
    Ok(Capacity {
        bytes: u64::from(facts.f_blocks).saturating_mul(u64::try_from(facts.f_bsize).unwrap_or(0)),
        inodes: u64::from(facts.f_files),
        inodes_free: u64::from(facts.f_ffree),
    })
}

/// The magic number of the file system that `path` lies on.
fn magic(path: &Path) -> io::Result<i64> {
    // The type of f_type differs between targets.
    #[allow(clippy::unnecessary_cast)]
    Ok(facts(path)?.f_type as i64)
}

fn facts(path: &Path) -> io::Result<libc::statfs> {
    let path = c_path(path)?;
    // SAFETY: statfs is plain data for which all zeroes is a value.
    let mut facts: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path is NUL-terminated, and `facts` is a writable statfs.
    check(unsafe { libc::statfs(path.as_ptr(), &raw mut facts) })?;
    Ok(facts)
}

/// Whether `path` is a pinned namespace: a file of the kernel's nsfs.
pub fn is_namespace(path: &Path) -> bool {
    const NSFS_MAGIC: i64 = 0x6e73_6673;
    magic(path).is_ok_and(|m| m == NSFS_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_system_holds() {
        let capacity = capacity(Path::new("/tmp")).unwrap();
        assert!(capacity.bytes > 1 << 20 && capacity.inodes_free <= capacity.inodes, "{capacity:?}");
        assert!(super::capacity(Path::new("/does/not/exist")).is_err());
    }

    #[test]
    fn a_plain_file_is_no_namespace_and_proc_self_ns_is() {
        assert!(!is_namespace(Path::new("/etc/hostname")));
        assert!(is_namespace(Path::new("/proc/self/ns/net")));
        assert!(!is_namespace(Path::new("/does/not/exist")));
    }

    #[test]
    fn detaching_what_is_not_mounted_is_success() {
        assert!(detach(Path::new("/etc/hostname")).is_ok());
        assert!(detach(Path::new("/does/not/exist")).is_ok());
    }

    #[test]
    fn flags_are_told_from_data_and_what_only_a_program_can_do_is_refused() {
        let dir = std::env::temp_dir().join(format!("cricket-mount-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let options = ["ro", "nosuid", "X-mount.note", "size=64k"].map(str::to_owned);
        described("tmpfs", Path::new("none"), &dir, &options).unwrap();
        let table = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let line = table.lines().find(|line| line.contains(&dir.display().to_string())).unwrap();
        assert!(line.contains("ro,nosuid") && line.contains("size=64k"), "{line}");
        detach(&dir).unwrap();
        let refused = described("ext4", Path::new("/x"), &dir, &["loop".to_owned()]).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
        std::fs::remove_dir(&dir).unwrap();
    }

    #[test]
    fn a_shm_tmpfs_has_its_size_and_goes_away() {
        let dir = std::env::temp_dir().join(format!("cricket-shm-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        shm(&dir, 1 << 20).unwrap();
        std::fs::write(dir.join("probe"), vec![0; 512 << 10]).unwrap();
        assert!(std::fs::write(dir.join("probe2"), vec![0; 1 << 20]).is_err(), "size is bounded");
        detach(&dir).unwrap();
        assert!(!dir.join("probe").exists());
        std::fs::remove_dir(&dir).unwrap();
    }
}
