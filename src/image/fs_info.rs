//! ImageFsInfo: how much the snapshots take, measured as seldom as possible.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cricket_proto::runtime::{FilesystemIdentifier, FilesystemUsage, ImageFsInfoResponse, UInt64Value};

use crate::call::Call;
use crate::containerd::{Containerd, Snapshot, SnapshotKind, SnapshotRef, Usage};
use crate::error::{Context, Error, Result};
use crate::sync::Mutex;

const SNAPSHOTTERS: &str = "io.containerd.snapshotter.v1";
const CONTENT: &str = "io.containerd.content.v1";
/// Measuring a writable snapshot walks its files; the kubelet asks every ten seconds.
const ACTIVE_MAX_AGE: Duration = Duration::from_secs(30);

/// What was measured. Committed snapshots never change and are measured once; the others when they are asked for and
/// the last measurement is older than half a minute.
#[derive(Debug, Default)]
pub struct FsUsage(Mutex<Measured>);

#[derive(Clone, Debug, Default)]
struct Measured {
    mountpoint: Option<String>,
    usage: HashMap<String, Usage>,
    active_at: Option<Instant>,
}

/// The filesystem that images and the writable layers of containers are on; for cricket they are the same. Blocks.
///
/// # Errors
/// Whatever says that containerd cannot be asked. An empty node is none.
pub fn fs_info(
    containerd: &dyn Containerd,
    measured: &FsUsage,
    call: &Call,
    snapshotter: &str,
) -> Result<ImageFsInfoResponse> {
    // Measured on a copy, because the lock is not held meanwhile. Two callers may measure the same; both are right.
    let mut now = measured.0.lock().clone();
    if now.mountpoint.is_none() {
        now.mountpoint = Some(mountpoint(containerd, call, snapshotter)?);
    }
    let snapshots = containerd.snapshots(call, snapshotter).context("list snapshots")?;
    now.measure(containerd, call, snapshotter, &snapshots)?;
    let answer = filesystem(&now)?;
    *measured.0.lock() = now;
    let mut response = ImageFsInfoResponse::new();
    response.image_filesystems = vec![answer.clone()];
    response.container_filesystems = vec![answer];
    Ok(response)
}

impl Measured {
    fn measure(
        &mut self,
        containerd: &dyn Containerd,
        call: &Call,
        snapshotter: &str,
        snapshots: &[Snapshot],
    ) -> Result<()> {
        let stale = self.active_at.is_none_or(|at| at.elapsed() >= ACTIVE_MAX_AGE);
        let mut before = std::mem::take(&mut self.usage);
        for snapshot in snapshots {
            let known = before.remove(&snapshot.key);
            let fresh = known.filter(|_| !stale || snapshot.kind == SnapshotKind::Committed);
            let usage = match fresh {
                Some(usage) => usage,
                None => {
                    call.check()?;
                    let at = SnapshotRef { snapshotter, key: &snapshot.key };
                    match containerd.snapshot_usage(call, &at) {
                        Ok(usage) => usage,
                        Err(e) => {
                            // Most likely removed since it was listed; the others still count.
                            log::debug!("usage of snapshot {}: {e}", snapshot.key);
                            continue;
                        }
                    }
                }
            };
            self.usage.insert(snapshot.key.clone(), usage);
        }
        if stale {
            self.active_at = Some(Instant::now());
        }
        Ok(())
    }
}

fn filesystem(measured: &Measured) -> Result<FilesystemUsage> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|e| Error::internal(format!("clock: {e}")))?;
    let count = |value| Some(UInt64Value { value, ..Default::default() }).into();
    let mountpoint = measured.mountpoint.clone().unwrap_or_default();
    Ok(FilesystemUsage {
        timestamp: i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
        fs_id: Some(FilesystemIdentifier { mountpoint, ..Default::default() }).into(),
        used_bytes: count(measured.usage.values().map(|u| u.size_bytes).sum()),
        inodes_used: count(measured.usage.values().map(|u| u.inodes).sum()),
        ..Default::default()
    })
}

/// The snapshotter's directory. Snapshotters outside containerd often do not say where they are: then it is
/// containerd's own, beside its content store.
fn mountpoint(containerd: &dyn Containerd, call: &Call, snapshotter: &str) -> Result<String> {
    let ours = containerd.plugins(call, SNAPSHOTTERS)?.into_iter().find(|p| p.id == snapshotter);
    let Some(ours) = ours else {
        return Err(Error::precondition(format!("containerd has no snapshotter {snapshotter:?}")));
    };
    if let Some(root) = ours.exports.get("root") {
        return Ok(root.clone());
    }
    let content = containerd.plugins(call, CONTENT)?.into_iter().find_map(|p| p.exports.get("root").cloned());
    let beside = content.as_deref().and_then(|root| Path::new(root).parent()?.to_str());
    beside.map(str::to_owned).ok_or_else(|| {
        Error::precondition(format!("containerd does not say where snapshotter {snapshotter:?} keeps its data"))
    })
}
