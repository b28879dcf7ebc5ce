//! Relays the output of containers and execs: out of FIFOs, into CRI log files or memory; one thread for all.
//!
//! Knows descriptors and files, nothing of stores or gRPC. The engine (`relay`) owns all state and has no thread; the
//! [`Hub`] gives it one, opens what has to be opened on its caller's thread, sends a command and waits for the answer.
//! Beside its log a container has a socket (`door`), for those who attach to it and for rotating the log from another
//! process; `wire` says what goes over it, and [`Attachment`] is a client of it.

mod attachment;
mod capture;
mod cri_log;
mod door;
mod log_file;
mod relay;
mod thread;
mod timestamp;
mod wire;

use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

pub use attachment::{reopen_log, Attachment, Buffer, Heard};
pub use capture::Capture;
pub use door::{Door, Stdin};
pub use log_file::{open as open_log, LogFile};
pub use relay::{Feed, Output, Relay};

use crate::error::{Context, Error, Result};
use crate::sys::eventfd::EventFd;
use crate::sys::fifo;
use thread::{Command, Thread};

/// How much a container or a command may write while nobody reads, as during a restart of the daemon, before it blocks. Memory
/// is taken only while bytes wait.
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
    /// Who may attach, if anybody.
    pub attach: Option<Attach>,
}

/// The way into a container: its socket and its input.
#[derive(Debug)]
pub struct Attach {
    /// The directory of its socket, `stdio.sock`.
    pub dir: PathBuf,
    /// The FIFO of standard input, if it takes any.
    pub stdin: Option<PathBuf>,
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
        let relay = Relay::new(limits.line_bytes).context(doing)?;
        relay.wake_by(&*wake).context(doing)?;
        let body = Thread { relay, wake: wake.clone(), commands: inbox, waiting: HashMap::new() };
        let thread = std::thread::Builder::new().name("stdio".into()).spawn(|| body.run()).context(doing)?;
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
        let files = [reader(streams.stdout).with_context(doing)?, reader(streams.stderr).with_context(doing)?];
        let output = match streams.sink {
            Sink::Log { path: Some(path) } => {
                let file = log_file::open(&path).with_context(doing)?;
                Output::Log(LogFile::new(path, file))
            }
            Sink::Log { path: None } => Output::Discard,
            Sink::Capture(capture) => Output::Capture(capture),
        };
        let door = |Attach { dir, stdin }| Door::open(&dir, stdin.map_or(Stdin::Closed, Stdin::At));
        let door = streams.attach.map(door).transpose().with_context(doing)?;
        let feed = Feed { streams: files, output, door };
        self.ask(|reply| Command::Open { key: key.into(), feed, reply })?
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
        enlarge_pipe(&fifo, path.display());
    }
    Ok(fifo)
}

/// Lets a pipe hold [`PIPE_BYTES`], if the kernel allows it.
pub fn enlarge_pipe(pipe: &File, name: impl std::fmt::Display) {
    if let Err(e) = fifo::resize(pipe, PIPE_BYTES as i32) {
        log::debug!("enlarge the pipe {name}: {e}; who writes to it may block earlier while nobody reads");
    }
}

fn thread_gone() -> Error {
    Error::internal("the stdio thread is gone; restart the daemon")
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::io::{ErrorKind, Read, Write};
    use std::os::unix::fs::OpenOptionsExt;
    use std::path::Path;
    use std::sync::MutexGuard;
    use std::time::Duration;

    use super::*;
    use crate::error::Kind;
    use crate::sync::Mutex;

    /// One hub at a time: its thread is counted.
    static ALONE: Mutex<()> = Mutex::new(());

    struct Rig {
        hub: Hub,
        dir: PathBuf,
        _alone: MutexGuard<'static, ()>,
    }

    impl Rig {
        fn new(name: &str) -> Rig {
            let alone = ALONE.lock();
            let dir = std::env::temp_dir().join(format!("cricket-stdio-{}-{name}", std::process::id()));
            fs::remove_dir_all(&dir).ok();
            fs::create_dir(&dir).unwrap();
            Rig { hub: Hub::start(Limits::default()).unwrap(), dir, _alone: alone }
        }

        fn fifo(&self, name: &str) -> PathBuf {
            let path = self.dir.join(name);
            fifo::make(&path).unwrap();
            path
        }

        fn log(&self) -> PathBuf {
            self.dir.join("0.log")
        }

        /// Opens `key` with both streams and the log; returns the FIFOs.
        fn open(&self, key: &str) -> (PathBuf, PathBuf) {
            let (out, err) = (self.fifo(&format!("{key}-out")), self.fifo(&format!("{key}-err")));
            self.hub.open(key, to_log(Some(&out), Some(&err), &self.log())).unwrap();
            (out, err)
        }

        fn finish(&self, key: &str) -> Ending {
            self.hub.finish(key, in_a_minute()).unwrap()
        }

        /// What of ours is open below the test's directory.
        fn open_files(&self) -> usize {
            let fds = fs::read_dir("/proc/self/fd").unwrap();
            fds.filter(|fd| fs::read_link(fd.as_ref().unwrap().path()).is_ok_and(|to| to.starts_with(&self.dir)))
                .count()
        }
    }

    impl Drop for Rig {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.dir).ok();
        }
    }

    fn to_log(stdout: Option<&Path>, stderr: Option<&Path>, log: &Path) -> Streams {
        let owned = |path: Option<&Path>| path.map(Path::to_path_buf);
        Streams {
            stdout: owned(stdout),
            stderr: owned(stderr),
            sink: Sink::Log { path: Some(log.into()) },
            attach: None,
        }
    }

    fn in_a_minute() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    fn writer(fifo: &Path) -> File {
        OpenOptions::new().write(true).open(fifo).unwrap()
    }

    fn stdio_threads() -> usize {
        let tasks = fs::read_dir("/proc/self/task").unwrap();
        tasks.filter(|t| fs::read(t.as_ref().unwrap().path().join("comm")).is_ok_and(|name| name == b"stdio\n")).count()
    }

    /// The lines of a log without their times, which are checked for their shape.
    fn lines(log: &Path) -> Vec<String> {
        let text = fs::read_to_string(log).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'));
        let line = |line: &str| {
            let (time, rest) = line.split_at(31);
            let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
            assert_eq!(shape, "0000-00-00T00:00:00.000000000Z ");
            rest.to_string()
        };
        text.split_terminator('\n').map(line).collect()
    }

    #[test]
    fn both_streams_end_up_in_the_log() {
        let rig = Rig::new("both");
        let (out, err) = rig.open("c");
        let (mut out, mut err) = (writer(&out), writer(&err));
        out.write_all(b"one\r\n\ntw").unwrap();
        err.write_all(b"oops\n").unwrap();
        out.write_all(b"o\nhalf").unwrap();
        drop((out, err));
        assert_eq!(rig.finish("c"), Ending::Complete);
        let (errors, output): (Vec<_>, Vec<_>) = lines(&rig.log()).into_iter().partition(|l| l.starts_with("stderr"));
        assert_eq!(output, ["stdout F one", "stdout F ", "stdout F two", "stdout P half"]);
        assert_eq!(errors, ["stderr F oops"]);
        assert_eq!(rig.open_files(), 0);
    }

    #[test]
    fn a_writer_that_comes_late_is_not_taken_for_an_end() {
        let rig = Rig::new("late");
        let (out, _) = rig.open("c");
        // Another key lives its whole life meanwhile: the thread had every chance to see a wrong end.
        rig.open("d");
        assert_eq!(rig.finish("d"), Ending::Complete, "no writer ever came and none will: does not block");
        writer(&out).write_all(b"here\n").unwrap();
        assert_eq!(rig.finish("c"), Ending::Complete);
        assert_eq!(lines(&rig.log()), ["stdout F here"]);
    }

    #[test]
    fn a_writer_that_never_closes_meets_the_deadline() {
        let rig = Rig::new("deadline");
        let (out, err) = rig.open("c");
        let mut stays = writer(&out);
        writer(&err).write_all(b"gone\n").unwrap();
        stays.write_all(b"line\nhalf").unwrap();
        assert_eq!(rig.hub.finish("c", Instant::now()).unwrap(), Ending::GivenUp);
        let mut logged = lines(&rig.log());
        logged.sort_unstable();
        assert_eq!(logged, ["stderr F gone", "stdout F line", "stdout P half"]);
        assert_eq!(stays.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
        drop(stays);
        assert_eq!((rig.open_files(), rig.finish("c")), (0, Ending::Complete), "unknown by now");
    }

    #[test]
    fn finish_wakes_at_the_end_and_at_a_close() {
        let rig = Rig::new("wakes");
        for (key, ending) in [("c", Ending::Complete), ("d", Ending::GivenUp)] {
            let (out, _) = rig.open(key);
            let stays = writer(&out);
            let (hub, wait) = (rig.hub.clone(), in_a_minute());
            let waiter = std::thread::Builder::new().spawn(move || hub.finish(key, wait).unwrap()).unwrap();
            if ending == Ending::Complete {
                drop(stays);
                assert_eq!(waiter.join().unwrap(), ending);
            } else {
                // The waiter may come before or after the close: unknown keys are complete.
                rig.hub.close(key);
                assert!(matches!(waiter.join().unwrap(), Ending::GivenUp | Ending::Complete));
            }
        }
    }

    #[test]
    fn reopening_under_fire_loses_doubles_and_tears_nothing() {
        const LINES: usize = 100_000;
        const ROUNDS: usize = 10;
        let rig = Rig::new("fire");
        let (out, _) = rig.open("c");
        let (mark, marks) = mpsc::channel();
        let mut fifo = writer(&out);
        let writing = std::thread::Builder::new().spawn(move || {
            let mut text = Vec::new();
            for number in 0..LINES {
                writeln!(text, "line {number} {}", "x".repeat(number % 200)).unwrap();
                if number % 7 == 0 || number == LINES - 1 {
                    fifo.write_all(&text).unwrap();
                    text.clear();
                }
                if number % (LINES / ROUNDS) == LINES / ROUNDS / 2 {
                    mark.send(()).unwrap();
                }
            }
        });
        let mut rotated: Vec<PathBuf> = Vec::new();
        for () in marks {
            let old = rig.dir.join(format!("0.log.{}", rotated.len()));
            fs::rename(rig.log(), &old).unwrap();
            rig.hub.reopen_log("c").unwrap();
            let complete = fs::metadata(&old).unwrap().len();
            rig.hub.reopen_log("c").unwrap();
            assert_eq!(fs::metadata(&old).unwrap().len(), complete, "nothing more is written to a rotated log");
            rotated.push(old);
        }
        writing.unwrap().join().unwrap();
        assert_eq!((rig.finish("c"), rotated.len()), (Ending::Complete, ROUNDS));
        rotated.push(rig.log());
        let mut number = 0;
        for line in rotated.iter().flat_map(|log| lines(log)) {
            assert_eq!(line, format!("stdout F line {number} {}", "x".repeat(number % 200)));
            number += 1;
        }
        assert_eq!((number, rig.open_files()), (LINES, 0));
    }

    #[test]
    fn a_failed_reopen_changes_nothing() {
        let rig = Rig::new("reopen");
        assert_eq!(rig.hub.reopen_log("c").unwrap_err().kind(), Kind::NotFound);
        let (out, _) = rig.open("c");
        let moved = rig.dir.join("moved");
        fs::rename(rig.log(), &moved).unwrap();
        std::os::unix::fs::symlink("elsewhere", rig.log()).unwrap();
        assert_eq!(rig.hub.reopen_log("c").unwrap_err().kind(), Kind::InvalidArgument);
        writer(&out).write_all(b"still\n").unwrap();
        rig.finish("c");
        assert_eq!(lines(&moved), ["stdout F still"]);
        let discard = Streams { stdout: None, stderr: None, sink: Sink::Log { path: None }, attach: None };
        rig.hub.open("d", discard).unwrap();
        rig.hub.reopen_log("d").unwrap();
    }

    #[test]
    fn what_cannot_be_opened_is_refused_and_leaves_nothing_open() {
        let rig = Rig::new("refuse");
        assert_eq!(Hub::start(Limits { line_bytes: 0 }).unwrap_err().kind(), Kind::InvalidArgument);
        let fifo = rig.fifo("out");
        let kind = |stdout: &Path, log: &Path| {
            rig.hub.open("c", to_log(Some(stdout), None, log)).map_err(|e| e.kind()).unwrap_err()
        };
        assert_eq!(kind(&fifo, &rig.dir.join("no/0.log")), Kind::FailedPrecondition);
        assert_eq!(kind(&rig.dir.join("missing"), &rig.log()), Kind::Unknown);
        assert_eq!(kind(Path::new("/proc/self/stat"), &rig.log()), Kind::InvalidArgument);
        assert_eq!(rig.open_files(), 0);
        rig.hub.open("c", to_log(Some(&fifo), None, &rig.log())).unwrap();
        assert_eq!(kind(&fifo, &rig.log()), Kind::AlreadyExists);
        rig.hub.close("c");
        rig.hub.close("c");
        assert_eq!(rig.open_files(), 0);
    }

    #[test]
    fn a_capture_is_bounded_and_the_command_still_ends() {
        let rig = Rig::new("capture");
        let (out, err) = (rig.fifo("out"), rig.fifo("err"));
        let capture = Capture::new(100_000);
        let sink = Sink::Capture(capture.clone());
        rig.hub
            .open("exec", Streams { stdout: Some(out.clone()), stderr: Some(err.clone()), sink, attach: None })
            .unwrap();
        writer(&err).write_all(b"no line end").unwrap();
        writer(&out).write_all(&vec![b'o'; 1 << 20]).unwrap();
        assert_eq!(rig.finish("exec"), Ending::Complete);
        let (stdout, stderr) = capture.take();
        assert_eq!(stdout.len() + stderr.len(), 100_000);
        assert!(stdout.iter().all(|byte| *byte == b'o') && b"no line end".starts_with(&stderr));
    }

    #[test]
    fn a_full_disk_does_not_stop_the_container() {
        let rig = Rig::new("full");
        let out = rig.fifo("out");
        rig.hub.open("c", to_log(Some(&out), None, Path::new("/dev/full"))).unwrap();
        writer(&out).write_all(&b"line\n".repeat(200_000)).unwrap();
        assert_eq!(rig.finish("c"), Ending::Complete);
    }

    #[test]
    fn a_flood_does_not_starve_the_others() {
        let rig = Rig::new("flood");
        let flood = rig.fifo("flood");
        // Empty lines cost the reader most: the pipe is full again before it is through with what it took.
        rig.hub.open("flood", to_log(Some(&flood), None, Path::new("/dev/full"))).unwrap();
        let mut water = writer(&flood);
        let flooding = std::thread::Builder::new().spawn(move || loop {
            if let Err(e) = water.write_all(&[b'\n'; 1 << 16]) {
                return e.kind();
            }
        });
        for key in ["a", "b", "c"] {
            let (out, err) = rig.open(key);
            writer(&err).write_all(key.as_bytes()).unwrap();
            writer(&out).write_all(b"\n").unwrap();
            assert_eq!(rig.finish(key), Ending::Complete);
        }
        assert_eq!(lines(&rig.log()).len(), 6);
        rig.hub.close("flood");
        assert_eq!(flooding.unwrap().join().unwrap(), ErrorKind::BrokenPipe);
    }

    #[test]
    fn two_hundred_containers_need_one_thread_and_give_all_descriptors_back() {
        let rig = Rig::new("many");
        let keys: Vec<String> = (0..200).map(|number| format!("c{number}")).collect();
        let log = |key: &str| rig.dir.join(format!("{key}.log"));
        let open = |key: &String| {
            let out = rig.fifo(key);
            rig.hub.open(key, to_log(Some(&out), None, &log(key))).unwrap();
            writer(&out)
        };
        let mut writers: Vec<File> = keys.iter().map(open).collect();
        assert_eq!((rig.open_files(), stdio_threads()), (3 * keys.len(), 1));
        for round in 0..20 {
            for (fifo, key) in writers.iter_mut().zip(&keys) {
                writeln!(fifo, "{key} {round}").unwrap();
            }
        }
        drop(writers);
        for key in &keys {
            assert_eq!(rig.finish(key), Ending::Complete);
            let expected: Vec<_> = (0..20).map(|round| format!("stdout F {key} {round}")).collect();
            assert_eq!(lines(&log(key)), expected);
        }
        assert_eq!((rig.open_files(), stdio_threads()), (0, 1));
    }

    #[test]
    fn a_restart_loses_and_doubles_nothing() {
        let mut rig = Rig::new("restart");
        let (out, _) = rig.open("c");
        // The shim holds a reading end too.
        let (shim, mut fifo) = (fifo::open_reader(&out).unwrap(), writer(&out));
        let mut sent = String::new();
        for round in 0..20 {
            let text = format!("round {round}\nhalf");
            sent.push_str(&text);
            fifo.write_all(text.as_bytes()).unwrap();
            rig.hub = Hub::start(Limits::default()).unwrap();
            rig.hub.open("c", to_log(Some(&out), None, &rig.log())).unwrap();
        }
        drop(fifo);
        assert_eq!(rig.finish("c"), Ending::Complete);
        assert_eq!((&shim).read(&mut [0; 1]).unwrap(), 0);
        let mut logged = String::new();
        for line in lines(&rig.log()) {
            logged.push_str(&line["stdout F ".len()..]);
            logged.extend(line.starts_with("stdout F").then_some('\n'));
        }
        assert_eq!(logged, sent);
    }

    #[test]
    fn only_the_last_handle_stops_the_thread() {
        let rig = Rig::new("last");
        let (hub, out) = (Hub::start(Limits::default()).unwrap(), rig.fifo("out"));
        hub.open("c", to_log(Some(&out), None, &rig.log())).unwrap();
        let mut fifo = writer(&out);
        drop(hub.clone());
        fifo.write_all(b"still read\n").unwrap();
        assert_eq!(hub.open("c", to_log(Some(&out), None, &rig.log())).unwrap_err().kind(), Kind::AlreadyExists);
        drop(hub);
        assert_eq!(fifo.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    }

    #[test]
    fn containers_get_a_larger_pipe_than_execs() {
        let rig = Rig::new("pipes");
        for (enlarge, room) in [(true, PIPE_BYTES), (false, 64 << 10)] {
            let path = rig.fifo(&format!("{room}"));
            let _reader = open_fifo(&path, enlarge).unwrap();
            let mut fifo = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap();
            assert_eq!(fifo.write(&vec![0; 1 << 20]).unwrap(), room);
        }
    }
}
