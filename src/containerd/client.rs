//! The real [`Containerd`]: blocking gRPC calls over containerd's unix socket.

mod containers;
mod content;
mod convert;
mod events;
mod images;
mod ingest;
mod leases;
mod rpc;
mod snapshots;
mod system;
mod tasks;

use std::collections::HashSet;
use std::io::Write;
use std::time::Duration;

use super::{
    Containerd, Content, Descriptor, EventStream, Exit, ImageRecord, Labels, Mount, NewExec, NewTask, Plugin, Record,
    Snapshot, SnapshotRef, Source, Task, Usage, Version,
};
use crate::call::Call;
use crate::error::Result;
use crate::grpc::Peer;

/// A connection to containerd: see [`Peer`].
pub struct Client {
    peer: Peer,
}

impl Client {
    /// A client of the containerd at `address`. Does not connect yet.
    ///
    /// # Errors
    /// `InvalidArgument` for anything that is not a local socket.
    pub fn new(address: &str) -> Result<Self> {
        Ok(Client { peer: Peer::connect("containerd", address)? })
    }
}

impl Containerd for Client {
    fn version(&self, call: &Call) -> Result<Version> {
        system::version(self, call)
    }
    fn ensure_namespace(&self, call: &Call) -> Result<()> {
        system::ensure_namespace(self, call)
    }
    fn plugins(&self, call: &Call, kind: &str) -> Result<Vec<Plugin>> {
        system::plugins(self, call, kind)
    }

    fn create_container(&self, call: &Call, container: &Record) -> Result<()> {
        containers::create(self, call, container)
    }
    fn container(&self, call: &Call, id: &str) -> Result<Record> {
        containers::get(self, call, id)
    }
    fn containers(&self, call: &Call, filters: &[String]) -> Result<Vec<Record>> {
        containers::list(self, call, filters)
    }
    fn update_container(&self, call: &Call, container: &Record) -> Result<()> {
        containers::update(self, call, container)
    }
    fn delete_container(&self, call: &Call, id: &str) -> Result<()> {
        containers::delete(self, call, id)
    }

    fn prepare_snapshot(&self, call: &Call, at: &SnapshotRef<'_>, parent: &str, labels: &Labels) -> Result<Vec<Mount>> {
        snapshots::prepare(self, call, at, parent, labels)
    }
    fn view_snapshot(&self, call: &Call, at: &SnapshotRef<'_>, parent: &str, labels: &Labels) -> Result<Vec<Mount>> {
        snapshots::view(self, call, at, parent, labels)
    }
    fn snapshot_mounts(&self, call: &Call, at: &SnapshotRef<'_>) -> Result<Vec<Mount>> {
        snapshots::mounts(self, call, at)
    }
    fn commit_snapshot(&self, call: &Call, at: &SnapshotRef<'_>, name: &str, labels: &Labels) -> Result<()> {
        snapshots::commit(self, call, at, name, labels)
    }
    fn snapshot(&self, call: &Call, at: &SnapshotRef<'_>) -> Result<Snapshot> {
        snapshots::stat(self, call, at)
    }
    fn snapshots(&self, call: &Call, snapshotter: &str) -> Result<Vec<Snapshot>> {
        snapshots::list(self, call, snapshotter)
    }
    fn snapshot_usage(&self, call: &Call, at: &SnapshotRef<'_>) -> Result<Usage> {
        snapshots::usage(self, call, at)
    }
    fn remove_snapshot(&self, call: &Call, at: &SnapshotRef<'_>) -> Result<()> {
        snapshots::remove(self, call, at)
    }

    fn create_task(&self, call: &Call, task: &NewTask) -> Result<u32> {
        tasks::create(self, call, task)
    }
    fn start_task(&self, call: &Call, id: &str, exec_id: Option<&str>) -> Result<u32> {
        tasks::start(self, call, id, exec_id)
    }
    fn delete_task(&self, call: &Call, id: &str, exec_id: Option<&str>) -> Result<Exit> {
        tasks::delete(self, call, id, exec_id)
    }
    fn task(&self, call: &Call, id: &str, exec_id: Option<&str>) -> Result<Task> {
        tasks::get(self, call, id, exec_id)
    }
    fn tasks(&self, call: &Call) -> Result<Vec<Task>> {
        tasks::list(self, call)
    }
    fn kill(&self, call: &Call, id: &str, exec_id: Option<&str>, signal: u32, all: bool) -> Result<()> {
        tasks::kill(self, call, id, exec_id, signal, all)
    }
    fn exec(&self, call: &Call, exec: &NewExec) -> Result<()> {
        tasks::exec(self, call, exec)
    }
    fn resize_pty(&self, call: &Call, id: &str, exec_id: Option<&str>, width: u32, height: u32) -> Result<()> {
        tasks::resize_pty(self, call, id, exec_id, width, height)
    }
    fn close_stdin(&self, call: &Call, id: &str, exec_id: Option<&str>) -> Result<()> {
        tasks::close_stdin(self, call, id, exec_id)
    }
    fn update_task(&self, call: &Call, id: &str, resources: &[u8]) -> Result<()> {
        tasks::update(self, call, id, resources)
    }
    fn wait_task(&self, call: &Call, id: &str, exec_id: Option<&str>) -> Result<Exit> {
        tasks::wait(self, call, id, exec_id)
    }

    fn images(&self, call: &Call) -> Result<Vec<ImageRecord>> {
        images::list(self, call)
    }
    fn image(&self, call: &Call, name: &str) -> Result<ImageRecord> {
        images::get(self, call, name)
    }
    fn put_image(&self, call: &Call, image: &ImageRecord) -> Result<()> {
        images::put(self, call, image)
    }
    fn delete_image(&self, call: &Call, name: &str, sync: bool) -> Result<()> {
        images::delete(self, call, name, sync)
    }

    fn content(&self, call: &Call, digest: &str) -> Result<Content> {
        content::info(self, call, digest)
    }
    fn contents(&self, call: &Call, digests: &[&str]) -> Result<HashSet<String>> {
        content::known(self, call, digests)
    }
    fn read_content(&self, call: &Call, digest: &str, max_bytes: u64) -> Result<Vec<u8>> {
        content::read(self, call, digest, max_bytes)
    }
    fn copy_content(&self, call: &Call, digest: &str, to: &mut dyn Write) -> Result<u64> {
        content::copy(self, call, digest, to)
    }
    fn write_content(&self, call: &Call, reference: &str, blob: &Content, from: &mut dyn Source) -> Result<()> {
        content::write(self, call, reference, blob, from)
    }
    fn label_content(&self, call: &Call, digest: &str, labels: &Labels) -> Result<()> {
        content::label(self, call, digest, labels)
    }
    fn apply_layer(&self, call: &Call, layer: &Descriptor, mounts: &[Mount]) -> Result<String> {
        content::apply(self, call, layer, mounts)
    }

    fn create_lease(&self, call: &Call, id: &str, ttl: Duration) -> Result<()> {
        leases::create(self, call, id, ttl)
    }
    fn delete_lease(&self, call: &Call, id: &str, sync: bool) -> Result<()> {
        leases::delete(self, call, id, sync)
    }
    fn leases(&self, call: &Call) -> Result<Vec<String>> {
        leases::list(self, call)
    }

    fn subscribe(&self) -> Result<Box<dyn EventStream>> {
        events::subscribe(self)
    }
}
