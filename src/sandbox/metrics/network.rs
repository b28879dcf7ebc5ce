//! The network of a pod.

use super::gather::Sample;
use super::row::Row;
use super::row::Source::Each;
use super::write::Values;
use crate::sandbox::interfaces::Interface;

/// Each interface has its own.
const LABELS: &[&str] = &["interface"];

pub const ROWS: &[Row] = &[
    Row::counter(
        "container_network_receive_bytes_total",
        "Bytes received.",
        Each(LABELS, |s, values| each(s, values, |i| i.received.bytes)),
    ),
    Row::counter(
        "container_network_receive_packets_total",
        "Packets received.",
        Each(LABELS, |s, values| each(s, values, |i| i.received.packets)),
    ),
    Row::counter(
        "container_network_receive_packets_dropped_total",
        "Received packets that were dropped.",
        Each(LABELS, |s, values| each(s, values, |i| i.received.dropped)),
    ),
    Row::counter(
        "container_network_receive_errors_total",
        "Received packets that were broken.",
        Each(LABELS, |s, values| each(s, values, |i| i.received.errors)),
    ),
    Row::counter(
        "container_network_transmit_bytes_total",
        "Bytes sent.",
        Each(LABELS, |s, values| each(s, values, |i| i.sent.bytes)),
    ),
    Row::counter(
        "container_network_transmit_packets_total",
        "Packets sent.",
        Each(LABELS, |s, values| each(s, values, |i| i.sent.packets)),
    ),
    Row::counter(
        "container_network_transmit_packets_dropped_total",
        "Packets to send that were dropped.",
        Each(LABELS, |s, values| each(s, values, |i| i.sent.dropped)),
    ),
    Row::counter(
        "container_network_transmit_errors_total",
        "Packets that could not be sent.",
        Each(LABELS, |s, values| each(s, values, |i| i.sent.errors)),
    ),
];

fn each(sample: &Sample<'_>, values: &mut Values<'_>, of: fn(&Interface) -> Option<u64>) {
    for interface in sample.network {
        if let Some(count) = of(interface) {
            values.put(&[&interface.name], count);
        }
    }
}
