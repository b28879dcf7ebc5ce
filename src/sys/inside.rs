//! Paths in a tree that is not our own, which never lead out of it.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, RawFd};
use std::path::Path;

use super::c_path;

/// How often a path is followed that others interfere with; each time it is over in microseconds.
const MAX_RACES: usize = 1000;

/// Opens `path` below the directory `root`, close-on-exec, with these flags of `open(2)`. Symbolic links are followed as
/// by a process that had `root` for its root; those of `/proc` are not. Needs Linux 5.6 (`openat2`).
pub(super) fn open(root: BorrowedFd<'_>, path: &Path, flags: libc::c_int) -> io::Result<File> {
    let path = c_path(path)?;
    // SAFETY: open_how is plain data for which all zeroes is a value.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (flags | libc::O_CLOEXEC) as u64;
    how.resolve = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;
    for _ in 1..MAX_RACES {
        match openat2(root, &path, &how) {
            // Somebody mounted or renamed something, anywhere, while a `..` was followed: the kernel wants it again.
            Err(e) if e.raw_os_error() == Some(libc::EAGAIN) => {}
            opened => return opened,
        }
    }
    openat2(root, &path, &how)
}

fn openat2(root: BorrowedFd<'_>, path: &CStr, how: &libc::open_how) -> io::Result<File> {
    let size = std::mem::size_of::<libc::open_how>();
    // SAFETY: the descriptor is open, the path NUL-terminated, and pointer and size describe `how`.
    let opened =
        unsafe { libc::syscall(libc::SYS_openat2, root.as_raw_fd(), path.as_ptr(), std::ptr::from_ref(how), size) };
    if opened < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just returned this descriptor and nobody else owns it.
    Ok(unsafe { File::from_raw_fd(opened as RawFd) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::fd::AsFd;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// Renames anywhere on the machine make the kernel refuse `..` for the moment.
    #[test]
    fn others_who_rename_do_not_disturb() {
        let dir = std::env::temp_dir().join(format!("cricket-inside-{}", std::process::id()));
        fs::create_dir_all(dir.join("root/a/b")).expect("made");
        fs::create_dir_all(dir.join("x")).expect("made");
        let root = File::open(dir.join("root")).expect("there");
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    fs::rename(dir.join("x"), dir.join("y")).expect("renamed");
                    fs::rename(dir.join("y"), dir.join("x")).expect("renamed back");
                }
            });
            let climbing = Path::new("a/../a/b/../../a/../a/b");
            let refused = (0..5000).filter_map(|_| open(root.as_fd(), climbing, libc::O_PATH).err()).next();
            done.store(true, Ordering::Relaxed);
            assert!(refused.is_none(), "{refused:?}");
        });
        fs::remove_dir_all(&dir).expect("ours");
    }
}
