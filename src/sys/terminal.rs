//! Terminals: the master side that an OCI runtime hands over a socket, and its window size.

use std::fs::File;
use std::io;
use std::mem::{size_of, MaybeUninit};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use super::check;

/// Room for one descriptor, aligned as the kernel wants its control messages.
#[repr(align(8))]
struct Control([u8; 64]);

/// Receives one descriptor that the other end sent along with some bytes. Blocks unless the socket does not.
///
/// # Errors
/// `UnexpectedEof` if none came.
pub fn receive_descriptor(socket: &UnixStream) -> io::Result<File> {
    let mut bytes = [0u8; 4096];
    let mut control = Control([0; 64]);
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: all zeroes are a valid, empty `msghdr`.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control.0).cast();
    message.msg_controllen = size_of::<Control>() as _;
    // SAFETY: the message points at live, writable buffers of the lengths that it gives.
    let got = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
    if got < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel filled `message`, whose control buffer is still live.
    let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    // SAFETY: not null, so it points at a whole header within the control buffer.
    let Some(header) = (unsafe { header.as_ref() }) else { return Err(io::ErrorKind::UnexpectedEof.into()) };
    // SAFETY: a pure computation.
    let expected = unsafe { libc::CMSG_LEN(size_of::<libc::c_int>() as _) } as usize;
    let rights = header.cmsg_level == libc::SOL_SOCKET && header.cmsg_type == libc::SCM_RIGHTS;
    if !rights || (header.cmsg_len as usize) < expected {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    // SAFETY: a header of this length is followed by at least one descriptor, in the control buffer.
    let fd = unsafe { libc::CMSG_DATA(header).cast::<libc::c_int>().read_unaligned() };
    // SAFETY: the kernel just made this descriptor for us and nobody else knows it.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Tells the programs on a terminal how large its window is, in characters.
pub fn resize(master: &File, width: u16, height: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads a `winsize`.
    check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_message_without_a_descriptor_is_an_error() {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        theirs.write_all(b"x").expect("room");
        assert_eq!(receive_descriptor(&ours).expect_err("none").kind(), io::ErrorKind::UnexpectedEof);
        drop(theirs);
        assert_eq!(receive_descriptor(&ours).expect_err("none").kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn what_is_no_terminal_has_no_size() {
        assert!(resize(&File::open("/dev/null").expect("there"), 80, 24).is_err());
    }
}
