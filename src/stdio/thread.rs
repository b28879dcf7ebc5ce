//! The hub's thread: drives the engine and takes commands in between.

use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::Arc;

use super::relay::{Feed, Relay};
use super::Ending;
use crate::error::Result;
use crate::sys::eventfd::EventFd;

/// What the callers ask of the thread. A reply that nobody waits for any more is dropped.
pub(super) enum Command {
    Open { key: String, feed: Feed, reply: Sender<Result<()>> },
    LogPath { key: String, reply: Sender<Result<Option<PathBuf>>> },
    SwitchLog { key: String, file: File, reply: Sender<Result<()>> },
    Finish { key: String, reply: Sender<Ending> },
    GiveUp { key: String, reply: Sender<Ending> },
    Close { key: String, reply: Sender<()> },
    Stop,
}

pub(super) struct Thread {
    pub relay: Relay,
    pub wake: Arc<EventFd>,
    pub commands: Receiver<Command>,
    /// Who waits for the end of a key.
    pub waiting: HashMap<String, Vec<Sender<Ending>>>,
}

impl Thread {
    /// The body of the thread; returns after [`Command::Stop`], with everything flushed and closed.
    pub(super) fn run(mut self) {
        loop {
            let woken = match self.relay.turn(true) {
                Ok(woken) => woken,
                Err(e) => {
                    log::error!("wait for container output: {e}; no output is relayed any more");
                    break;
                }
            };
            for key in self.relay.take_finished() {
                self.tell(&key, Ending::Complete);
            }
            if woken && !self.take_commands() {
                break;
            }
        }
        self.relay.close_all();
        let all: Vec<String> = self.waiting.keys().cloned().collect();
        all.iter().for_each(|key| self.tell(key, Ending::GivenUp));
    }

    /// Returns whether to go on.
    fn take_commands(&mut self) -> bool {
        self.wake.clear();
        while let Ok(command) = self.commands.try_recv() {
            if matches!(command, Command::Stop) {
                return false;
            }
            if !self.obey(command) {
                log::debug!("nobody waited for the answer of the stdio thread");
            }
        }
        true
    }

    /// Returns whether somebody was there to hear the answer.
    fn obey(&mut self, command: Command) -> bool {
        match command {
            Command::Open { key, feed, reply } => reply.send(self.relay.open(&key, feed)).is_ok(),
            Command::LogPath { key, reply } => reply.send(self.relay.log_path(&key)).is_ok(),
            Command::SwitchLog { key, file, reply } => reply.send(self.relay.switch_log(&key, file)).is_ok(),
            Command::Finish { key, reply } => match self.relay.finish(&key) {
                true => {
                    self.tell(&key, Ending::Complete);
                    reply.send(Ending::Complete).is_ok()
                }
                false => {
                    self.waiting.entry(key).or_default().push(reply);
                    true
                }
            },
            Command::GiveUp { key, reply } => {
                let ending = self.relay.give_up(&key);
                self.tell(&key, ending);
                reply.send(ending).is_ok()
            }
            Command::Close { key, reply } => {
                self.relay.close(&key);
                self.tell(&key, Ending::GivenUp);
                reply.send(()).is_ok()
            }
            Command::Stop => true,
        }
    }

    fn tell(&mut self, key: &str, ending: Ending) {
        for waiting in self.waiting.remove(key).unwrap_or_default() {
            // Who waited may have met its deadline meanwhile.
            waiting.send(ending).ok();
        }
    }
}
