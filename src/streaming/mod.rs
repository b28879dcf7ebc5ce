//! Exec, attach and port-forward: an HTTP server on loopback whose every request becomes a session, on SPDY/3.1 or WebSocket.
//!
//! Nothing is there while nobody wants it. The first URL that is handed out opens the port and starts the thread that
//! accepts; a minute after the last one both are gone. Each session has one thread that waits for its socket and all its
//! streams at once; an exec has a second one that waits for the command's end.
//!
//! ```text
//! connection ─ http ─ token ─ upgrade ─▶ wire (spdy, websocket, tunnel) ─▶ remote (exec, attach) or forward
//! ```

mod attach;
mod base64;
pub mod buffer;
mod exec;
mod forward;
#[cfg(test)]
#[allow(dead_code, reason = "the tests of the other rings use more of it")]
#[path = "../../tests/support/frames.rs"]
mod frames;
pub mod http;
mod link;
mod listener;
mod pair;
mod remote;
mod role;
mod size;
mod socket;
pub mod spdy;
mod status;
mod tls;
mod tunnel;
pub mod upgrade;
pub mod websocket;
pub mod wire;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Context, Result};
use crate::runtime::Runtime;
use crate::store::sessions::Door;
use crate::sync::{Condvar, Mutex};
use crate::sys::eventfd::EventFd;
use crate::workers::{Size, Workers};
use listener::Gate;

/// The server. [`Streaming::stop`] ends it.
pub struct Streaming(Arc<Shared>);

/// What all sessions have in common.
struct Shared {
    rt: Arc<Runtime>,
    /// Threads of sessions.
    sessions: Workers,
    gate: Mutex<Gate>,
    /// The accepting thread has ended.
    closed: Condvar,
    /// Signalled once, for good: everything is to end.
    stop: EventFd,
}

impl Streaming {
    /// From now on URLs are handed out. Opens nothing yet.
    ///
    /// # Errors
    /// `InvalidArgument` for a certificate that cannot be used.
    pub fn start(rt: Arc<Runtime>) -> Result<Streaming> {
        if let Some(certificate) = &rt.config.streaming.certificate {
            // What is wrong with it is to be known now, not with the first session.
            tls::config_of(certificate)?;
        }
        let limit = rt.config.streaming.max_sessions;
        let sessions = Workers::new(Size { bound: limit, kept: 0, limit });
        let stop = EventFd::new().context("start the streaming server")?;
        let shared = Arc::new(Shared { rt, sessions, gate: Mutex::default(), closed: Condvar::new(), stop });
        shared.rt.sessions.set_door(Some(shared.clone()));
        Ok(Streaming(shared))
    }

    /// Ends all sessions, and the commands of those that run one. Blocks for `grace` at most; whether all have ended.
    pub fn stop(self, grace: Duration) -> bool {
        let shared = self.0;
        shared.rt.sessions.set_door(None);
        shared.stop.signal();
        shared.sessions.close();
        let ended = shared.sessions.drain(Instant::now() + grace);
        if !ended {
            log::warn!("shutdown: {} streaming sessions did not end in {grace:?}", shared.sessions.in_flight());
        }
        shared.close(Instant::now() + grace) && ended
    }

    /// Sessions and requests under way.
    pub fn in_flight(&self) -> usize {
        self.0.sessions.in_flight()
    }
}

impl Door for Shared {
    fn open(self: Arc<Self>) -> Result<String> {
        self.open_gate()
    }
}
