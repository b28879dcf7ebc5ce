//! A command of a session: its pipes on one side, the remote command protocol on the other.

use std::fs::File;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cricket_proto::runtime::ExecRequest;

use super::buffer::{read, write, Moved};
use super::role::{Client, Process, Role};
use super::status::Outcome;
use super::Shared;
use crate::container::{Command, Wanted};
use crate::containerd::Exit;
use crate::error::{Context, Error, Result};
use crate::sync::Mutex;
use crate::sys::eventfd::EventFd;
use crate::sys::poll::{Place, Poll};

/// How long a command's output may be quiet after its end before we stop waiting for those that still hold it.
const QUIET: Duration = Duration::from_secs(2);
/// The waiting thread only waits.
const STACK_BYTES: usize = 128 << 10;

/// A command that was started. Dropping it ends it.
pub struct Running {
    command: Arc<Command>,
    ended: Arc<Ended>,
    waiter: Option<JoinHandle<()>>,
    stdin: Option<File>,
    /// Stdin is over, whether or not there was one.
    stdin_closed: bool,
    outputs: [Pipe; 2],
    end_at: Option<Place>,
    /// Since when nothing came although there was room.
    quiet_since: Instant,
    /// Was deleted in containerd.
    deleted: bool,
    ends_with_client: bool,
}

struct Pipe {
    role: Role,
    /// `None` after its end.
    file: Option<File>,
    place: Option<Place>,
}

/// Where the waiting thread leaves what it waited for.
struct Ended {
    exit: Mutex<Option<Result<Exit>>>,
    told: EventFd,
}

impl Running {
    /// Starts the command of a request. Blocks.
    pub(super) fn start(shared: &Shared, request: &ExecRequest) -> Result<Running> {
        let container = shared.rt.containers.get(&request.container_id)?;
        container.must_be_running()?;
        let wanted = Wanted { stdin: request.stdin, tty: request.tty };
        let (command, pipes) = Command::start(&shared.rt, &container, &request.cmd, wanted)?;
        let command = Arc::new(command);
        let doing = "wait for a command";
        let ended = Arc::new(Ended { exit: Mutex::default(), told: EventFd::new().context(doing)? });
        let (waited, to) = (command.clone(), ended.clone());
        let waiter = std::thread::Builder::new()
            .name("exec-wait".into())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                let exit = waited.wait();
                drop(waited);
                *to.exit.lock() = Some(exit);
                to.told.signal();
            })
            .context(doing)?;
        let pipe = |role, file| Pipe { role, file, place: None };
        Ok(Running {
            command,
            ended,
            waiter: Some(waiter),
            stdin_closed: !request.stdin,
            stdin: pipes.stdin,
            outputs: [pipe(Role::Stdout, pipes.stdout), pipe(Role::Stderr, pipes.stderr)],
            end_at: None,
            quiet_since: Instant::now(),
            deleted: false,
            ends_with_client: shared.rt.config.streaming.end_exec_with_client,
        })
    }

    fn has_ended(&self) -> bool {
        self.ended.exit.lock().is_some()
    }

    fn drained(&self) -> bool {
        self.outputs.iter().all(|pipe| pipe.file.is_none())
    }
}

impl Process for Running {
    fn watch(&mut self, poll: &mut Poll, room: bool, stdin_waits: bool) {
        self.end_at = (!self.has_ended()).then(|| poll.add(&self.ended.told, true, false));
        if let Some(stdin) = self.stdin.as_ref().filter(|_| stdin_waits) {
            poll.add(stdin, false, true);
        }
        if !room {
            self.quiet_since = Instant::now();
        }
        for pipe in &mut self.outputs {
            // One that is not to be read is not to be watched: its end would be told again and again.
            pipe.place = pipe.file.as_ref().filter(|_| room).map(|file| poll.add(file, true, false));
        }
    }

    fn output(&mut self, poll: &Poll, client: &mut Client<'_>) -> Result<()> {
        if self.end_at.take().is_some_and(|at| poll.readable(at)) {
            self.quiet_since = Instant::now();
        }
        for pipe in &mut self.outputs {
            let Some(file) = pipe.file.as_mut().filter(|_| pipe.place.is_some_and(|at| poll.readable(at))) else {
                continue;
            };
            loop {
                let moved = client.relay(pipe.role, &mut |into| read(file, into)).context("read a command's output")?;
                match moved {
                    Moved::Some(_) => self.quiet_since = Instant::now(),
                    Moved::Blocked => break,
                    Moved::End => {
                        pipe.file = None;
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    fn input(&mut self, bytes: &[u8]) -> Moved {
        let Some(stdin) = &mut self.stdin else { return Moved::End };
        // An error is that nobody reads any more.
        write(stdin, bytes).unwrap_or(Moved::End)
    }

    fn end_input(&mut self) {
        self.stdin = None;
        if !std::mem::replace(&mut self.stdin_closed, true) && !self.has_ended() {
            self.command.close_stdin();
        }
    }

    fn resize(&mut self, width: u32, height: u32) {
        if !self.has_ended() {
            self.command.resize(width, height);
        }
    }

    fn outcome(&mut self) -> Option<Outcome> {
        let exit = match &*self.ended.exit.lock() {
            None => return None,
            Some(Ok(exit)) => Ok(exit.code),
            Some(Err(e)) => Err(e.to_string()),
        };
        let quiet = self.quiet_since + QUIET <= Instant::now();
        if !self.drained() && !quiet {
            return None;
        }
        if !std::mem::replace(&mut self.deleted, true) {
            if let Err(e) = self.command.delete() {
                log::warn!("{e}");
            }
            if !self.drained() {
                // The shim has closed its ends now; what is still in the pipes is ours to move.
                self.quiet_since = Instant::now();
                return None;
            }
        }
        Some(exit.map_or_else(Outcome::Failure, Outcome::Exit))
    }

    fn deadline(&self) -> Option<Instant> {
        (self.has_ended() && !self.drained()).then(|| self.quiet_since + QUIET)
    }

    fn outlives_client(&self) -> bool {
        !self.ends_with_client
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stdin = None;
        self.outputs.iter_mut().for_each(|pipe| pipe.file = None);
        if !self.has_ended() {
            self.command.end();
        }
        self.command.stop_waiting();
        if self.waiter.take().is_some_and(|waiter| waiter.join().is_err()) {
            log::error!("{}", Error::internal("the thread that waited for a command panicked"));
        }
    }
}
