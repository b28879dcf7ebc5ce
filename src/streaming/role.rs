//! What the streams of a session are for, and what is behind them.

use std::io;
use std::time::Instant;

use super::buffer::Moved;
use super::link::Link;
use super::status::Outcome;
use super::upgrade::Version;
use super::wire::{send, Source, StreamId};
use crate::error::Result;
use crate::sys::poll::Poll;

/// What a stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The process's input.
    Stdin,
    /// Its output.
    Stdout,
    /// Its other output.
    Stderr,
    /// The outcome.
    Error,
    /// The size of its terminal.
    Resize,
}

impl Role {
    /// Where [`Streams`] keeps it; also the channel of a WebSocket.
    pub fn index(self) -> usize {
        match self {
            Role::Stdin => 0,
            Role::Stdout => 1,
            Role::Stderr => 2,
            Role::Error => 3,
            Role::Resize => 4,
        }
    }

    /// In the order of their channels.
    pub const ALL: [Role; 5] = [Role::Stdin, Role::Stdout, Role::Stderr, Role::Error, Role::Resize];

    /// As the header of a stream names it.
    pub fn of_header(value: &str) -> Option<Role> {
        match value {
            "stdin" => Some(Role::Stdin),
            "stdout" => Some(Role::Stdout),
            "stderr" => Some(Role::Stderr),
            "error" => Some(Role::Error),
            "resize" => Some(Role::Resize),
            _ => None,
        }
    }
}

/// Which streams a session has, by role.
#[derive(Clone, Copy, Debug, Default)]
pub struct Streams(pub [Option<StreamId>; 5]);

impl Streams {
    /// The stream of this role.
    pub fn of(&self, role: Role) -> Option<StreamId> {
        self.0[role.index()]
    }

    /// What this stream is for.
    pub fn role(&self, id: StreamId) -> Option<Role> {
        Role::ALL.into_iter().find(|role| self.of(*role) == Some(id))
    }
}

/// What is behind a session: a command of its own, or a container's streams.
pub trait Process {
    /// Waits for what it needs to: output if there is room for it, and until stdin takes more if some waits.
    fn watch(&mut self, poll: &mut Poll, room: bool, stdin_waits: bool);
    /// Moves its output into frames, as much as there is room for.
    ///
    /// # Errors
    /// The session cannot go on.
    fn output(&mut self, poll: &Poll, client: &mut Client<'_>) -> Result<()>;
    /// Takes as much of stdin as it can. The end: it takes nothing any more.
    fn input(&mut self, bytes: &[u8]) -> Moved;
    /// No more stdin follows. Idempotent.
    fn end_input(&mut self);
    /// The terminal has this size now.
    fn resize(&mut self, width: u32, height: u32);
    /// How it ended, when all of its output was moved.
    fn outcome(&mut self) -> Option<Outcome>;
    /// When it wants to be asked again though nothing happened.
    fn deadline(&self) -> Option<Instant>;
    /// The client is gone. Whether the process goes on without it.
    fn outlives_client(&self) -> bool;
}

/// Where a process's output goes.
pub struct Client<'a> {
    /// Where it is.
    pub link: &'a mut Link,
    /// Which streams it has.
    pub streams: &'a Streams,
}

impl Client<'_> {
    /// Reads `source` into a frame of this role's stream; into nothing if the client does not want it.
    pub fn relay(&mut self, role: Role, source: &mut Source<'_>) -> io::Result<Moved> {
        match self.streams.of(role).filter(|_| !self.link.gone) {
            Some(id) => self.link.relay(id, source),
            None => source(&mut [0; 16 << 10]),
        }
    }

    /// Sends as many of these bytes as are possible now; returns how many. All, if the client does not want them.
    pub fn send(&mut self, role: Role, bytes: &[u8]) -> usize {
        match self.streams.of(role).filter(|_| !self.link.gone) {
            Some(id) => send(&mut *self.link.wire, id, &mut self.link.out, bytes),
            None => bytes.len(),
        }
    }
}

/// Which streams the request wants.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// As in the request.
    pub stdin: bool,
    /// As in the request.
    pub stdout: bool,
    /// As in the request.
    pub stderr: bool,
    /// As in the request.
    pub tty: bool,
}

impl Wanted {
    /// Whether there is a stream of this role.
    pub fn has(&self, role: Role, version: Version) -> bool {
        match role {
            Role::Stdin => self.stdin,
            Role::Stdout => self.stdout,
            Role::Stderr => self.stderr,
            Role::Error => true,
            Role::Resize => self.tty && version >= Version::V3,
        }
    }
}
