//! The counters of one container or pod over time: a rate is the difference to when it was read before.

use std::path::Path;
use std::sync::Arc;

use super::groups::Groups;
use super::usage::{self, Usage};
use crate::sync::Mutex;

/// Two clients that read one after the other must not make a rate of an instant.
const MIN_SPAN_NANOSECONDS: i64 = 1_000_000_000;

/// Remembers where the counters are and when the processor's was read.
#[derive(Debug, Default)]
pub struct Meter(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    groups: Option<Arc<Groups>>,
    last: Option<Sample>,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: i64,
    cpu_nanoseconds: u64,
    rate: Option<u64>,
}

/// What the counters said.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    pub usage: Usage,
    /// Nanoseconds of processors a second; `None` the first time.
    pub nano_cores: Option<u64>,
}

impl Meter {
    /// Remembers the control groups of `pid`: of a first process that waits to be started, because later it may move
    /// itself into one below.
    pub fn attach(&self, pid: u32) {
        let groups = Groups::of(pid).map(Arc::new);
        self.0.lock().groups = groups;
    }

    /// Reads the counters at `now`, nanoseconds since the epoch. Blocks for as long as the kernel takes for a few files.
    pub fn read(&self, pid: u32, now: i64) -> Reading {
        // Without them it was started in an earlier life of the daemon.
        self.read_or_find(|| Groups::of(pid), now)
    }

    /// The same of the control groups at `path` below every hierarchy.
    pub fn read_at(&self, path: &Path, now: i64) -> Reading {
        self.read_or_find(|| Groups::at(path), now)
    }

    /// Where the counters of `pid` are. Blocks for a file at most.
    pub fn groups(&self, pid: u32) -> Option<Arc<Groups>> {
        self.known_or(|| Groups::of(pid))
    }

    /// The same of the control groups at `path` below every hierarchy.
    pub fn groups_at(&self, path: &Path) -> Option<Arc<Groups>> {
        self.known_or(|| Groups::at(path))
    }

    fn known_or(&self, find: impl FnOnce() -> Option<Groups>) -> Option<Arc<Groups>> {
        let known = self.0.lock().groups.clone();
        known.or_else(|| {
            let found = find().map(Arc::new);
            self.0.lock().groups.clone_from(&found);
            found
        })
    }

    fn read_or_find(&self, find: impl FnOnce() -> Option<Groups>, now: i64) -> Reading {
        let usage = self.known_or(find).map(|groups| usage::read(&groups)).unwrap_or_default();
        let nano_cores = usage.cpu_nanoseconds.and_then(|cpu| self.0.lock().rate(now, cpu));
        Reading { usage, nano_cores }
    }
}

impl State {
    fn rate(&mut self, at: i64, cpu_nanoseconds: u64) -> Option<u64> {
        let Some(last) = self.last else {
            self.last = Some(Sample { at, cpu_nanoseconds, rate: None });
            return None;
        };
        let span = at.saturating_sub(last.at);
        if span < MIN_SPAN_NANOSECONDS {
            return last.rate;
        }
        let used = cpu_nanoseconds.checked_sub(last.cpu_nanoseconds);
        let rate = used.map(|used| {
            let rate = u128::from(used) * 1_000_000_000 / u128::from(span.unsigned_abs());
            u64::try_from(rate).unwrap_or(u64::MAX)
        });
        self.last = Some(Sample { at, cpu_nanoseconds, rate });
        rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn a_rate_needs_two_readings_and_a_second() {
        let mut state = State::default();
        assert_eq!(state.rate(0, 100), None);
        assert_eq!(state.rate(SECOND / 2, 200), None, "too soon");
        assert_eq!(state.rate(2 * SECOND, 500_000_100), Some(250_000_000));
        assert_eq!(state.rate(2 * SECOND + 1, 600_000_100), Some(250_000_000), "too soon: the last one again");
        assert_eq!(state.rate(4 * SECOND, 500_000_100), Some(0));
    }

    #[test]
    fn a_counter_or_a_clock_that_runs_backwards_gives_none() {
        let mut state = State::default();
        assert_eq!(state.rate(5 * SECOND, 1000), None);
        assert_eq!(state.rate(7 * SECOND, 10), None);
        assert_eq!(state.rate(3 * SECOND, 20), None);
        assert_eq!(state.rate(9 * SECOND, 2010), Some(1000));
    }

    #[test]
    fn our_own_counters() {
        let meter = Meter::default();
        let reading = meter.read(std::process::id(), crate::clock::now());
        assert!(reading.nano_cores.is_none());
        assert!(meter.0.lock().groups.is_some(), "this machine counts");
        assert_eq!(Meter::default().read(u32::MAX, 0).usage, Usage::default());
    }
}
