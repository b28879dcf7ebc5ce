//! Port-forward: pairs of streams, each for one connection into the pod: one for its bytes, one for what went wrong.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cricket_proto::runtime::PortForwardRequest;

use super::link::Link;
use super::pair::{Pair, Took};
use super::upgrade::Opening;
use super::wire::{send, Next, StreamId};
use super::Shared;
use crate::error::{Context, Error, Kind, Result};
use crate::store::Sandbox;
use crate::sys::poll::Poll;

/// How long the second stream of a pair may come after the first.
const PAIR_BUDGET: Duration = Duration::from_secs(30);

/// A session from the handshake to its end.
pub(super) fn serve(shared: &Arc<Shared>, link: Link, opening: Opening, request: &PortForwardRequest) -> Result<()> {
    let sandbox = shared.rt.sandboxes.get(&request.pod_sandbox_id)?;
    let mut forward = Forward { shared, link, sandbox, pairs: Vec::new(), full: false, turn: 0 };
    if opening == Opening::Fixed {
        forward.open_fixed(&request.port);
    }
    let ended = forward.run(opening);
    // Our ends of the connections first: the farewell may take a while.
    forward.pairs.clear();
    forward.link.wire.goodbye(&mut forward.link.out);
    forward.link.close(&shared.stop);
    ended
}

struct Forward<'a> {
    shared: &'a Shared,
    link: Link,
    sandbox: Arc<Sandbox>,
    pairs: Vec<Pair>,
    /// The connection of the next bytes takes no more, and as many as we keep are waiting: nothing more is read.
    full: bool,
    /// Whose turn it is to send first.
    turn: usize,
}

impl Forward<'_> {
    /// The streams of a WebSocket: two for each port, which begin with its number.
    fn open_fixed(&mut self, ports: &[i32]) {
        for (n, port) in ports.iter().enumerate() {
            let (data, error) = (2 * n as StreamId, 2 * n as StreamId + 1);
            let port = *port as u16;
            for id in [data, error] {
                send(&mut *self.link.wire, id, &mut self.link.out, &port.to_le_bytes());
            }
            let mut pair = Pair::new(error, port, String::new());
            pair.dial(data, &self.sandbox);
            self.pairs.push(pair);
        }
    }

    /// Moves bytes until the client leaves, or no fixed pair is left.
    fn run(&mut self, opening: Opening) -> Result<()> {
        let mut poll = Poll::new();
        loop {
            self.understand()?;
            for pair in &mut self.pairs {
                pair.speak(&mut self.link);
            }
            self.pairs.retain(|pair| !pair.is_over());
            self.link.flush();
            if self.link.gone || (opening == Opening::Fixed && self.pairs.is_empty()) {
                return Ok(());
            }
            let idle = self.link.used + self.shared.rt.config.streaming.idle_timeout;
            let late = self.pairs.iter().filter_map(Pair::lonely_since).min().map(|since| since + PAIR_BUDGET);
            poll.clear();
            let stop = poll.add(&self.shared.stop, true, false);
            let reading = !self.full;
            let at = self.link.add_to(&mut poll, reading);
            let room = self.link.out.is_empty();
            self.pairs.iter_mut().for_each(|pair| pair.watch(&mut poll, room));
            poll.wait(Some(late.map_or(idle, |late| late.min(idle)))).context("wait for forwarded ports")?;
            if poll.readable(stop) {
                return Err(Error::new(Kind::Unavailable, "cricket is shutting down"));
            }
            let now = Instant::now();
            if idle <= now {
                return Err(Error::new(Kind::DeadlineExceeded, "nothing was said for too long"));
            }
            if late.is_some_and(|late| late <= now) {
                self.drop_lonely(now);
            }
            self.link.moved(&poll, at, reading);
            self.full = false;
            self.exchange(&poll);
        }
    }

    /// Lets each pair move what it can; another one begins every time.
    fn exchange(&mut self, poll: &Poll) {
        self.turn += 1;
        let count = self.pairs.len();
        for n in 0..count {
            let pair = &mut self.pairs[(self.turn + n) % count];
            pair.advance(poll);
            pair.send_queued(poll);
            pair.relay(poll, &mut self.link);
        }
    }

    fn understand(&mut self) -> Result<()> {
        while !self.link.gone {
            match self.link.wire.next(&mut self.link.input, &mut self.link.out)? {
                Next::Starved => return Ok(()),
                Next::Blocked => {
                    self.link.choked = true;
                    return Ok(());
                }
                Next::Open(id, headers) => self.open(id, &headers),
                Next::Data(id) => {
                    let body = self.link.wire.body(&self.link.input);
                    let used = match self.pairs.iter_mut().find(|pair| pair.data == Some(id)) {
                        Some(pair) => match pair.take(body) {
                            Took::Some(n) => n,
                            Took::Full => {
                                self.full = true;
                                return Ok(());
                            }
                        },
                        None => body.len(),
                    };
                    self.link.took(used);
                }
                Next::Ended(id) => {
                    if let Some(pair) = self.pairs.iter_mut().find(|pair| pair.data == Some(id)) {
                        pair.end_from_client();
                    }
                }
                Next::Reset(id) => self.reset(id),
                // Streams that are open go on; the connection's end ends them.
                Next::Goodbye => self.link.gone = true,
            }
        }
        Ok(())
    }

    fn open(&mut self, id: StreamId, headers: &[(String, String)]) {
        let header = |wanted: &str| headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
        let port = header("port").and_then(|port| port.parse::<u16>().ok()).filter(|port| *port > 0);
        let accepted = match (header("streamtype"), port) {
            (Some("error"), Some(port)) => {
                let key = header("requestid").map_or_else(|| id.to_string(), str::to_owned);
                let free = !self.pairs.iter().any(|pair| pair.data.is_none() && pair.key == key);
                if free {
                    self.pairs.push(Pair::new(id, port, key));
                }
                free
            }
            (Some("data"), Some(port)) => {
                // Old clients send no number; their data stream comes right after the error stream.
                let key = header("requestid").map_or_else(|| id.saturating_sub(2).to_string(), str::to_owned);
                let lonely = |pair: &&mut Pair| pair.data.is_none() && pair.key == key && pair.port == port;
                match self.pairs.iter_mut().find(lonely) {
                    Some(pair) => {
                        pair.dial(id, &self.sandbox);
                        true
                    }
                    None => false,
                }
            }
            _ => false,
        };
        match accepted {
            true => self.link.wire.accept(id, &mut self.link.out),
            false => self.link.wire.reset(id, &mut self.link.out),
        }
    }

    fn reset(&mut self, id: StreamId) {
        let Some(at) = self.pairs.iter().position(|pair| pair.data == Some(id)) else {
            // An error stream that nobody reads: the pair goes on, unless it is still alone.
            self.pairs.retain(|pair| pair.error != id || pair.data.is_some());
            return;
        };
        let pair = self.pairs.swap_remove(at);
        self.link.wire.end(pair.error, &mut self.link.out);
    }

    fn drop_lonely(&mut self, now: Instant) {
        let link = &mut self.link;
        self.pairs.retain(|pair| {
            let late = pair.lonely_since().is_some_and(|since| since + PAIR_BUDGET <= now);
            if late {
                link.wire.reset(pair.error, &mut link.out);
            }
            !late
        });
    }
}
