//! Network interfaces of the calling thread's network namespace.

use std::io;
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
