//! Runs a child process to its end under a deadline: feeds its stdin, collects bounded output, kills its whole group. See
//! [`piped`](super::piped) for what happens meanwhile.

use std::io::ErrorKind;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub use super::piped::Output;
use super::piped::Piped;
use super::poll::Poll;
use crate::error::{Context, Result};
use crate::sync::Mutex;

/// How long a killed process may take to die before it is left to [`STUCK`].
const DEATH: Duration = Duration::from_secs(2);
/// How much of stderr an error message quotes.
const TAIL_BYTES: usize = 1024;

/// Killed processes that the kernel did not let go yet (a dead file server, usually). Whoever starts the next one reaps
/// those that have ended since, so that none stays a zombie and no thread waits for one.
static STUCK: Mutex<Vec<Child>> = Mutex::new(Vec::new());

/// How often a program is started again that somebody seems to be writing, and how long after.
const BUSY: (usize, Duration) = (100, Duration::from_millis(10));

/// Runs `command` in a process group of its own, writes `stdin` to it and waits until it exits. Blocks, at most a
/// little longer than until `deadline`.
///
/// Only the process itself is waited for: one that it leaves in the background may keep the pipes open and goes on.
/// At the deadline the whole group is killed. Needs Linux 5.3 (`pidfd_open`).
///
/// # Errors
/// `DeadlineExceeded` when it was killed at the deadline, `ResourceExhausted` when it wrote more than `max_output`
/// bytes to stdout and was killed for that; `Unknown` when it could not be started. A failure exit is not an error.
pub fn run(command: &mut Command, stdin: &[u8], deadline: Option<Instant>, max_output: usize) -> Result<Output> {
    command.stdin(if stdin.is_empty() { Stdio::null() } else { Stdio::piped() });
    let mut process = Piped::start(command, max_output)?;
    process.write(stdin, deadline)?;
    process.finish(deadline)
}

/// Starts a process that leads a group of its own, and opens what becomes readable when it ends.
pub(super) fn started(command: &mut Command) -> Result<(Child, OwnedFd)> {
    reap_stuck();
    let mut child = spawn(command).with_context(|| format!("start {}", command.get_program().to_string_lossy()))?;
    // It is not reaped yet, so its number is still its own.
    match pidfd(child.id()).context("open a pidfd (needs Linux 5.3)") {
        Ok(exit) => Ok((child, exit)),
        Err(e) => {
            kill_group(&child);
            child.wait().context("wait for a killed process")?;
            Err(e)
        }
    }
}

/// Starts a process. A program that this process has just written is busy for a moment yet, if another thread was starting
/// a process meanwhile: that child holds all our files open until it becomes another program.
fn spawn(command: &mut Command) -> std::io::Result<Child> {
    for _ in 0..BUSY.0 {
        match command.spawn() {
            Err(e) if e.kind() == ErrorKind::ExecutableFileBusy => std::thread::sleep(BUSY.1),
            other => return other,
        }
    }
    command.spawn()
}

/// The end of what a process wrote, as one line for a message: at most 1 KiB, control characters made spaces.
pub fn tail(output: &[u8]) -> String {
    let start = output.len().saturating_sub(TAIL_BYTES);
    let text = String::from_utf8_lossy(&output[start..]);
    text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Kills the group and reaps its leader; one that does not die is kept for [`reap_stuck`].
pub(super) fn end(mut child: Child, exit: &OwnedFd) {
    kill_group(&child);
    let mut poll = Poll::new();
    let dead = poll.add(exit, true, false);
    let waited = poll.wait(Instant::now().checked_add(DEATH));
    if waited.is_ok() && poll.readable(dead) && child.wait().is_ok() {
        return;
    }
    log::warn!("process {} was killed and does not end; the kernel holds it", child.id());
    STUCK.lock().push(child);
}

/// Reaps what [`end`] had to leave.
fn reap_stuck() {
    // `try_wait` does not block; a child that cannot be asked any more is gone.
    STUCK.lock().retain_mut(|child| matches!(child.try_wait(), Ok(None)));
}

/// The numbers of all processes.
pub fn pids() -> std::io::Result<impl Iterator<Item = u32>> {
    let entries = std::fs::read_dir("/proc")?.flatten();
    Ok(entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()))
}

/// The process that has this number now, for good: readable when it has ended.
pub(super) fn pidfd(pid: u32) -> std::io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::c_long::from(pid as libc::pid_t), 0 as libc::c_long) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the kernel just returned this descriptor and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

fn kill_group(child: &Child) {
    // SAFETY: kill takes two integers. The leader is not reaped yet, so the group is still the one made for it.
    if unsafe { libc::kill(-(child.id() as libc::pid_t), libc::SIGKILL) } < 0 {
        log::warn!("kill process group {}: {}", child.id(), std::io::Error::last_os_error());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use std::io::Read;
    use std::os::fd::AsRawFd;
    use std::os::unix::process::ExitStatusExt;

    /// A shell script with a deadline that only a failing test reaches.
    fn sh(script: &str, stdin: &[u8], max_output: usize) -> Result<Output> {
        let deadline = Instant::now().checked_add(Duration::from_secs(60));
        run(Command::new("sh").args(["-c", script]), stdin, deadline, max_output)
    }

    /// A named pipe in the temporary directory, with a test's name in its own.
    fn fifo(name: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("cricket-process-{}-{name}", std::process::id()));
        assert!(Command::new("mkfifo").arg(&path).status().expect("mkfifo").success());
        path
    }

    #[test]
    fn more_than_the_pipes_hold_goes_in_and_comes_out() {
        let input: Vec<u8> = (0..3_000_000u32).map(|i| i as u8).collect();
        let output = sh("tee /dev/stderr", &input, input.len()).expect("runs");
        assert!(output.status.success());
        assert!(output.stdout == input && output.stderr == input);
    }

    #[test]
    fn a_failure_exit_and_a_signal_are_answers() {
        let output = sh("echo out; echo err >&2; exit 3", b"", 100).expect("runs");
        assert_eq!(output.status.code(), Some(3));
        assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
        assert_eq!(sh("kill -9 $$", b"", 100).expect("runs").status.signal(), Some(9));
    }

    #[test]
    fn stdin_may_stay_unread_and_the_pipes_may_close_early() {
        let output = sh("exec <&- >&- 2>&-; sleep 0.01; exit 4", &[b'x'; 1 << 20], 100).expect("runs");
        assert_eq!(output.status.code(), Some(4));
    }

    #[test]
    fn a_background_process_with_our_pipes_is_not_waited_for() {
        let gate = fifo("gate");
        // It holds stdout and stderr until we open the gate, which is after `run` came back.
        let script = format!("{{ read x < {}; echo late; }} & echo early", gate.display());
        let output = sh(&script, b"", 100).expect("runs");
        assert_eq!(output.stdout, b"early\n");
        std::fs::write(&gate, "go\n").expect("open the gate");
        std::fs::remove_file(gate).expect("remove");
    }

    #[test]
    fn the_deadline_kills_the_whole_group_and_quotes_its_last_words() {
        let witness = fifo("witness");
        let mut options = std::fs::OpenOptions::new();
        std::os::unix::fs::OpenOptionsExt::custom_flags(options.read(true), libc::O_NONBLOCK);
        let mut reader = options.open(&witness).expect("open the reading end");
        let script = format!("exec 9> {}; echo thinking >&2; {{ sleep 5; echo alive >&9; }} & wait", witness.display());
        let deadline = Instant::now().checked_add(Duration::from_millis(300));
        let e = run(Command::new("sh").args(["-c", &script]), b"", deadline, 100).expect_err("killed");
        assert_eq!(e.kind(), Kind::DeadlineExceeded);
        assert!(e.message().contains("deadline: it last said: thinking"), "{e}");
        // The end of the file comes when the last writer is dead; one that was not killed would have written by then.
        // SAFETY: F_SETFL on a descriptor of this test.
        assert_eq!(unsafe { libc::fcntl(reader.as_raw_fd(), libc::F_SETFL, 0) }, 0);
        let mut said = String::new();
        reader.read_to_string(&mut said).expect("read");
        assert_eq!(said, "");
        std::fs::remove_file(witness).expect("remove");
    }

    #[test]
    fn too_much_stdout_kills_and_too_much_stderr_keeps_its_end() {
        assert_eq!(sh("yes", b"", 5000).map_err(|e| e.kind()).map(|o| o.stdout), Err(Kind::ResourceExhausted));
        assert_eq!(sh("printf 12345", b"", 5).expect("exactly the limit").stdout, b"12345");
        let output = sh("yes | head -c 3000000 >&2; printf end >&2", b"", 1000).expect("runs");
        assert_eq!(output.stderr.len(), 1000);
        assert!(output.stderr.ends_with(b"y\nend"));
    }

    #[test]
    fn what_does_not_start_is_named() {
        let e = run(&mut Command::new("/nonexistent/plugin"), b"", None, 100).expect_err("there is none");
        assert_eq!(e.kind(), Kind::Unknown);
        assert!(e.message().starts_with("start /nonexistent/plugin: "), "{e}");
    }

    #[test]
    fn a_tail_is_one_short_line() {
        assert_eq!(tail(b" a\nb\x1b[0m\n"), "a b [0m");
        assert_eq!(tail(&[b'x'; 5000]).len(), TAIL_BYTES);
        assert_eq!(tail(b""), "");
    }
}
