//! The only room with `unsafe`: one file per kernel mechanism, each a small safe function over libc.

#[cfg(not(cricket_shim))]
pub mod c_core;
#[cfg(not(cricket_shim))]
pub mod confine;
pub mod copy;
pub mod descriptors;
pub mod durable;
pub mod epoll;
pub mod eventfd;
pub mod fifo;
#[cfg(not(cricket_shim))]
pub mod grpc_deadline;
pub mod heap;
pub mod inode;
pub mod inotify;
mod inside;
pub mod layer;
pub mod lock_file;
#[cfg(not(cricket_shim))]
pub mod malloc;
pub mod mount;
pub mod namespace;
pub mod net;
pub mod notify;
#[cfg(not(cricket_shim))]
pub mod orphan;
pub mod piped;
pub mod poll;
pub mod process;
pub mod reap;
pub mod resident;
pub mod rootfs;
pub mod seqpacket;
pub mod session;
pub mod signal;
pub mod signal_fd;
pub mod socket;
pub mod stack;
pub mod terminal;
pub mod thread;
pub mod tree;
pub mod userns;
pub mod view;
pub mod watch;
pub mod xattr;

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A path as the kernel takes it.
fn c_path(path: &Path) -> io::Result<CString> {
    let nul = |_| io::Error::new(io::ErrorKind::InvalidInput, "path holds a NUL byte");
    CString::new(path.as_os_str().as_bytes()).map_err(nul)
}

/// A libc return value as a `Result`.
fn check(value: libc::c_int) -> io::Result<libc::c_int> {
    match value {
        -1 => Err(io::Error::last_os_error()),
        other => Ok(other),
    }
}
