//! Snapshots of the fake.

use std::fs::File;
use std::path::Path;

use super::state::{check_labels, SnapshotKey, State};
use super::SNAPSHOTTERS;
use crate::call::Call;
use crate::containerd::{time, Labels, Mount, Snapshot, SnapshotKind, SnapshotRef};
use crate::error::{Context, Error, Kind, Result};
use crate::sys::copy::{Copier, Owners};

impl State {
    pub(super) fn make_snapshot(
        &mut self,
        call: &Call,
        at: &SnapshotRef<'_>,
        kind: SnapshotKind,
        parent: &str,
        labels: &Labels,
    ) -> Result<()> {
        check_snapshotter(at.snapshotter)?;
        check_labels(labels)?;
        self.check_lease(call)?;
        let key = own(at);
        if self.snapshots.contains_key(&key) {
            return Err(Error::new(Kind::AlreadyExists, format!("snapshot {:?} already exists", at.key)));
        }
        if at.key.is_empty() {
            return Err(Error::invalid("a snapshot needs a key"));
        }
        if !parent.is_empty() {
            let above = self.snapshot(&SnapshotRef { key: parent, ..*at }).context("parent")?;
            if above.kind != SnapshotKind::Committed {
                return Err(Error::invalid(format!("parent {parent:?} is not committed")));
            }
        }
        let made = Snapshot {
            key: at.key.to_owned(),
            parent: parent.to_owned(),
            kind,
            labels: labels.clone(),
            created_at: time::now(),
        };
        self.snapshots.insert(key.clone(), made);
        self.lease_snapshot(call, key);
        Ok(())
    }

    /// As the native snapshotter gives them: one bind mount of a directory, a copy of its parent's. Made if the fake has
    /// a root; what is not there is empty.
    pub(super) fn mounts(&self, root: &Path, at: &SnapshotRef<'_>) -> Result<Vec<Mount>> {
        let snapshot = self.snapshot(at)?;
        let access = match snapshot.kind {
            SnapshotKind::Active => "rw",
            SnapshotKind::View => "ro",
            SnapshotKind::Committed => {
                return Err(Error::precondition(format!("snapshot {:?} is committed and has no mounts", at.key)));
            }
        };
        let all = root.join(at.snapshotter);
        let directory = all.join(at.key);
        if root.is_dir() && !directory.exists() {
            copy(&all, &snapshot.parent, at.key).context("make the snapshot's directory")?;
        }
        Ok(vec![Mount {
            kind: "bind".to_owned(),
            source: directory.display().to_string(),
            options: vec!["rbind".to_owned(), access.to_owned()],
        }])
    }

    pub(super) fn commit_snapshot(
        &mut self,
        call: &Call,
        at: &SnapshotRef<'_>,
        name: &str,
        labels: &Labels,
    ) -> Result<()> {
        check_labels(labels)?;
        self.check_lease(call)?;
        let committed = own(&SnapshotRef { key: name, ..*at });
        if self.snapshots.contains_key(&committed) {
            return Err(Error::new(Kind::AlreadyExists, format!("snapshot {name:?} already exists")));
        }
        let active = self.snapshot(at)?;
        if active.kind != SnapshotKind::Active {
            return Err(Error::precondition(format!("snapshot {:?} is not active", at.key)));
        }
        let made = Snapshot {
            key: name.to_owned(),
            parent: active.parent.clone(),
            kind: SnapshotKind::Committed,
            labels: labels.clone(),
            created_at: time::now(),
        };
        self.snapshots.remove(&own(at));
        self.snapshots.insert(committed.clone(), made);
        self.lease_snapshot(call, committed);
        Ok(())
    }

    pub(super) fn snapshot(&self, at: &SnapshotRef<'_>) -> Result<&Snapshot> {
        check_snapshotter(at.snapshotter)?;
        self.snapshots.get(&own(at)).ok_or_else(|| Error::not_found(format!("snapshot {:?} not found", at.key)))
    }

    pub(super) fn list_snapshots(&self, snapshotter: &str) -> Result<Vec<Snapshot>> {
        check_snapshotter(snapshotter)?;
        Ok(self.snapshots.iter().filter(|((of, _), _)| of == snapshotter).map(|(_, s)| s.clone()).collect())
    }

    pub(super) fn remove_snapshot(&mut self, at: &SnapshotRef<'_>) -> Result<()> {
        self.snapshot(at)?;
        if self.snapshots.iter().any(|((of, _), child)| of == at.snapshotter && child.parent == at.key) {
            return Err(Error::precondition(format!("snapshot {:?} has children", at.key)));
        }
        self.snapshots.remove(&own(at));
        Ok(())
    }
}

/// Makes the directory of the snapshot `key` with what is in that of its parent.
fn copy(all: &Path, parent: &str, key: &str) -> Result<()> {
    std::fs::create_dir_all(all)?;
    match File::open(all.join(parent)) {
        Ok(from) if !parent.is_empty() => {
            let into = File::open(all)?;
            Copier::new(&into, Owners::default(), &|| Ok(())).directory(&from, key)
        }
        _ => Ok(std::fs::create_dir(all.join(key))?),
    }
}

fn own(at: &SnapshotRef<'_>) -> SnapshotKey {
    (at.snapshotter.to_owned(), at.key.to_owned())
}

fn check_snapshotter(name: &str) -> Result<()> {
    if SNAPSHOTTERS.contains(&name) {
        return Ok(());
    }
    Err(Error::invalid(format!("snapshotter {name:?} is not loaded")))
}
