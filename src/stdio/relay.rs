//! The engine: owns every stream, log file and door, and handles what is ready when it is given its turn.
//!
//! It has no thread of its own: in the daemon the hub's thread drives it, in a shim the shim's loop does, which watches it
//! as one descriptor. Nothing here is shared, so there is no lock. The price: a disk on which writes hang holds up all
//! logs and all commands. That is accepted. The containers go on as long as their pipes have room, and threads per
//! container would cost all of them memory for a disk that is broken anyway.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::capture::Capture;
use super::cri_log::{Lines, Source};
use super::door::{parts, token, Door, Reopen};
use super::log_file::{self, LogFile};
use super::{Ending, PIPE_BYTES};
use crate::error::{Context, Error, Kind, Result};
use crate::sys::epoll::Epoll;

/// The token of a descriptor that only wakes whoever drives us.
const WAKE: u64 = u64::MAX;
const SOURCES: [Source; 2] = [Source::Stdout, Source::Stderr];
/// One read; the share of a turn, so that a fast writer leaves time for the others.
const READ: usize = 64 << 10;
/// As many reads as see the end of a pipe to which nobody writes any more, however full it was.
const READS_TO_END: usize = PIPE_BYTES / READ + 1;

/// Where output goes, opened.
#[derive(Debug)]
pub enum Output {
    /// Into a CRI log file.
    Log(LogFile),
    /// Nowhere.
    Discard,
    /// Into memory.
    Capture(Arc<Capture>),
}

/// What is to be relayed: everything is open already, and does not block.
#[derive(Debug)]
pub struct Feed {
    /// The reading ends, by [`Source`].
    pub streams: [Option<File>; 2],
    /// Where the output goes.
    pub output: Output,
    /// Who may attach, and the input.
    pub door: Option<Door>,
}

/// The streams of one container or exec.
struct Group {
    key: String,
    /// By [`Source`]; none if there never was one or it has ended.
    streams: [Option<Stream>; 2],
    output: Output,
    door: Option<Door>,
    /// No new writer will come: to be retired as soon as both streams have ended.
    finishing: bool,
}

struct Stream {
    file: File,
    lines: Lines,
}

/// See the module.
pub struct Relay {
    epoll: Epoll,
    line_bytes: usize,
    groups: HashMap<u32, Group>,
    numbers: HashMap<String, u32>,
    next: u32,
    /// All three are for all streams: a turn leaves nothing in them.
    input: Vec<u8>,
    batch: Vec<u8>,
    ready: Vec<u64>,
    /// Keys that were being finished and have ended.
    finished: Vec<String>,
}

impl Relay {
    /// An engine without streams. Lines of more than `line_bytes`, at least 1, are split.
    pub fn new(line_bytes: usize) -> io::Result<Relay> {
        Ok(Relay {
            epoll: Epoll::new()?,
            line_bytes,
            groups: HashMap::new(),
            numbers: HashMap::new(),
            next: 0,
            input: Vec::new(),
            batch: Vec::new(),
            ready: Vec::new(),
            finished: Vec::new(),
        })
    }

    /// [`Relay::turn`] returns when `flag` is readable, and says so.
    pub fn wake_by(&self, flag: &impl AsFd) -> io::Result<()> {
        self.epoll.add(flag, WAKE)
    }

    /// Begins to relay. `AlreadyExists` if `key` is open.
    pub fn open(&mut self, key: &str, feed: Feed) -> Result<()> {
        if self.numbers.contains_key(key) {
            return Err(Error::new(Kind::AlreadyExists, format!("the output of {key} is open already")));
        }
        // Used up even if this fails: a late event must not find somebody else under its number.
        let number = self.next;
        self.next = self.next.wrapping_add(1) % u32::MAX;
        let Feed { streams, output, door } = feed;
        let mut group = Group { key: key.to_owned(), streams: [None, None], output, door, finishing: false };
        let watch = |what: &str, e| Error::caused(Kind::ResourceExhausted, format!("watch the {what} of {key}"), e);
        for (source, file) in SOURCES.into_iter().zip(streams) {
            let Some(file) = file else { continue };
            self.epoll.add(&file, token(number, source as u32)).map_err(|e| watch(source.name(), e))?;
            group.streams[source as usize] = Some(Stream { file, lines: Lines::new(self.line_bytes) });
        }
        if let Some(door) = &mut group.door {
            door.watch(&self.epoll, number).map_err(|e| watch("socket", e))?;
        }
        self.numbers.insert(key.to_owned(), number);
        self.groups.insert(number, group);
        Ok(())
    }

    /// Handles what is ready, waiting for something if `wait` says so; returns whether the flag was raised. To be called
    /// whenever the descriptor of this engine is readable.
    pub fn turn(&mut self, wait: bool) -> io::Result<bool> {
        let mut ready = std::mem::take(&mut self.ready);
        match wait {
            true => self.epoll.wait(&mut ready)?,
            false => self.epoll.poll(&mut ready)?,
        }
        let mut woken = false;
        for token in &ready {
            match (*token, parts(*token)) {
                (WAKE, _) => woken = true,
                (_, (number, part)) if (part as usize) < SOURCES.len() => {
                    self.relay(number, SOURCES[part as usize], 1);
                }
                (_, (number, part)) => self.visit(number, part),
            }
        }
        self.ready = ready;
        Ok(woken)
    }

    /// The path of the log; none if there is no log. `NotFound` if `key` is not open.
    pub fn log_path(&mut self, key: &str) -> Result<Option<PathBuf>> {
        Ok(self.group(key)?.log().map(|log| log.path().to_path_buf()))
    }

    /// Writes to `file` from now on and closes the old one. `NotFound` if `key` is not open.
    pub fn switch_log(&mut self, key: &str, file: File) -> Result<()> {
        if let Some(log) = self.group(key)?.log() {
            log.switch(file);
        }
        Ok(())
    }

    /// No new writer will come: what has none now is at its end, which the kernel does not report if there never was
    /// one. The others end when their writer goes; then [`Relay::take_finished`] tells. Returns whether all is over
    /// already, as it is for a key that is not open.
    pub fn finish(&mut self, key: &str) -> bool {
        let Some(number) = self.numbers.get(key).copied() else { return true };
        let over = self.drain(number) == Ending::Complete;
        if over {
            self.retire(number);
        } else if let Some(group) = self.groups.get_mut(&number) {
            group.finishing = true;
        }
        over
    }

    /// The keys whose finishing has come to its end since the last call.
    pub fn take_finished(&mut self) -> Vec<String> {
        std::mem::take(&mut self.finished)
    }

    /// Relays what is in the pipes, then closes and forgets.
    pub fn give_up(&mut self, key: &str) -> Ending {
        let Some(number) = self.numbers.get(key).copied() else { return Ending::Complete };
        let ending = self.drain(number);
        self.retire(number);
        ending
    }

    /// Closes without reading on, and forgets; what was read is flushed.
    pub fn close(&mut self, key: &str) {
        self.numbers.get(key).copied().into_iter().for_each(|number| self.retire(number));
    }

    /// As [`Relay::close`], for all.
    pub fn close_all(&mut self) {
        let all: Vec<u32> = self.groups.keys().copied().collect();
        all.into_iter().for_each(|number| self.retire(number));
    }

    /// Gives the memory of the buffers back until something is read again. For a process that rests for long.
    pub fn rest(&mut self) {
        (self.input, self.batch, self.ready) = (Vec::new(), Vec::new(), Vec::new());
    }

    fn group(&mut self, key: &str) -> Result<&mut Group> {
        let number = self.numbers.get(key);
        number
            .and_then(|number| self.groups.get_mut(number))
            .ok_or_else(|| Error::not_found(format!("the output of {key} is not open")))
    }

    /// Relays what is in the pipes, and says whether that was the end.
    fn drain(&mut self, number: u32) -> Ending {
        SOURCES.into_iter().for_each(|source| self.relay(number, source, READS_TO_END));
        match self.groups.get(&number) {
            Some(group) if !group.ended() => Ending::GivenUp,
            _ => Ending::Complete,
        }
    }

    /// Reads from a stream at most `reads` times, until it is empty or at its end. The stream may be gone: its event
    /// can be behind the command that closed it.
    fn relay(&mut self, number: u32, source: Source, reads: usize) {
        self.input.resize(READ, 0);
        let Some(group) = self.groups.get_mut(&number) else { return };
        for _ in 0..reads {
            let Some(stream) = &mut group.streams[source as usize] else { return };
            match stream.file.read(&mut self.input) {
                Ok(0) => {
                    group.end(source, &self.epoll, &mut self.batch);
                    break;
                }
                Ok(n) => group.relay(source, &self.input[..n], &mut self.batch),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => break,
                // How a terminal says that nobody has its other side open any more.
                Err(e) if e.raw_os_error() == Some(libc::EIO) => {
                    group.end(source, &self.epoll, &mut self.batch);
                    break;
                }
                Err(e) => {
                    log::error!("{}: read {}: {e}", group.key, source.name());
                    group.end(source, &self.epoll, &mut self.batch);
                    break;
                }
            }
        }
        if group.ended() && group.finishing {
            let key = group.key.clone();
            self.retire(number);
            self.finished.push(key);
        }
    }

    /// Something happened at the door.
    fn visit(&mut self, number: u32, part: u32) {
        self.input.resize(READ, 0);
        let Some(group) = self.groups.get_mut(&number) else { return };
        let asked = group.door.as_mut().and_then(|door| door.turn(part, &mut self.input, &self.epoll));
        if let Some(Reopen(client)) = asked {
            let outcome = group.reopen();
            group.door.iter_mut().for_each(|door| door.answer(client, &outcome, &self.epoll));
        }
    }

    /// Flushes, closes and forgets a group.
    fn retire(&mut self, number: u32) {
        let Some(mut group) = self.groups.remove(&number) else { return };
        self.numbers.remove(&group.key);
        SOURCES.into_iter().for_each(|source| group.end(source, &self.epoll, &mut self.batch));
        group.door.into_iter().for_each(|door| door.close(&self.epoll));
    }
}

impl AsFd for Relay {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl Group {
    fn log(&mut self) -> Option<&mut LogFile> {
        match &mut self.output {
            Output::Log(log) => Some(log),
            Output::Discard | Output::Capture(_) => None,
        }
    }

    fn reopen(&mut self) -> Result<()> {
        let key = self.key.clone();
        let Some(log) = self.log() else { return Ok(()) };
        let file = log_file::open(log.path()).with_context(|| format!("reopen the log of {key}"))?;
        log.switch(file);
        Ok(())
    }

    fn ended(&self) -> bool {
        self.streams.iter().all(Option::is_none)
    }

    /// Hands over what was read.
    fn relay(&mut self, source: Source, input: &[u8], batch: &mut Vec<u8>) {
        match (&mut self.output, &mut self.streams[source as usize]) {
            (Output::Log(log), Some(stream)) => {
                let prefix = source.prefix(now());
                let mut rest = input;
                while !rest.is_empty() {
                    rest = stream.lines.feed(&prefix, rest, batch);
                    log.append(&self.key, batch);
                    batch.clear();
                }
            }
            (Output::Capture(capture), _) => capture.append(source, input),
            (Output::Discard, _) | (_, None) => {}
        }
        // After the log, which nobody may hold up.
        self.door.iter_mut().for_each(|door| door.tell(source, input));
    }

    /// Closes one stream and writes its unfinished line.
    fn end(&mut self, source: Source, epoll: &Epoll, batch: &mut Vec<u8>) {
        let Some(mut stream) = self.streams[source as usize].take() else { return };
        if let Err(e) = epoll.remove(&stream.file) {
            log::error!("{}: stop watching {}: {e}", self.key, source.name());
        }
        if let Output::Log(log) = &mut self.output {
            stream.lines.end(&source.prefix(now()), batch);
            log.append(&self.key, batch);
            batch.clear();
        }
    }
}

fn now() -> Duration {
    // A clock before 1970 shows as 1970.
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
