//! A child process with pipes for its standard streams: fed and read until it ends, a deadline passes, or another thread
//! breaks that off. A process that the kernel holds keeps nobody waiting.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Instant;

use super::descriptors::set_nonblocking;
use super::eventfd::EventFd;
use super::poll::Poll;
use super::process::{end, started, tail};
use crate::error::{Context, Error, Kind, Result};

/// How much is read from one pipe before the deadline is looked at again; no pipe holds more unless root enlarged it.
const DRAIN_BYTES: usize = 1 << 20;

/// What a process left behind.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// All of its standard output.
    pub stdout: Vec<u8>,
    /// The end of its standard error, at most as much as it may write to stdout.
    pub stderr: Vec<u8>,
}

/// A process that is fed and read by its owner. Dropping it ends it and its whole group.
pub struct Piped {
    /// Until it has been waited for.
    child: Option<Child>,
    exit: OwnedFd,
    stop: Option<Arc<EventFd>>,
    stdin: Option<File>,
    stdout: Collected,
    stderr: Collected,
    max_output: usize,
}

/// One output pipe until its end of file, and what came out of it.
struct Collected {
    pipe: Option<File>,
    data: Vec<u8>,
}

impl Piped {
    /// Starts `command` in a process group of its own, with the stdin that it says and pipes for the other two, which may
    /// hold `max_output` bytes of stdout and of the end of stderr in memory. Needs Linux 5.3 (`pidfd_open`).
    ///
    /// # Errors
    /// `Unknown` when it could not be started.
    pub fn start(command: &mut Command, max_output: usize) -> Result<Self> {
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let (mut child, exit) = started(command)?;
        let file = |pipe: OwnedFd| File::from(pipe);
        let stdin = child.stdin.take().map(|pipe| file(pipe.into()));
        let stdout = Collected { pipe: child.stdout.take().map(|pipe| file(pipe.into())), data: Vec::new() };
        let stderr = Collected { pipe: child.stderr.take().map(|pipe| file(pipe.into())), data: Vec::new() };
        let process = Piped { child: Some(child), exit, stop: None, stdin, stdout, stderr, max_output };
        for pipe in [&process.stdin, &process.stdout.pipe, &process.stderr.pipe].into_iter().flatten() {
            set_nonblocking(pipe).context("make a pipe non-blocking")?;
        }
        Ok(process)
    }

    /// Signalled, from any thread, it breaks off what the owner waits for.
    ///
    /// # Errors
    /// When there are too many descriptors.
    pub fn stop(&mut self) -> Result<Arc<EventFd>> {
        let stop = Arc::new(EventFd::new().context("make an eventfd")?);
        Ok(self.stop.insert(stop).clone())
    }

    /// Feeds it. Blocks while it is busy, at most until `deadline`. What one does not read that has closed its stdin or has
    /// ended is dropped: [`Piped::finish`] knows why.
    ///
    /// # Errors
    /// `DeadlineExceeded`, `Canceled` when it was stopped, `ResourceExhausted` when it has written more to stdout than it
    /// may. It should be dropped then.
    pub fn write(&mut self, bytes: &[u8], deadline: Option<Instant>) -> Result<()> {
        self.pump(Some(bytes), deadline)
    }

    /// Whether it has neither closed its stdin nor ended, as far as that is known.
    pub fn takes_input(&self) -> bool {
        self.stdin.is_some()
    }

    /// Closes its stdin. Does not block.
    pub fn end_input(&mut self) {
        self.stdin = None;
    }

    /// Closes its stdin and waits until it has ended. Blocks, at most until `deadline`.
    ///
    /// # Errors
    /// As those of [`Piped::write`]; it is killed then. A failure exit is not an error.
    pub fn finish(mut self, deadline: Option<Instant>) -> Result<Output> {
        self.end_input();
        self.pump(None, deadline)?;
        let mut child = self.child.take().ok_or_else(|| Error::internal("a process is waited for twice"))?;
        let status = child.wait().context("wait for a process")?;
        let data = |of: &mut Collected| std::mem::take(&mut of.data);
        Ok(Output { status, stdout: data(&mut self.stdout), stderr: data(&mut self.stderr) })
    }

    /// Moves bytes until all of `input` is in its pipe, or without one until it has ended.
    fn pump(&mut self, input: Option<&[u8]>, deadline: Option<Instant>) -> Result<()> {
        let mut unsent = input.unwrap_or_default();
        loop {
            self.feed(&mut unsent)?;
            if input.is_some() && unsent.is_empty() {
                return Ok(());
            }
            match self.wait(!unsent.is_empty(), deadline) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(e) => {
                    let said = tail(&self.stderr.data);
                    return Err(match said.is_empty() {
                        true => e,
                        false => Error::new(e.kind(), format!("{}: it last said: {said}", e.message())),
                    });
                }
            }
        }
    }

    /// Writes what the pipe takes; closes it when nobody reads it.
    fn feed(&mut self, unsent: &mut &[u8]) -> Result<()> {
        while let (Some(pipe), false) = (&mut self.stdin, unsent.is_empty()) {
            match pipe.write(unsent) {
                Ok(n) => *unsent = &unsent[n..],
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::BrokenPipe => self.stdin = None,
                Err(e) => return Err(e).context("write to the stdin of a process"),
            }
        }
        if self.stdin.is_none() {
            *unsent = &[];
        }
        Ok(())
    }

    /// Waits until it has taken or said something, and reads what it said. Whether it has ended.
    fn wait(&mut self, has_input: bool, deadline: Option<Instant>) -> Result<bool> {
        let mut poll = Poll::new();
        let exit = poll.add(&self.exit, true, false);
        let stop = self.stop.as_ref().map(|stop| poll.add(stop, true, false));
        if let Some(pipe) = self.stdin.as_ref().filter(|_| has_input) {
            poll.add(pipe, false, true);
        }
        let [stdout, stderr] =
            [&self.stdout, &self.stderr].map(|from| from.pipe.as_ref().map(|pipe| poll.add(pipe, true, false)));
        poll.wait(deadline).context("wait for a process")?;
        let is_ready = |place: Option<_>| place.is_some_and(|place| poll.readable(place));
        // What it wrote before it ended is in the pipes by now, so this reads all of it.
        let ended = poll.readable(exit);
        if ended || is_ready(stdout) {
            self.stdout.drain()?;
        }
        if ended || is_ready(stderr) {
            self.stderr.drain()?;
        }
        let most = self.max_output;
        let surplus = self.stderr.data.len().saturating_sub(most);
        self.stderr.data.drain(..surplus);
        let killed = |kind, why| Err(Error::new(kind, format!("killed, because {why}")));
        if self.stdout.data.len() > most {
            return killed(Kind::ResourceExhausted, format!("it wrote more than {most} bytes to stdout"));
        }
        if ended {
            return Ok(true);
        }
        if is_ready(stop) {
            return killed(Kind::Canceled, "nobody waits for it any more".into());
        }
        if deadline.is_some_and(|at| Instant::now() >= at) {
            return killed(Kind::DeadlineExceeded, "it still ran at its deadline".into());
        }
        Ok(false)
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            end(child, &self.exit);
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::time::Duration;

    fn piped(program: &str) -> Piped {
        Piped::start(Command::new(program).stdin(Stdio::piped()), 100).expect("starts")
    }

    /// A deadline that only a failing test reaches.
    fn patience() -> Option<Instant> {
        Instant::now().checked_add(Duration::from_secs(60))
    }

    #[test]
    fn what_is_fed_bit_by_bit_is_read_until_the_end() {
        let mut cat = piped("cat");
        for part in [&b"fed "[..], b"", b"twice"] {
            cat.write(part, patience()).expect("room");
        }
        let output = cat.finish(patience()).expect("ended");
        assert!(output.status.success());
        assert_eq!(output.stdout, b"fed twice");
    }

    #[test]
    fn who_takes_nothing_is_waited_for_no_longer_than_told() {
        let more = vec![0; 1 << 20];
        let mut sleeping = Piped::start(Command::new("sleep").arg("1000").stdin(Stdio::piped()), 100).expect("starts");
        let soon = Instant::now().checked_add(Duration::from_millis(50));
        assert_eq!(sleeping.write(&more, soon).expect_err("full").kind(), Kind::DeadlineExceeded);
        let stop = sleeping.stop().expect("a descriptor");
        std::thread::scope(|scope| {
            scope.spawn(|| stop.signal());
            assert_eq!(sleeping.write(&more, patience()).expect_err("stopped").kind(), Kind::Canceled);
        });
        let pid = sleeping.child.as_ref().expect("there").id();
        // It stays stopped.
        assert_eq!(sleeping.finish(patience()).expect_err("stopped").kind(), Kind::Canceled);
        assert!(!std::path::Path::new("/proc").join(pid.to_string()).exists());
    }

    #[test]
    fn who_has_ended_takes_anything() {
        let mut ended =
            Piped::start(Command::new("sh").args(["-c", "exit 3"]).stdin(Stdio::piped()), 100).expect("starts");
        for _ in 0..3 {
            ended.write(&vec![0; 1 << 20], patience()).expect("dropped");
        }
        assert_eq!(ended.finish(patience()).expect("ended").status.code(), Some(3));
        let mut killed =
            Piped::start(Command::new("sh").args(["-c", "kill -9 $$"]).stdin(Stdio::piped()), 100).expect("starts");
        killed.write(b"x", patience()).expect("dropped");
        assert_eq!(killed.finish(patience()).expect("ended").status.signal(), Some(libc::SIGKILL));
    }
}
