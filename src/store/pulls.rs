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
    /// Threads that fetch layers, for all pulls together.
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
            fetchers: Workers::new(Size { bound: downloads, kept: 0, limit: usize::MAX }),
        }
    }
}

/// One at a time for each key.
#[derive(Clone, Default)]
pub struct Turns(Arc<Taken>);

#[derive(Default)]
struct Taken {
    keys: Mutex<HashSet<String>>,
    freed: Condvar,
}

/// The right to work on a key until it is dropped.
pub struct Turn {
    taken: Arc<Taken>,
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
        let taken = self.0.clone();
        let waking = taken.clone();
        let _watch = call.on_cancel(move || {
            // With the lock, or it may come between a waiter's look and its sleep.
            drop(waking.keys.lock());
            waking.freed.notify_all();
        });
        let mut keys = taken.keys.lock();
        let mut waited = false;
        loop {
            call.check()?;
            if keys.insert(key.to_owned()) {
                drop(keys);
                return Ok(Turn { taken, key: key.to_owned(), waited });
            }
            waited = true;
            keys = taken.freed.wait_until(keys, call.deadline());
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.taken.keys.lock().remove(&self.key);
        self.taken.freed.notify_all();
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
