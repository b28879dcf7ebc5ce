//! A gRPC peer on a unix socket: blocking calls, its errors as ours.

use std::cell::Cell;
use std::future::{poll_fn, Future};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_executor::block_on;

use grpcio::{CallOption, ChannelBuilder, EnvBuilder, Environment, MetadataBuilder, Method, RpcStatus, RpcStatusCode};

use crate::call::Call;
use crate::error::{Error, Kind, Result};

/// What the kubelet, containerd and we allow in one message.
pub const MESSAGE_BYTES: i32 = 16 << 20;
/// A peer's restart is short; with gRPC's defaults we would notice its return seconds late.
const FIRST_RECONNECT: Duration = Duration::from_millis(100);
const LAST_RECONNECT: Duration = Duration::from_millis(500);

/// How long a peer may take to answer a new connection, in milliseconds: on a small node that is busy, more than is thought.
const CONNECT_MS: i32 = 10_000;

thread_local! {
    /// This is the thread that moves bytes.
    static MOVES_BYTES: Cell<bool> = const { Cell::new(false) };
}

/// The one environment of this process, for its server and for all peers: a thread, `grpc-0`, that moves bytes, and runs
/// what must not block. Two would wake each other for every byte, because the C core has them wait for the same files. It
/// never ends.
pub fn environment() -> Arc<Environment> {
    static ENVIRONMENT: OnceLock<Arc<Environment>> = OnceLock::new();
    let build = || EnvBuilder::new().cq_count(1).name_prefix("grpc").after_start(|| MOVES_BYTES.set(true)).build();
    ENVIRONMENT.get_or_init(|| Arc::new(build())).clone()
}

/// A connection. It is made on first use and made again by itself after the peer was away; until then calls fail at
/// once with `Unavailable`. Calls block their caller.
pub struct Peer {
    rpc: grpcio::Client,
    /// For messages: who, and the socket as the user wrote it.
    name: String,
}

impl Peer {
    /// The peer called `name` at `address`: the path of its socket, with or without `unix://`, or
    /// `unix-abstract:NAME`. Does not connect yet.
    ///
    /// # Errors
    /// `InvalidArgument` for anything that is not a local socket.
    pub fn connect(name: &str, address: &str) -> Result<Self> {
        let target = target(name, address)?;
        let channel = ChannelBuilder::new(environment())
            .max_receive_message_len(MESSAGE_BYTES)
            .max_send_message_len(MESSAGE_BYTES)
            .initial_reconnect_backoff(FIRST_RECONNECT)
            .max_reconnect_backoff(LAST_RECONNECT)
            // Not a pause, whatever its name: how long one try may take. grpcio has no builder method for it.
            .raw_cfg_int(c"grpc.min_reconnect_backoff_ms".to_owned(), CONNECT_MS)
            .primary_user_agent("cricket")
            .connect(&target);
        Ok(Peer { rpc: grpcio::Client::new(channel), name: format!("{name} at {address}") })
    }

    /// A unary call with these headers, bounded by `call`.
    pub fn unary<Q, R: Unpin>(
        &self,
        call: &Call,
        method: &Method<Q, R>,
        request: &Q,
        headers: &[(&str, &str)],
    ) -> Result<R> {
        let options = self.options(call, headers)?;
        self.rpc.unary_call(method, request, options).map_err(|e| self.error(e))
    }

    /// As [`Peer::unary`], but it is also broken off when `call` is cancelled, as a call that may take for ever must be.
    pub fn unary_until_cancelled<Q, R: Unpin>(
        &self,
        call: &Call,
        method: &Method<Q, R>,
        request: &Q,
        headers: &[(&str, &str)],
    ) -> Result<R> {
        let options = self.options(call, headers)?;
        let mut answer = self.rpc.unary_call_async(method, request, options).map_err(|e| self.error(e))?;
        block_on(poll_fn(|context| {
            if call.cancelled_or_wake(context.waker()) {
                answer.cancel();
            }
            Pin::new(&mut answer).poll(context)
        }))
        .map_err(|e| self.error(e))
    }

    /// Who it is and where, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// grpcio's client, for streams.
    pub fn rpc(&self) -> &grpcio::Client {
        &self.rpc
    }

    /// Headers and deadline of `call`; refused when it is over already, and where it would wait for itself.
    pub fn options(&self, call: &Call, headers: &[(&str, &str)]) -> Result<CallOption> {
        if MOVES_BYTES.get() {
            return Err(Error::internal(format!("a call to {} on the thread that would read its answer", self.name)));
        }
        call.check()?;
        let mut metadata = MetadataBuilder::new();
        for (key, value) in headers {
            metadata.add_str(key, value).map_err(|e| self.error(e))?;
        }
        let options = CallOption::default().headers(metadata.build());
        Ok(match call.left() {
            Some(left) => options.timeout(left),
            None => options,
        })
    }

    /// An error of grpcio's as ours.
    pub fn error(&self, e: grpcio::Error) -> Error {
        match e {
            grpcio::Error::RpcFailure(status) | grpcio::Error::RpcFinished(Some(status)) => self.status(&status),
            grpcio::Error::Codec(e) => Error::internal(format!("protobuf of {}: {e}", self.name)),
            grpcio::Error::InvalidMetadata(e) => Error::invalid(format!("header for {}: {e}", self.name)),
            other => Error::new(Kind::Unavailable, format!("{}: {other}", self.name)),
        }
    }

    /// A gRPC status as an error: code for code, message kept.
    fn status(&self, status: &RpcStatus) -> Error {
        let kind = kind(status);
        match kind {
            Kind::Unavailable => Error::new(kind, format!("{}: {}", self.name, status.message())),
            _ => Error::new(kind, status.message()),
        }
    }
}

/// gRPC's spelling of a local socket.
fn target(name: &str, address: &str) -> Result<String> {
    let path = address.strip_prefix("unix://").unwrap_or(address);
    let known = path.starts_with('/') || path.starts_with("unix-abstract:");
    if !known || path.contains('\0') {
        let message = format!("address of {name} {address:?}: give the absolute path of its unix socket");
        return Err(Error::invalid(message));
    }
    Ok(if path.starts_with('/') { format!("unix:{path}") } else { path.to_owned() })
}

fn kind(status: &RpcStatus) -> Kind {
    // What Go's contexts say of themselves travels without a code of its own, some way down a chain of messages.
    let says = |what| status.message().trim_end_matches(": unknown").ends_with(what);
    match status.code() {
        RpcStatusCode::UNKNOWN if says("context deadline exceeded") => Kind::DeadlineExceeded,
        RpcStatusCode::UNKNOWN if says("context canceled") => Kind::Canceled,
        // So does what the kernel said.
        RpcStatusCode::UNKNOWN if says("no space left on device") || says("disk quota exceeded") => {
            Kind::ResourceExhausted
        }
        code => u8::try_from(i32::from(code)).map_or(Kind::Unknown, Kind::from_code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cricket_proto::methods::runtime_service::VERSION;

    fn peer() -> Peer {
        Peer::connect("containerd", "/nonexistent/c.sock").expect("a path")
    }

    #[test]
    fn local_sockets_only() {
        let ok = |a| target("x", a).expect("an address");
        assert_eq!(ok("/run/containerd/containerd.sock"), "unix:/run/containerd/containerd.sock");
        assert_eq!(ok("unix:///run/c.sock"), "unix:/run/c.sock");
        assert_eq!(ok("unix-abstract:c"), "unix-abstract:c");
        for bad in ["", "run/c.sock", "tcp://1.2.3.4:5", "/a\0b", "unix://c.sock"] {
            assert_eq!(target("x", bad).map_err(|e| e.kind()), Err(Kind::InvalidArgument), "{bad:?}");
        }
    }

    #[test]
    fn codes_become_kinds_and_messages_stay() {
        let of = |code, text: &str| peer().error(grpcio::Error::RpcFailure(RpcStatus::with_message(code, text.into())));
        let e = of(RpcStatusCode::NOT_FOUND, "container \"x\": not found");
        assert_eq!((e.kind(), e.message()), (Kind::NotFound, "container \"x\": not found"));
        assert_eq!(of(RpcStatusCode::UNKNOWN, "context deadline exceeded: unknown").kind(), Kind::DeadlineExceeded);
        assert_eq!(of(RpcStatusCode::UNKNOWN, "wait: context canceled").kind(), Kind::Canceled);
        assert_eq!(of(RpcStatusCode::UNKNOWN, "runc did not").kind(), Kind::Unknown);
        let full = "mkdir /var/lib/containerd/x: no space left on device: unknown";
        assert_eq!(of(RpcStatusCode::UNKNOWN, full).kind(), Kind::ResourceExhausted);
        assert_eq!(of(RpcStatusCode::DATA_LOSS, "").kind(), Kind::Unknown);
    }

    #[test]
    fn a_call_that_would_wait_for_itself_is_refused() {
        MOVES_BYTES.set(true);
        let e = peer().unary(&Call::unbounded(), &VERSION, &Default::default(), &[]).expect_err("refused");
        MOVES_BYTES.set(false);
        assert_eq!(e.kind(), Kind::Internal, "{e}");
    }

    #[test]
    fn an_absent_peer_is_unavailable_and_named() {
        let e = peer().unary(&Call::within(Duration::from_secs(20)), &VERSION, &Default::default(), &[]);
        let e = e.expect_err("nobody listens there");
        assert_eq!(e.kind(), Kind::Unavailable, "{e}");
        assert!(e.message().starts_with("containerd at /nonexistent/c.sock: "), "{e}");
    }

    /// A peer that takes the connection and never says a word.
    #[test]
    fn a_call_that_would_wait_for_ever_ends_when_it_is_cancelled() {
        let socket = std::env::temp_dir().join(format!("cricket-mute-{}", std::process::id()));
        let mute = std::os::unix::net::UnixListener::bind(&socket).expect("free");
        let peer = Peer::connect("containerd", &socket.to_string_lossy()).expect("a path");
        let call = Call::unbounded();
        let ask = || peer.unary_until_cancelled(&call, &VERSION, &Default::default(), &[]).map_err(|e| e.kind());
        let answer = std::thread::scope(|scope| {
            let asking = scope.spawn(ask);
            let connection = mute.accept().expect("it connects");
            call.cancel();
            let answer = asking.join().expect("no panic");
            drop(connection);
            answer
        });
        std::fs::remove_file(&socket).expect("ours");
        assert_eq!(answer.map(drop), Err(Kind::Canceled));
    }

    #[test]
    fn a_finished_call_is_not_made() {
        let refused = |call: &Call, value: &str| {
            peer().options(call, &[("containerd-lease", value)]).map(drop).map_err(|e| e.kind())
        };
        assert_eq!(refused(&Call::within(Duration::ZERO), "fine"), Err(Kind::DeadlineExceeded));
        let cancelled = Call::unbounded();
        cancelled.cancel();
        assert_eq!(refused(&cancelled, "fine"), Err(Kind::Canceled));
        assert_eq!(refused(&Call::unbounded(), "two\nlines"), Err(Kind::InvalidArgument));
        assert_eq!(refused(&Call::unbounded(), "fine"), Ok(()));
    }
}
