//! A container's own streams in a session: what it says from now on, and its input.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cricket_proto::runtime::AttachRequest;

use super::buffer::Moved;
use super::role::{Client, Process, Role};
use super::status::Outcome;
use super::Shared;
use crate::call::Call;
use crate::container::io_dir;
use crate::error::{Idempotent, Kind, Result};
use crate::runtime::Runtime;
use crate::stdio::{Attachment, Buffer, Heard};
use crate::store::Container;
use crate::sys::poll::{Place, Poll};

/// How long containerd may take to close or resize something.
const BUDGET: Duration = Duration::from_secs(10);

/// Attached to a container. Dropping it leaves the container alone.
pub struct Attached {
    rt: Arc<Runtime>,
    container: Arc<Container>,
    attachment: Attachment,
    buffer: Box<Buffer>,
    /// What was heard last and not sent yet: whose it is and where it lies in the buffer.
    unsent: Option<(Role, usize, usize)>,
    place: Option<Place>,
    outcome: Option<Outcome>,
    /// Input goes to the container.
    stdin: bool,
    /// The end of input is to be told, when there is room for it.
    closing: bool,
}

impl Attached {
    /// Attaches to the container of a request.
    pub(super) fn start(shared: &Shared, request: &AttachRequest) -> Result<Attached> {
        let rt = shared.rt.clone();
        let container = rt.containers.get(&request.container_id)?;
        container.must_be_running()?;
        let attachment = Attachment::open(&io_dir(&rt, &container))?;
        attachment.set_nonblocking()?;
        let stdin = request.stdin && container.config.stdin;
        let buffer = vec![0; size_of::<Buffer>()].try_into().expect("it has that length");
        let (unsent, place, outcome) = (None, None, None);
        Ok(Attached { rt, container, attachment, buffer, unsent, place, outcome, stdin, closing: false })
    }

    /// Sends what is left of the last message; whether nothing is.
    fn send_unsent(&mut self, client: &mut Client<'_>) -> bool {
        if let Some((role, from, to)) = self.unsent {
            let sent = client.send(role, &self.buffer[from..to]);
            self.unsent = (from + sent < to).then_some((role, from + sent, to));
        }
        self.unsent.is_none()
    }

    /// Hears one message; whether there was one.
    fn hear(&mut self) -> bool {
        let (role, length) = match self.attachment.hear(&mut self.buffer) {
            Ok(Heard::Stdout(bytes)) => (Role::Stdout, bytes.len()),
            Ok(Heard::Stderr(bytes)) => (Role::Stderr, bytes.len()),
            Ok(Heard::Missed(bytes)) => {
                log::debug!("attach to container {}: the client is slow and missed {bytes} bytes", self.container.id);
                return true;
            }
            Ok(Heard::End) => {
                self.outcome = Some(Outcome::Exit(0));
                return false;
            }
            Err(e) if e.kind() == Kind::DeadlineExceeded => return false,
            Err(e) => {
                // Of a client that was too slow to be told of the end there is only the end of the connection.
                let ended = !self.container.state().may_run();
                self.outcome = Some(if ended { Outcome::Exit(0) } else { Outcome::Failure(e.to_string()) });
                return false;
            }
        };
        // A message is its kind and its bytes.
        self.unsent = Some((role, 1, 1 + length));
        true
    }

    fn tell_end_of_input(&mut self) {
        match self.attachment.offer_close() {
            Ok(false) => return,
            Ok(true) => {}
            Err(e) => log::debug!("attach to container {}: {e}", self.container.id),
        }
        self.closing = false;
        let closed = self.rt.containerd.close_stdin(&Call::within(BUDGET), self.container.id.as_str(), None);
        if let Err(e) = closed.or_gone() {
            log::warn!("close stdin of container {}: {e}", self.container.id);
        }
    }
}

impl Process for Attached {
    fn watch(&mut self, poll: &mut Poll, room: bool, stdin_waits: bool) {
        let (reads, writes) = (room && self.unsent.is_none(), stdin_waits || self.closing);
        let wanted = self.outcome.is_none() && (reads || writes);
        self.place = wanted.then(|| poll.add(&self.attachment, reads, writes));
    }

    fn output(&mut self, _: &Poll, client: &mut Client<'_>) -> Result<()> {
        if self.closing {
            self.tell_end_of_input();
        }
        while self.send_unsent(client) && self.outcome.is_none() && self.hear() {}
        Ok(())
    }

    fn input(&mut self, bytes: &[u8]) -> Moved {
        if !self.stdin {
            return Moved::End;
        }
        match self.attachment.offer(bytes) {
            Ok(0) => Moved::Blocked,
            Ok(n) => Moved::Some(n),
            Err(_) => Moved::End,
        }
    }

    /// Only a container that takes the input of one client learns that it ended.
    fn end_input(&mut self) {
        if std::mem::replace(&mut self.stdin, false) && self.container.config.stdin_once {
            self.closing = true;
            self.tell_end_of_input();
        }
    }

    fn resize(&mut self, width: u32, height: u32) {
        let call = Call::within(BUDGET);
        if let Err(e) = self.rt.containerd.resize_pty(&call, self.container.id.as_str(), None, width, height).or_gone()
        {
            log::debug!("resize the terminal of container {}: {e}", self.container.id);
        }
    }

    fn outcome(&mut self) -> Option<Outcome> {
        self.outcome.clone().filter(|_| self.unsent.is_none())
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn outlives_client(&self) -> bool {
        false
    }
}
