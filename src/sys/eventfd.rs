//! eventfd(2): wakes a thread that sleeps in epoll.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

/// A flag that epoll can wait for. Signals that nobody has taken yet count as one.
#[derive(Debug)]
pub struct EventFd(File);

impl EventFd {
    /// A new flag, not signalled, closed on exec; neither side ever blocks.
    pub fn new() -> io::Result<EventFd> {
        // SAFETY: takes no pointers; the result is checked before it is used as a descriptor.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just gave us this descriptor and nobody else knows it.
        Ok(EventFd(File::from(unsafe { OwnedFd::from_raw_fd(fd) })))
    }

    /// Makes the descriptor readable.
    pub fn signal(&self) {
        // The only failure is a counter of 2^64 - 2 untaken signals, and then it is readable already.
        (&self.0).write_all(&1u64.to_ne_bytes()).ok();
    }

    /// Takes all signals back; the descriptor is not readable until the next one.
    pub fn clear(&self) {
        // The only failure is that nothing was signalled, which is what we want.
        (&self.0).read_exact(&mut [0; 8]).ok();
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_signals_are_one_and_clear_never_blocks() {
        let flag = EventFd::new().unwrap();
        flag.clear();
        flag.signal();
        flag.signal();
        flag.clear();
        assert_eq!((&flag.0).read(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
