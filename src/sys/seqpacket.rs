//! Unix sockets of type SOCK_SEQPACKET: connections whose messages keep their bounds. Nothing here blocks unless it
//! says so.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::check;
use super::socket::address;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 16;

/// A socket that takes connections. Its file stays when it is dropped.
#[derive(Debug)]
pub struct Listener(OwnedFd);

/// One end of a connection.
#[derive(Debug)]
pub struct Connection(OwnedFd);

impl Listener {
    /// Listens at `<dir>/<name>`, in place of whatever socket was there. The path may be longer than the 107 bytes that a
    /// socket's address can hold; `name` may not.
    pub fn bind(dir: &Path, name: &str) -> io::Result<Listener> {
        std::fs::remove_file(dir.join(name)).or_else(|e| match e.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(e),
        })?;
        let (_dir, path) = short(dir, name)?;
        let (address, length) = address(&path)?;
        let socket = socket(libc::SOCK_NONBLOCK)?;
        // SAFETY: `address` is a valid `sockaddr_un` of `length` bytes that outlives the call.
        check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) })?;
        // SAFETY: no pointers.
        check(unsafe { libc::listen(socket.as_raw_fd(), BACKLOG) })?;
        Ok(Listener(socket))
    }

    /// The next connection, whose calls will not block; `None` if there is none now.
    pub fn accept(&self) -> io::Result<Option<Connection>> {
        let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: null pointers say that the peer's address is not wanted.
        let fd = unsafe { libc::accept4(self.0.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut(), flags) };
        match check(fd) {
            // SAFETY: the kernel just gave us this descriptor and nobody else knows it.
            Ok(fd) => Ok(Some(Connection(unsafe { OwnedFd::from_raw_fd(fd) }))),
            // Who gave up before it was accepted is no connection.
            Err(e) if e.raw_os_error() == Some(libc::ECONNABORTED) => Ok(None),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(e) => Err(e),
        }
    }
}

impl Connection {
    /// Connects to `<dir>/<name>`. Its sends and receives block; the connecting does while the listener's queue is full.
    pub fn open(dir: &Path, name: &str) -> io::Result<Connection> {
        let (_dir, path) = short(dir, name)?;
        let (address, length) = address(&path)?;
        let socket = socket(0)?;
        // SAFETY: `address` is a valid `sockaddr_un` of `length` bytes that outlives the call.
        check(unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length) })?;
        Ok(Connection(socket))
    }

    /// Lets about so many bytes wait unread before [`Connection::send`] has no room. The kernel may give less.
    pub fn enlarge(&self, bytes: i32) -> io::Result<()> {
        // Beyond the administrator's limit, if we may.
        self.set(libc::SO_SNDBUFFORCE, bytes).or_else(|_| self.set(libc::SO_SNDBUF, bytes))
    }

    /// Receives give up with `WouldBlock` after so many milliseconds.
    pub fn receive_at_most(&self, milliseconds: i64) -> io::Result<()> {
        let time = libc::timeval { tv_sec: milliseconds / 1000, tv_usec: milliseconds % 1000 * 1000 };
        self.set(libc::SO_RCVTIMEO, time)
    }

    /// From now on sends and receives of it do not block.
    pub fn set_nonblocking(&self) -> io::Result<()> {
        super::descriptors::set_nonblocking(&self.0)
    }

    fn set<T>(&self, option: i32, value: T) -> io::Result<()> {
        let length = size_of::<T>() as libc::socklen_t;
        let value = (&raw const value).cast();
        // SAFETY: `value` points to a live value of `length` bytes, which the kernel checks for this option.
        check(unsafe { libc::setsockopt(self.0.as_raw_fd(), libc::SOL_SOCKET, option, value, length) }).map(drop)
    }

    /// Sends one message, put together from `parts`; all of it or nothing. `WouldBlock` if there is no room, on a
    /// connection that does not block.
    pub fn send(&self, parts: [&[u8]; 2]) -> io::Result<()> {
        let mut vectors =
            parts.map(|part| libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() });
        // SAFETY: all zeroes are a valid, empty `msghdr`.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = vectors.as_mut_ptr();
        message.msg_iovlen = vectors.len() as _;
        // SAFETY: the header points to live vectors, and those to live bytes that the kernel only reads.
        match unsafe { libc::sendmsg(self.0.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) } {
            n if n < 0 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }

    /// Receives one message into `buffer` and returns its length; 0 when the peer is gone. What does not fit is an error
    /// (`InvalidData`), and the message is lost.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let (start, room) = (buffer.as_mut_ptr().cast(), buffer.len());
        // SAFETY: the kernel writes at most `room` bytes to `start`, which are the buffer's.
        let n = unsafe { libc::recv(self.0.as_raw_fd(), start, room, libc::MSG_TRUNC) };
        match usize::try_from(n) {
            Ok(n) if n <= room => Ok(n),
            Ok(_) => Err(io::ErrorKind::InvalidData.into()),
            Err(_) => Err(io::Error::last_os_error()),
        }
    }

    /// Ends both directions: a receive that blocks in another thread returns 0.
    pub fn shut_down(&self) {
        // SAFETY: no pointers. The only failure is a peer that is gone, and then there is nothing left to end.
        unsafe { libc::shutdown(self.0.as_raw_fd(), libc::SHUT_RDWR) };
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn socket(flags: i32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the result is checked.
    let fd = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC | flags, 0) };
    check(fd)?;
    // SAFETY: a new descriptor that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A path to `<dir>/<name>` that is short whatever `dir` is, valid while the returned directory is open.
fn short(dir: &Path, name: &str) -> io::Result<(File, PathBuf)> {
    let open = File::options().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(dir)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{name}", open.as_raw_fd()));
    Ok((open, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory whose path is too long for a socket's address.
    fn deep(name: &str) -> PathBuf {
        let top = std::env::temp_dir().join(format!("cricket-seqpacket-{}-{name}", std::process::id()));
        let dir = top.join("d".repeat(120));
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    fn pair(name: &str) -> (Connection, Connection, PathBuf) {
        let dir = deep(name);
        let listener = Listener::bind(&dir, "s").unwrap();
        assert!(listener.accept().unwrap().is_none());
        let client = Connection::open(&dir, "s").unwrap();
        let server = listener.accept().unwrap().unwrap();
        (client, server, dir)
    }

    fn remove(dir: &Path) {
        std::fs::remove_dir_all(dir.parent().unwrap()).unwrap();
    }

    #[test]
    fn messages_keep_their_bounds() {
        let (client, server, dir) = pair("bounds");
        client.send([b"a", b"bc"]).unwrap();
        client.send([b"d", b""]).unwrap();
        let mut buffer = [0; 8];
        assert_eq!(server.receive(&mut buffer).unwrap(), 3);
        assert_eq!(&buffer[..3], b"abc");
        assert_eq!(server.receive(&mut buffer).unwrap(), 1);
        assert_eq!(server.receive(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        client.send([b"too long", b" by far"]).unwrap();
        assert_eq!(server.receive(&mut buffer).unwrap_err().kind(), io::ErrorKind::InvalidData);
        drop(server);
        assert_eq!(client.receive(&mut buffer).unwrap(), 0);
        assert_eq!(client.send([b"x", b""]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        remove(&dir);
    }

    #[test]
    fn a_new_listener_takes_the_place_of_a_dead_one() {
        let dir = deep("again");
        drop(Listener::bind(&dir, "s").unwrap());
        assert_eq!(Connection::open(&dir, "s").unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let _listener = Listener::bind(&dir, "s").unwrap();
        Connection::open(&dir, "s").unwrap();
        remove(&dir);
    }

    #[test]
    fn who_does_not_read_runs_out_of_room_and_costs_no_time() {
        let (_client, server, dir) = pair("room");
        server.enlarge(64 << 10).unwrap();
        let full = (0..1000).find_map(|_| server.send([b"x", &[0; 1024]]).err()).unwrap();
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        remove(&dir);
    }

    #[test]
    fn a_receive_can_be_bounded_and_ended() {
        let (client, _server, dir) = pair("ended");
        client.receive_at_most(1).unwrap();
        assert_eq!(client.receive(&mut [0; 1]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        client.shut_down();
        assert_eq!(client.receive(&mut [0; 1]).unwrap(), 0);
        remove(&dir);
    }
}
