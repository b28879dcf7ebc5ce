//! signalfd(2): a signal as something that epoll can wait for.

use std::fs::File;
use std::io::{self, Read};
use std::mem::{size_of, MaybeUninit};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use super::check;

/// Blocked signals, readable while one of them is pending.
#[derive(Debug)]
pub struct SignalFd(File);

impl SignalFd {
    /// Blocks `signals` for this thread and makes them readable here; to be called while there is one thread. Programs
    /// that `std::process::Command` runs start with nothing blocked.
    pub fn new(signals: &[i32]) -> io::Result<SignalFd> {
        let mut set = MaybeUninit::uninit();
        // SAFETY: `sigemptyset` initialises the set it is given.
        check(unsafe { libc::sigemptyset(set.as_mut_ptr()) })?;
        // SAFETY: initialised by the line above.
        let mut set = unsafe { set.assume_init() };
        for signal in signals {
            // SAFETY: the set is initialised; a bad number is refused.
            check(unsafe { libc::sigaddset(&raw mut set, *signal) })?;
        }
        // SAFETY: the set is initialised, and the old mask is not asked for.
        let blocked = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
        if blocked != 0 {
            return Err(io::Error::from_raw_os_error(blocked));
        }
        // SAFETY: the set is initialised; the result is checked before it is used as a descriptor.
        let fd = check(unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) })?;
        // SAFETY: the kernel just gave us this descriptor and nobody else knows it.
        Ok(SignalFd(File::from(unsafe { OwnedFd::from_raw_fd(fd) })))
    }

    /// Takes the next pending signal, if there is one. Does not block.
    pub fn next(&self) -> Option<i32> {
        let mut record = [0; size_of::<libc::signalfd_siginfo>()];
        (&self.0).read_exact(&mut record).ok()?;
        // Its first field is the number.
        Some(i32::from_ne_bytes([record[0], record[1], record[2], record[3]]))
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_taken_once() {
        let signals = SignalFd::new(&[libc::SIGUSR1]).expect("valid");
        assert_eq!(signals.next(), None);
        // SAFETY: sends a signal to this thread only, where it is blocked.
        assert_eq!(unsafe { libc::pthread_kill(libc::pthread_self(), libc::SIGUSR1) }, 0);
        assert_eq!(signals.next(), Some(libc::SIGUSR1));
        assert_eq!(signals.next(), None);
        assert!(SignalFd::new(&[4711]).is_err());
    }
}
