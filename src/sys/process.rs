//! Runs a child process to its end under a deadline: feeds its stdin, collects bounded output, kills its whole group.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::error::{Context, Error, Kind, Result};
use crate::sync::Mutex;

/// How much is read from one pipe before the deadline is looked at again; no pipe holds more unless root enlarged it.
const DRAIN_BYTES: usize = 1 << 20;
/// How long a killed process may take to die before it is left to [`STUCK`].
const DEATH: Duration = Duration::from_secs(2);
/// How much of stderr an error message quotes.
const TAIL_BYTES: usize = 1024;

/// Killed processes that the kernel did not let go yet (a dead file server, usually). Every [`run`] reaps those that
/// have ended since, so that none stays a zombie and no thread waits for one.
static STUCK: Mutex<Vec<Child>> = Mutex::new(Vec::new());

/// What a process left behind.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// All of its standard output.
    pub stdout: Vec<u8>,
    /// The end of its standard error, at most `max_output` bytes.
    pub stderr: Vec<u8>,
}

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
    reap_stuck();
    let mut child = command
        .stdin(if stdin.is_empty() { Stdio::null() } else { Stdio::piped() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .with_context(|| format!("start {}", command.get_program().to_string_lossy()))?;
    let exit = match pidfd(&child) {
        Ok(exit) => exit,
        Err(e) => {
            kill_group(&child);
            child.wait().context("wait for a killed process")?;
            return Err(e);
        }
    };
    let mut pipes = Pipes::of(&mut child);
    match pipes.pump(&exit, stdin, deadline, max_output) {
        Ok(()) => {
            let status = child.wait().context("wait for a process")?;
            Ok(Output { status, stdout: pipes.stdout.data, stderr: pipes.stderr.data })
        }
        Err(e) => {
            end(child, &exit);
            let said = tail(&pipes.stderr.data);
            Err(if said.is_empty() {
                e
            } else {
                Error::new(e.kind(), format!("{}: it last said: {said}", e.message()))
            })
        }
    }
}

/// The end of what a process wrote, as one line for a message: at most 1 KiB, control characters made spaces.
pub fn tail(output: &[u8]) -> String {
    let start = output.len().saturating_sub(TAIL_BYTES);
    let text = String::from_utf8_lossy(&output[start..]);
    text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Our ends of a child's three pipes.
struct Pipes {
    stdin: Option<File>,
    stdout: Collected,
    stderr: Collected,
}

/// One output pipe until its end of file, and what came out of it.
struct Collected {
    pipe: Option<File>,
    data: Vec<u8>,
}

impl Pipes {
    fn of(child: &mut Child) -> Self {
        Pipes {
            stdin: child.stdin.take().map(|p| File::from(OwnedFd::from(p))),
            stdout: Collected { pipe: child.stdout.take().map(|p| File::from(OwnedFd::from(p))), data: Vec::new() },
            stderr: Collected { pipe: child.stderr.take().map(|p| File::from(OwnedFd::from(p))), data: Vec::new() },
        }
    }

    /// Moves bytes until the process behind `exit` has ended.
    fn pump(&mut self, exit: &OwnedFd, input: &[u8], deadline: Option<Instant>, max_output: usize) -> Result<()> {
        for pipe in [&self.stdin, &self.stdout.pipe, &self.stderr.pipe].into_iter().flatten() {
            set_nonblocking(pipe)?;
        }
        let mut unsent = input;
        loop {
            let [stdin, _, _, exited] = poll(
                [
                    (fd_of(self.stdin.as_ref()), libc::POLLOUT),
                    (fd_of(self.stdout.pipe.as_ref()), libc::POLLIN),
                    (fd_of(self.stderr.pipe.as_ref()), libc::POLLIN),
                    (exit.as_raw_fd(), libc::POLLIN),
                ],
                deadline,
            )?;
            if stdin {
                self.feed(&mut unsent)?;
            }
            // What the process wrote before it ended is in the pipes by now, so this reads all of it.
            self.stdout.drain()?;
            self.stderr.drain()?;
            if self.stdout.data.len() > max_output {
                return Err(Error::new(
                    Kind::ResourceExhausted,
                    format!("killed, because it wrote more than {max_output} bytes to stdout"),
                ));
            }
            let surplus = self.stderr.data.len().saturating_sub(max_output);
            self.stderr.data.drain(..surplus);
            if exited {
                return Ok(());
            }
            if deadline.is_some_and(|at| Instant::now() >= at) {
                return Err(Error::new(Kind::DeadlineExceeded, "killed, because it still ran at its deadline"));
            }
        }
    }

    /// Writes what the pipe takes; closes it after the last byte, or when nobody reads it.
    fn feed(&mut self, unsent: &mut &[u8]) -> Result<()> {
        let Some(pipe) = &mut self.stdin else { return Ok(()) };
        match pipe.write(unsent) {
            Ok(n) => *unsent = &unsent[n..],
            Err(e) if e.kind() == ErrorKind::BrokenPipe => *unsent = &[],
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(e) => return Err(e).context("write to the stdin of a process"),
        }
        if unsent.is_empty() {
            self.stdin = None;
        }
        Ok(())
    }
}

impl Collected {
    /// Reads what is there, without blocking and never for ever.
    fn drain(&mut self) -> Result<()> {
        let Some(pipe) = &self.pipe else { return Ok(()) };
        match pipe.take(DRAIN_BYTES as u64).read_to_end(&mut self.data) {
            // Fewer bytes than asked for and no error: the end of the file.
            Ok(n) if n < DRAIN_BYTES => self.pipe = None,
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => return Err(e).context("read the output of a process"),
        }
        Ok(())
    }
}

/// Kills the group and reaps its leader; one that does not die is kept for [`reap_stuck`].
fn end(mut child: Child, exit: &OwnedFd) {
    kill_group(&child);
    let dead = poll([(exit.as_raw_fd(), libc::POLLIN)], Instant::now().checked_add(DEATH));
    if matches!(dead, Ok([true])) && child.wait().is_ok() {
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

fn fd_of(file: Option<&File>) -> RawFd {
    // poll(2) skips negative descriptors.
    file.map_or(-1, AsRawFd::as_raw_fd)
}

/// Waits until a descriptor is ready or `deadline` has passed; says which ones are.
fn poll<const N: usize>(wanted: [(RawFd, libc::c_short); N], deadline: Option<Instant>) -> Result<[bool; N]> {
    let mut fds = wanted.map(|(fd, events)| libc::pollfd { fd, events, revents: 0 });
    let timeout = deadline.map_or(-1, |at| {
        let left = at.saturating_duration_since(Instant::now());
        // Rounded up, so that the deadline has passed when the call comes back empty-handed.
        i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
    });
    // SAFETY: `fds` is an array of N initialised pollfd structures that outlives the call.
    if unsafe { libc::poll(fds.as_mut_ptr(), N as libc::nfds_t, timeout) } < 0 {
        let e = std::io::Error::last_os_error();
        if e.kind() != ErrorKind::Interrupted {
            return Err(e).context("wait for a process");
        }
        return Ok([false; N]);
    }
    Ok(fds.map(|fd| fd.revents != 0))
}

/// A descriptor that becomes readable when `child` exits.
fn pidfd(child: &Child) -> Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers. The child is not reaped yet, so its number is still its own.
    let fd = unsafe {
        libc::syscall(libc::SYS_pidfd_open, libc::c_long::from(child.id() as libc::pid_t), 0 as libc::c_long)
    };
    if fd < 0 {
        return Err(std::io::Error::last_os_error()).context("open a pidfd (needs Linux 5.3)");
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

fn set_nonblocking(file: &File) -> Result<()> {
    // SAFETY: fcntl on an open descriptor that `file` owns; F_GETFL and F_SETFL take and return integers.
    let done = unsafe {
        let flags = libc::fcntl(file.as_raw_fd(), libc::F_GETFL);
        flags >= 0 && libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) >= 0
    };
    if done {
        return Ok(());
    }
    Err(std::io::Error::last_os_error()).context("make a pipe non-blocking")
}
