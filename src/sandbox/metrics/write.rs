//! Metrics in their wire form. There are some ten thousand of them on a full node: each is written once, to where it stays.

use super::row::Row;
use crate::encoded::{put_bytes, put_number};

// runtime.v1: `Metric`, `UInt64Value`, and `PodSandboxMetrics.metrics`, which has the number of `ContainerMetrics.metrics`.
const NAME: u32 = 1;
const TIMESTAMP: u32 = 2;
const TYPE: u32 = 3;
const LABEL: u32 = 4;
const VALUE: u32 = 5;
const NUMBER: u32 = 1;
const METRICS: u32 = 2;

/// Where the values of one row of one object go.
pub struct Values<'a> {
    row: &'static Row,
    /// The labels that all have, encoded.
    object: &'a [u8],
    to: &'a mut Vec<u8>,
    metric: Vec<u8>,
    number: Vec<u8>,
}

impl<'a> Values<'a> {
    /// Those of `row`, labelled as [`labels`] made them, into a pod's or a container's message.
    pub fn new(row: &'static Row, object: &'a [u8], to: &'a mut Vec<u8>) -> Values<'a> {
        Values { row, object, to, metric: Vec::new(), number: Vec::new() }
    }

    /// The next row of the same object.
    pub fn of(&mut self, row: &'static Row) {
        self.row = row;
    }

    /// A value of now. `labels` are those of the row, in its order.
    pub fn put(&mut self, labels: &[&str], value: u64) {
        self.put_at(labels, value, 0);
    }

    /// One that was measured earlier: nanoseconds since the epoch.
    pub fn put_at(&mut self, labels: &[&str], value: u64, at: u64) {
        debug_assert_eq!(labels.len(), self.row.labels().len(), "{}", self.row.name);
        self.metric.clear();
        put_bytes(&mut self.metric, NAME, self.row.name.as_bytes());
        put_number(&mut self.metric, TIMESTAMP, at);
        put_number(&mut self.metric, TYPE, u64::from(self.row.kind as i32 as u32));
        self.metric.extend_from_slice(self.object);
        labels.iter().for_each(|label| put_bytes(&mut self.metric, LABEL, label.as_bytes()));
        self.number.clear();
        put_number(&mut self.number, NUMBER, value);
        put_bytes(&mut self.metric, VALUE, &self.number);
        put_bytes(self.to, METRICS, &self.metric);
    }
}

/// Labels in their wire form.
pub fn labels(values: &[&str]) -> Vec<u8> {
    let mut labels = Vec::new();
    values.iter().for_each(|value| put_bytes(&mut labels, LABEL, value.as_bytes()));
    labels
}
