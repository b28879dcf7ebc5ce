//! Pipes, and programs that expect open descriptors at fixed numbers beyond the standard streams.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::check;

/// The first number behind the standard streams.
const FIRST: RawFd = 3;

/// A pipe: its reading and its writing end, both closed on exec.
pub fn pipe() -> io::Result<(File, File)> {
    let mut ends = [0; 2];
    // SAFETY: the kernel writes two descriptors into an array of two.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    // SAFETY: the kernel just gave us both and nobody else knows them.
    let [reader, writer] = ends.map(|fd| File::from(unsafe { OwnedFd::from_raw_fd(fd) }));
    Ok((reader, writer))
}

/// From now on reads and writes do not block, whoever else has the same open file.
pub fn set_nonblocking(fd: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: F_GETFL takes and returns integers.
    let flags = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })?;
    // SAFETY: F_SETFL takes and returns integers.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) }).map(drop)
}

/// The command will find `descriptors` at 3, 4 and so on. They stay open here until the command is dropped.
pub fn give(command: &mut Command, descriptors: Vec<OwnedFd>) {
    let place = move || {
        // Out of the way first: one may be where another belongs.
        let beyond = FIRST + descriptors.len() as RawFd;
        let mut copies = [-1; 8];
        for (copy, fd) in copies.iter_mut().zip(&descriptors) {
            // SAFETY: F_DUPFD_CLOEXEC takes and returns integers.
            *copy = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, beyond) })?;
        }
        for (place, copy) in (FIRST..beyond).zip(copies) {
            // SAFETY: takes two integers; what was at `place` belongs to a process that is about to be replaced.
            check(unsafe { libc::dup2(copy, place) })?;
        }
        Ok(())
    };
    // SAFETY: runs in the child between fork and exec, where it only calls fcntl and dup2 and allocates nothing.
    unsafe { command.pre_exec(place) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn a_program_finds_what_it_was_given() {
        let ((from, mut feed), (mut result, to)) = (pipe().expect("a pipe"), pipe().expect("a pipe"));
        let mut command = Command::new("sh");
        command.args(["-c", "cat <&3 >&4; echo done >&4"]);
        give(&mut command, vec![from.into(), to.into()]);
        feed.write_all(b"fed ").expect("room");
        drop(feed);
        let mut child = command.spawn().expect("a shell");
        drop(command);
        let mut text = String::new();
        result.read_to_string(&mut text).expect("read");
        assert_eq!(text, "fed done\n");
        assert!(child.wait().expect("our child").success());
    }
}
