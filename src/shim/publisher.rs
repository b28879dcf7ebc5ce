//! Events on their way to containerd: kept in order, one at a time, until containerd has taken them.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use super::frame::{self, Frames};
use super::messages::timestamp;
use super::wire::Message;
use crate::error::{Context, Error, Result};
use crate::sys::epoll::Epoll;
use crate::sys::socket;

const SERVICE: &str = "containerd.services.events.ttrpc.v1.Events";
/// More than this only comes together when containerd is gone for good; then the oldest go.
const KEPT: usize = 4096;
/// First and longest pause between two tries while containerd is away.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// The queue and the connection, which exists only while something is in the queue.
#[derive(Debug)]
pub struct Publisher {
    socket: PathBuf,
    namespace: String,
    token: u64,
    queue: VecDeque<Vec<u8>>,
    connection: Option<Connection>,
    /// When to try again, and the pause after that.
    retry: Option<Instant>,
    pause: Duration,
}

#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    frames: Frames,
    /// Of the request that is not answered.
    number: u32,
    /// What of it is not sent.
    unsent: Vec<u8>,
}

impl Publisher {
    /// Events of `namespace` go to the ttrpc server at `socket`.
    pub fn new(socket: PathBuf, namespace: String, token: u64) -> Publisher {
        let (queue, pause) = (VecDeque::new(), PAUSES.0);
        Publisher { socket, namespace, token, queue, connection: None, retry: None, pause }
    }

    /// Queues an event and sends it if nothing is before it.
    pub fn publish(&mut self, epoll: &Epoll, topic: &str, kind: &str, event: Message) {
        let event = Message::new().bytes(1, format!("containerd.events.{kind}")).bytes(2, event.done());
        let envelope = Message::new().message(1, timestamp(SystemTime::now())).bytes(2, &self.namespace);
        let envelope = envelope.bytes(3, topic).message(4, event);
        if self.queue.len() == KEPT {
            log::warn!("containerd has been away for {KEPT} events; the oldest is dropped");
            self.queue.pop_front();
        }
        self.queue.push_back(Message::new().message(1, envelope).done());
        if self.connection.is_none() && self.retry.is_none() {
            self.go_on(epoll);
        }
    }

    /// Whether containerd has taken everything.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// When [`Publisher::tick`] wants to be called.
    pub fn next_tick(&self) -> Option<Instant> {
        self.retry
    }

    /// To be called when that time has come.
    pub fn tick(&mut self, epoll: &Epoll) {
        if self.retry.is_some_and(|at| at <= Instant::now()) {
            self.retry = None;
            self.go_on(epoll);
        }
    }

    /// To be called when epoll reports our token.
    pub fn ready(&mut self, epoll: &Epoll) {
        match self.advance(epoll) {
            Ok(false) => {}
            Ok(true) => {
                self.queue.pop_front();
                self.pause = PAUSES.0;
                self.go_on(epoll);
            }
            Err(e) => self.fail(epoll, &e),
        }
    }

    /// Sends the first in the queue, if any; connects for it, disconnects when there is none.
    fn go_on(&mut self, epoll: &Epoll) {
        loop {
            let Some(event) = self.queue.front().cloned() else {
                self.disconnect(epoll);
                self.queue = VecDeque::new();
                return;
            };
            match self.send(epoll, &event) {
                Ok(true) => drop(self.queue.pop_front()),
                Ok(false) => return,
                Err(e) => return self.fail(epoll, &e),
            }
            self.pause = PAUSES.0;
        }
    }

    /// True if it is answered already.
    fn send(&mut self, epoll: &Epoll, event: &[u8]) -> Result<bool> {
        if self.connection.is_none() {
            let stream = socket::connect(&self.socket).context("connect")?;
            epoll.add(&stream, self.token).context("watch the connection")?;
            self.connection = Some(Connection { stream, frames: Frames::default(), number: 1, unsent: Vec::new() });
        }
        if let Some(connection) = &mut self.connection {
            connection.number += 2;
            connection.unsent = frame::request(connection.number, SERVICE, "Forward", event);
        }
        self.advance(epoll)
    }

    /// Moves bytes; true once the request is answered.
    fn advance(&mut self, epoll: &Epoll) -> Result<bool> {
        let Some(Connection { stream, frames, number, unsent }) = &mut self.connection else { return Ok(false) };
        if !unsent.is_empty() {
            match stream.write(unsent) {
                Ok(n) => drop(unsent.drain(..n)),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(e) => return Err(e).context("send"),
            }
            match unsent.is_empty() {
                true => epoll.await_input(stream, self.token).context("watch the connection")?,
                false => return epoll.await_room(stream, self.token).context("watch the connection").map(|()| false),
            }
            *unsent = Vec::new();
        }
        let mut buffer = [0; 512];
        loop {
            let mut input = match stream.read(&mut buffer) {
                Ok(0) => return Err(Error::from(std::io::Error::from(ErrorKind::UnexpectedEof))),
                Ok(n) => &buffer[..n],
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return Ok(false),
                Err(e) => return Err(e).context("receive"),
            };
            while let Some(answer) = frames.next(&mut input) {
                if answer.stream == *number {
                    // It has had it, and would refuse it again.
                    answer.answer().unwrap_or_else(|e| log::warn!("publish an event: {e}"));
                    return Ok(true);
                }
            }
        }
    }

    fn fail(&mut self, epoll: &Epoll, why: &Error) {
        log::debug!("publish an event at {}: {why}; {} are kept", self.socket.display(), self.queue.len());
        self.disconnect(epoll);
        self.retry = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(PAUSES.1);
    }

    fn disconnect(&mut self, epoll: &Epoll) {
        if let Some(connection) = self.connection.take() {
            // A connection that broke may not be in there any more.
            epoll.remove(&connection.stream).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    /// Reads one request, and answers it if told so.
    fn serve(stream: &mut UnixStream, answer: bool) -> Vec<u8> {
        let (mut frames, mut buffer) = (Frames::default(), [0; 64]);
        loop {
            let n = stream.read(&mut buffer).expect("readable");
            if let Some(frame) = frames.next(&mut &buffer[..n]) {
                if answer {
                    stream.write_all(&frame::response(frame.stream, &Ok(Message::new()))).expect("writable");
                }
                return frame.request().expect("a request").payload;
            }
        }
    }

    #[test]
    fn events_go_one_at_a_time_in_order_and_again_after_a_loss() {
        let path = std::env::temp_dir().join(format!("cricket-events-{}", std::process::id()));
        std::fs::remove_file(&path).ok();
        let (epoll, mut ready) = (Epoll::new().expect("epoll"), Vec::new());
        let mut publisher = Publisher::new(path.clone(), "ns".into(), 5);
        for name in ["one", "two"] {
            publisher.publish(&epoll, "/tasks/x", "X", Message::new().bytes(1, name));
        }
        assert!(publisher.next_tick().is_some() && !publisher.is_idle(), "nobody is there yet");
        let listener = UnixListener::bind(&path).expect("free");
        publisher.retry = Some(Instant::now());
        publisher.tick(&epoll);
        let mut first = listener.accept().expect("connected").0;
        let payload = serve(&mut first, false);
        assert!(payload.windows(3).any(|w| w == b"one") && payload.windows(2).any(|w| w == b"ns"));
        drop(first);
        epoll.wait(&mut ready).expect("waited");
        assert_eq!(ready, [5]);
        publisher.ready(&epoll);
        publisher.retry = Some(Instant::now());
        publisher.tick(&epoll);
        let mut again = listener.accept().expect("connected").0;
        for name in [b"one", b"two"] {
            assert!(serve(&mut again, true).windows(3).any(|w| w == name));
            epoll.wait(&mut ready).expect("waited");
            publisher.ready(&epoll);
        }
        assert!(publisher.is_idle() && publisher.connection.is_none() && publisher.next_tick().is_none());
        std::fs::remove_file(&path).expect("ours");
    }
}
