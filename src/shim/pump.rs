//! Copies bytes from one descriptor to another without ever blocking: between a terminal and the client's FIFOs.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};

use crate::sys::epoll::Epoll;

/// Most of what one turn moves, so that a fast writer leaves time for the others.
const TURN: usize = 16 << 10;

/// One direction. While the receiver takes nothing, nothing is read: the writer feels it, and no more than one turn is
/// kept.
#[derive(Debug)]
pub struct Pump {
    from: File,
    to: File,
    token: u64,
    unsent: Vec<u8>,
}

/// Whether a pump will be heard of again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// It is waiting.
    Open,
    /// One of its ends is gone.
    Ended,
}

impl Pump {
    /// Starts. Both must not block and be known to nobody else's epoll.
    pub fn start(epoll: &Epoll, from: File, to: File, token: u64) -> io::Result<Pump> {
        epoll.add(&from, token)?;
        Ok(Pump { from, to, token, unsent: Vec::new() })
    }

    /// Moves what can be moved now.
    pub fn turn(&mut self, epoll: &Epoll, buffer: &mut [u8]) -> Flow {
        match self.try_turn(epoll, buffer) {
            Ok(flow) => flow,
            // A terminal whose programs are gone says EIO, a pipe without a reader EPIPE.
            Err(_) => Flow::Ended,
        }
    }

    fn try_turn(&mut self, epoll: &Epoll, buffer: &mut [u8]) -> io::Result<Flow> {
        if !self.unsent.is_empty() {
            let sent = some(self.to.write(&self.unsent))?.unwrap_or(0);
            self.unsent.drain(..sent);
            if self.unsent.is_empty() {
                self.unsent = Vec::new();
                epoll.remove(&self.to)?;
                epoll.await_input(&self.from, self.token)?;
            }
            return Ok(Flow::Open);
        }
        let room = buffer.len().min(TURN);
        let Some(n) = some(self.from.read(&mut buffer[..room]))? else { return Ok(Flow::Open) };
        if n == 0 {
            return Ok(Flow::Ended);
        }
        let sent = some(self.to.write(&buffer[..n]))?.unwrap_or(0);
        if sent < n {
            self.unsent = buffer[sent..n].to_vec();
            epoll.remove(&self.from)?;
            epoll.await_room(&self.to, self.token)?;
        }
        Ok(Flow::Open)
    }

    /// The process has ended: moves what it left, as far as the receiver takes it, and ends.
    pub fn end(mut self, epoll: &Epoll, buffer: &mut [u8]) {
        // Bounded, in case somebody else still writes.
        for _ in 0..64 {
            let before = self.unsent.len();
            match self.try_turn(epoll, buffer) {
                Ok(Flow::Open) if self.unsent.len() != before || before == 0 => {}
                _ => break,
            }
        }
        self.stop(epoll);
    }

    /// Takes it out of the epoll.
    pub fn stop(self, epoll: &Epoll) {
        // Only one of them is in there.
        epoll.remove(&self.from).or_else(|_| epoll.remove(&self.to)).ok();
    }
}

/// A result whose "not now" is no error.
fn some(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(n) => Ok(Some(n)),
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    fn pair() -> (UnixStream, File) {
        let (theirs, ours) = UnixStream::pair().expect("a pair");
        ours.set_nonblocking(true).expect("ours");
        (theirs, File::from(OwnedFd::from(ours)))
    }

    #[test]
    fn a_slow_receiver_holds_up_the_sender_and_loses_nothing() {
        let (epoll, mut buffer) = (Epoll::new().expect("epoll"), vec![0; TURN]);
        let ((mut source, from), (mut sink, to)) = (pair(), pair());
        source.set_nonblocking(true).expect("ours");
        let mut pump = Pump::start(&epoll, from, to, 1).expect("started");
        let (mut sent, mut got, mut ready) = (0u64, Vec::new(), Vec::new());
        // Until nothing moves any more.
        loop {
            let chunk = [(sent % 251) as u8; 1];
            let fed = source.write(&chunk.repeat(4096)).is_ok_and(|n| {
                sent += 1;
                n == 4096
            });
            epoll.wait_at_most(&mut ready, Some(std::time::Duration::ZERO)).expect("waited");
            if ready.is_empty() && !fed {
                break;
            }
            if !ready.is_empty() {
                assert_eq!(pump.turn(&epoll, &mut buffer), Flow::Open);
            }
        }
        assert!(pump.unsent.len() <= TURN && !pump.unsent.is_empty());
        drop(source);
        sink.set_nonblocking(true).expect("ours");
        let mut flow = Flow::Open;
        while flow == Flow::Open {
            sink.read_to_end(&mut got).expect_err("still open");
            epoll.wait(&mut ready).expect("waited");
            flow = pump.turn(&epoll, &mut buffer);
        }
        drop(pump);
        sink.read_to_end(&mut got).expect("closed");
        assert!(got.len() as u64 > (sent - 1) * 4096 && got.len() as u64 <= sent * 4096, "{} of {sent}", got.len());
        assert!(got.chunks(4096).enumerate().all(|(n, chunk)| chunk.iter().all(|b| *b == (n % 251) as u8)));
    }
}
