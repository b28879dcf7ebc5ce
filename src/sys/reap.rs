//! Children that ended: taken one at a time, or buried unseen, which is the one duty of pid 1 in a pid namespace.

use std::io;

use super::check;

/// Reaps every child that has ended. Does not block.
pub fn reap_ended() {
    // SAFETY: a null status pointer asks for no status.
    while unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } > 0 {}
}

/// Takes one child that has ended: its pid and its exit code, 128 and the signal for one that a signal ended. `None` if
/// there is none now. Does not block.
pub fn next_ended() -> Option<(u32, u32)> {
    let mut status = 0;
    // SAFETY: `status` is a writable int.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    let pid = u32::try_from(pid).ok().filter(|pid| *pid > 0)?;
    let code = match libc::WIFSIGNALED(status) {
        true => 128 + libc::WTERMSIG(status),
        false => libc::WEXITSTATUS(status),
    };
    Some((pid, code as u32))
}

/// Orphans among our descendants become our children from now on.
pub fn become_subreaper() -> io::Result<()> {
    // SAFETY: the option takes an integer.
    check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1 as libc::c_ulong, 0, 0, 0) }).map(drop)
}

/// Sends `signal` to process `pid`, or with a negative number to a process group. Use it only for children that are not
/// reaped: nobody else has their number.
pub fn kill(pid: i64, signal: u32) -> io::Result<()> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
    let pid = libc::pid_t::try_from(pid).map_err(|_| invalid())?;
    let signal = libc::c_int::try_from(signal).map_err(|_| invalid())?;
    // SAFETY: takes two integers.
    check(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// Closes everything a careless parent let us inherit beyond the standard streams. To be called before anything else
/// opens a file.
pub fn close_inherited() {
    // SAFETY: at the start of the process nothing owns a descriptor above 2; the call takes integers. It needs Linux
    // 5.9; without it some stay open, which is no worse than before.
    unsafe { libc::syscall(libc::SYS_close_range, 3 as libc::c_uint, libc::c_uint::MAX, 0 as libc::c_uint) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_does_not_exist_gets_no_signal() {
        assert_eq!(kill(i64::from(libc::pid_t::MAX), 0).expect_err("nobody").raw_os_error(), Some(libc::ESRCH));
        assert_eq!(kill(i64::MAX, 0).expect_err("no pid").kind(), io::ErrorKind::InvalidInput);
        assert_eq!(kill(0, u32::MAX).expect_err("no signal").kind(), io::ErrorKind::InvalidInput);
    }
}
