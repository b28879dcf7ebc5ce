//! The processes of a session: a command in a container and all that it started, but for what left it with setsid.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Context, Error, Result};
use crate::sys::process::pids;

/// More rounds than that and it forks faster than we can look.
const ROUNDS: usize = 16;

/// Kills every process of the session that `leader` leads, itself included, if it runs in the container whose first process
/// is `first`. Its number alone would not do: a container may be in a virtual machine, and numbers are given out again.
///
/// # Errors
/// `leader` leads no session in that container.
pub fn kill(leader: u32, first: u32) -> Result<()> {
    let own = mount_namespace(Path::new("/proc/self"));
    let theirs = mount_namespace(&process(first));
    let its = mount_namespace(&process(leader));
    if its.is_none() || its != theirs || its == own || session(leader) != Some(leader) {
        return Err(Error::precondition(format!("process {leader} leads no session in the container")));
    }
    for _ in 0..ROUNDS {
        let members = members(leader)?;
        if members.is_empty() {
            return Ok(());
        }
        // The leader last: while it is there, its number is the session's.
        for member in members.iter().filter(|pid| **pid != leader).chain(members.iter().filter(|pid| **pid == leader)) {
            // SAFETY: kill takes two integers. A process that has ended meanwhile needs no signal.
            unsafe { libc::kill(*member as libc::pid_t, libc::SIGKILL) };
        }
        if members == [leader] {
            return Ok(());
        }
    }
    Ok(())
}

fn process(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}"))
}

fn mount_namespace(process: &Path) -> Option<PathBuf> {
    fs::read_link(process.join("ns/mnt")).ok()
}

/// The living processes of this session.
fn members(leader: u32) -> Result<Vec<u32>> {
    let pids = pids().context("read /proc")?;
    Ok(pids.filter(|pid| session(*pid) == Some(leader)).collect())
}

/// Which session a process is in; none if it is gone, or only not reaped yet.
fn session(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(process(pid).join("stat")).ok()?;
    // The name, in parentheses, may hold anything; state, parent, group and session follow it.
    let mut rest = stat.rsplit_once(')')?.1.split_whitespace();
    match rest.next()? {
        "Z" | "X" => None,
        _ => rest.nth(2)?.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_no_container_is_left_alone() {
        let own = std::process::id();
        assert!(kill(own, own).is_err());
        assert!(kill(u32::MAX, own).is_err());
        assert!(kill(own, u32::MAX).is_err());
    }

    #[test]
    fn a_process_knows_its_session() {
        // SAFETY: getsid takes an integer.
        let sid = unsafe { libc::getsid(0) };
        assert_eq!(session(std::process::id()), u32::try_from(sid).ok());
        assert_eq!(session(u32::MAX), None);
    }
}
