//! inotify(7): which files of a folder were written to their end, or moved there.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Before the name: watch, mask, cookie, and the length of the name with its zeros.
const HEAD_BYTES: usize = 16;
/// Room for many events, and for one with the longest name.
const BUFFER_BYTES: usize = 16 << 10;

/// A watched folder.
#[derive(Debug)]
pub struct Inotify(File);

/// What happened.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Names of files that are whole now.
    pub names: Vec<OsString>,
    /// More happened than the kernel could remember: look at everything.
    pub lost: bool,
}

impl Inotify {
    /// Watches `dir` from now on.
    pub fn watch(dir: &Path) -> io::Result<Inotify> {
        // SAFETY: takes no pointers; the result is checked before it is used as a descriptor.
        let fd = super::check(unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) })?;
        // SAFETY: the kernel just gave us this descriptor and nobody else knows it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let (path, mask) = (super::c_path(dir)?, libc::IN_CLOSE_WRITE | libc::IN_MOVED_TO | libc::IN_ONLYDIR);
        // SAFETY: the descriptor is open, and the path is a NUL-terminated string that outlives the call.
        super::check(unsafe { libc::inotify_add_watch(fd.as_raw_fd(), path.as_ptr(), mask) })?;
        Ok(Inotify(File::from(fd)))
    }

    /// What happened since the last look. Does not block.
    pub fn changes(&self) -> io::Result<Changes> {
        let mut changes = Changes::default();
        let mut buffer = [0; BUFFER_BYTES];
        loop {
            match (&self.0).read(&mut buffer) {
                Ok(n) => changes.add(&buffer[..n]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(changes),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }
}

impl Changes {
    fn add(&mut self, mut events: &[u8]) {
        while let Some((head, rest)) = events.split_at_checked(HEAD_BYTES) {
            let word = |n: usize| u32::from_ne_bytes([head[n], head[n + 1], head[n + 2], head[n + 3]]);
            let (mask, length) = (word(4), word(12) as usize);
            let Some((name, rest)) = rest.split_at_checked(length) else { return };
            self.lost |= mask & libc::IN_Q_OVERFLOW != 0;
            let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
            if !name.is_empty() {
                self.names.push(OsStr::from_bytes(name).to_owned());
            }
            events = rest;
        }
    }
}

impl AsFd for Inotify {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn files_count_when_they_are_whole() {
        let dir = std::env::temp_dir().join(format!("cricket-inotify-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let watched = Inotify::watch(&dir).unwrap();
        assert_eq!(watched.changes().unwrap(), Changes::default());
        let file = File::create(dir.join("a")).unwrap();
        assert_eq!(watched.changes().unwrap(), Changes::default(), "still being written");
        drop(file);
        fs::rename(dir.join("a"), dir.join("b")).unwrap();
        assert_eq!(watched.changes().unwrap().names, ["a", "b"]);
        fs::remove_dir_all(&dir).unwrap();
        assert!(Inotify::watch(&dir).is_err());
    }
}
