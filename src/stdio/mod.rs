//! Relays the output of containers and execs: out of FIFOs, into CRI log files or memory; one thread for all.
//!
//! Knows descriptors and files, nothing of stores or gRPC. The thread owns all state (`relay`); the [`Hub`] opens what
//! has to be opened on its caller's thread, sends a command and waits for the answer.

mod capture;
mod cri_log;
mod log_file;
mod relay;
mod timestamp;

use std::fs::File;
use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

pub use capture::Capture;

use crate::error::{Context, Error, Result};
use crate::sys::eventfd::EventFd;
use crate::sys::fifo;
use log_file::LogFile;
use relay::{Command, Output, Relay};

/// How much a container may write while nobody reads, as during a restart of the daemon, before it blocks.
const PIPE_BYTES: usize = 256 << 10;

/// The sizes a [`Hub`] works with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest content of one log line in bytes; what is longer is split into partial lines. Per stream so much
    /// is kept in memory at most. At least 1.
    pub line_bytes: usize,
}

impl Default for Limits {
    /// 16384 bytes a line, as containerd splits them.
    fn default() -> Self {
        Limits { line_bytes: 16 << 10 }
    }
}

/// What is to be relayed, and where to. A container with a terminal has only stdout.
#[derive(Debug)]
pub struct Streams {
    /// The FIFO of standard output.
    pub stdout: Option<PathBuf>,
    /// The FIFO of standard error.
    pub stderr: Option<PathBuf>,
    /// Where the output goes.
    pub sink: Sink,
}

/// Where output goes.
#[derive(Debug)]
pub enum Sink {
    /// Into a CRI log file, or nowhere if there is no path: the FIFOs are drained all the same. Their pipes are
    /// enlarged, so that the container can go on while the daemon restarts.
    Log {
        /// The log file; appended to.
        path: Option<PathBuf>,
    },
    /// Into memory.
    Capture(Arc<Capture>),
}

/// How the relaying of a key ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All streams were read to their end, or the key was not open.
    Complete,
    /// The streams were given up while they still had a writer: what it writes later is lost.
    GivenUp,
}

/// The handle to the thread. Cheap to clone; when the last clone is dropped, what is in the middle of a line is
/// flushed as a partial line, all is closed and the thread is joined. The FIFOs' writers are not disturbed as long as
/// someone else (containerd's shim) holds a reading end.
///
/// All methods wait for the thread, and that for the disks the logs are on. They may be called from any thread.
#[derive(Clone, Debug)]
pub struct Hub(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    commands: Sender<Command>,
    wake: Arc<EventFd>,
    /// Taken only by the drop.
    thread: Option<JoinHandle<()>>,
}

impl Hub {
    /// Starts the thread. `InvalidArgument` for impossible limits.
    pub fn start(limits: Limits) -> Result<Hub> {
        if limits.line_bytes == 0 {
            return Err(Error::invalid("a log line must be allowed at least 1 byte"));
        }
        let doing = "start the stdio thread";
        let (commands, inbox) = mpsc::channel();
        let wake = Arc::new(EventFd::new().context(doing)?);
        let relay = Relay::new(wake.clone(), inbox, limits.line_bytes).context(doing)?;
        let thread = std::thread::Builder::new().name("stdio".into()).spawn(|| relay.run()).context(doing)?;
        Ok(Hub(Arc::new(Handle { commands, wake, thread: Some(thread) })))
    }

    /// Opens the reading ends of the FIFOs and the log, and begins to relay. `key` is the id of a container or exec.
    ///
    /// To be called before the task exists, so that there is a reader when its writer comes, or again after a
    /// restart. Does not block on FIFOs without a writer. `AlreadyExists` if `key` is open; `FailedPrecondition` if
    /// the directory of the log is missing. On error nothing is open, and a log file may have been made.
    pub fn open(&self, key: &str, streams: Streams) -> Result<()> {
        let doing = || format!("open the output of {key}");
        let enlarge = matches!(streams.sink, Sink::Log { .. });
        let reader = |path: Option<PathBuf>| path.map(|path| open_fifo(&path, enlarge)).transpose();
        let fifos = [reader(streams.stdout).with_context(doing)?, reader(streams.stderr).with_context(doing)?];
        let output = match streams.sink {
            Sink::Log { path: Some(path) } => {
                let file = log_file::open(&path).with_context(doing)?;
                Output::Log(LogFile::new(path, file))
            }
            Sink::Log { path: None } => Output::Discard,
            Sink::Capture(capture) => Output::Capture(capture),
        };
        self.ask(|reply| Command::Open { key: key.into(), fifos, output, reply })?
    }

    /// Opens the log's path again, after it was renamed, and writes there from now on: when this returns, the old file
    /// is closed and complete. No line is lost, doubled or torn. On error the old file stays in use. Does nothing if
    /// there is no log; `NotFound` if `key` is not open, and then no file is made.
    pub fn reopen_log(&self, key: &str) -> Result<()> {
        let doing = || format!("reopen the log of {key}");
        let path = self.ask(|reply| Command::LogPath { key: key.into(), reply })?.with_context(doing)?;
        let Some(path) = path else { return Ok(()) };
        let file = log_file::open(&path).with_context(doing)?;
        self.ask(|reply| Command::SwitchLog { key: key.into(), file, reply })?.with_context(doing)
    }

    /// To be called when the task was deleted, or could not be made: no new writer will come.
    ///
    /// Blocks until all streams are at their end, at the latest until `deadline`; then relays what is still in the
    /// pipes, flushes (an unfinished line as a partial one), closes and forgets the key. A stream that never had a
    /// writer does not block. A deadline that has passed is not an error: [`Ending::GivenUp`]. Idempotent.
    pub fn finish(&self, key: &str, deadline: Instant) -> Result<Ending> {
        let ended = self.send(|reply| Command::Finish { key: key.into(), reply })?;
        match ended.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(ending) => Ok(ending),
            Err(RecvTimeoutError::Timeout) => self.ask(|reply| Command::GiveUp { key: key.into(), reply }),
            Err(RecvTimeoutError::Disconnected) => Err(thread_gone()),
        }
    }

    /// Closes the streams of `key` without reading on, and forgets it; what was read is flushed. Idempotent.
    pub fn close(&self, key: &str) {
        if let Err(e) = self.ask(|reply| Command::Close { key: key.into(), reply }) {
            log::error!("close the output of {key}: {e}");
        }
    }

    fn ask<T>(&self, command: impl FnOnce(Sender<T>) -> Command) -> Result<T> {
        self.send(command)?.recv().map_err(|_| thread_gone())
    }

    fn send<T>(&self, command: impl FnOnce(Sender<T>) -> Command) -> Result<mpsc::Receiver<T>> {
        let (reply, answer) = mpsc::channel();
        self.0.commands.send(command(reply)).map_err(|_| thread_gone())?;
        self.0.wake.signal();
        Ok(answer)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // A thread that is gone already has nothing left to stop.
        self.commands.send(Command::Stop).ok();
        self.wake.signal();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            log::error!("the stdio thread has panicked; container output was not relayed since");
        }
    }
}

fn open_fifo(path: &std::path::Path, enlarge: bool) -> Result<File> {
    let fifo = fifo::open_reader(path)?;
    if enlarge {
        if let Err(e) = fifo::resize(&fifo, PIPE_BYTES as i32) {
            log::debug!("enlarge the pipe {}: {e}; a container may block earlier while nobody reads", path.display());
        }
    }
    Ok(fifo)
}

fn thread_gone() -> Error {
    Error::internal("the stdio thread is gone; restart the daemon")
}
