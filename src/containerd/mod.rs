//! containerd, seen from the verbs: one trait of blocking calls in our own types.
//!
//! containerd's messages do not leave this room. Every call runs in namespace `k8s.io`, is bounded by its [`Call`]
//! and carries the call's lease. Errors keep containerd's code as their [`Kind`](crate::error::Kind).

mod client;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod time;
mod runc;
mod source;
mod types;

pub use client::Client;
pub use runc::{config_file, RuncOptions};
pub use source::{Fresh, Source, MESSAGE_BYTES};
pub use types::*;

use std::collections::HashSet;
use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use crate::call::Call;
use crate::error::Result;

/// The containerd namespace of Kubernetes; cAdvisor and crictl expect it.
pub const NAMESPACE: &str = "k8s.io";

/// What cricket asks of containerd. Every method blocks until the answer, the call's deadline, or a broken connection
/// (`Unavailable`). Objects that are not there are `NotFound`, those that are already `AlreadyExists`.
pub trait Containerd: Send + Sync {
    /// containerd's version and revision.
    fn version(&self, call: &Call) -> Result<Version>;
    /// Creates the namespace [`NAMESPACE`] if it is missing.
    fn ensure_namespace(&self, call: &Call) -> Result<()>;
    /// The loaded plugins whose type is `kind` (`io.containerd.snapshotter.v1`); all for an empty one.
    fn plugins(&self, call: &Call, kind: &str) -> Result<Vec<Plugin>>;

    /// Creates a container record.
    fn create_container(&self, call: &Call, container: &Record) -> Result<()>;
    /// One container record.
    fn container(&self, call: &Call, id: &str) -> Result<Record>;
    /// The records that match any of the filters (`labels."a"==b`); all without filters.
    fn containers(&self, call: &Call, filters: &[String]) -> Result<Vec<Record>>;
    /// Replaces spec and labels of a record; nothing else of it changes.
    fn update_container(&self, call: &Call, container: &Record) -> Result<()>;
    /// Deletes a record. Its task and snapshot are not touched.
    fn delete_container(&self, call: &Call, id: &str) -> Result<()>;

    /// A writable snapshot `key` on top of committed `parent` ("" for none); returns its mounts.
    fn prepare_snapshot(&self, call: &Call, at: &SnapshotRef<'_>, parent: &str, labels: &Labels) -> Result<Vec<Mount>>;
    /// A read-only snapshot `key` of committed `parent`; returns its mounts.
    fn view_snapshot(&self, call: &Call, at: &SnapshotRef<'_>, parent: &str, labels: &Labels) -> Result<Vec<Mount>>;
    /// The mounts of an active or view snapshot.
    fn snapshot_mounts(&self, call: &Call, at: &SnapshotRef<'_>) -> Result<Vec<Mount>>;
    /// Commits active snapshot `at` under `name`.
    fn commit_snapshot(&self, call: &Call, at: &SnapshotRef<'_>, name: &str, labels: &Labels) -> Result<()>;
    /// What is known of a snapshot.
    fn snapshot(&self, call: &Call, at: &SnapshotRef<'_>) -> Result<Snapshot>;
    /// All snapshots of a snapshotter.
    fn snapshots(&self, call: &Call, snapshotter: &str) -> Result<Vec<Snapshot>>;
    /// Bytes and inodes a snapshot takes on its own, without its parents.
    fn snapshot_usage(&self, call: &Call, at: &SnapshotRef<'_>) -> Result<Usage>;
    /// Removes a snapshot; `FailedPrecondition` while it has children.
    fn remove_snapshot(&self, call: &Call, at: &SnapshotRef<'_>) -> Result<()>;

    /// Creates the task of a container (the OCI `create`); returns the pid of its first process.
    fn create_task(&self, call: &Call, task: &NewTask) -> Result<u32>;
    /// Starts a task, or an exec of it; returns its pid.
    fn start_task(&self, call: &Call, id: &str, exec_id: Option<&str>) -> Result<u32>;
    /// Deletes a stopped task, or a finished exec of it; returns how it ended.
    fn delete_task(&self, call: &Call, id: &str, exec_id: Option<&str>) -> Result<Exit>;
    /// A task, or an exec of it, as its shim sees it now.
    fn task(&self, call: &Call, id: &str, exec_id: Option<&str>) -> Result<Task>;
    /// All tasks.
    fn tasks(&self, call: &Call) -> Result<Vec<Task>>;
    /// Sends a signal to a task or an exec of it; `all` to every process of the container.
    fn kill(&self, call: &Call, id: &str, exec_id: Option<&str>, signal: u32, all: bool) -> Result<()>;
    /// Prepares an exec in a running task; [`Containerd::start_task`] starts it.
    fn exec(&self, call: &Call, exec: &NewExec) -> Result<()>;
    /// Sets the size of a terminal in characters.
    fn resize_pty(&self, call: &Call, id: &str, exec_id: Option<&str>, width: u32, height: u32) -> Result<()>;
    /// Closes the stdin of a task or an exec of it.
    fn close_stdin(&self, call: &Call, id: &str, exec_id: Option<&str>) -> Result<()>;
    /// Applies OCI `LinuxResources` (JSON) to a running task.
    fn update_task(&self, call: &Call, id: &str, resources: &[u8]) -> Result<()>;
    /// Blocks until a task or an exec of it has ended. Holds a stream, not a thread, of containerd's.
    fn wait_task(&self, call: &Call, id: &str, exec_id: Option<&str>) -> Result<Exit>;

    /// All image records.
    fn images(&self, call: &Call) -> Result<Vec<ImageRecord>>;
    /// One image record by its exact name.
    fn image(&self, call: &Call, name: &str) -> Result<ImageRecord>;
    /// Creates an image record, or points an existing one of that name to the new target and labels.
    fn put_image(&self, call: &Call, image: &ImageRecord) -> Result<()>;
    /// Deletes an image record; with `sync` the garbage collection has run when it returns.
    fn delete_image(&self, call: &Call, name: &str, sync: bool) -> Result<()>;

    /// What is known of a blob.
    fn content(&self, call: &Call, digest: &str) -> Result<Content>;
    /// Which of these blobs are there.
    fn contents(&self, call: &Call, digests: &[&str]) -> Result<HashSet<String>>;
    /// A whole blob, refused with `ResourceExhausted` over `max_bytes`: for manifests and configs, not for layers.
    fn read_content(&self, call: &Call, digest: &str, max_bytes: u64) -> Result<Vec<u8>>;
    /// Streams a blob to `to`; returns its size.
    fn copy_content(&self, call: &Call, digest: &str, to: &mut dyn Write) -> Result<u64>;
    /// Streams a blob of known size and digest into the store under ingest reference `reference`. A blob that is
    /// there already is success, and gets the labels. What an earlier attempt has left under the reference is not asked
    /// for again, unless the blob is short and `from` says that it is new. `FailedPrecondition` if what was written is not
    /// this blob; it is dropped.
    fn write_content(&self, call: &Call, reference: &str, blob: &Content, from: &mut dyn Source) -> Result<()>;
    /// Adds labels to a blob; others stay.
    fn label_content(&self, call: &Call, digest: &str, labels: &Labels) -> Result<()>;
    /// Unpacks a layer onto mounts; returns the digest of the uncompressed tar (the diff id).
    fn apply_layer(&self, call: &Call, layer: &Descriptor, mounts: &[Mount]) -> Result<String>;

    /// Creates a lease that expires by itself after `ttl`.
    fn create_lease(&self, call: &Call, id: &str, ttl: std::time::Duration) -> Result<()>;
    /// Deletes a lease; with `sync` the garbage collection has run when it returns.
    fn delete_lease(&self, call: &Call, id: &str, sync: bool) -> Result<()>;
    /// All leases.
    fn leases(&self, call: &Call) -> Result<Vec<String>>;

    /// Subscribes to task and image events of our namespace. Events before the subscription are lost.
    fn subscribe(&self) -> Result<Box<dyn EventStream>>;
}

/// What came of waiting for an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// This.
    Event(Event),
    /// The time is over, or somebody wants the thread.
    Nothing,
    /// It was cancelled.
    Cancelled,
}

/// A live subscription.
pub trait EventStream: Send {
    /// Blocks for the next event, until this instant at most. An error when the connection broke: subscribe again and
    /// reconcile.
    fn next(&mut self, until: Option<Instant>) -> Result<Next>;
    /// A handle that ends a blocked [`EventStream::next`], and every later one, from another thread.
    fn canceller(&self) -> Arc<dyn Fn() + Send + Sync>;
    /// A handle that makes a blocked [`EventStream::next`], or the next one, return [`Next::Nothing`].
    fn waker(&self) -> Arc<dyn Fn() + Send + Sync>;
}
