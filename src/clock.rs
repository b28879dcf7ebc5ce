//! The wall clock as the CRI counts it, and a moment's patience.

use std::io;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(5);

/// Now, in nanoseconds since the epoch. Strictly increasing within the process: the kubelet orders a pod's sandboxes by
/// it.
pub fn now() -> i64 {
    use std::sync::atomic::{AtomicI64, Ordering};
    static LAST: AtomicI64 = AtomicI64::new(0);
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let wall = i64::try_from(wall).unwrap_or(i64::MAX);
    // A clock that was set back, or two calls in one tick.
    let last = LAST.fetch_update(Ordering::AcqRel, Ordering::Acquire, |last| Some(wall.max(last + 1)));
    wall.max(last.unwrap_or(0) + 1)
}

/// Tries what others may be in the way of for a moment, until there is something. Blocks, sleeping between two attempts.
///
/// # Errors
/// Those of the attempt, at once.
pub fn soon<T>(within: Duration, mut attempt: impl FnMut() -> io::Result<Option<T>>) -> io::Result<Option<T>> {
    let until = Instant::now() + within;
    loop {
        match attempt()? {
            None if Instant::now() < until => std::thread::sleep(PAUSE),
            done => return Ok(done),
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn never_repeats() {
        let times: Vec<i64> = (0..1000).map(|_| super::now()).collect();
        assert!(times.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
