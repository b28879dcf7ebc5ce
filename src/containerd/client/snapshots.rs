//! Snapshots of every snapshotter.

use cricket_proto::methods::snapshots;
use cricket_proto::snapshots::{
    CommitSnapshotRequest, Info, Kind, ListSnapshotsRequest, MountsRequest, PrepareSnapshotRequest,
    RemoveSnapshotRequest, StatSnapshotRequest, UsageRequest, ViewSnapshotRequest,
};

use super::convert::{labels_out, mount_in, size_in};
use super::Client;
use crate::call::Call;
use crate::containerd::{time, Labels, Mount, Snapshot, SnapshotKind, SnapshotRef, Usage};
use crate::error::Result;

pub(super) fn prepare(
    client: &Client,
    call: &Call,
    at: &SnapshotRef<'_>,
    parent: &str,
    labels: &Labels,
) -> Result<Vec<Mount>> {
    let request = PrepareSnapshotRequest {
        snapshotter: at.snapshotter.to_owned(),
        key: at.key.to_owned(),
        parent: parent.to_owned(),
        labels: labels_out(labels),
        ..PrepareSnapshotRequest::default()
    };
    let answer = client.quick(call, &snapshots::PREPARE, &request)?;
    Ok(answer.mounts.into_iter().map(mount_in).collect())
}

pub(super) fn view(
    client: &Client,
    call: &Call,
    at: &SnapshotRef<'_>,
    parent: &str,
    labels: &Labels,
) -> Result<Vec<Mount>> {
    let request = ViewSnapshotRequest {
        snapshotter: at.snapshotter.to_owned(),
        key: at.key.to_owned(),
        parent: parent.to_owned(),
        labels: labels_out(labels),
        ..ViewSnapshotRequest::default()
    };
    let answer = client.quick(call, &snapshots::VIEW, &request)?;
    Ok(answer.mounts.into_iter().map(mount_in).collect())
}

pub(super) fn mounts(client: &Client, call: &Call, at: &SnapshotRef<'_>) -> Result<Vec<Mount>> {
    let request =
        MountsRequest { snapshotter: at.snapshotter.to_owned(), key: at.key.to_owned(), ..MountsRequest::default() };
    let answer = client.quick(call, &snapshots::MOUNTS, &request)?;
    Ok(answer.mounts.into_iter().map(mount_in).collect())
}

pub(super) fn commit(client: &Client, call: &Call, at: &SnapshotRef<'_>, name: &str, labels: &Labels) -> Result<()> {
    let request = CommitSnapshotRequest {
        snapshotter: at.snapshotter.to_owned(),
        name: name.to_owned(),
        key: at.key.to_owned(),
        labels: labels_out(labels),
        ..CommitSnapshotRequest::default()
    };
    client.quick(call, &snapshots::COMMIT, &request).map(drop)
}

pub(super) fn stat(client: &Client, call: &Call, at: &SnapshotRef<'_>) -> Result<Snapshot> {
    let request = StatSnapshotRequest {
        snapshotter: at.snapshotter.to_owned(),
        key: at.key.to_owned(),
        ..StatSnapshotRequest::default()
    };
    let answer = client.quick(call, &snapshots::STAT, &request)?;
    Ok(ours(answer.info.unwrap_or_default()))
}

pub(super) fn list(client: &Client, call: &Call, snapshotter: &str) -> Result<Vec<Snapshot>> {
    let request = ListSnapshotsRequest { snapshotter: snapshotter.to_owned(), ..ListSnapshotsRequest::default() };
    let mut all = Vec::new();
    client.stream(call, &snapshots::LIST, &request, |message| {
        all.extend(message.info.into_iter().map(ours));
        Ok(())
    })?;
    Ok(all)
}

pub(super) fn usage(client: &Client, call: &Call, at: &SnapshotRef<'_>) -> Result<Usage> {
    let request =
        UsageRequest { snapshotter: at.snapshotter.to_owned(), key: at.key.to_owned(), ..UsageRequest::default() };
    let answer = client.quick(call, &snapshots::USAGE, &request)?;
    Ok(Usage { size_bytes: size_in(answer.size), inodes: size_in(answer.inodes) })
}

pub(super) fn remove(client: &Client, call: &Call, at: &SnapshotRef<'_>) -> Result<()> {
    let request = RemoveSnapshotRequest {
        snapshotter: at.snapshotter.to_owned(),
        key: at.key.to_owned(),
        ..RemoveSnapshotRequest::default()
    };
    client.quick(call, &snapshots::REMOVE, &request).map(drop)
}

fn ours(info: Info) -> Snapshot {
    let kind = match info.kind.enum_value_or_default() {
        Kind::ACTIVE => SnapshotKind::Active,
        Kind::VIEW => SnapshotKind::View,
        Kind::COMMITTED | Kind::UNKNOWN => SnapshotKind::Committed,
    };
    Snapshot {
        created_at: time::nanos(&info.created_at),
        key: info.name,
        parent: info.parent,
        kind,
        labels: info.labels.into_iter().collect(),
    }
}
