//! Pulls in progress: what several want at the same time is done once, and not more than a few things at once.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use crate::call::Call;
use crate::error::{Error, Kind, Result};
use crate::registry::Credentials;
use crate::sync::{Condvar, Mutex};
use crate::workers::{Size, Workers};

/// What the pulls of this process share.
pub struct Pulls {
    /// Whole pulls, by reference, snapshotter and who pulls. Of one that is there comes the image's id.
    pub whole: Flights<(String, String, Credentials), String>,
    /// Blobs that are being fetched, by digest.
    pub blobs: Turns,
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
        loop {
            call.check()?;
            if keys.insert(key.to_owned()) {
                drop(keys);
                return Ok(Turn { taken, key: key.to_owned() });
            }
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

/// Work that is done once for all who want it at the same time: the first does it, the others get what it got.
pub struct Flights<K, T>(Mutex<HashMap<K, Arc<Flight<T>>>>);

struct Flight<T> {
    /// `None` inside when the work panicked.
    outcome: Mutex<Option<Option<Outcome<T>>>>,
    landed: Condvar,
}

type Outcome<T> = Result<T, (Kind, String)>;

impl<K, T> Default for Flights<K, T> {
    fn default() -> Self {
        Flights(Mutex::default())
    }
}

impl<K: Clone + Eq + Hash, T: Clone + Send + 'static> Flights<K, T> {
    /// Does `work`, unless somebody is at it: then blocks for what comes of that. If they were cancelled, or out of
    /// time, one of those that wait does it.
    ///
    /// # Errors
    /// Those of `work`; `Canceled` or `DeadlineExceeded` of the own call.
    pub fn join(&self, call: &Call, key: &K, work: impl Fn() -> Result<T>) -> Result<T> {
        loop {
            call.check()?;
            let (flight, first) = {
                let mut flights = self.0.lock();
                match flights.get(key) {
                    Some(flight) => (flight.clone(), false),
                    None => {
                        let flight = Arc::new(Flight { outcome: Mutex::new(None), landed: Condvar::new() });
                        flights.insert(key.clone(), flight.clone());
                        (flight, true)
                    }
                }
            };
            if first {
                return self.lead(key, &flight, work);
            }
            match flight.wait(call)? {
                Some(Ok(done)) => return Ok(done),
                Some(Err((kind, message))) if !matches!(kind, Kind::Canceled | Kind::DeadlineExceeded) => {
                    return Err(Error::new(kind, message));
                }
                _ => {}
            }
        }
    }

    fn lead(&self, key: &K, flight: &Arc<Flight<T>>, work: impl Fn() -> Result<T>) -> Result<T> {
        let mut landing = Landing { flights: self, key, flight, outcome: None };
        let done = work();
        landing.outcome = Some(match &done {
            Ok(done) => Ok(done.clone()),
            Err(e) => Err((e.kind(), e.to_string())),
        });
        done
    }
}

impl<T: Clone + Send + 'static> Flight<T> {
    fn wait(self: &Arc<Self>, call: &Call) -> Result<Option<Outcome<T>>> {
        let own = self.clone();
        let _watch = call.on_cancel(move || {
            // With the lock, or it may come between our look and our sleep.
            drop(own.outcome.lock());
            own.landed.notify_all();
        });
        let mut outcome = self.outcome.lock();
        loop {
            if let Some(outcome) = &*outcome {
                return Ok(outcome.clone());
            }
            call.check()?;
            outcome = self.landed.wait_until(outcome, call.deadline());
        }
    }
}

/// Ends a flight, also when the work panics.
struct Landing<'a, K: Eq + Hash, T: Clone> {
    flights: &'a Flights<K, T>,
    key: &'a K,
    flight: &'a Flight<T>,
    outcome: Option<Outcome<T>>,
}

impl<K: Eq + Hash, T: Clone> Drop for Landing<'_, K, T> {
    fn drop(&mut self) {
        self.flights.0.lock().remove(self.key);
        *self.flight.outcome.lock() = Some(self.outcome.take());
        self.flight.landed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
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
            let waiting = scope.spawn(|| turns.take(&Call::unbounded(), "a").map(drop));
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

    #[test]
    fn the_second_gets_what_the_first_got() {
        let (flights, done) = (Flights::<u8, usize>::default(), AtomicUsize::new(0));
        let (flights, done) = (&flights, &done);
        let (begun, begins) = mpsc::channel();
        let (gate, wait) = mpsc::channel::<()>();
        let wait = std::sync::Mutex::new(wait);
        thread::scope(|scope| {
            let first = scope.spawn(|| {
                flights.join(&Call::unbounded(), &1, || {
                    begun.send(()).unwrap();
                    wait.lock().unwrap().recv().unwrap();
                    Ok(done.fetch_add(1, Ordering::Relaxed))
                })
            });
            begins.recv().unwrap();
            let flight = flights.0.lock().get(&1).unwrap().clone();
            let second = scope.spawn(|| flights.join(&Call::unbounded(), &1, || panic!("somebody is at it")));
            // It waits when it and its watch hold the flight as well.
            while Arc::strong_count(&flight) < 5 {
                thread::yield_now();
            }
            gate.send(()).unwrap();
            assert_eq!((first.join().unwrap().unwrap(), second.join().unwrap().unwrap()), (0, 0));
        });
        assert_eq!(flights.join(&Call::unbounded(), &1, || Ok(7)).unwrap(), 7, "it has landed");
    }

    #[test]
    fn who_waits_for_anothers_work_can_be_cancelled() {
        let flights = Flights::<u8, u8>::default();
        let flight = Arc::new(Flight { outcome: Mutex::new(None), landed: Condvar::new() });
        flights.0.lock().insert(1, flight);
        let call = Call::unbounded();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| flights.join(&call, &1, || panic!("somebody is at it")));
            call.cancel();
            assert_eq!(waiting.join().unwrap().map_err(|e| e.kind()), Err(Kind::Canceled));
        });
    }

    #[test]
    fn a_cancelled_first_leaves_the_work_to_the_second() {
        let flights = Flights::<u8, u8>::default();
        let flight = Arc::new(Flight { outcome: Mutex::new(None), landed: Condvar::new() });
        flights.0.lock().insert(1, flight.clone());
        thread::scope(|scope| {
            let second = scope.spawn(|| flights.join(&Call::unbounded(), &1, || Ok(9)));
            let cancelled = Some(Err((Kind::Canceled, String::new())));
            drop(Landing { flights: &flights, key: &1, flight: &flight, outcome: cancelled });
            assert_eq!(second.join().unwrap().unwrap(), 9);
        });
    }
}
