//! One call to containerd: headers, deadline, and its errors as ours.

use std::time::Duration;

use futures_executor::block_on;
use futures_util::StreamExt;
use grpcio::{CallOption, ClientSStreamReceiver, MetadataBuilder, Method, RpcStatus, RpcStatusCode};

use super::Client;
use crate::call::Call;
use crate::containerd::NAMESPACE;
use crate::error::{Error, Kind, Result};

/// Bound of a call that has none of its own. The slowest quick one is the creation of a task on a loaded node.
const QUICK: Duration = Duration::from_secs(120);

impl Client {
    /// A unary call that containerd answers soon: bounded even if `call` is not.
    pub(super) fn quick<Q, R: Unpin>(&self, call: &Call, method: &Method<Q, R>, request: &Q) -> Result<R> {
        self.slow(&if call.deadline().is_some() { call.clone() } else { call.at_most(QUICK) }, method, request)
    }

    /// A unary call that may take as long as it takes: bounded by `call` only.
    pub(super) fn slow<Q, R: Unpin>(&self, call: &Call, method: &Method<Q, R>, request: &Q) -> Result<R> {
        let options = self.options(call)?;
        self.rpc.unary_call(method, request, options).map_err(|e| self.error(e))
    }

    /// A server stream, given to `each` message by message until its end or the first error.
    pub(super) fn stream<Q, R>(
        &self,
        call: &Call,
        method: &Method<Q, R>,
        request: &Q,
        mut each: impl FnMut(R) -> Result<()>,
    ) -> Result<()> {
        let bounded = if call.deadline().is_some() { call.clone() } else { call.at_most(QUICK) };
        let mut receiver: ClientSStreamReceiver<R> =
            self.rpc.server_streaming(method, request, self.options(&bounded)?).map_err(|e| self.error(e))?;
        while let Some(message) = block_on(receiver.next()) {
            if let Err(e) = message.map_err(|e| self.error(e)).and_then(&mut each) {
                receiver.cancel();
                return Err(e);
            }
        }
        Ok(())
    }

    /// Headers and deadline of `call`; refused when it is over already.
    pub(super) fn options(&self, call: &Call) -> Result<CallOption> {
        call.check()?;
        let mut headers = MetadataBuilder::new();
        headers.add_str("containerd-namespace", NAMESPACE).map_err(|e| self.error(e))?;
        if let Some(lease) = call.lease() {
            headers.add_str("containerd-lease", lease).map_err(|e| self.error(e))?;
        }
        let options = CallOption::default().headers(headers.build());
        Ok(match call.left() {
            Some(left) => options.timeout(left),
            None => options,
        })
    }

    /// An error of grpcio's as ours.
    pub(super) fn error(&self, e: grpcio::Error) -> Error {
        match e {
            grpcio::Error::RpcFailure(status) | grpcio::Error::RpcFinished(Some(status)) => self.status(&status),
            grpcio::Error::Codec(e) => Error::internal(format!("protobuf of containerd: {e}")),
            grpcio::Error::InvalidMetadata(e) => Error::invalid(format!("header for containerd: {e}")),
            other => Error::new(Kind::Unavailable, format!("containerd at {}: {other}", self.address)),
        }
    }

    /// A gRPC status as an error: code for code, message kept.
    fn status(&self, status: &RpcStatus) -> Error {
        let kind = kind(status);
        match kind {
            Kind::Unavailable => Error::new(kind, format!("containerd at {}: {}", self.address, status.message())),
            _ => Error::new(kind, status.message()),
        }
    }
}

fn kind(status: &RpcStatus) -> Kind {
    // What Go's contexts say of themselves travels without a code of its own, some way down a chain of messages.
    let says = |what| status.message().trim_end_matches(": unknown").ends_with(what);
    match status.code() {
        RpcStatusCode::CANCELLED => Kind::Canceled,
        RpcStatusCode::UNKNOWN if says("context deadline exceeded") => Kind::DeadlineExceeded,
        RpcStatusCode::UNKNOWN if says("context canceled") => Kind::Canceled,
        RpcStatusCode::INVALID_ARGUMENT | RpcStatusCode::OUT_OF_RANGE => Kind::InvalidArgument,
        RpcStatusCode::DEADLINE_EXCEEDED => Kind::DeadlineExceeded,
        RpcStatusCode::NOT_FOUND => Kind::NotFound,
        RpcStatusCode::ALREADY_EXISTS => Kind::AlreadyExists,
        RpcStatusCode::PERMISSION_DENIED | RpcStatusCode::UNAUTHENTICATED => Kind::PermissionDenied,
        RpcStatusCode::RESOURCE_EXHAUSTED => Kind::ResourceExhausted,
        RpcStatusCode::FAILED_PRECONDITION => Kind::FailedPrecondition,
        RpcStatusCode::ABORTED => Kind::Aborted,
        RpcStatusCode::UNIMPLEMENTED => Kind::Unimplemented,
        RpcStatusCode::INTERNAL => Kind::Internal,
        RpcStatusCode::UNAVAILABLE => Kind::Unavailable,
        _ => Kind::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client() -> Client {
        Client::new("/nonexistent/c.sock").expect("a path")
    }

    #[test]
    fn codes_become_kinds_and_messages_stay() {
        let of =
            |code, text: &str| client().error(grpcio::Error::RpcFailure(RpcStatus::with_message(code, text.into())));
        let e = of(RpcStatusCode::NOT_FOUND, "container \"x\": not found");
        assert_eq!((e.kind(), e.message()), (Kind::NotFound, "container \"x\": not found"));
        assert_eq!(of(RpcStatusCode::UNKNOWN, "context deadline exceeded: unknown").kind(), Kind::DeadlineExceeded);
        assert_eq!(of(RpcStatusCode::UNKNOWN, "wait: context canceled").kind(), Kind::Canceled);
        assert_eq!(of(RpcStatusCode::UNKNOWN, "runc did not").kind(), Kind::Unknown);
        assert_eq!(of(RpcStatusCode::DATA_LOSS, "").kind(), Kind::Unknown);
    }

    #[test]
    fn an_absent_containerd_is_unavailable_and_named() {
        use crate::containerd::Containerd;
        let e = client().version(&Call::within(Duration::from_secs(20))).expect_err("nobody listens there");
        assert_eq!(e.kind(), Kind::Unavailable, "{e}");
        assert!(e.message().starts_with("containerd at /nonexistent/c.sock: "), "{e}");
    }

    #[test]
    fn a_finished_call_is_not_made() {
        let refused = |call: &Call| client().options(call).map(drop).map_err(|e| e.kind());
        assert_eq!(refused(&Call::within(Duration::ZERO)), Err(Kind::DeadlineExceeded));
        let cancelled = Call::unbounded();
        cancelled.cancel();
        assert_eq!(refused(&cancelled), Err(Kind::Canceled));
        assert_eq!(refused(&Call::unbounded().with_lease("two\nlines")), Err(Kind::InvalidArgument));
        assert_eq!(refused(&Call::unbounded().with_lease("fine")), Ok(()));
    }
}
