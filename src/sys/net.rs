//! Network interfaces and sockets of the calling thread's network namespace.

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::check;

/// Brings the loopback interface up; the kernel gives it 127.0.0.1 and ::1 by itself.
pub fn loopback_up() -> io::Result<()> {
    // SAFETY: socket takes integers only.
    let fd = check(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the descriptor was just made and has no other owner.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: ifreq is plain data for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    // SAFETY: SIOCGIFFLAGS reads the name and writes the flags of `request`.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS as _, &raw mut request) })?;
    // SAFETY: the union holds the flags that the call above wrote.
    unsafe { request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short };
    // SAFETY: SIOCSIFFLAGS reads name and flags of `request`.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw mut request) }).map(drop)
}

/// Which of the two internet protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// 127.0.0.1
    V4,
    /// ::1
    V6,
}

/// A TCP socket that is not connected yet; nothing done with it blocks. It stays in this thread's network namespace.
pub fn tcp_socket(family: Family) -> io::Result<TcpStream> {
    let domain = match family {
        Family::V4 => libc::AF_INET,
        Family::V6 => libc::AF_INET6,
    };
    // SAFETY: socket takes integers only.
    let fd = check(unsafe { libc::socket(domain, libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0) })?;
    // SAFETY: the descriptor was just made and has no other owner.
    Ok(unsafe { TcpStream::from_raw_fd(fd) })
}

/// Begins to connect a socket of [`tcp_socket`] to this port of its namespace's loopback. How it went shows when the
/// socket is writable: [`TcpStream::take_error`].
pub fn connect_loopback(socket: &TcpStream, family: Family, port: u16) -> io::Result<()> {
    let done = match family {
        Family::V4 => {
            // SAFETY: all zeroes are a valid sockaddr_in.
            let mut to: libc::sockaddr_in = unsafe { std::mem::zeroed() };
            to.sin_family = libc::AF_INET as libc::sa_family_t;
            to.sin_port = port.to_be();
            to.sin_addr.s_addr = u32::from(std::net::Ipv4Addr::LOCALHOST).to_be();
            let length = size_of::<libc::sockaddr_in>() as libc::socklen_t;
            // SAFETY: `to` is a sockaddr_in of `length` bytes that outlives the call.
            unsafe { libc::connect(socket.as_raw_fd(), (&raw const to).cast(), length) }
        }
        Family::V6 => {
            // SAFETY: all zeroes are a valid sockaddr_in6.
            let mut to: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
            to.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            to.sin6_port = port.to_be();
            to.sin6_addr.s6_addr = std::net::Ipv6Addr::LOCALHOST.octets();
            let length = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
            // SAFETY: `to` is a sockaddr_in6 of `length` bytes that outlives the call.
            unsafe { libc::connect(socket.as_raw_fd(), (&raw const to).cast(), length) }
        }
    };
    match check(done) {
        Err(e) if e.raw_os_error() == Some(libc::EINPROGRESS) => Ok(()),
        other => other.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use crate::error::Context;
    use crate::sys::namespace::{create, unpin, Namespace};

    #[test]
    fn a_new_namespace_can_reach_itself() {
        let path = std::env::temp_dir().join(format!("cricket-lo-{}", std::process::id()));
        unpin(&path).unwrap();
        let reached = create(&[(Namespace::Net, path.as_path())], || {
            let probe = std::net::UdpSocket::bind("0.0.0.0:0").context("bind")?;
            assert!(probe.connect("127.0.0.1:9").is_err(), "loopback starts down");
            super::loopback_up().context("lo up")?;
            let listener = std::net::TcpListener::bind("127.0.0.1:0").context("bind")?;
            let address = listener.local_addr().context("address")?;
            std::net::TcpStream::connect(address).context("connect").map(drop)
        });
        unpin(&path).unwrap();
        reached.unwrap();
    }
}
