//! Unix sockets: whether somebody listens, and connecting without ever waiting.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// What is at the path of a unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// Nothing.
    Absent,
    /// A socket whose owner is gone.
    Stale,
    /// A socket that somebody listens on.
    Live,
}

/// Looks whether somebody listens at `path`. Does not block, even if that listener does not accept.
///
/// # Errors
/// What is there is no stream socket, or may not be reached.
pub fn probe(path: &Path) -> io::Result<Listener> {
    let e = match connect(path) {
        Ok(_) => return Ok(Listener::Live),
        Err(e) => e,
    };
    match e.raw_os_error() {
        // Its queue is full: it is busy, or hangs, but it is there.
        Some(libc::EAGAIN | libc::EINPROGRESS) => Ok(Listener::Live),
        // A file that is no socket is refused in the same words.
        Some(libc::ECONNREFUSED) if is_socket(path) => Ok(Listener::Stale),
        Some(libc::ENOENT) => Ok(Listener::Absent),
        _ => Err(e),
    }
}

/// The process that listens at `path`, as this process's PID namespace numbers it.
///
/// # Errors
/// `NotFound` also for a process that has no number here.
pub fn peer_pid(path: &Path) -> io::Result<u32> {
    let socket = connect(path)?;
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    let (level, option) = (libc::SOL_SOCKET, libc::SO_PEERCRED);
    // SAFETY: the kernel writes at most `length` bytes into `peer`, which has as many.
    let got = unsafe { libc::getsockopt(socket.as_raw_fd(), level, option, (&raw mut peer).cast(), &raw mut length) };
    super::check(got)?;
    u32::try_from(peer.pid).ok().filter(|pid| *pid > 0).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// A connection to the listener at `path`, on which nothing blocks; nor does this call.
///
/// # Errors
/// `WouldBlock` while the listener has more callers than it accepts.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    let (address, length) = address(path)?;
    // SAFETY: no pointers; the result is checked.
    let fd = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else knows.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: `address` is a valid `sockaddr_un` of `length` bytes that outlives the call.
    match unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length) } {
        0 => Ok(UnixStream::from(socket)),
        _ => Err(io::Error::last_os_error()),
    }
}

fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket())
}

pub(super) fn address(path: &Path) -> io::Result<(libc::sockaddr_un, libc::socklen_t)> {
    // SAFETY: all zeroes are a valid, empty `sockaddr_un`.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    let bytes = path.as_os_str().as_bytes();
    if bytes.is_empty() || bytes.len() >= address.sun_path.len() || bytes.contains(&0) {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    for (to, from) in address.sun_path.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    Ok((address, size_of::<libc::sockaddr_un>() as libc::socklen_t))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn tells_the_living_from_the_dead() {
        let path = std::env::temp_dir().join(format!("cricket-probe-{}", std::process::id()));
        assert_eq!(probe(&path).expect("probed"), Listener::Absent);
        let listener = UnixListener::bind(&path).expect("free");
        assert_eq!(probe(&path).expect("probed"), Listener::Live);
        drop(listener);
        assert_eq!(probe(&path).expect("probed"), Listener::Stale);
        std::fs::remove_file(&path).expect("ours");
    }

    #[test]
    fn a_listener_that_does_not_accept_is_alive() {
        let path = std::env::temp_dir().join(format!("cricket-busy-{}", std::process::id()));
        let listener = UnixListener::bind(&path).expect("free");
        // SAFETY: the listener owns the descriptor; a shorter queue is all this asks for.
        assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
        for _ in 0..4 {
            assert_eq!(probe(&path).expect("probed"), Listener::Live);
        }
        std::fs::remove_file(&path).expect("ours");
    }

    #[test]
    fn a_listener_has_a_pid() {
        let path = std::env::temp_dir().join(format!("cricket-peer-{}", std::process::id()));
        let listener = UnixListener::bind(&path).expect("free");
        assert_eq!(peer_pid(&path).expect("asked"), std::process::id());
        drop(listener);
        assert!(peer_pid(&path).is_err());
        std::fs::remove_file(&path).expect("ours");
    }

    #[test]
    fn what_is_no_socket_is_an_error() {
        let path = std::env::temp_dir().join(format!("cricket-file-{}", std::process::id()));
        std::fs::write(&path, "").expect("writable");
        assert!(probe(&path).is_err());
        assert!(probe(&std::env::temp_dir()).is_err());
        assert!(probe(Path::new(&"/x".repeat(80))).is_err());
        std::fs::remove_file(&path).expect("ours");
    }
}
