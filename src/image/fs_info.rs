//! ImageFsInfo: how much the snapshots take, measured as seldom as possible.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cricket_proto::runtime::{FilesystemIdentifier, FilesystemUsage, ImageFsInfoResponse, UInt64Value};

use crate::call::Call;
use crate::containerd::{Containerd, Snapshot, SnapshotKind, SnapshotRef};
use crate::error::{Context, Error, Kind, Result};
use crate::runtime::Runtime;
use crate::store::fs_usage::{FsUsage, Measured};

const SNAPSHOTTERS: &str = "io.containerd.snapshotter.v1";
const CONTENT: &str = "io.containerd.content.v1";
/// Measuring a writable snapshot walks its files; the kubelet asks every ten seconds.
const ACTIVE_MAX_AGE: Duration = Duration::from_secs(30);

/// The filesystem that images and the writable layers of containers are on; for cricket they are the same. Blocks.
///
/// # Errors
/// Whatever says that containerd cannot be asked, unless it is away and was asked before: then the answer is what was
/// measured last. An empty node is none.
pub fn fs_info(
    containerd: &dyn Containerd,
    measured: &FsUsage,
    call: &Call,
    snapshotter: &str,
) -> Result<ImageFsInfoResponse> {
    let last = measured.0.lock().clone();
    let now = match measure(containerd, measured, call, snapshotter) {
        // The kubelet and crictl ask this before anything else: a restart of containerd must not look like our end.
        Err(e) if e.kind() == Kind::Unavailable && last.mountpoint.is_some() => last,
        now => now?,
    };
    let answer = filesystem(&now)?;
    let mut response = ImageFsInfoResponse::new();
    response.image_filesystems = vec![answer.clone()];
    response.container_filesystems = vec![answer];
    Ok(response)
}

/// Measures what may have changed since last time, and keeps it. Blocks.
fn measure(containerd: &dyn Containerd, measured: &FsUsage, call: &Call, snapshotter: &str) -> Result<Measured> {
    // On a copy, because the lock is not held meanwhile. Two callers may measure the same; both are right.
    let last = measured.0.lock().clone();
    let now = last.again(containerd, call, snapshotter)?;
    *measured.0.lock() = now.clone();
    Ok(now)
}

/// What the snapshots with these keys take, in the default snapshotter. containerd is asked only if one of them is not
/// known, or was measured too long ago.
///
/// # Errors
/// Whatever says that containerd cannot be asked.
pub fn usage_of(rt: &Runtime, call: &Call, keys: &[&str]) -> Result<Measured> {
    let last = rt.fs_usage.0.lock().clone();
    let fresh = last.active_at.is_some_and(|at| at.elapsed() < ACTIVE_MAX_AGE);
    if fresh && last.mountpoint.is_some() && keys.iter().all(|key| last.usage.contains_key(*key)) {
        return Ok(last);
    }
    measure(&*rt.containerd, &rt.fs_usage, call, &rt.config.containerd.snapshotter)
}

impl Measured {
    /// The same, measured again where it may have changed.
    fn again(&self, containerd: &dyn Containerd, call: &Call, snapshotter: &str) -> Result<Measured> {
        let mut now = self.clone();
        if now.mountpoint.is_none() {
            now.mountpoint = Some(mountpoint(containerd, call, snapshotter)?);
        }
        let snapshots = containerd.snapshots(call, snapshotter).context("list snapshots")?;
        now.measure(containerd, call, snapshotter, &snapshots)?;
        Ok(now)
    }

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

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::containerd::fake::Fault;
    use crate::containerd::Labels;

    fn ask(node: &Node, measured: &FsUsage) -> Result<ImageFsInfoResponse> {
        fs_info(&node.fake, measured, &Call::unbounded(), "overlayfs")
    }

    /// Calls of this kind that a question costs.
    fn cost(node: &Node, measured: &FsUsage, call: &str) -> usize {
        let before = node.fake.calls().len();
        ask(node, measured).unwrap();
        node.fake.calls()[before..].iter().filter(|c| **c == call).count()
    }

    #[test]
    fn an_empty_node_has_an_answer() {
        let answer = ask(&Node::new(), &FsUsage::default()).unwrap();
        let filesystem = &answer.image_filesystems[0];
        assert!(filesystem.timestamp > 0);
        assert!(filesystem.fs_id.mountpoint.ends_with("/overlayfs"));
        assert!(filesystem.used_bytes.is_some() && filesystem.inodes_used.is_some());
        assert_eq!(answer.container_filesystems, answer.image_filesystems);
    }

    #[test]
    fn only_what_may_have_changed_is_measured_again() {
        let (node, measured) = (Node::new(), FsUsage::default());
        node.import(&layout(&[(&Sample::new(), "app")]), None).unwrap();
        let image = node.store.get("app").unwrap();
        let at = SnapshotRef { snapshotter: "overlayfs", key: "container" };
        node.fake.prepare_snapshot(&Call::unbounded(), &at, &image.chain_id, &Labels::new()).unwrap();
        assert_eq!(cost(&node, &measured, "snapshot_usage"), 4);
        assert_eq!(cost(&node, &measured, "snapshot_usage"), 0);
        assert_eq!(cost(&node, &measured, "plugins"), 0);
        let now = measured.0.lock().active_at.expect("measured");
        measured.0.lock().active_at = now.checked_sub(ACTIVE_MAX_AGE);
        assert_eq!(cost(&node, &measured, "snapshot_usage"), 1, "the writable one");
        let used = ask(&node, &measured).unwrap().image_filesystems[0].used_bytes.value;
        assert_eq!(used, 4 * 4096);
        node.fake.remove_snapshot(&Call::unbounded(), &at).unwrap();
        assert_eq!(ask(&node, &measured).unwrap().image_filesystems[0].used_bytes.value, 3 * 4096);
    }

    #[test]
    fn a_snapshot_that_cannot_be_measured_does_not_hide_the_others() {
        let (node, measured) = (Node::new(), FsUsage::default());
        node.import(&layout(&[(&Sample::new(), "app")]), None).unwrap();
        node.fake.fail_at(4, Fault::Refused);
        assert_eq!(ask(&node, &measured).unwrap().image_filesystems[0].used_bytes.value, 2 * 4096);
        assert_eq!(ask(&node, &measured).unwrap().image_filesystems[0].used_bytes.value, 3 * 4096);
    }

    #[test]
    fn a_wrong_snapshotter_or_no_containerd_is_an_error() {
        let node = Node::new();
        let e = fs_info(&node.fake, &FsUsage::default(), &Call::unbounded(), "zfs").unwrap_err();
        assert_eq!(e.kind(), Kind::FailedPrecondition);
        node.fake.fail_at(2, Fault::Refused);
        let measured = FsUsage::default();
        assert_eq!(ask(&node, &measured).unwrap_err().kind(), Kind::Unavailable);
        let before = ask(&node, &measured).unwrap().image_filesystems[0].used_bytes.clone();
        node.fake.fail_at(1, Fault::Refused);
        assert_eq!(ask(&node, &measured).unwrap().image_filesystems[0].used_bytes, before, "asked before");
    }
}
