//! Processes that a dead process has left running, known by a variable of their environment.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use super::check;
use super::process::{pidfd, pids};

/// How long a killed process may take to end.
const DEATH: Duration = Duration::from_secs(2);

/// A process that runs, and what the variable is in its environment.
#[derive(Debug)]
pub struct Orphan {
    pub pid: u32,
    pub value: String,
    process: OwnedFd,
}

/// Every process that was started with `variable` in its environment, ourselves excepted. Looks at all of `/proc`.
pub fn with(variable: &str) -> Vec<Orphan> {
    let pids = pids().into_iter().flatten();
    pids.filter(|pid| *pid != std::process::id()).filter_map(|pid| orphan(pid, variable)).collect()
}

fn orphan(pid: u32, variable: &str) -> Option<Orphan> {
    value(pid, variable)?;
    let process = pidfd(pid).ok()?;
    // Looked at again: the first time it may have been another of this number.
    Some(Orphan { pid, value: value(pid, variable)?, process })
}

fn value(pid: u32, variable: &str) -> Option<String> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let ours = |pair: &&[u8]| pair.strip_prefix(variable.as_bytes()).is_some_and(|rest| rest.starts_with(b"="));
    let pair = environment.split(|byte| *byte == 0).find(ours)?;
    String::from_utf8(pair[variable.len() + 1..].to_vec()).ok()
}

impl Orphan {
    /// Waits until it has ended, and after `patience` kills it with its process group. Blocks up to [`DEATH`] longer. Tells
    /// whether it ended by itself.
    ///
    /// # Errors
    /// `TimedOut` if the kernel does not let it go.
    pub fn end(&self, patience: Duration) -> io::Result<bool> {
        if self.ends_within(patience)? {
            return Ok(true);
        }
        let number = libc::pid_t::try_from(self.pid).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        // SAFETY: takes an integer.
        let group = unsafe { libc::getpgid(number) };
        // Its own first: the number of one that has ended may be another's by now, this descriptor never.
        match self.signal(libc::SIGKILL) {
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => return Ok(true),
            sent => sent?,
        }
        if group > 1 {
            // SAFETY: takes two integers. One that is gone with its last process is no matter.
            unsafe { libc::kill(-group, libc::SIGKILL) };
        }
        match self.ends_within(DEATH)? {
            true => Ok(false),
            false => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    fn ends_within(&self, time: Duration) -> io::Result<bool> {
        let millis = libc::c_int::try_from(time.as_millis()).unwrap_or(libc::c_int::MAX);
        let mut fds = libc::pollfd { fd: self.process.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: `fds` is one initialised pollfd structure that outlives the call.
        let ready = check(unsafe { libc::poll(&raw mut fds, 1, millis) })?;
        Ok(ready > 0)
    }

    fn signal(&self, signal: libc::c_int) -> io::Result<()> {
        let none: *const libc::siginfo_t = std::ptr::null();
        // SAFETY: an open pidfd, an integer, no information, no flags.
        let done = unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, self.process.as_raw_fd(), signal, none, 0 as libc::c_uint)
        };
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::Command;

    #[test]
    fn an_orphan_is_known_by_its_environment_and_ends_with_its_group() {
        let name = format!("CRICKET_ORPHAN_{}", std::process::id());
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 1000 & echo $! ; wait"]).env(&name, "here").process_group(0);
        let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
        let found = with(&name);
        let mut pids: Vec<u32> = found.iter().map(|orphan| orphan.pid).collect();
        pids.sort_unstable();
        assert!(pids.contains(&child.id()) && pids.contains(&line.trim().parse().unwrap()), "{pids:?}");
        assert!(found.iter().all(|orphan| orphan.value == "here"));
        assert!(!found[0].end(Duration::ZERO).unwrap(), "it was killed");
        assert!(found.iter().all(|orphan| orphan.end(DEATH).is_ok()));
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
        assert!(with(&name).is_empty());
        assert!(found.iter().all(|orphan| orphan.end(Duration::ZERO).expect("it is gone already")));
    }
}
