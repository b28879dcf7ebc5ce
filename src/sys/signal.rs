//! Signals taken one at a time by a thread that waits for them, instead of by handlers.

use std::io;
use std::mem::MaybeUninit;

pub use libc::{SIGCHLD, SIGINT, SIGTERM};

/// A set of signals that this process no longer reacts to by itself.
pub struct Blocked(libc::sigset_t);

impl Blocked {
    /// Blocks `signals` for this thread and for all it starts: call it before the first thread is started, or the
    /// kernel may pick one that does not block them. Programs that we run start with nothing blocked, since
    /// `std::process::Command` sees to it.
    pub fn new(signals: &[i32]) -> io::Result<Blocked> {
        let mut set = MaybeUninit::uninit();
        // SAFETY: `sigemptyset` initialises the set it is given; the others work on that set.
        let (set, failed) = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            let mut set = set.assume_init();
            let mut failed = signals.iter().any(|&signal| libc::sigaddset(&raw mut set, signal) != 0);
            failed |= libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) != 0;
            (set, failed)
        };
        if failed {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        Ok(Blocked(set))
    }

    /// Blocks until one of them arrives, and takes it.
    pub fn wait(&self) -> i32 {
        self.wait_from().0
    }

    /// As [`Blocked::wait`]; also tells who sent it, as this process's PID namespace numbers it: 0 for one outside.
    pub fn wait_from(&self) -> (i32, i32) {
        let mut details = MaybeUninit::<libc::siginfo_t>::zeroed();
        loop {
            // SAFETY: the set is initialised, and the kernel writes the details of one signal to where there is room.
            let signal = unsafe { libc::sigwaitinfo(&raw const self.0, details.as_mut_ptr()) };
            // The only failure of a valid set is an interruption (a debugger, a stop).
            if signal > 0 {
                // SAFETY: all zeroes are valid details, and the kernel has written better ones; for signals that nobody
                // sent, the field is another number or zero.
                return (signal, unsafe { details.assume_init().si_pid() });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocked_signal_is_taken_by_wait() {
        let blocked = Blocked::new(&[libc::SIGUSR2]).expect("valid");
        // SAFETY: sends a signal to this thread only, where it is blocked.
        assert_eq!(unsafe { libc::pthread_kill(libc::pthread_self(), libc::SIGUSR2) }, 0);
        assert_eq!(blocked.wait_from(), (libc::SIGUSR2, std::process::id() as i32));
    }

    #[test]
    fn a_number_that_is_no_signal_is_refused() {
        assert!(Blocked::new(&[4711]).is_err());
    }
}
