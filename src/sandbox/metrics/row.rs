//! A metric: its name, what it means, and where its numbers come from. From one row both its descriptor and its values are
//! made.

use cricket_proto::runtime::MetricType;

use super::gather::Sample;
use super::write::Values;
use super::{disk, life, memory, network, process, processor};

/// A metric. Names, kinds and labels are those of cAdvisor, which dashboards are made for.
pub struct Row {
    pub name: &'static str,
    /// A sentence.
    pub help: &'static str,
    pub kind: MetricType,
    source: Source,
}

/// Where its values come from.
pub enum Source {
    /// A number, or none.
    One(fn(&Sample<'_>) -> Option<u64>),
    /// A number for each value of these labels.
    Each(&'static [&'static str], fn(&Sample<'_>, &mut Values<'_>)),
}

impl Row {
    /// One that only grows.
    pub const fn counter(name: &'static str, help: &'static str, source: Source) -> Row {
        Row { name, help, kind: MetricType::COUNTER, source }
    }

    /// One that goes up and down.
    pub const fn gauge(name: &'static str, help: &'static str, source: Source) -> Row {
        Row { name, help, kind: MetricType::GAUGE, source }
    }

    /// Labels beside those that all have.
    pub fn labels(&self) -> &'static [&'static str] {
        match self.source {
            Source::One(_) => &[],
            Source::Each(labels, _) => labels,
        }
    }

    /// Its values in a sample.
    pub fn tell(&self, sample: &Sample<'_>, values: &mut Values<'_>) {
        match self.source {
            Source::One(value) => {
                if let Some(value) = value(sample) {
                    values.put(&[], value);
                }
            }
            Source::Each(_, tell) => tell(sample, values),
        }
    }
}

/// Every metric there is.
pub fn all() -> impl Iterator<Item = &'static Row> {
    let rows = [life::ROWS, processor::ROWS, memory::ROWS, disk::ROWS, network::ROWS, process::ROWS];
    rows.into_iter().flatten()
}

/// Whole seconds: the CRI's values are integers.
pub fn seconds(nanoseconds: Option<u64>) -> Option<u64> {
    nanoseconds.map(|n| n / 1_000_000_000)
}
