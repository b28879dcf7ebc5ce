//! Onto the disk, whoever wrote it, and from one place there to another.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use super::{c_path, check};

/// Writes out all of the file system that `path` is on. Blocks until the disk has it, with what others wrote there before.
pub fn sync_filesystem(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    // SAFETY: `file` owns the descriptor for the whole call.
    check(unsafe { libc::syncfs(file.as_raw_fd()) }).map(drop)
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

    #[test]
    fn a_directory_or_an_error() {
        sync_filesystem(&std::env::temp_dir()).expect("synced");
        assert_eq!(sync_filesystem(Path::new("/nonexistent")).map_err(|e| e.kind()), Err(io::ErrorKind::NotFound));
    }
}
