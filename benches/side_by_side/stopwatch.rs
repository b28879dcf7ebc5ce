//! How long calls take, call by call.

use std::time::{Duration, Instant};

use cricket::error::{Context, Result};

/// The times of one kind of call on one side.
#[derive(Clone, Debug, Default)]
pub struct Times(Vec<Duration>);

impl Times {
    /// Makes a call and notes how long it took.
    pub fn take<T>(&mut self, what: &str, call: impl FnOnce() -> Result<T>) -> Result<T> {
        let begun = Instant::now();
        let answer = call();
        self.0.push(begun.elapsed());
        answer.with_context(|| what.to_owned())
    }

    /// Notes a time.
    pub fn add(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// Milliseconds that so many hundredths of the calls did not exceed; 0 without any.
    pub fn percentile(&self, hundredths: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort();
        let rank = (sorted.len() * hundredths).div_ceil(100).max(1) - 1;
        sorted.get(rank).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
    }

    /// Notes the times of another.
    pub fn merge(&mut self, other: &Times) {
        self.0.extend_from_slice(&other.0);
    }

    /// All of it together.
    pub fn sum(&self) -> Duration {
        self.0.iter().sum()
    }
}
