//! Pulls in progress: what several want at the same time is done once, and not more than a few things at once.

use std::collections::HashSet;
use std::sync::Arc;

use crate::call::Call;
use crate::error::Result;
use crate::flights::Flights;
use crate::registry::Credentials;
use crate::sync::{Condvar, Mutex};
use crate::workers::{Size, Workers};

/// What the pulls of this process share.
pub struct Pulls {
    /// Whole pulls, by reference, snapshotter and who pulls. Of one that is there comes the image's id.
    pub whole: Flights<(String, String, Credentials), (), String>,
    /// Blobs that are being fetched, by digest.
    pub blobs: Turns,
    /// Those that were written since there was no pull last.
    pub written: Mutex<HashSet<String>>,
    /// Snapshots that are being made, by chain id.
    pub chains: Turns,
    /// Leases of pulls that are under way: nobody else's clean-up may touch them.
    pub leases: Mutex<HashSet<String>>,
    /// Downloads at the same time, for all pulls together.
    pub downloads: Slots,
    /// Threads that fetch layers. There are more of them than downloads: what one has brought is written to the end and
    /// unpacked while the next comes.
    pub fetchers: Workers,
}

impl Pulls {
    /// Nothing is pulled. At most `downloads` layers will be fetched at the same time.
    pub fn new(downloads: usize) -> Self {
        Pulls {
            whole: Flights::default(),
            blobs: Turns::default(),
            written: Mutex::default(),
            chains: Turns::default(),
            leases: Mutex::default(),
            downloads: Slots::new(downloads),
            fetchers: Workers::new(Size { bound: 2 * downloads, kept: 0, limit: usize::MAX }),
        }
    }
}

/// What is taken, and who waits for it.
#[derive(Default)]
struct Taken<T> {
    taken: Mutex<T>,
    freed: Condvar,
}

impl<T: Send + 'static> Taken<T> {
    /// Blocks until `take` has something, or the call is over.
    fn wait<R>(self: &Arc<Self>, call: &Call, mut take: impl FnMut(&mut T) -> Option<R>) -> Result<R> {
        let waking = self.clone();
        let _watch = call.on_cancel(move || {
            // With the lock, or it may come between a waiter's look and its sleep.
            drop(waking.taken.lock());
            waking.freed.notify_all();
        });
        let mut taken = self.taken.lock();
        loop {
            call.check()?;
            if let Some(found) = take(&mut taken) {
                return Ok(found);
            }
            taken = self.freed.wait_until(taken, call.deadline());
        }
    }

    /// Gives something back.
    fn free(&self, give: impl FnOnce(&mut T)) {
        give(&mut self.taken.lock());
        self.freed.notify_all();
    }
}

/// So many at a time.
pub struct Slots(Arc<Taken<usize>>, usize);

/// The right to be one of them, until it is dropped.
pub struct Slot(Arc<Taken<usize>>);

impl Slots {
    fn new(all: usize) -> Self {
        Slots(Arc::default(), all)
    }

    /// Blocks until there is a free one.
    ///
    /// # Errors
    /// `Canceled` or `DeadlineExceeded`, as soon as that is so.
    pub fn take(&self, call: &Call) -> Result<Slot> {
        self.0.wait(call, |taken| {
            let free = *taken < self.1;
            *taken += usize::from(free);
            free.then_some(())
        })?;
        Ok(Slot(self.0.clone()))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.free(|taken| *taken -= 1);
    }
}

/// One at a time for each key.
#[derive(Clone, Default)]
pub struct Turns(Arc<Taken<HashSet<String>>>);

/// The right to work on a key until it is dropped.
pub struct Turn {
    taken: Arc<Taken<HashSet<String>>>,
    key: String,
    /// Somebody else had one when it was asked for.
    pub waited: bool,
}

impl Turns {
    /// Blocks until nobody else has a turn on `key`.
    ///
    /// # Errors
    /// `Canceled` or `DeadlineExceeded`, as soon as that is so.
    pub fn take(&self, call: &Call, key: &str) -> Result<Turn> {
        let mut looks = 0;
        self.0.wait(call, |keys| {
            looks += 1;
            keys.insert(key.to_owned()).then_some(())
        })?;
        Ok(Turn { taken: self.0.clone(), key: key.to_owned(), waited: looks > 1 })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.taken.free(|keys| {
            keys.remove(&self.key);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use std::thread;
    use std::time::Duration;

    #[test]
    fn one_at_a_time_for_each_key() {
        let turns = Turns::default();
        let first = turns.take(&Call::unbounded(), "a").unwrap();
        let _other = turns.take(&Call::unbounded(), "b").unwrap();
        let late = turns.take(&Call::within(Duration::from_millis(1)), "a").map(drop);
        assert_eq!(late.map_err(|e| e.kind()), Err(Kind::DeadlineExceeded));
        thread::scope(|scope| {
            let waiting = scope.spawn(|| turns.take(&Call::unbounded(), "a").map(|turn| turn.waited));
            assert!(!first.waited);
            drop(first);
            waiting.join().unwrap().unwrap();
        });
    }

    #[test]
    fn so_many_at_a_time() {
        let slots = Slots::new(2);
        let call = Call::unbounded();
        let taken = [slots.take(&call).unwrap(), slots.take(&call).unwrap()];
        let late = slots.take(&Call::within(Duration::from_millis(1))).map(drop);
        assert_eq!(late.map_err(|e| e.kind()), Err(Kind::DeadlineExceeded));
        thread::scope(|scope| {
            let waiting = scope.spawn(|| slots.take(&Call::unbounded()).map(drop));
            drop(taken);
            waiting.join().unwrap().unwrap();
        });
        let _all = [slots.take(&call).unwrap(), slots.take(&call).unwrap()];
    }

    #[test]
    fn who_waits_for_a_turn_can_be_cancelled() {
        let turns = Turns::default();
        let _first = turns.take(&Call::unbounded(), "a").unwrap();
        let call = Call::unbounded();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| turns.take(&call, "a").map(drop));
            call.cancel();
            assert_eq!(waiting.join().unwrap().map_err(|e| e.kind()), Err(Kind::Canceled));
        });
    }
}
