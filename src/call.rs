//! What every verb and every containerd call is given besides its arguments: how long it may take, and its lease.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;

use crate::error::{Error, Kind, Result};
use crate::sync::Mutex;

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
    watchers: Mutex<Watchers>,
}

#[derive(Default)]
struct Watchers {
    next: u64,
    acts: Vec<(u64, Arc<dyn Fn() + Send + Sync>)>,
}

impl fmt::Debug for Watchers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} watchers", self.acts.len())
    }
}

/// See [`Call::on_cancel`]. Dropping it ends the watch.
#[must_use = "dropping it ends the watch"]
#[derive(Debug)]
pub struct Watch {
    cancel: Arc<Cancel>,
    number: u64,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.cancel.watchers.lock().acts.retain(|(number, _)| *number != self.number);
    }
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
        // Not under the lock: what a watcher does may end its watch.
        let acts: Vec<_> = self.cancel.watchers.lock().acts.iter().map(|(_, act)| act.clone()).collect();
        acts.iter().for_each(|act| act());
    }

    /// Runs `act` when the call is cancelled, on the thread that cancels it: it must not block. If it is cancelled
    /// already, at once. It may run twice, and once more while the watch is being dropped.
    pub fn on_cancel(&self, act: impl Fn() + Send + Sync + 'static) -> Watch {
        let act: Arc<dyn Fn() + Send + Sync> = Arc::new(act);
        let number = {
            let mut watchers = self.cancel.watchers.lock();
            watchers.next += 1;
            let number = watchers.next;
            watchers.acts.push((number, act.clone()));
            number
        };
        if self.cancel.cancelled.load(Ordering::Acquire) {
            act();
        }
        Watch { cancel: self.cancel.clone(), number }
    }

    /// A call of the same time and lease that is cancelled by itself alone.
    #[must_use]
    pub fn apart(&self) -> Call {
        Call { cancel: Arc::default(), ..self.clone() }
    }

    /// A call for one thread of several that work on this one: cancelled with it, or alone. Its cancellation with this
    /// one lasts as long as the watch.
    pub fn branch(&self) -> (Call, Watch) {
        let branch = self.apart();
        let own = branch.clone();
        let watch = self.on_cancel(move || own.cancel());
        (branch, watch)
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

    #[test]
    fn a_branch_ends_with_its_call_but_not_the_other_way_round() {
        let call = Call::unbounded();
        let (first, watched) = call.branch();
        let (second, unwatched) = call.branch();
        first.cancel();
        assert!(call.check().is_ok());
        drop(unwatched);
        let (third, _watched) = call.branch();
        call.cancel();
        assert!(first.check().is_err() && third.check().is_err());
        assert!(second.check().is_ok(), "nobody watches for it any more");
        drop(watched);
        let (late, _watched) = call.branch();
        assert!(late.check().is_err(), "cancelled before it was made");
    }
}
