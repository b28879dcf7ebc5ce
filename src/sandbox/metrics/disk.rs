//! Files and disks: what the writable layer takes, and what was read and written.

use std::cell::RefCell;
use std::fs;

use super::gather::{Filesystem, Sample};
use super::processor::{stalled, waiting};
use super::row::Row;
use super::row::Source::{Each, One};
use super::write::Values;
use crate::cgroup::{Io, Operation};

pub const ROWS: &[Row] = &[
    Row::gauge(
        "container_fs_usage_bytes",
        "What its writable layer takes on the file system of the device.",
        Each(&["device"], |s, values| {
            if let Some(layer) = &s.layer {
                values.put_at(&[&layer.filesystem.device], layer.used_bytes, layer.measured_at);
            }
        }),
    ),
    Row::gauge(
        "container_fs_limit_bytes",
        "How much the file system of its writable layer holds.",
        Each(&["device"], |s, values| holds(s, values, |filesystem| Some(filesystem.capacity.bytes))),
    ),
    Row::gauge(
        "container_fs_inodes_total",
        "How many files the file system of its writable layer can have; absent where that has no bound.",
        Each(&["device"], |s, values| holds(s, values, |filesystem| bounded(filesystem, filesystem.capacity.inodes))),
    ),
    Row::gauge(
        "container_fs_inodes_free",
        "How many more files the file system of its writable layer can have; absent where that has no bound.",
        Each(&["device"], |s, values| {
            holds(s, values, |filesystem| bounded(filesystem, filesystem.capacity.inodes_free));
        }),
    ),
    Row::counter(
        "container_fs_reads_bytes_total",
        "Bytes read from a disk.",
        Each(&["device"], |s, values| disks(s, values, &s.detail.io_bytes, Operation::Read)),
    ),
    Row::counter(
        "container_fs_reads_total",
        "Reads from a disk.",
        Each(&["device"], |s, values| disks(s, values, &s.detail.io_requests, Operation::Read)),
    ),
    Row::counter(
        "container_fs_writes_bytes_total",
        "Bytes written to a disk.",
        Each(&["device"], |s, values| disks(s, values, &s.detail.io_bytes, Operation::Write)),
    ),
    Row::counter(
        "container_fs_writes_total",
        "Writes to a disk.",
        Each(&["device"], |s, values| disks(s, values, &s.detail.io_requests, Operation::Write)),
    ),
    Row::counter(
        "container_blkio_device_usage_total",
        "Bytes read from a disk or written to it, by the kind of request.",
        Each(&["device", "major", "minor", "operation"], |s, values| {
            for io in &s.detail.io_bytes {
                let (major, minor) = (io.device.0.to_string(), io.device.1.to_string());
                s.disks.name(io.device, |name| values.put(&[name, &major, &minor, io.operation.name()], io.count));
            }
        }),
    ),
    Row::counter(
        "container_pressure_io_waiting_seconds_total",
        "Time in which some task waited for a disk, in seconds.",
        One(|s| waiting(s.usage.io_pressure)),
    ),
    Row::counter(
        "container_pressure_io_stalled_seconds_total",
        "Time in which all tasks waited for a disk, in seconds.",
        One(|s| stalled(s.usage.io_pressure)),
    ),
];

fn holds(sample: &Sample<'_>, values: &mut Values<'_>, of: fn(&Filesystem) -> Option<u64>) {
    if let Some(filesystem) = sample.layer.as_ref().map(|layer| layer.filesystem) {
        if let Some(number) = of(filesystem) {
            values.put(&[&filesystem.device], number);
        }
    }
}

fn bounded(filesystem: &Filesystem, inodes: u64) -> Option<u64> {
    (filesystem.capacity.inodes > 0).then_some(inodes)
}

fn disks(sample: &Sample<'_>, values: &mut Values<'_>, list: &[Io], operation: Operation) {
    for io in list.iter().filter(|io| io.operation == operation) {
        sample.disks.name(io.device, |name| values.put(&[name], io.count));
    }
}

/// Names of disks, each looked up once.
#[derive(Default)]
pub struct Disks(RefCell<Vec<((u32, u32), String)>>);

impl Disks {
    /// `/dev/sda`; the numbers, as in `8:0`, of what is no disk.
    pub fn name(&self, device: (u32, u32), with: impl FnOnce(&str)) {
        let mut known = self.0.borrow_mut();
        let at = known.iter().position(|(number, _)| *number == device).unwrap_or_else(|| {
            known.push((device, name_of(device)));
            known.len() - 1
        });
        with(&known[at].1);
    }
}

fn name_of((major, minor): (u32, u32)) -> String {
    let facts = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/uevent")).unwrap_or_default();
    match facts.lines().find_map(|line| line.strip_prefix("DEVNAME=")) {
        Some(name) => format!("/dev/{name}"),
        None => format!("{major}:{minor}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_has_a_name_and_others_their_numbers() {
        let disks = Disks::default();
        for _ in 0..2 {
            disks.name((0, 123_456), |name| assert_eq!(name, "0:123456"));
        }
        assert_eq!(disks.0.borrow().len(), 1);
        let numbers = fs::read_dir("/sys/dev/block").expect("sysfs").next();
        let Some(numbers) = numbers.map(|entry| entry.expect("read").file_name().into_string().expect("ASCII")) else {
            return;
        };
        let (major, minor) = numbers.split_once(':').expect("numbers");
        let device = (major.parse().expect("a number"), minor.parse().expect("a number"));
        disks.name(device, |name| assert!(name.starts_with("/dev/"), "{name}"));
    }
}
