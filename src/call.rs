//! What every verb and every containerd call is given besides its arguments: how long it may take, and its lease.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;

use crate::error::{Error, Kind, Result};

/// How long an undo may take, whatever is left of the request's own time.
const UNDO_BUDGET: Duration = Duration::from_secs(60);

/// The frame of one request: deadline, cancellation, and the containerd lease that protects what it writes.
/// Cheap to clone; clones share the cancellation.
#[derive(Clone, Debug, Default)]
pub struct Call {
    deadline: Option<Instant>,
    cancel: Arc<Cancel>,
    lease: Option<String>,
}

#[derive(Debug, Default)]
struct Cancel {
    cancelled: AtomicBool,
    blocked: AtomicWaker,
}

impl Call {
    /// A call without deadline and lease.
    pub fn unbounded() -> Self {
        Call::default()
    }

    /// A call that may take this long from now.
    pub fn within(budget: Duration) -> Self {
        Call { deadline: Instant::now().checked_add(budget), ..Call::default() }
    }

    /// The frame of an undo step or of a clean-up: a budget of its own, no lease, not cancellable.
    pub fn undo() -> Self {
        Call::within(UNDO_BUDGET)
    }

    /// The same call under a lease: containerd's garbage collection spares what it creates.
    #[must_use]
    pub fn with_lease(&self, lease: impl Into<String>) -> Self {
        Call { lease: Some(lease.into()), ..self.clone() }
    }

    /// The same call, bounded by `budget` as well.
    #[must_use]
    pub fn at_most(&self, budget: Duration) -> Self {
        let ours = Instant::now().checked_add(budget);
        let deadline = match (self.deadline, ours) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        Call { deadline, ..self.clone() }
    }

    /// When it must be over, if ever.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Time left; `None` is no limit, zero is too late.
    pub fn left(&self) -> Option<Duration> {
        self.deadline.map(|d| d.saturating_duration_since(Instant::now()))
    }

    /// The containerd lease, if any.
    pub fn lease(&self) -> Option<&str> {
        self.lease.as_deref()
    }

    /// Nobody waits for the answer any more.
    pub fn cancel(&self) {
        self.cancel.cancelled.store(true, Ordering::Release);
        self.cancel.blocked.wake();
    }

    /// Whether it was cancelled; if not, `waker` is woken when it is. One waker at a time: the verb's own thread.
    pub fn cancelled_or_wake(&self, waker: &Waker) -> bool {
        self.cancel.blocked.register(waker);
        self.cancel.cancelled.load(Ordering::Acquire)
    }

    /// Fails if the call was cancelled or its time is up; verbs ask at every step boundary.
    ///
    /// # Errors
    /// `Canceled` or `DeadlineExceeded`.
    pub fn check(&self) -> Result<()> {
        if self.cancel.cancelled.load(Ordering::Acquire) {
            return Err(Error::new(Kind::Canceled, "the client cancelled the request"));
        }
        if self.left() == Some(Duration::ZERO) {
            return Err(Error::new(Kind::DeadlineExceeded, "the request's deadline has passed"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_only_tightens() {
        let call = Call::within(Duration::ZERO).at_most(Duration::from_secs(5));
        assert_eq!(call.check().map_err(|e| e.kind()), Err(Kind::DeadlineExceeded));
        assert!(Call::unbounded().at_most(Duration::from_secs(5)).check().is_ok());
    }

    #[test]
    fn clones_share_cancellation() {
        let call = Call::unbounded();
        let leased = call.with_lease("x");
        call.cancel();
        assert_eq!(leased.check().map_err(|e| e.kind()), Err(Kind::Canceled));
    }
}
