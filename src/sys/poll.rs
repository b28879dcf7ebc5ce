//! poll(2): waits for a handful of descriptors, some for reading, some for writing, some only for their end.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Instant;

/// What is waited for, rebuilt before every wait.
#[derive(Default)]
pub struct Poll {
    entries: Vec<libc::pollfd>,
    /// Readable whatever the kernel says.
    known: Option<Place>,
}

/// Which entry of a [`Poll`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(usize);

impl Poll {
    /// Nothing yet.
    pub fn new() -> Poll {
        Poll::default()
    }

    /// Forgets all entries.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.known = None;
    }

    /// Waits for `fd` as well: until it can be read or written, as asked, and in any case until both directions are
    /// over. What is added for nothing else is told its end for ever: leave it out if that was heard.
    pub fn add(&mut self, fd: &impl AsFd, read: bool, write: bool) -> Place {
        let events = if read { libc::POLLIN } else { 0 } | if write { libc::POLLOUT } else { 0 };
        self.entries.push(libc::pollfd { fd: fd.as_fd().as_raw_fd(), events, revents: 0 });
        Place(self.entries.len() - 1)
    }

    /// There is something to read already, of which the kernel does not know: the wait will be short. Of one entry only.
    pub fn set_readable(&mut self, at: Place) {
        self.known = Some(at);
    }

    /// Also waits until the other side of a socket sends nothing more.
    pub fn watch_end(&mut self, at: Place) {
        if let Some(entry) = self.entries.get_mut(at.0) {
            entry.events |= libc::POLLRDHUP;
        }
    }

    /// Blocks until one of them is ready, or until `deadline` (none: for ever). A signal ends the wait too.
    pub fn wait(&mut self, deadline: Option<Instant>) -> io::Result<()> {
        let deadline = if self.known.is_some() { Some(Instant::now()) } else { deadline };
        let timeout = deadline.map_or(-1, |at| {
            let left = at.saturating_duration_since(Instant::now());
            // Rounded up: when the call comes back empty-handed, the deadline has passed.
            i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
        });
        // SAFETY: pointer and length describe the vector's initialised pollfd structures, which outlive the call. A
        // descriptor that was closed since it was added is reported, not dereferenced.
        let n = unsafe { libc::poll(self.entries.as_mut_ptr(), self.entries.len() as libc::nfds_t, timeout) };
        if n < 0 {
            let e = io::Error::last_os_error();
            self.entries.iter_mut().for_each(|entry| entry.revents = 0);
            if e.kind() != io::ErrorKind::Interrupted {
                return Err(e);
            }
        }
        Ok(())
    }

    /// A read will not block: there is something, or the end, or an error.
    pub fn readable(&self, at: Place) -> bool {
        self.known == Some(at) || self.has(at, libc::POLLIN | libc::POLLHUP | libc::POLLERR | libc::POLLRDHUP)
    }

    /// A write will not block.
    pub fn writable(&self, at: Place) -> bool {
        self.has(at, libc::POLLOUT | libc::POLLHUP | libc::POLLERR)
    }

    /// The other side will send nothing more, or is gone; what it sent may still be there.
    pub fn hung_up(&self, at: Place) -> bool {
        self.has(at, libc::POLLHUP | libc::POLLERR | libc::POLLRDHUP)
    }

    fn has(&self, at: Place, any: libc::c_short) -> bool {
        self.entries.get(at.0).is_some_and(|entry| entry.revents & any != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    #[test]
    fn tells_reading_from_writing_and_from_the_end() {
        let (mut a, b) = UnixStream::pair().unwrap();
        let mut poll = Poll::new();
        let past = Some(Instant::now());
        let at = poll.add(&b, true, false);
        poll.wait(past).unwrap();
        assert!(!poll.readable(at) && !poll.writable(at) && !poll.hung_up(at));
        a.write_all(b"x").unwrap();
        poll.wait(past).unwrap();
        assert!(poll.readable(at) && !poll.hung_up(at));
        poll.clear();
        let at = poll.add(&b, false, true);
        poll.wait(past).unwrap();
        assert!(poll.writable(at) && !poll.readable(at));
        poll.clear();
        let at = poll.add(&b, false, false);
        poll.watch_end(at);
        poll.wait(past).unwrap();
        assert!(!poll.hung_up(at));
        a.shutdown(std::net::Shutdown::Write).unwrap();
        poll.wait(past).unwrap();
        assert!(poll.hung_up(at), "the end is told even to who does not read");
    }

    #[test]
    fn what_is_known_to_be_readable_is_not_waited_for() {
        let (_a, b) = UnixStream::pair().unwrap();
        let mut poll = Poll::new();
        let at = poll.add(&b, true, false);
        poll.set_readable(at);
        poll.wait(None).unwrap();
        assert!(poll.readable(at) && !poll.writable(at) && !poll.hung_up(at));
        poll.clear();
        let at = poll.add(&b, true, false);
        poll.wait(Some(Instant::now())).unwrap();
        assert!(!poll.readable(at));
    }
}
