//! Everything the fake knows, and the rules that all objects share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::events::Queue;
use super::leases::Lease;
use super::tasks::FakeTask;
use super::Fault;
use crate::containerd::{ImageRecord, Labels, Record, Snapshot};
use crate::error::{Error, Result};

/// What containerd allows a label's key and value together.
const LABEL_BYTES: usize = 4096;
const IDENTIFIER_BYTES: usize = 76;

/// Snapshotter and key.
pub(super) type SnapshotKey = (String, String);
/// What happens once a call of this name has been done.
pub(super) type After = (&'static str, Box<dyn FnOnce() + Send>);

#[derive(Default)]
pub(super) struct State {
    pub(super) calls: Vec<&'static str>,
    pub(super) fault: Option<(usize, Fault)>,
    pub(super) after: Option<After>,
    pub(super) containers: BTreeMap<String, Record>,
    pub(super) snapshots: BTreeMap<SnapshotKey, Snapshot>,
    pub(super) tasks: BTreeMap<String, FakeTask>,
    pub(super) images: BTreeMap<String, ImageRecord>,
    pub(super) blobs: BTreeMap<String, Blob>,
    pub(super) ingests: BTreeMap<String, Ingest>,
    pub(super) leases: BTreeMap<String, Lease>,
    pub(super) streams: Vec<Arc<Queue>>,
    pub(super) ignored_signals: BTreeSet<u32>,
    pub(super) collects_always: bool,
    pub(super) exec_code: Option<u32>,
    pub(super) pids: u32,
    pub(super) task_pid: Option<u32>,
    pub(super) remaps: bool,
}

/// A blob that is being written.
#[derive(Default)]
pub(super) struct Ingest {
    pub(super) data: Vec<u8>,
    /// Goes with its lease; without one containerd keeps it for a day.
    pub(super) leased: bool,
}

#[derive(Default)]
pub(super) struct Blob {
    pub(super) data: Vec<u8>,
    pub(super) labels: Labels,
}

impl State {
    pub(super) fn leftovers(&self) -> Vec<String> {
        let mut all: Vec<String> = self.containers.keys().map(|id| format!("container:{id}")).collect();
        for (id, task) in &self.tasks {
            all.push(format!("task:{id}"));
            all.extend(task.execs.keys().map(|exec| format!("exec:{id}/{exec}")));
        }
        all.extend(self.snapshots.keys().map(|(_, key)| format!("snapshot:{key}")));
        all.extend(self.images.keys().map(|name| format!("image:{name}")));
        all.extend(self.blobs.keys().map(|digest| format!("content:{digest}")));
        all.extend(self.ingests.keys().map(|reference| format!("ingest:{reference}")));
        all.extend(self.leases.keys().map(|id| format!("lease:{id}")));
        all
    }
}

/// containerd's rule for identifiers: alphanumeric words joined by single `.`, `_` or `-`.
pub(super) fn check_identifier(id: &str) -> Result<()> {
    let words_fine =
        id.split(['.', '_', '-']).all(|word| !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric()));
    if !words_fine || id.len() > IDENTIFIER_BYTES {
        return Err(Error::invalid(format!("identifier {id:?} is not valid")));
    }
    Ok(())
}

pub(super) fn check_labels(labels: &Labels) -> Result<()> {
    match labels.iter().find(|(key, value)| key.len() + value.len() > LABEL_BYTES) {
        Some((key, _)) => Err(Error::invalid(format!("label {key}: key and value are over {LABEL_BYTES} bytes"))),
        None => Ok(()),
    }
}
