//! What the standard library cannot do to an inode: special files, the times of a link, two that change places, and where a
//! file has data.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use super::{c_path, check};

/// Makes a FIFO, a socket or a device; `mode` is its kind and its permissions, which the umask narrows.
pub fn make_special(path: &Path, mode: u32, device: u64) -> io::Result<()> {
    let path = c_path(path)?;
    // SAFETY: the path is NUL-terminated.
    check(unsafe { libc::mknod(path.as_ptr(), mode, device) }).map(drop)
}

/// Gives `path`, a symbolic link itself, these times of access and of change: seconds since 1970 and nanoseconds.
pub fn set_times(path: &Path, accessed: (i64, i64), changed: (i64, i64)) -> io::Result<()> {
    let path = c_path(path)?;
    // SAFETY: timespec is plain data for which all zeroes is a value.
    let mut times: [libc::timespec; 2] = unsafe { std::mem::zeroed() };
    for (time, (seconds, nanoseconds)) in times.iter_mut().zip([accessed, changed]) {
        (time.tv_sec, time.tv_nsec) = (seconds, nanoseconds as _);
    }
    // SAFETY: the path is NUL-terminated, and `times` are the two that the call reads.
    let done = unsafe { libc::utimensat(libc::AT_FDCWD, path.as_ptr(), times.as_ptr(), libc::AT_SYMLINK_NOFOLLOW) };
    check(done).map(drop)
}

/// Two directories of one file system change places, in one step.
pub fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    let (one, other) = (c_path(one)?, c_path(other)?);
    // SAFETY: both paths are NUL-terminated; the rest are integers.
    let done = unsafe {
        libc::syscall(
            libc::SYS_renameat2,
            libc::AT_FDCWD,
            one.as_ptr(),
            libc::AT_FDCWD,
            other.as_ptr(),
            libc::RENAME_EXCHANGE,
        )
    };
    check(done as libc::c_int).map(drop)
}

/// The first piece of `file` from `from` on that is no hole: where it begins, and where it ends. `None` if all that is
/// left is a hole. Moves the file's position.
pub fn next_data(file: &File, from: u64) -> io::Result<Option<(u64, u64)>> {
    let seek = |offset: u64, whence: libc::c_int| -> io::Result<u64> {
        let offset = i64::try_from(offset).map_err(io::Error::other)?;
        // SAFETY: the descriptor is open for the length of the call.
        let found = unsafe { libc::lseek(file.as_raw_fd(), offset, whence) };
        u64::try_from(found).map_err(|_| io::Error::last_os_error())
    };
    match seek(from, libc::SEEK_DATA) {
        Err(e) if e.raw_os_error() == Some(libc::ENXIO) => Ok(None),
        Err(e) => Err(e),
        Ok(begin) => seek(begin, libc::SEEK_HOLE).map(|end| Some((begin, end))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_here_is_there() {
        let dir = std::env::temp_dir().join(format!("cricket-exchange-{}", std::process::id()));
        let (a, b) = (dir.join("a"), dir.join("b"));
        std::fs::create_dir_all(a.join("of-a")).expect("made");
        std::fs::create_dir_all(b.join("of-b")).expect("made");
        exchange(&a, &b).expect("exchanged");
        assert!(a.join("of-b").exists() && b.join("of-a").exists());
        assert_eq!(exchange(&a, &dir.join("c")).map_err(|e| e.kind()), Err(io::ErrorKind::NotFound));
        std::fs::remove_dir_all(&dir).expect("ours");
    }
}
