//! Being told by the kernel about control groups: inotify on a counter file (v2), an event descriptor (v1).

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use super::eventfd::EventFd;
use super::{c_path, check};

/// Readable when what it watches has changed, or is gone.
#[derive(Debug)]
pub enum Watch {
    /// v2: the file that counts.
    File(File),
    /// v1: what the memory controller signals.
    Event(EventFd),
}

impl Watch {
    /// Whenever the file at `path` changes.
    pub fn file(path: &Path) -> io::Result<Watch> {
        let path = c_path(path)?;
        // SAFETY: takes flags; the result is checked before it is used as a descriptor.
        let fd = check(unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) })?;
        // SAFETY: the kernel just gave us this descriptor and nobody else knows it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: the path is NUL-terminated and outlives the call.
        check(unsafe {
            libc::inotify_add_watch(fd.as_raw_fd(), path.as_ptr(), libc::IN_MODIFY | libc::IN_DELETE_SELF)
        })?;
        Ok(Watch::File(File::from(fd)))
    }

    /// Whenever the kernel runs out of memory in the v1 group `dir`, and when the group is removed.
    pub fn memory_group(dir: &Path) -> io::Result<Watch> {
        let control = File::open(dir.join("memory.oom_control"))?;
        let event = EventFd::new()?;
        let line = format!("{} {}", event.as_fd().as_raw_fd(), control.as_raw_fd());
        std::fs::write(dir.join("cgroup.event_control"), line)?;
        Ok(Watch::Event(event))
    }

    /// Takes back that it was readable.
    pub fn clear(&self) {
        match self {
            Watch::Event(event) => event.clear(),
            // Whatever it says, the counter is read anew.
            Watch::File(file) => while { file }.read(&mut [0; 512]).is_ok_and(|n| n > 0) {},
        }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Watch::File(file) => file.as_fd(),
            Watch::Event(event) => event.as_fd(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::epoll::Epoll;

    #[test]
    fn a_change_is_seen_and_taken_back() {
        let path = std::env::temp_dir().join(format!("cricket-watch-{}", std::process::id()));
        std::fs::write(&path, "0").expect("writable");
        let (watch, epoll, mut ready) = (Watch::file(&path).expect("watched"), Epoll::new().expect("epoll"), vec![]);
        epoll.add(&watch, 1).expect("added");
        std::fs::write(&path, "1").expect("writable");
        epoll.wait(&mut ready).expect("waited");
        assert_eq!(ready, [1]);
        watch.clear();
        epoll.wait_at_most(&mut ready, Some(std::time::Duration::ZERO)).expect("waited");
        assert!(ready.is_empty());
        std::fs::remove_file(&path).expect("ours");
        assert!(Watch::file(&path).is_err());
    }
}
