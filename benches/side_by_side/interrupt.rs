//! Ctrl-C and SIGTERM: what is under way fails at its next step, and every destructor runs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cricket::error::{Context, Error, Kind, Result};
use cricket::sys::signal::{Blocked, SIGINT, SIGTERM};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static SLEEP: (Mutex<()>, Condvar) = (Mutex::new(()), Condvar::new());

/// Takes the signals from now on. Before there is any other thread.
pub fn watch() -> Result<()> {
    let signals = Blocked::new(&[SIGINT, SIGTERM]).context("block signals")?;
    let watcher = std::thread::Builder::new().name("signals".into()).spawn(move || loop {
        signals.wait();
        INTERRUPTED.store(true, Ordering::Release);
        drop(SLEEP.0.lock());
        SLEEP.1.notify_all();
    });
    watcher.context("start a thread").map(drop)
}

/// Whether the user wants it to end.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Acquire)
}

/// An error if so.
pub fn check() -> Result<()> {
    match interrupted() {
        true => Err(Error::new(Kind::Canceled, "interrupted")),
        false => Ok(()),
    }
}

/// Sleeps until then, or fails at once when interrupted.
pub fn sleep_until(then: Instant) -> Result<()> {
    let mut held = SLEEP.0.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        check()?;
        let left = then.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        held = SLEEP.1.wait_timeout(held, left).unwrap_or_else(PoisonError::into_inner).0;
    }
}

/// As [`sleep_until`], from now on.
pub fn sleep(time: Duration) -> Result<()> {
    sleep_until(Instant::now() + time)
}
