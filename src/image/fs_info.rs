//! ImageFsInfo: how much the snapshots take, measured as seldom as possible.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cricket_proto::runtime::{FilesystemIdentifier, FilesystemUsage, ImageFsInfoResponse, UInt64Value};

use crate::call::Call;
use crate::containerd::{Containerd, Mount, SnapshotKind, SnapshotRef, Usage};
use crate::error::{Context, Error, Kind, Result};
use crate::runtime::Runtime;
use crate::store::fs_usage::{FsUsage, Measured};
use crate::sys::tree;

const SNAPSHOTTERS: &str = "io.containerd.snapshotter.v1";
const CONTENT: &str = "io.containerd.content.v1";
/// How long a snapshotter that is not the first may take.
const OTHERS: Duration = Duration::from_secs(5);
/// Measuring a writable snapshot walks its files; the kubelet asks every ten seconds.
const ACTIVE_MAX_AGE: Duration = Duration::from_secs(30);

/// What is asked, and of which state of the node.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// Who knows the snapshots.
    pub containerd: &'a dyn Containerd,
    /// What was measured last.
    pub measured: &'a FsUsage,
    /// Whose snapshots.
    pub snapshotter: &'a str,
    /// Changes with our containers and images, and so with the snapshots.
    pub version: u64,
}

impl<'a> Place<'a> {
    /// A snapshotter of the configuration as it is now.
    fn now(rt: &'a Runtime, snapshotter: &'a str) -> Place<'a> {
        let version = rt.containers.version().wrapping_add(rt.images.epoch());
        Place { containerd: &*rt.containerd, measured: rt.fs_usage(snapshotter), snapshotter, version }
    }

    /// All of them, that of the handlers that name none first.
    pub fn all_now(rt: &'a Runtime) -> Vec<Place<'a>> {
        rt.config.snapshotters().into_iter().map(|snapshotter| Place::now(rt, snapshotter)).collect()
    }
}

/// The filesystems of these snapshotters. What an image is and what is written on top of it are in the same snapshotter, and
/// so on the same filesystem: those of images and those of containers differ only from one snapshotter to the next. Blocks.
///
/// # Errors
/// Whatever says that containerd cannot be asked, unless it is away and was asked before: then the answer is what was
/// measured last. An empty node is none. One of the others that cannot be asked is passed over: it may be there and not be
/// set up, or be a program of its own that is down, and the kubelet looks at the first.
pub fn fs_info(places: &[Place<'_>], call: &Call) -> Result<ImageFsInfoResponse> {
    let mut all = Vec::new();
    for at in places {
        let first = all.is_empty();
        let own = if first { call.clone() } else { call.at_most(OTHERS) };
        match at.filesystem(&own) {
            Err(e) if !first => {
                call.check()?;
                log::debug!("snapshotter {}: {e}", at.snapshotter);
            }
            filesystem => all.push(filesystem?),
        }
    }
    let mut response = ImageFsInfoResponse::new();
    response.image_filesystems.clone_from(&all);
    response.container_filesystems = all;
    Ok(response)
}

/// What the snapshots with these keys take, in the default snapshotter. containerd is asked only if one of them is not
/// known, or was measured too long ago.
///
/// # Errors
/// Whatever says that containerd cannot be asked.
pub fn usage_of(rt: &Runtime, call: &Call, keys: &[&str]) -> Result<Measured> {
    Place::now(rt, &rt.config.containerd.snapshotter)
        .fresh(call, |last| keys.iter().all(|key| last.usage.contains_key(*key)))
}

impl Place<'_> {
    fn filesystem(&self, call: &Call) -> Result<FilesystemUsage> {
        let now = match self.fresh(call, |last| last.version == self.version) {
            // The kubelet and crictl ask this before anything else: a restart of containerd must not look like our end.
            Err(e) if e.kind() == Kind::Unavailable && self.last().mountpoint.is_some() => self.last(),
            now => now?,
        };
        filesystem(&now)
    }

    fn last(&self) -> Measured {
        self.measured.last.lock().clone()
    }

    /// The last measurement, if it is young and `will_do`; else another one. Two that need one share it.
    fn fresh(&self, call: &Call, will_do: impl Fn(&Measured) -> bool) -> Result<Measured> {
        let last = self.last();
        if last.mountpoint.is_some() && !last.is_stale() && will_do(&last) {
            return Ok(last);
        }
        self.measured.next.join(call, &(), (), |call, ()| {
            let now = self.last().again(self, call)?;
            // Not held meanwhile.
            *self.measured.last.lock() = now;
            Ok(())
        })?;
        Ok(self.last())
    }
}

impl Measured {
    fn is_stale(&self) -> bool {
        self.active_at.is_none_or(|at| at.elapsed() >= ACTIVE_MAX_AGE)
    }

    /// The same, measured again where it may have changed.
    fn again(mut self, at: &Place<'_>, call: &Call) -> Result<Measured> {
        if self.mountpoint.is_none() {
            self.mountpoint = Some(mountpoint(at.containerd, call, at.snapshotter)?);
        }
        self.version = at.version;
        let snapshots = at.containerd.snapshots(call, at.snapshotter).context("list snapshots")?;
        let stale = self.is_stale();
        let mut before = std::mem::take(&mut self.usage);
        let mut places = std::mem::take(&mut self.writable);
        for snapshot in snapshots {
            let active = snapshot.kind == SnapshotKind::Active;
            let known = before.remove(&snapshot.key).filter(|_| !(stale && active));
            let place = places.remove(&snapshot.key);
            let key = SnapshotRef { snapshotter: at.snapshotter, key: &snapshot.key };
            let measured = match known {
                Some(usage) => Ok((usage, place.flatten())),
                None => measure(at.containerd, call, &key, place, active),
            };
            call.check()?;
            match measured {
                Ok((usage, place)) => {
                    self.usage.insert(snapshot.key.clone(), usage);
                    if active {
                        self.writable.insert(snapshot.key, place);
                    }
                }
                // Most likely removed since it was listed; the others still count.
                Err(e) => log::debug!("usage of snapshot {}: {e}", snapshot.key),
            }
        }
        if stale {
            self.active_at = Some(Instant::now());
        }
        Ok(self)
    }
}

/// What one snapshot takes, and where its files are if that is known: those of a writable one are counted where they lie,
/// which spares containerd a question for each container, again and again.
fn measure(
    containerd: &dyn Containerd,
    call: &Call,
    at: &SnapshotRef<'_>,
    place: Option<Option<PathBuf>>,
    active: bool,
) -> Result<(Usage, Option<PathBuf>)> {
    let place = match place {
        Some(place) => place,
        None if active => files_of(&containerd.snapshot_mounts(call, at)?),
        None => None,
    };
    if let Some(place) = place {
        match tree::usage(&place) {
            Ok(usage) => return Ok((Usage { size_bytes: usage.bytes, inodes: usage.inodes }, Some(place))),
            Err(e) => log::debug!("usage of {}: {e}; containerd is asked", place.display()),
        }
    }
    Ok((containerd.snapshot_usage(call, at)?, None))
}

/// Where that which is written through these mounts lies, alone.
pub(super) fn files_of(mounts: &[Mount]) -> Option<PathBuf> {
    let [mount] = mounts else { return None };
    match mount.kind.as_str() {
        "overlay" => mount.options.iter().find_map(|option| option.strip_prefix("upperdir=")).map(PathBuf::from),
        "bind" if mount.options.iter().any(|option| option == "rw") => Some(PathBuf::from(&mount.source)),
        _ => None,
    }
}

/// The directories below what these mounts write, the topmost first.
pub(super) fn lower_of(mounts: &[Mount]) -> Vec<&Path> {
    let lower = mounts.iter().flat_map(|mount| &mount.options).find_map(|option| option.strip_prefix("lowerdir="));
    lower.into_iter().flat_map(|all| all.split(':')).map(Path::new).collect()
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

    fn ask_at(node: &Node, measured: &FsUsage, version: u64) -> Result<ImageFsInfoResponse> {
        let at = Place { containerd: &node.fake, measured, snapshotter: "overlayfs", version };
        fs_info(&[at], &Call::unbounded())
    }

    fn ask(node: &Node, measured: &FsUsage) -> Result<ImageFsInfoResponse> {
        ask_at(node, measured, 0)
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
    fn each_snapshotter_has_a_filesystem_and_one_that_is_missing_hides_none() {
        let (node, call) = (Node::new(), Call::unbounded());
        node.import(&layout(&[(&Sample::new(), "app")]), None).unwrap();
        let at = SnapshotRef { snapshotter: "native", key: "container" };
        node.fake.prepare_snapshot(&call, &at, "", &Labels::new()).unwrap();
        let measured: [FsUsage; 3] = Default::default();
        let place =
            |n: usize, snapshotter| Place { containerd: &node.fake, measured: &measured[n], snapshotter, version: 0 };
        let answer = fs_info(&[place(0, "overlayfs"), place(1, "zfs"), place(2, "native")], &call).unwrap();
        let used =
            |at: &FilesystemUsage| (at.fs_id.mountpoint.rsplit('/').next().map(str::to_owned), at.used_bytes.value);
        let told: Vec<_> = answer.image_filesystems.iter().map(used).collect();
        assert_eq!(told, [(Some("overlayfs".into()), 3 * 4096), (Some("native".into()), 4096)]);
        assert_eq!(answer.container_filesystems, answer.image_filesystems);
        // One that is a program of its own, and down: the first is fresh, so that this is the first call.
        node.fake.fail_at(1, Fault::Refused);
        let down = FsUsage::default();
        let second = Place { measured: &down, ..place(2, "native") };
        let answer = fs_info(&[place(0, "overlayfs"), second], &call).unwrap();
        assert!(!node.fake.fault_pending() && answer.image_filesystems.len() == 1);
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
        let now = measured.last.lock().active_at.expect("measured");
        measured.last.lock().active_at = now.checked_sub(ACTIVE_MAX_AGE);
        assert_eq!(cost(&node, &measured, "snapshot_usage"), 1, "the writable one");
        let used = ask(&node, &measured).unwrap().image_filesystems[0].used_bytes.value;
        assert_eq!(used, 4 * 4096);
        assert_eq!(cost(&node, &measured, "snapshots"), 0, "nothing says that there are others");
        node.fake.remove_snapshot(&Call::unbounded(), &at).unwrap();
        assert_eq!(ask_at(&node, &measured, 1).unwrap().image_filesystems[0].used_bytes.value, 3 * 4096);
    }

    #[test]
    fn a_snapshot_that_cannot_be_measured_does_not_hide_the_others() {
        let (node, measured) = (Node::new(), FsUsage::default());
        node.import(&layout(&[(&Sample::new(), "app")]), None).unwrap();
        node.fake.fail_at(4, Fault::Refused);
        assert_eq!(ask(&node, &measured).unwrap().image_filesystems[0].used_bytes.value, 2 * 4096);
        assert_eq!(ask_at(&node, &measured, 1).unwrap().image_filesystems[0].used_bytes.value, 3 * 4096);
    }

    #[test]
    fn where_files_lie_that_are_written_through_a_mount() {
        let mount = |kind: &str, options: &[&str]| Mount {
            kind: kind.into(),
            source: "/source".into(),
            options: options.iter().map(|o| (*o).to_owned()).collect(),
        };
        let overlay = mount("overlay", &["index=off", "workdir=/s/5/work", "upperdir=/s/5/fs", "lowerdir=/s/1/fs"]);
        assert_eq!(files_of(std::slice::from_ref(&overlay)), Some("/s/5/fs".into()));
        assert_eq!(files_of(&[mount("bind", &["rw", "rbind"])]), Some("/source".into()));
        for other in [mount("overlay", &["lowerdir=/s/1/fs:/s/2/fs"]), mount("bind", &["ro"]), mount("ext4", &["rw"])] {
            assert_eq!(files_of(&[other]), None);
        }
        assert_eq!(files_of(&[]), None);
        assert_eq!(files_of(&[overlay.clone(), overlay]), None);
    }

    #[test]
    fn a_wrong_snapshotter_or_no_containerd_is_an_error() {
        let node = Node::new();
        let at = Place { containerd: &node.fake, measured: &FsUsage::default(), snapshotter: "zfs", version: 0 };
        let e = fs_info(&[at], &Call::unbounded()).unwrap_err();
        assert_eq!(e.kind(), Kind::FailedPrecondition);
        node.fake.fail_at(2, Fault::Refused);
        let measured = FsUsage::default();
        assert_eq!(ask(&node, &measured).unwrap_err().kind(), Kind::Unavailable);
        let before = ask(&node, &measured).unwrap().image_filesystems[0].used_bytes.clone();
        node.fake.fail_at(1, Fault::Refused);
        assert_eq!(ask_at(&node, &measured, 1).unwrap().image_filesystems[0].used_bytes, before, "asked before");
    }
}
