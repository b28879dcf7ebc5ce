//! What belongs to nothing: found by comparing what there is with the records, and swept at start. Only what carries our
//! own mark: our directories, labels, extensions, and network namespaces named by us.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::path::PathBuf;

use cricket_proto::runtime::PodSandboxConfig;

use super::{names, UNDO_BUDGET};
use crate::call::Call;
use crate::cni::Cni;
use crate::config::Config;
use crate::container::{IMAGE_VOLUME, OWN_SNAPSHOT};
use crate::containerd::{Containerd, Record, Snapshot, SnapshotRef};
use crate::error::{Idempotent, Kind, Result};
use crate::ids::SandboxId;
use crate::layout::Layout;
use crate::runtime::Runtime;
use crate::sandbox;
use crate::store::{Sandbox, SandboxState};
use crate::sys::tree;
use crate::workers;
use cricket_proto::records;

/// Where to look.
pub struct Place<'a> {
    /// Records, tasks and snapshots.
    pub containerd: &'a dyn Containerd,
    /// Our directories.
    pub layout: &'a Layout,
    /// Which snapshotters we use.
    pub config: &'a Config,
    /// Attachments to the network.
    pub cni: &'a Cni,
}

impl<'a> Place<'a> {
    /// This node, as the daemon sees it.
    pub fn of(rt: &'a Runtime) -> Place<'a> {
        Place { containerd: &*rt.containerd, layout: &rt.layout, config: &rt.config, cni: &rt.cni }
    }
}

/// Something of which the record is gone. Displays as what it is, and why it is to go.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Orphan {
    /// A directory of a container.
    Directory(PathBuf),
    /// A snapshot of a container, or of an image that was mounted for a pod.
    Snapshot {
        /// Whose it is.
        snapshotter: String,
        /// Its name there.
        key: String,
    },
    /// The process of a sandbox: its containerd container.
    Process(String),
    /// Namespaces and mounts of a sandbox.
    Sandbox(SandboxId, PathBuf),
    /// The place of a sandbox in the network: its namespace is gone.
    Attachment(SandboxId),
    /// An address of the pod network: the file that stands for it.
    Address(PathBuf),
}

impl fmt::Display for Orphan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Orphan::Directory(path) => write!(f, "{}: containerd has no record of its container", path.display()),
            Orphan::Snapshot { snapshotter, key } => {
                write!(f, "snapshot {key} of {snapshotter}: what it belongs to does not exist")
            }
            Orphan::Process(id) => write!(f, "the process of pod sandbox {id}, which does not exist"),
            Orphan::Sandbox(_, path) => {
                write!(f, "{}, and what is mounted there: its pod sandbox does not exist", path.display())
            }
            Orphan::Attachment(id) => {
                write!(f, "the addresses of pod sandbox {id}, which does not exist, nor does its network namespace")
            }
            Orphan::Address(path) => write!(f, "{}: a power cut took the name of who has the address", path.display()),
        }
    }
}

impl Orphan {
    /// The id of what it belonged to; an address has none.
    pub fn id(&self) -> Option<&str> {
        match self {
            Orphan::Directory(path) => path.file_name()?.to_str(),
            Orphan::Snapshot { key, .. } => Some(key),
            Orphan::Process(id) => Some(id),
            Orphan::Sandbox(id, _) | Orphan::Attachment(id) => Some(id.as_str()),
            Orphan::Address(_) => None,
        }
    }

    /// Removes it. Blocks.
    pub fn remove(&self, rt: &Runtime, call: &Call) -> Result<()> {
        match self {
            Orphan::Directory(path) => Ok(tree::remove(path).or_gone()?),
            Orphan::Snapshot { snapshotter, key } => {
                rt.containerd.remove_snapshot(call, &SnapshotRef { snapshotter, key }).or_gone()
            }
            Orphan::Process(id) => sandbox::remove_process(rt, call, id),
            Orphan::Sandbox(id, _) => {
                let record = records::Sandbox { id: id.to_string(), ..Default::default() };
                sandbox::teardown(rt, call, &Sandbox::from_record(&record, SandboxState::NotReady))
            }
            Orphan::Attachment(id) => sandbox::detach(rt, call, id, &PodSandboxConfig::default(), &rt.layout.netns(id)),
            Orphan::Address(path) => rt.cni.remove_torn(path),
        }
    }
}

/// Removes them, side by side, each in bounded time. Those that do not go are told of.
///
/// # Errors
/// That of one of them; the others are gone nevertheless.
pub fn remove_all(rt: &Runtime, call: &Call, orphans: &[Orphan]) -> Result<()> {
    workers::each("sweep", orphans, |orphan| {
        log::info!("removing {orphan}");
        let removed = orphan.remove(rt, &call.at_most(UNDO_BUDGET));
        removed.map_err(|e| e.context(format_args!("remove {orphan}"))).inspect_err(|e| log::warn!("{e}"))
    })
}

/// Everything that belongs to nothing, sorted. `records` gives those of containerd, and is asked when everything else but
/// ours has been looked at. Blocks; changes nothing. What is being made meanwhile may be among it.
///
/// # Errors
/// If containerd or our directories cannot be read.
pub fn find(at: &Place<'_>, call: &Call, records: impl FnOnce() -> Result<Vec<Record>>) -> Result<Vec<Orphan>> {
    let mut found = BTreeSet::new();
    // What there is before what ought to be: in the other order, something that is made in between had no record.
    let directories = at.layout.containers().map(|parent| names(&parent).map(|names| (parent, names)));
    let states = names(&at.layout.sandbox_states())?;
    let attachments = at.cni.attachments().unwrap_or_else(|e| {
        log::warn!("attachments to the network: {e}");
        Vec::new()
    });
    let snapshots = snapshots(at, call)?;
    let records = records()?;
    let sandboxes: HashSet<String> = names(&at.layout.sandboxes())?.into_iter().collect();
    let whole: HashSet<&str> = records.iter().map(|r| r.id.as_str()).collect();

    for listed in directories {
        let (parent, names) = listed?;
        let orphaned = names.iter().filter(|name| !whole.contains(name.as_str()));
        found.extend(orphaned.map(|name| Orphan::Directory(parent.join(name))));
    }
    for (snapshotter, snapshot) in snapshots {
        let of_container = snapshot.labels.contains_key(OWN_SNAPSHOT) && !whole.contains(snapshot.key.as_str());
        let of_pod = snapshot.labels.get(IMAGE_VOLUME).is_some_and(|pod| !sandboxes.contains(pod));
        if of_container || of_pod {
            found.insert(Orphan::Snapshot { snapshotter: snapshotter.to_owned(), key: snapshot.key });
        }
    }
    for record in records.iter().filter(|r| r.extensions.contains_key(sandbox::PROCESS_TYPE)) {
        if !sandboxes.contains(&record.id) {
            found.insert(Orphan::Process(record.id.clone()));
        }
    }
    for id in states.into_iter().filter(|id| !sandboxes.contains(id)) {
        let id = SandboxId::from_record(id);
        let path = at.layout.sandbox_state(&id);
        found.insert(Orphan::Sandbox(id, path));
    }
    for (id, netns) in attachments {
        let id = SandboxId::from_record(id);
        // Where others keep their attachments too, the namespace has our name; one that is there has a user.
        let ours = netns == at.layout.netns(&id) && !sandboxes.contains(id.as_str());
        if ours && !netns.exists() {
            found.insert(Orphan::Attachment(id));
        }
    }
    found.extend(at.cni.torn().into_iter().map(Orphan::Address));
    Ok(found.into_iter().collect())
}

/// Those of every snapshotter that we use. One that cannot be asked is told of, and passed over.
fn snapshots<'a>(at: &Place<'a>, call: &Call) -> Result<Vec<(&'a str, Snapshot)>> {
    let used: BTreeSet<&str> = at.config.runtimes.values().map(|h| at.config.snapshotter(h)).collect();
    let mut all = Vec::new();
    for snapshotter in used {
        match at.containerd.snapshots(call, snapshotter) {
            // Unavailable says of the first that containerd is; of another, that may be a program of its own.
            Err(e) if e.kind() != Kind::Unavailable || snapshotter != at.config.containerd.snapshotter => {
                log::warn!("snapshotter {snapshotter}: {e}");
            }
            listed => all.extend(listed?.into_iter().map(|snapshot| (snapshotter, snapshot))),
        }
    }
    Ok(all)
}
