//! One call to containerd: namespace and lease as headers, and a bound.

use std::time::Duration;

use futures_executor::block_on;
use futures_util::StreamExt;
use grpcio::{CallOption, ClientSStreamReceiver, Method};

use super::Client;
use crate::call::Call;
use crate::containerd::NAMESPACE;
use crate::error::{Error, Result};

/// Bound of a call that has none of its own. The slowest quick one is the creation of a task on a loaded node.
const QUICK: Duration = Duration::from_secs(120);

impl Client {
    /// A unary call that containerd answers soon: bounded even if `call` is not.
    pub(super) fn quick<Q, R: Unpin>(&self, call: &Call, method: &Method<Q, R>, request: &Q) -> Result<R> {
        let bounded = if call.deadline().is_some() { call.clone() } else { call.at_most(QUICK) };
        self.peer.unary(&bounded, method, request, &headers(call))
    }

    /// A unary call that may take as long as it takes: bounded by `call` only, and broken off when that is cancelled.
    pub(super) fn slow<Q, R: Unpin>(&self, call: &Call, method: &Method<Q, R>, request: &Q) -> Result<R> {
        self.peer.unary_until_cancelled(call, method, request, &headers(call))
    }

    /// A server stream, given to `each` message by message until its end or the first error.
    pub(super) fn stream<Q, R>(
        &self,
        call: &Call,
        method: &Method<Q, R>,
        request: &Q,
        each: impl FnMut(R) -> Result<()>,
    ) -> Result<()> {
        let bounded = if call.deadline().is_some() { call.clone() } else { call.at_most(QUICK) };
        self.long_stream(&bounded, method, request, each)
    }

    /// The same, bounded by `call` only.
    pub(super) fn long_stream<Q, R>(
        &self,
        call: &Call,
        method: &Method<Q, R>,
        request: &Q,
        mut each: impl FnMut(R) -> Result<()>,
    ) -> Result<()> {
        let mut receiver: ClientSStreamReceiver<R> =
            self.peer.rpc().server_streaming(method, request, self.options(call)?).map_err(|e| self.error(e))?;
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
        self.peer.options(call, &headers(call))
    }

    /// An error of grpcio's as ours.
    pub(super) fn error(&self, e: grpcio::Error) -> Error {
        self.peer.error(e)
    }
}

fn headers(call: &Call) -> Vec<(&str, &str)> {
    let namespace = ("containerd-namespace", NAMESPACE);
    std::iter::once(namespace).chain(call.lease().map(|lease| ("containerd-lease", lease))).collect()
}
