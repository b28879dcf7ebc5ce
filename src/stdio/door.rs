//! The socket of one container's streams: who is attached to it, and the way to the container's standard input.
//!
//! Nothing here waits for anybody. A client that does not read loses output, once the socket's buffer is full, and is told
//! how much; one that writes faster than the container reads is not listened to until its last message went through.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::cri_log::Source;
use super::wire;
use crate::error::{Context, Result};
use crate::sys::epoll::Epoll;
use crate::sys::seqpacket::{Connection, Listener};

/// The parts of a group that events name: its streams come first, by [`Source`].
const DOOR: u32 = 2;
const STDIN: u32 = 3;
const FIRST_CLIENT: u32 = 4;
/// Output that may wait for a client to read it. Kernel memory, taken only while it does.
const BUFFER_BYTES: i32 = 1 << 20;
/// Connections at the same time; more are turned away.
const MOST_CLIENTS: usize = 64;

/// Where a container's input goes.
#[derive(Debug)]
pub enum Stdin {
    /// It takes none, or takes no more.
    Closed,
    /// Into a FIFO, once somebody wants to write; the container's shim holds it open.
    At(PathBuf),
    /// Into this pipe or terminal, which must not block.
    Open(File),
}

/// A client that asks for the log to be opened again, and waits for the answer.
pub(super) struct Reopen(pub u32);

/// See the module.
#[derive(Debug)]
pub struct Door {
    listener: Listener,
    path: PathBuf,
    /// Upper half of the tokens.
    group: u32,
    clients: BTreeMap<u32, Client>,
    next: u32,
    stdin: Stdin,
    /// Input that the container has not taken yet; at most one message a client, which is not listened to meanwhile.
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Client {
    connection: Connection,
    attached: bool,
    /// Whether its messages are reported: not while one of them waits.
    watched: bool,
    missed: u64,
}

#[derive(Debug)]
struct Waiting {
    client: u32,
    message: Input,
}

#[derive(Debug)]
enum Input {
    /// Bytes and how many of them went through.
    Bytes(Vec<u8>, usize),
    Close,
}

impl Door {
    /// Makes the socket in `dir`. It accepts from when it is watched.
    pub fn open(dir: &Path, stdin: Stdin) -> Result<Door> {
        let path = dir.join(wire::SOCKET);
        let listener = Listener::bind(dir, wire::SOCKET).with_context(|| format!("make {}", path.display()))?;
        let (clients, waiting) = (BTreeMap::new(), VecDeque::new());
        Ok(Door { listener, path, group: 0, clients, next: FIRST_CLIENT, stdin, waiting })
    }

    /// Lets `epoll` report what happens here, as parts of `group`.
    pub(super) fn watch(&mut self, epoll: &Epoll, group: u32) -> io::Result<()> {
        self.group = group;
        epoll.add(&self.listener, token(group, DOOR))
    }

    /// Something happened at `part`. `buffer` is scratch space for a message.
    pub(super) fn turn(&mut self, part: u32, buffer: &mut [u8], epoll: &Epoll) -> Option<Reopen> {
        match part {
            DOOR => self.welcome(epoll),
            STDIN => self.pass_on(epoll),
            client => return self.hear(client, buffer, epoll),
        }
        None
    }

    /// Gives output to all who are attached.
    pub(super) fn tell(&mut self, source: Source, bytes: &[u8]) {
        let kind = match source {
            Source::Stdout => wire::STDOUT,
            Source::Stderr => wire::STDERR,
        };
        for client in self.clients.values_mut().filter(|client| client.attached) {
            bytes.chunks(wire::MOST).for_each(|chunk| client.tell(kind, chunk));
        }
    }

    /// Answers a request of `client`, which may be gone.
    pub(super) fn answer(&mut self, client: u32, outcome: &Result<()>, epoll: &Epoll) {
        let text = outcome.as_ref().map_or_else(wire::refusal, |()| Vec::new());
        let answered = self.clients.get(&client).map(|client| client.connection.send([&[wire::DONE], &text]));
        if matches!(answered, Some(Err(_))) {
            self.dismiss(client, epoll);
        }
    }

    /// Tells all that the streams have ended, and closes.
    pub(super) fn close(mut self, epoll: &Epoll) {
        for client in self.clients.values_mut().filter(|client| client.attached) {
            client.tell(wire::END, &[]);
        }
        let all: Vec<u32> = self.clients.keys().copied().collect();
        all.into_iter().for_each(|client| self.dismiss(client, epoll));
        self.stdin.close(epoll);
        quietly(epoll.remove(&self.listener));
        quietly(fs::remove_file(&self.path));
    }

    fn welcome(&mut self, epoll: &Epoll) {
        loop {
            let connection = match self.listener.accept() {
                Ok(Some(connection)) => connection,
                Ok(None) => return,
                Err(e) => return log::warn!("accept at {}: {e}", self.path.display()),
            };
            if self.clients.len() >= MOST_CLIENTS {
                log::warn!("{}: {MOST_CLIENTS} clients already; another one is turned away", self.path.display());
                continue;
            }
            if let Err(e) = connection.enlarge(BUFFER_BYTES) {
                log::debug!("{}: enlarge the buffer of a client: {e}", self.path.display());
            }
            // Never used again for somebody else, so that a late event finds nobody.
            let id = self.next;
            self.next = self.next.checked_add(1).unwrap_or(FIRST_CLIENT);
            let begun = connection.send([&[wire::HELLO], &[wire::VERSION]]);
            match begun.and_then(|()| epoll.add(&connection, token(self.group, id))) {
                Ok(()) => {
                    self.clients.insert(id, Client { connection, attached: false, watched: true, missed: 0 });
                }
                Err(e) => log::debug!("{}: a client went at once: {e}", self.path.display()),
            }
        }
    }

    fn hear(&mut self, id: u32, buffer: &mut [u8], epoll: &Epoll) -> Option<Reopen> {
        let client = self.clients.get_mut(&id)?;
        let length = match client.connection.receive(buffer) {
            Ok(length) if length > 0 => length,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return None,
            // It left with output unread. This is told once, before what it has sent.
            Err(e) if e.kind() == ErrorKind::ConnectionReset => return None,
            _ => {
                self.dismiss(id, epoll);
                return None;
            }
        };
        match (buffer[0], &buffer[1..length]) {
            (wire::ATTACH, _) => {
                client.attached = true;
                self.answer(id, &Ok(()), epoll);
            }
            (wire::REOPEN, _) => return Some(Reopen(id)),
            (wire::STDIN, bytes) if !bytes.is_empty() => self.take_in(id, Input::Bytes(bytes.to_vec(), 0), epoll),
            (wire::CLOSE_STDIN, _) => self.take_in(id, Input::Close, epoll),
            // Of a later version.
            _ => {}
        }
        None
    }

    fn dismiss(&mut self, id: u32, epoll: &Epoll) {
        let Some(client) = self.clients.remove(&id) else { return };
        if client.watched {
            quietly(epoll.remove(&client.connection));
        }
    }

    fn take_in(&mut self, id: u32, message: Input, epoll: &Epoll) {
        let first = self.waiting.is_empty();
        self.waiting.push_back(Waiting { client: id, message });
        if first && self.pass_on_now(epoll) {
            let watched = self.stdin.file().map(|file| epoll.add_writer(file, token(self.group, STDIN)));
            if let Some(Err(e)) = watched {
                log::error!("{}: wait for room in standard input: {e}; it is closed", self.path.display());
                self.stdin.close(epoll);
                self.pass_on_now(epoll);
            }
        }
        // Until it went through: one message a client waits at most, whatever it sends.
        let waits = self.waiting.iter().any(|waiting| waiting.client == id);
        if let Some(client) = self.clients.get_mut(&id).filter(|_| waits) {
            quietly(epoll.remove(&client.connection));
            client.watched = false;
        }
    }

    /// The container has read on.
    fn pass_on(&mut self, epoll: &Epoll) {
        if !self.pass_on_now(epoll) {
            self.stdin.file().into_iter().for_each(|file| quietly(epoll.remove(file)));
        }
    }

    /// Writes what waits as far as there is room; returns whether something still waits.
    fn pass_on_now(&mut self, epoll: &Epoll) -> bool {
        while let Some(Waiting { client, message }) = self.waiting.front_mut() {
            match message {
                Input::Bytes(bytes, at) => match self.stdin.write(&bytes[*at..]) {
                    Ok(n) if *at + n < bytes.len() => {
                        *at += n;
                        return true;
                    }
                    Ok(_) => {}
                    Err(e) => {
                        log::debug!("{}: standard input: {e}", self.path.display());
                        self.stdin.close(epoll);
                    }
                },
                Input::Close => self.stdin.close(epoll),
            }
            let client = *client;
            self.waiting.pop_front();
            self.listen_again(client, epoll);
        }
        false
    }

    fn listen_again(&mut self, id: u32, epoll: &Epoll) {
        let Some(client) = self.clients.get_mut(&id).filter(|client| !client.watched) else { return };
        match epoll.add(&client.connection, token(self.group, id)) {
            Ok(()) => client.watched = true,
            Err(e) => {
                log::warn!("{}: a client is turned out: {e}", self.path.display());
                self.clients.remove(&id);
            }
        }
    }
}

impl Stdin {
    fn file(&self) -> Option<&File> {
        match self {
            Stdin::Open(file) => Some(file),
            Stdin::At(_) | Stdin::Closed => None,
        }
    }

    fn close(&mut self, epoll: &Epoll) {
        self.file().into_iter().for_each(|file| quietly(epoll.remove(file)));
        *self = Stdin::Closed;
    }

    /// Writes what there is room for; what nobody will ever read counts as written.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Stdin::At(path) = self {
            match OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW).open(path) {
                Ok(file) => *self = Stdin::Open(file),
                // Nobody has it open for reading: the container does not run.
                Err(e) if e.raw_os_error() == Some(libc::ENXIO) => return Ok(bytes.len()),
                Err(e) => return Err(e),
            }
        }
        let Stdin::Open(file) = self else { return Ok(bytes.len()) };
        let mut written = 0;
        while written < bytes.len() {
            match file.write(&bytes[written..]) {
                Ok(n) => written += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(written)
    }
}

impl Client {
    /// Sends, or counts what could not be sent.
    fn tell(&mut self, kind: u8, bytes: &[u8]) {
        let caught_up = self.missed == 0 || {
            let told = self.connection.send([&[wire::MISSED], &self.missed.to_le_bytes()]).is_ok();
            self.missed = if told { 0 } else { self.missed };
            told
        };
        // One that is gone is noticed when its hang-up is reported.
        if !caught_up || self.connection.send([&[kind], bytes]).is_err() {
            self.missed += bytes.len() as u64;
        }
    }
}

/// What epoll calls a part of a group.
pub(super) fn token(group: u32, part: u32) -> u64 {
    u64::from(group) << 32 | u64::from(part)
}

/// The group and the part that a token names.
pub(super) fn parts(token: u64) -> (u32, u32) {
    ((token >> 32) as u32, token as u32)
}

/// For what is being given up: there is nobody to tell, and nothing else to do.
fn quietly(result: io::Result<()>) {
    if let Err(e) = result {
        log::trace!("give up a descriptor: {e}");
    }
}
