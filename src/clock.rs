//! The wall clock as the CRI counts it.

use std::time::{SystemTime, UNIX_EPOCH};

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

#[cfg(test)]
mod tests {
    #[test]
    fn never_repeats() {
        let times: Vec<i64> = (0..1000).map(|_| super::now()).collect();
        assert!(times.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
