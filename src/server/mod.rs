//! The gRPC server of the CRI: one unix socket, a few worker threads, one place where errors become status codes.
//!
//! Threads: the C core's own few, the one of [`grpc::environment`] that takes calls off the wire, answers those that need
//! nothing but memory, and never blocks; and two pools of [workers](crate::workers) on which the other verbs run: one for
//! those that may block, one for those that answer soon.

mod answer;
mod claim;
mod dispatch;
pub mod services;
mod status;

use std::fmt::Write as _;
use std::future::Future;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use grpcio::{ChannelBuilder, ServerBuilder, ServerCredentials};

use crate::error::{Error, Kind, Result};
use crate::grpc;
use crate::workers::{Size, Workers};
use claim::Claim;
use dispatch::Lanes;

pub use answer::Outlet;
pub use dispatch::{encoded, Table};

/// The kubelet refuses greater messages, and so does containerd.
const MESSAGE_BYTES: i32 = 16 << 20;
/// Streams of a connection beyond those that verbs which block can take: a client queues what is over its streams, and
/// the kubelet's lists must not end up in that queue.
const MORE_STREAMS: usize = 64;
/// Calls the C core keeps memory ready for.
const CALL_SLOTS: usize = 32;
/// Answers that are soon there. No thread stays for the next one: starting it costs less than keeping it.
const QUICK: Size = Size { bound: 8, kept: 0, limit: 1024 };
/// What is left to calls that were cancelled at shutdown, and to the C core for its last frames.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What the verbs are given, seen from the server.
pub trait State: Send + Sync + 'static {
    /// Why no call can be served yet, or `None`. Called before every verb: must not block.
    fn not_ready(&self) -> Option<String>;
}

/// Choices of the operator.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bound on the verbs that block at the same time, each on a thread; as many calls again wait for one.
    pub max_calls: usize,
}

impl Options {
    fn slow(&self) -> Size {
        Size { bound: self.max_calls, kept: 0, limit: 2 * self.max_calls }
    }
}

/// A running server.
pub struct Server {
    grpc: grpcio::Server,
    lanes: Arc<Lanes>,
    claim: Claim,
}

impl Server {
    /// Starts to serve `services` on the unix socket `path`, with mode 0660. The folder is made (0711) if missing; a
    /// socket nobody listens on is replaced.
    ///
    /// # Errors
    /// `FailedPrecondition` if somebody else serves that socket or it is no socket.
    pub fn start<S: State>(
        state: Arc<S>,
        path: &Path,
        options: &Options,
        services: impl FnOnce(Table<S>) -> Table<S>,
    ) -> Result<Server> {
        let mut claim = Claim::take(path)?;
        let slow = options.slow();
        let lanes = Arc::new(Lanes { quick: Workers::new(QUICK), slow: Workers::new(slow) });
        let environment = grpc::environment();
        let arguments = ChannelBuilder::new(environment.clone())
            .max_receive_message_len(MESSAGE_BYTES)
            .max_send_message_len(MESSAGE_BYTES)
            .max_concurrent_stream((slow.limit + MORE_STREAMS) as i32)
            // A grpc-go client that pings every ten seconds is no abuser.
            .http2_min_recv_ping_interval_without_data(Duration::from_secs(5))
            .http2_max_ping_strikes(0)
            .keepalive_permit_without_calls(true)
            .build_args();
        let mut grpc = ServerBuilder::new(environment)
            .channel_args(arguments)
            .requests_slot_per_cq(CALL_SLOTS)
            .register_service(services(Table::new(state, lanes.clone())).build())
            .build()
            .map_err(|e| Error::caused(Kind::Internal, "start the gRPC server", e))?;
        grpc.add_listening_port(unix_uri(claim.binding()), ServerCredentials::insecure())
            .map_err(|e| Error::caused(Kind::Unknown, format!("listen on {}", path.display()), e))?;
        grpc.start();
        // Only now can anybody connect.
        claim.publish()?;
        Ok(Server { grpc, lanes, claim })
    }

    /// Stops: takes the socket away, lets the calls in flight finish within `grace`, then cancels what is left.
    /// Returns whether all of them finished. Blocks for `grace` and a few seconds at most.
    pub fn shutdown(self, grace: Duration) -> bool {
        let Server { mut grpc, lanes, claim } = self;
        claim.withdraw();
        let stopped = grpc.shutdown();
        let mut finished = lanes.drain(Instant::now() + grace);
        let in_time = finished;
        // Also ends the connections of clients that stay although nothing is under way.
        grpc.cancel_all_calls();
        if !finished {
            log::warn!("shutdown: {} calls did not finish in {grace:?}; they are cancelled", lanes.in_flight());
            finished = lanes.drain(Instant::now() + LAST_WORDS);
        }
        lanes.close();
        if !(finished && ends_by(stopped, Instant::now() + LAST_WORDS)) {
            // A verb does not return, and its call still refers to the server. The process is about to end: leave
            // the C core as it is rather than destroy it under that call.
            log::warn!("shutdown: a call does not end");
            std::mem::forget(grpc);
        }
        in_time
    }
}

/// Drives `future` on this thread; whether it ended by `deadline`.
fn ends_by(future: impl Future, deadline: Instant) -> bool {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        if future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            return true;
        }
        match deadline.saturating_duration_since(Instant::now()) {
            Duration::ZERO => return false,
            left => thread::park_timeout(left),
        }
    }
}

/// The C core takes addresses as URIs.
fn unix_uri(path: &Path) -> String {
    let mut uri = "unix:".to_owned();
    for &byte in path.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' | b'~' => uri.push(byte.into()),
            _ => write!(uri, "%{byte:02X}").expect("writing to a string cannot fail"),
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_paths_are_escaped() {
        assert_eq!(unix_uri(Path::new("/run/a b%20?#ü.sock")), "unix:/run/a%20b%2520%3F%23%C3%BC.sock");
    }
}
