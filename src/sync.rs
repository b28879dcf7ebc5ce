//! A `Mutex` and a `Condvar` without poisoning: a panic ends the daemon, so that nobody is left to be told of one. And
//! what those who want the same at once do instead of holding a lock across it.

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Instant;

use crate::error::{Error, Kind, Result};

/// `std::sync::Mutex` whose `lock` cannot fail.
#[derive(Debug, Default)]
pub struct Mutex<T>(std::sync::Mutex<T>);

impl<T> Mutex<T> {
    /// A new, unlocked mutex.
    pub const fn new(value: T) -> Self {
        Mutex(std::sync::Mutex::new(value))
    }

    /// Blocks until the lock is held. Never hold it across I/O.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `std::sync::Condvar` for [`Mutex`].
#[derive(Debug, Default)]
pub struct Condvar(std::sync::Condvar);

impl Condvar {
    /// A new condition variable.
    pub const fn new() -> Self {
        Condvar(std::sync::Condvar::new())
    }

    /// Blocks until woken.
    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.0.wait(guard).unwrap_or_else(PoisonError::into_inner)
    }

    /// Blocks until woken or until `deadline` (none: for ever); the caller checks its condition again either way.
    pub fn wait_until<'a, T>(&self, guard: MutexGuard<'a, T>, deadline: Option<Instant>) -> MutexGuard<'a, T> {
        match deadline {
            None => self.wait(guard),
            Some(at) => {
                let left = at.saturating_duration_since(Instant::now());
                self.0.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0
            }
        }
    }

    /// Wakes every waiter.
    pub fn notify_all(&self) {
        self.0.notify_all();
    }

    /// Wakes one waiter.
    pub fn notify_one(&self) {
        self.0.notify_one();
    }
}

/// Something slow that several may want at the same time, and that is done by one of them for all who came meanwhile.
#[derive(Debug, Default)]
pub struct SingleFlight {
    running: Mutex<Option<Arc<Outcome>>>,
}

#[derive(Debug, Default)]
struct Outcome {
    told: Mutex<Option<Result<(), (Kind, String)>>>,
    changed: Condvar,
}

impl SingleFlight {
    /// Nobody does it.
    pub const fn new() -> Self {
        SingleFlight { running: Mutex::new(None) }
    }

    /// Does `work`, or waits for whoever does it already. Blocks for as long as the work takes; no lock is held
    /// meanwhile. What is done after it has ended is done again: the caller looks first whether there is a need.
    ///
    /// # Errors
    /// Those of the work, the same for everyone.
    pub fn run(&self, work: impl FnOnce() -> Result<()>) -> Result<()> {
        let (outcome, mine) = {
            let mut running = self.running.lock();
            match &*running {
                Some(outcome) => (outcome.clone(), false),
                None => (running.insert(Arc::default()).clone(), true),
            }
        };
        if mine {
            let result = work();
            *self.running.lock() = None;
            *outcome.told.lock() = Some(result.as_ref().copied().map_err(|e| (e.kind(), e.to_string())));
            outcome.changed.notify_all();
            return result;
        }
        let mut told = outcome.told.lock();
        loop {
            match &*told {
                None => told = outcome.changed.wait(told),
                Some(result) => return result.clone().map_err(|(kind, message)| Error::new(kind, message)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::Barrier;

    #[test]
    fn one_works_and_all_who_came_meanwhile_have_its_result() {
        let (flight, runs, begun) = (SingleFlight::new(), AtomicUsize::new(0), Barrier::new(2));
        for fails in [true, false] {
            std::thread::scope(|scope| {
                let first = scope.spawn(|| {
                    flight.run(|| {
                        begun.wait();
                        // Until the other four wait: each holds the outcome, as we do and the mutex does.
                        let waiting = || flight.running.lock().as_ref().map_or(0, Arc::strong_count);
                        while waiting() < 6 {
                            std::thread::yield_now();
                        }
                        runs.fetch_add(1, Ordering::Relaxed);
                        if fails {
                            Err(Error::precondition("no"))
                        } else {
                            Ok(())
                        }
                    })
                });
                begun.wait();
                let others = [(); 4].map(|()| scope.spawn(|| flight.run(|| Err(Error::internal("done twice")))));
                for thread in others.into_iter().chain([first]) {
                    let result = thread.join().expect("no panic").map_err(|e| (e.kind(), e.to_string()));
                    let failure = Err((Kind::FailedPrecondition, "no".to_owned()));
                    assert_eq!(result, if fails { failure } else { Ok(()) });
                }
            });
        }
        assert_eq!(runs.into_inner(), 2);
    }
}
