//! The thread of the hub: owns every stream and log file, reads what is ready, and takes commands in between.
//!
//! Nothing here is shared, so there is no lock. The price: a disk on which writes hang holds up all logs and all
//! commands. That is accepted. The containers go on as long as their pipes have room, and threads per container
//! would cost all of them memory for a disk that is broken anyway.

use std::collections::HashMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::capture::Capture;
use super::cri_log::{Lines, Source, BATCH};
use super::log_file::LogFile;
use super::{Ending, PIPE_BYTES};
use crate::error::{Error, Kind, Result};
use crate::sys::epoll::Epoll;
use crate::sys::eventfd::EventFd;

/// The epoll token of the wake-up flag. Streams have twice their group's number plus their [`Source`].
const WAKE: u64 = u64::MAX;
const SOURCES: [Source; 2] = [Source::Stdout, Source::Stderr];
/// One read; the share of a turn, so that a fast writer leaves time for the others.
const READ: usize = 64 << 10;
/// As many reads as see the end of a pipe to which nobody writes any more, however full it was.
const READS_TO_END: usize = PIPE_BYTES / READ + 1;

/// What the callers ask of the thread. A reply that nobody waits for any more is dropped.
pub(super) enum Command {
    Open { key: String, fifos: [Option<File>; 2], output: Output, reply: Sender<Result<()>> },
    LogPath { key: String, reply: Sender<Result<Option<PathBuf>>> },
    SwitchLog { key: String, file: File, reply: Sender<Result<()>> },
    Finish { key: String, reply: Sender<Ending> },
    GiveUp { key: String, reply: Sender<Ending> },
    Close { key: String, reply: Sender<()> },
    Stop,
}

/// Where the bytes go.
pub(super) enum Output {
    Log(LogFile),
    Discard,
    Capture(Arc<Capture>),
}

/// The streams of one container or exec.
struct Group {
    key: String,
    /// By [`Source`]; none if there never was one or it has ended.
    streams: [Option<Stream>; 2],
    output: Output,
    /// Who waits for both to end.
    waiting: Vec<Sender<Ending>>,
}

struct Stream {
    fifo: File,
    lines: Lines,
}

pub(super) struct Relay {
    epoll: Epoll,
    wake: Arc<EventFd>,
    commands: Receiver<Command>,
    line_bytes: usize,
    groups: HashMap<u64, Group>,
    numbers: HashMap<String, u64>,
    next: u64,
    /// Both are for all streams: a turn leaves nothing in them.
    input: Vec<u8>,
    batch: Vec<u8>,
}

impl Relay {
    pub(super) fn new(wake: Arc<EventFd>, commands: Receiver<Command>, line_bytes: usize) -> std::io::Result<Relay> {
        let epoll = Epoll::new()?;
        epoll.add(&*wake, WAKE)?;
        let (groups, numbers) = (HashMap::new(), HashMap::new());
        let (input, batch) = (vec![0; READ], Vec::with_capacity(BATCH + line_bytes));
        Ok(Relay { epoll, wake, commands, line_bytes, groups, numbers, next: 0, input, batch })
    }

    /// The body of the thread; returns after [`Command::Stop`], with everything flushed and closed.
    pub(super) fn run(mut self) {
        let mut ready = Vec::new();
        'turns: loop {
            if let Err(e) = self.epoll.wait(&mut ready) {
                log::error!("wait for container output: {e}; no output is relayed any more");
                break;
            }
            for token in &ready {
                if *token != WAKE {
                    self.turn(token / 2, SOURCES[(token % 2) as usize], 1);
                    continue;
                }
                self.wake.clear();
                while let Ok(command) = self.commands.try_recv() {
                    if matches!(command, Command::Stop) {
                        break 'turns;
                    }
                    self.obey(command);
                }
            }
        }
        let all: Vec<u64> = self.groups.keys().copied().collect();
        all.into_iter().for_each(|number| self.retire(number, Ending::GivenUp));
    }

    fn obey(&mut self, command: Command) {
        let delivered = match command {
            Command::Open { key, fifos, output, reply } => reply.send(self.open(key, fifos, output)).is_ok(),
            Command::LogPath { key, reply } => {
                reply.send(self.group(&key).map(|group| group.log().map(|log| log.path().to_path_buf()))).is_ok()
            }
            Command::SwitchLog { key, file, reply } => {
                let switched = self.group(&key).map(|group| group.log().map(|log| log.switch(file)));
                reply.send(switched.map(|_| ())).is_ok()
            }
            Command::Finish { key, reply } => self.finish(&key, &reply),
            Command::GiveUp { key, reply } => {
                let number = self.numbers.get(&key).copied();
                let ending = number.map_or(Ending::Complete, |number| self.drain(number));
                number.into_iter().for_each(|number| self.retire(number, ending));
                reply.send(ending).is_ok()
            }
            Command::Close { key, reply } => {
                let number = self.numbers.get(&key).copied();
                number.into_iter().for_each(|number| self.retire(number, Ending::GivenUp));
                reply.send(()).is_ok()
            }
            Command::Stop => true,
        };
        if !delivered {
            log::debug!("nobody waited for the answer of the stdio thread");
        }
    }

    fn group(&mut self, key: &str) -> Result<&mut Group> {
        let number = self.numbers.get(key);
        number
            .and_then(|number| self.groups.get_mut(number))
            .ok_or_else(|| Error::not_found(format!("the output of {key} is not open")))
    }

    fn open(&mut self, key: String, fifos: [Option<File>; 2], output: Output) -> Result<()> {
        if self.numbers.contains_key(&key) {
            return Err(Error::new(Kind::AlreadyExists, format!("the output of {key} is open already")));
        }
        // Used up even if this fails: a late event must not find somebody else under its number.
        let number = self.next;
        self.next += 1;
        let mut group = Group { key, streams: [None, None], output, waiting: Vec::new() };
        for (source, fifo) in SOURCES.into_iter().zip(fifos) {
            let Some(fifo) = fifo else { continue };
            self.epoll.add(&fifo, number * 2 + source as u64).map_err(|e| {
                Error::caused(Kind::ResourceExhausted, format!("watch the {} of {}", source.name(), group.key), e)
            })?;
            group.streams[source as usize] = Some(Stream { fifo, lines: Lines::new(self.line_bytes) });
        }
        self.numbers.insert(group.key.clone(), number);
        self.groups.insert(number, group);
        Ok(())
    }

    /// No new writer will come: what has none now is at its end, which the kernel does not report if there never was
    /// one. The others end when their writer goes.
    fn finish(&mut self, key: &str, reply: &Sender<Ending>) -> bool {
        let Some(number) = self.numbers.get(key).copied() else {
            return reply.send(Ending::Complete).is_ok();
        };
        if self.drain(number) == Ending::Complete {
            self.retire(number, Ending::Complete);
            return reply.send(Ending::Complete).is_ok();
        }
        self.groups.get_mut(&number).into_iter().for_each(|group| group.waiting.push(reply.clone()));
        true
    }

    /// Relays what is in the pipes, and says whether that was the end.
    fn drain(&mut self, number: u64) -> Ending {
        SOURCES.into_iter().for_each(|source| self.turn(number, source, READS_TO_END));
        match self.groups.get(&number) {
            Some(group) if !group.ended() => Ending::GivenUp,
            _ => Ending::Complete,
        }
    }

    /// Reads from a stream at most `reads` times, until it is empty or at its end. The stream may be gone: its event
    /// can be behind the command that closed it.
    fn turn(&mut self, number: u64, source: Source, reads: usize) {
        let Some(group) = self.groups.get_mut(&number) else { return };
        for _ in 0..reads {
            let Some(stream) = &mut group.streams[source as usize] else { return };
            match stream.fifo.read(&mut self.input) {
                Ok(0) => {
                    group.end(source, &self.epoll, &mut self.batch);
                    break;
                }
                Ok(n) => group.relay(source, &self.input[..n], &mut self.batch),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => break,
                Err(e) => {
                    log::error!("{}: read {}: {e}", group.key, source.name());
                    group.end(source, &self.epoll, &mut self.batch);
                    break;
                }
            }
        }
        if group.ended() && !group.waiting.is_empty() {
            self.retire(number, Ending::Complete);
        }
    }

    /// Flushes, closes and forgets a group, and tells who waited.
    fn retire(&mut self, number: u64, ending: Ending) {
        let Some(mut group) = self.groups.remove(&number) else { return };
        self.numbers.remove(&group.key);
        SOURCES.into_iter().for_each(|source| group.end(source, &self.epoll, &mut self.batch));
        for waiting in std::mem::take(&mut group.waiting) {
            // Who waited may have met its deadline meanwhile.
            waiting.send(ending).ok();
        }
    }
}

impl Group {
    fn log(&mut self) -> Option<&mut LogFile> {
        match &mut self.output {
            Output::Log(log) => Some(log),
            Output::Discard | Output::Capture(_) => None,
        }
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
    }

    /// Closes one stream and writes its unfinished line.
    fn end(&mut self, source: Source, epoll: &Epoll, batch: &mut Vec<u8>) {
        let Some(mut stream) = self.streams[source as usize].take() else { return };
        if let Err(e) = epoll.remove(&stream.fifo) {
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
