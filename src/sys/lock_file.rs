//! A lock that ends with the process that holds it: `flock` on a file that stays where it is.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Held until dropped. The file is never removed: whoever opened it before would hold a lock on nothing.
#[derive(Debug)]
pub struct LockFile(#[allow(dead_code)] File);

impl LockFile {
    /// Takes the lock, creating the file if need be; `None` if somebody else holds it. Does not block.
    pub fn try_take(path: &Path) -> io::Result<Option<LockFile>> {
        match lock(path, libc::LOCK_EX | libc::LOCK_NB) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            taken => taken.map(Some),
        }
    }

    /// Takes the lock, creating the file if need be. Blocks until whoever holds it lets go.
    pub fn take(path: &Path) -> io::Result<LockFile> {
        lock(path, libc::LOCK_EX)
    }
}

fn lock(path: &Path, how: libc::c_int) -> io::Result<LockFile> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    loop {
        // SAFETY: `file` owns the descriptor for the whole call.
        if unsafe { libc::flock(file.as_raw_fd(), how) } == 0 {
            return Ok(LockFile(file));
        }
        match io::Error::last_os_error() {
            e if e.kind() == io::ErrorKind::Interrupted => {}
            e => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_taker_gets_nothing_until_the_first_lets_go() {
        let path = std::env::temp_dir().join(format!("cricket-lock-{}", std::process::id()));
        let first = LockFile::try_take(&path).expect("lockable");
        assert!(first.is_some());
        assert!(LockFile::try_take(&path).expect("lockable").is_none());
        drop(first);
        assert!(LockFile::try_take(&path).expect("lockable").is_some());
        std::fs::remove_file(&path).expect("ours");
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error() {
        assert!(LockFile::try_take(Path::new("/nonexistent/x.lock")).is_err());
    }
}
