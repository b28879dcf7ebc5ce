//! epoll(7), level-triggered: which of many descriptors have something to read or room to write, or have hung up.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// How many ready descriptors one wait can report; the kernel takes turns among the rest.
const BATCH: usize = 64;

/// An epoll instance. Descriptors are known by a token of the caller's choice.
#[derive(Debug)]
pub struct Epoll(OwnedFd);

impl Epoll {
    /// A new instance, closed on exec.
    pub fn new() -> io::Result<Epoll> {
        // SAFETY: takes no pointers; the result is checked before it is used as a descriptor.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just gave us this descriptor and nobody else knows it.
        Ok(Epoll(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Reports `token` from now on whenever `fd` is readable or hung up. A regular file is refused by the kernel (EPERM).
    pub fn add(&self, fd: &impl AsFd, token: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: token };
        self.control(libc::EPOLL_CTL_ADD, fd, &mut event)
    }

    /// Reports `token` while `fd` takes bytes or is hung up, instead of what it was reported for before.
    pub fn await_room(&self, fd: &impl AsFd, token: u64) -> io::Result<()> {
        self.set(fd, token, libc::EPOLLOUT)
    }

    /// As [`Epoll::add`], for one that may be reported for something else already.
    pub fn await_input(&self, fd: &impl AsFd, token: u64) -> io::Result<()> {
        self.set(fd, token, libc::EPOLLIN)
    }

    fn set(&self, fd: &impl AsFd, token: u64, events: i32) -> io::Result<()> {
        let mut event = libc::epoll_event { events: events as u32, u64: token };
        match self.control(libc::EPOLL_CTL_MOD, fd, &mut event) {
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => self.control(libc::EPOLL_CTL_ADD, fd, &mut event),
            done => done,
        }
    }

    /// Reports `token` from now on whenever `fd` can be written to, or never will be again.
    pub fn add_writer(&self, fd: &impl AsFd, token: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLOUT as u32, u64: token };
        self.control(libc::EPOLL_CTL_ADD, fd, &mut event)
    }

    /// Stops reporting `fd`. To be called before `fd` is closed: a child between fork and exec may hold a copy, and
    /// as long as it does the kernel goes on reporting.
    pub fn remove(&self, fd: &impl AsFd) -> io::Result<()> {
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        self.control(libc::EPOLL_CTL_DEL, fd, &mut event)
    }

    fn control(&self, operation: i32, fd: &impl AsFd, event: &mut libc::epoll_event) -> io::Result<()> {
        // SAFETY: both descriptors are open for the length of the call, and `event` is a live, writable epoll_event.
        let done = unsafe { libc::epoll_ctl(self.0.as_raw_fd(), operation, fd.as_fd().as_raw_fd(), event) };
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Blocks until something is ready and puts the tokens into `ready`, replacing what was there. A signal ends the
    /// wait with nothing ready.
    pub fn wait(&self, ready: &mut Vec<u64>) -> io::Result<()> {
        self.take(ready, -1)
    }

    /// As [`Epoll::wait`], but returns at once when nothing is ready.
    pub fn poll(&self, ready: &mut Vec<u64>) -> io::Result<()> {
        self.take(ready, 0)
    }

    /// As [`Epoll::wait`], but comes back with nothing ready after `time`, rounded up to a millisecond.
    pub fn wait_at_most(&self, ready: &mut Vec<u64>, time: Option<Duration>) -> io::Result<()> {
        let milliseconds = time.map_or(-1, |t| i32::try_from(t.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX));
        self.take(ready, milliseconds)
    }

    fn take(&self, ready: &mut Vec<u64>, milliseconds: i32) -> io::Result<()> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; BATCH];
        ready.clear();
        // SAFETY: the kernel writes at most BATCH events into an array of that length.
        let n = unsafe { libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), BATCH as i32, milliseconds) };
        match usize::try_from(n) {
            Ok(n) => ready.extend(events[..n].iter().map(|event| event.u64)),
            Err(_) => match io::Error::last_os_error() {
                e if e.kind() == io::ErrorKind::Interrupted => {}
                e => return Err(e),
            },
        }
        Ok(())
    }
}

impl AsFd for Epoll {
    /// Readable while something is ready: an instance can be watched by another one.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::eventfd::EventFd;

    #[test]
    fn reports_what_is_ready_until_it_is_removed() {
        let (epoll, a, b) = (Epoll::new().unwrap(), EventFd::new().unwrap(), EventFd::new().unwrap());
        epoll.add(&a, 7).unwrap();
        epoll.add(&b, u64::MAX).unwrap();
        let mut ready = vec![1, 2, 3];
        b.signal();
        epoll.wait(&mut ready).unwrap();
        assert_eq!(ready, [u64::MAX]);
        a.signal();
        epoll.remove(&b).unwrap();
        epoll.wait(&mut ready).unwrap();
        assert_eq!(ready, [7]);
    }

    #[test]
    fn an_instance_can_be_watched_and_polled() {
        let (outer, inner, flag) = (Epoll::new().unwrap(), Epoll::new().unwrap(), EventFd::new().unwrap());
        outer.add(&inner, 1).unwrap();
        inner.add(&flag, 2).unwrap();
        let mut ready = vec![9];
        outer.poll(&mut ready).unwrap();
        assert!(ready.is_empty());
        flag.signal();
        outer.poll(&mut ready).unwrap();
        assert_eq!(ready, [1]);
        inner.poll(&mut ready).unwrap();
        assert_eq!(ready, [2]);
        inner.remove(&flag).unwrap();
        inner.add_writer(&flag, 3).unwrap();
        inner.poll(&mut ready).unwrap();
        assert_eq!(ready, [3]);
    }

    #[test]
    fn a_regular_file_is_refused() {
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        assert_eq!(Epoll::new().unwrap().add(&file, 1).unwrap_err().raw_os_error(), Some(libc::EPERM));
    }
}
