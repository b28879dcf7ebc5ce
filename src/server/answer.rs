//! The way back to the client: one answer or many, then a status; and the way to learn that nobody waits for it.
//!
//! Every RPC is served as if it streamed its answer, which on the wire is the same for a single one: only the sink of
//! a stream lets a server learn that its client is gone, grpcio's unary sink keeps that to itself.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures_executor::block_on;
use futures_util::sink::{Sink, SinkExt};
use grpcio::{RpcContext, RpcStatus, ServerStreamingSink, WriteFlags};

use super::status;
use crate::call::Call;
use crate::error::{Error, Kind, Result};

/// A client resets its call when its own deadline has passed, a moment before or after we see ours. Within this time
/// of the deadline that is no cancellation.
const DEADLINE_BLUR: Duration = Duration::from_millis(20);

/// Where a streaming verb sends its answers.
pub struct Outlet<R> {
    sink: ServerStreamingSink<R>,
    /// Rung by the C core when the call is over.
    bell: Waker,
    /// The call is over; the sink must not be polled again.
    over: bool,
}

/// Marks the call as cancelled. Rung on a gRPC thread.
struct Bell(Call);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        // A call whose time is up ends by its deadline, which it knows itself.
        if self.0.left().is_none_or(|left| left > DEADLINE_BLUR) {
            self.0.cancel();
        }
    }
}

impl<R> Outlet<R> {
    /// From now on `call` is cancelled when the client goes away.
    pub(super) fn new(sink: ServerStreamingSink<R>, call: &Call) -> Outlet<R> {
        let mut outlet = Outlet { sink, bell: Waker::from(Arc::new(Bell(call.clone()))), over: false };
        outlet.watch();
        outlet
    }

    /// Sends one answer and waits until there is room for the next. Blocks while the client does not read.
    ///
    /// # Errors
    /// `Canceled` when the client is gone, also by its deadline.
    pub fn send(&mut self, message: R) -> Result<()> {
        if !self.over {
            let sent = block_on(self.sink.send((message, WriteFlags::default())));
            self.note(sent)?;
        }
        self.watch();
        match self.over {
            true => Err(Error::new(Kind::Canceled, "the client is gone")),
            false => Ok(()),
        }
    }

    /// Ends the call well, with a last (or only) answer if there is one. Blocks until it is on its way.
    pub(super) fn finish(mut self, last: Option<R>) -> Result<()> {
        if let Some(message) = last {
            if !self.over {
                let sent = block_on(self.sink.feed((message, WriteFlags::default().buffer_hint(true))));
                if let Err(e) = self.note(sent) {
                    self.fail(status::status(&e));
                    return Err(e);
                }
            }
        }
        if !self.over {
            let closed = block_on(self.sink.close());
            self.note(closed)?;
        }
        Ok(())
    }

    /// Ends the call with `status`. Blocks until it is on its way.
    pub(super) fn fail(self, status: RpcStatus) {
        if !self.over {
            // It fails only if the client is gone, and then there is nobody to tell.
            block_on(self.sink.fail(status)).ok();
        }
    }

    /// As [`Outlet::fail`], on the gRPC thread, which must not block.
    pub(super) fn fail_later(self, context: &RpcContext<'_>, status: RpcStatus) {
        if !self.over {
            let failing = self.sink.fail(status);
            // As above.
            context.spawn(async move { failing.await.unwrap_or(()) });
        }
    }

    /// Every poll of the sink replaces its waker, so the bell is hung up again after each.
    fn watch(&mut self) {
        if self.over {
            return;
        }
        let bell = self.bell.clone();
        if let Poll::Ready(Err(_)) = Pin::new(&mut self.sink).poll_ready(&mut Context::from_waker(&bell)) {
            self.over = true;
            bell.wake();
        }
    }

    /// A message that cannot be written leaves the call open; anything else means that it is over.
    fn note(&mut self, sent: grpcio::Result<()>) -> Result<()> {
        match sent {
            Ok(()) => Ok(()),
            Err(grpcio::Error::Codec(e)) => Err(Error::internal(format!("encode the answer: {e}"))),
            Err(_) => {
                self.over = true;
                Ok(())
            }
        }
    }
}
