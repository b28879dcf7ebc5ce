//! The nouns of containerd in our own types.

use std::collections::BTreeMap;

/// Labels of any containerd object.
pub type Labels = BTreeMap<String, String>;

/// Nanoseconds since the epoch, as the CRI counts time.
pub type UnixNanos = i64;

/// containerd's version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// As `containerd --version` prints it.
    pub version: String,
    /// The source revision.
    pub revision: String,
}

/// A loaded plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plugin {
    /// `io.containerd.snapshotter.v1`.
    pub kind: String,
    /// `overlayfs`.
    pub id: String,
    /// What it publishes of itself: `root` is a snapshotter's directory.
    pub exports: Labels,
    /// What it can do: `remap-ids`.
    pub capabilities: Vec<String>,
    /// Why it did not load, if it did not.
    pub error: Option<String>,
}

/// A typed message whose type containerd does not know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Any {
    /// Its type's name.
    pub type_url: String,
    /// Its bytes.
    pub value: Vec<u8>,
}

/// A container record: configuration, not a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The container's id.
    pub id: String,
    /// Labels; containerd bounds key plus value to 4096 bytes.
    pub labels: Labels,
    /// The image reference it was made from.
    pub image: String,
    /// The shim: `io.containerd.runc.v2` or the path of one.
    pub runtime: String,
    /// The shim's options.
    pub runtime_options: Option<Any>,
    /// The OCI runtime spec as JSON.
    pub spec: Vec<u8>,
    /// Which snapshotter holds its root filesystem; "" for none.
    pub snapshotter: String,
    /// The key of its writable snapshot; "" for none.
    pub snapshot_key: String,
    /// Our metadata.
    pub extensions: BTreeMap<String, Any>,
    /// When containerd stored it.
    pub created_at: UnixNanos,
}

/// A snapshot by snapshotter and key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotRef<'a> {
    /// `overlayfs`.
    pub snapshotter: &'a str,
    /// Its key.
    pub key: &'a str,
}

/// What a snapshot is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SnapshotKind {
    /// Read-only view.
    View,
    /// Writable.
    Active,
    /// Immutable layer.
    #[default]
    Committed,
}

/// What is known of a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Its key or, when committed, its name.
    pub key: String,
    /// The parent's name; "" for none.
    pub parent: String,
    /// What it is.
    pub kind: SnapshotKind,
    /// Its labels.
    pub labels: Labels,
    /// When it was made.
    pub created_at: UnixNanos,
}

/// What a snapshot takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes on disk.
    pub size_bytes: u64,
    /// Inodes.
    pub inodes: u64,
}

/// A mount as a snapshotter describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    /// `overlay`, `bind`.
    pub kind: String,
    /// Source.
    pub source: String,
    /// Options as in fstab.
    pub options: Vec<String>,
}

/// What [`create_task`](super::Containerd::create_task) needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewTask {
    /// The container's id.
    pub id: String,
    /// Mounts of the root filesystem.
    pub rootfs: Vec<Mount>,
    /// Path of the stdin FIFO; "" for none.
    pub stdin: String,
    /// Path of the stdout FIFO; "" for none.
    pub stdout: String,
    /// Path of the stderr FIFO; "" for none.
    pub stderr: String,
    /// A pseudo-terminal instead of three pipes.
    pub terminal: bool,
    /// The shim's options, as in the record.
    pub options: Option<Any>,
}

/// What [`exec`](super::Containerd::exec) needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewExec {
    /// The container's id.
    pub id: String,
    /// The exec's id, unique within the container.
    pub exec_id: String,
    /// The OCI `Process` as JSON.
    pub process: Vec<u8>,
    /// Path of the stdin FIFO; "" for none.
    pub stdin: String,
    /// Path of the stdout FIFO; "" for none.
    pub stdout: String,
    /// Path of the stderr FIFO; "" for none.
    pub stderr: String,
    /// A pseudo-terminal instead of three pipes.
    pub terminal: bool,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exit {
    /// Exit code; 128 + signal for a killed one.
    pub code: u32,
    /// When.
    pub at: UnixNanos,
}

/// What a task does now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TaskState {
    /// Made, not started.
    Created,
    /// Running.
    Running,
    /// Ended, not deleted.
    Stopped,
    /// Frozen or being frozen.
    Paused,
    /// The shim did not say.
    #[default]
    Unknown,
}

/// A task, or an exec of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Task {
    /// The container's id.
    pub id: String,
    /// Pid of its first process; 0 when there is none.
    pub pid: u32,
    /// What it does now.
    pub state: TaskState,
    /// How it ended, once stopped.
    pub exit: Exit,
    /// FIFO paths and terminal, as given at its creation.
    pub stdin: String,
    /// See `stdin`.
    pub stdout: String,
    /// See `stdin`.
    pub stderr: String,
    /// See `stdin`.
    pub terminal: bool,
}

/// Content by type, digest and size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Descriptor {
    /// Media type.
    pub media_type: String,
    /// `sha256:…`.
    pub digest: String,
    /// Bytes.
    pub size_bytes: u64,
    /// Annotations.
    pub annotations: Labels,
}

/// A named pointer to a manifest or an index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageRecord {
    /// Its name: a reference, or a config digest for the id record.
    pub name: String,
    /// What it names.
    pub target: Descriptor,
    /// Its labels.
    pub labels: Labels,
    /// When containerd stored it.
    pub created_at: UnixNanos,
}

/// A blob of the content store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// `sha256:…`.
    pub digest: String,
    /// Bytes.
    pub size_bytes: u64,
    /// Its labels.
    pub labels: Labels,
}

/// What the event stream tells us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A process ended: the container's first one when `exec_id` is `None`.
    TaskExit {
        /// The container's id.
        id: String,
        /// The exec's id.
        exec_id: Option<String>,
        /// Its pid.
        pid: u32,
        /// How it ended.
        exit: Exit,
    },
    /// The kernel killed something in the container for want of memory.
    TaskOom {
        /// The container's id.
        id: String,
    },
    /// An image record was created, updated or deleted.
    ImageChanged {
        /// The record's name.
        name: String,
    },
}
