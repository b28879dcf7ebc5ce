//! An in-memory containerd for tests: the same answers, errors and events, and faults on demand.
//!
//! `tests/contract` runs one suite on it and on a real containerd, so that what it says is true. It never runs a
//! program: tests say when a process ends. It collects garbage in deletions with `sync`, and all the time when told to.

mod content;
mod events;
mod gc;
mod images;
mod leases;
mod records;
mod snapshots;
mod state;
mod tasks;

use std::collections::HashSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use self::state::State;
use super::{
    Containerd, Content, Descriptor, Event, EventStream, Exit, ImageRecord, Labels, Mount, NewExec, NewTask, Plugin,
    Record, Snapshot, SnapshotRef, Source, Task, Usage, Version,
};
use crate::call::Call;
use crate::error::{Error, Kind, Result};
use crate::sync::{Condvar, Mutex};

/// The snapshotters it offers.
const SNAPSHOTTERS: [&str; 2] = ["native", "overlayfs"];

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `Unavailable`, and nothing was done.
    Refused,
    /// `Unavailable`, but it was done.
    LostReply,
}

/// The fake. Clones are the same containerd.
#[derive(Clone, Default)]
pub struct Fake {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    /// Something changed: whoever waits for a process looks again.
    changed: Condvar,
    /// Where snapshots are directories, if anywhere.
    root: Option<PathBuf>,
}

impl Fake {
    /// An empty containerd. The mounts it hands out name directories that do not exist.
    pub fn new() -> Self {
        Fake::default()
    }

    /// An empty containerd whose snapshots are empty directories `<root>/<snapshotter>/<key>`, for tests that put
    /// files there.
    pub fn in_dir(root: &Path) -> Self {
        Fake { inner: Arc::new(Inner { root: Some(root.to_owned()), ..Inner::default() }) }
    }

    /// Makes the `n`-th call from now fail, the next one being the first. One fault at a time.
    pub fn fail_at(&self, n: usize, fault: Fault) {
        let mut state = self.inner.state.lock();
        let at = state.calls.len() + n;
        state.fault = Some((at, fault));
    }

    /// The fault set by [`Fake::fail_at`] has not happened yet: fewer calls were made.
    pub fn fault_pending(&self) -> bool {
        self.inner.state.lock().fault.is_some()
    }

    /// The names of all calls made so far, in order.
    pub fn calls(&self) -> Vec<&'static str> {
        self.inner.state.lock().calls.clone()
    }

    /// Everything that exists, as `container:ID`, `task:ID`, `exec:ID/EXEC`, `snapshot:KEY`, `image:NAME`,
    /// `content:DIGEST`, `ingest:REFERENCE`, `lease:ID`.
    pub fn leftovers(&self) -> Vec<String> {
        self.inner.state.lock().leftovers()
    }

    /// Ends a running process of container `id` (its first one, or an exec) with `code`. With the first one all
    /// execs end, killed. Panics if it does not run.
    pub fn exit(&self, id: &str, exec_id: Option<&str>, code: u32) {
        self.inner.state.lock().end(id, exec_id, code).expect("the process runs");
        self.inner.changed.notify_all();
    }

    /// From now on processes survive this signal. They survive 0, SIGCHLD, SIGCONT and SIGWINCH anyway; nothing
    /// survives SIGKILL.
    pub fn ignore_signal(&self, signal: u32) {
        self.inner.state.lock().ignored_signals.insert(signal);
    }

    /// From now on every exec ends with this code as soon as it is started; `None` lets them run again.
    pub fn execs_exit(&self, code: Option<u32>) {
        self.inner.state.lock().exec_code = code;
    }

    /// From now on the first process of every new task is this one, for verbs that look at its `/proc`. Nothing is done to
    /// it.
    pub fn tasks_are(&self, pid: u32) {
        self.inner.state.lock().task_pid = Some(pid);
    }

    /// Its snapshotters give files other owners from now on, as those of containerd 2 do.
    pub fn remap_owners(&self) {
        self.inner.state.lock().remaps = true;
    }

    /// From now on garbage is collected before every call. The real one does so at its start, after every hundredth
    /// change and in deletions with `sync`: what no image, record or lease refers to may be gone at any moment.
    pub fn collect_garbage_always(&self) {
        self.inner.state.lock().collects_always = true;
    }

    /// Publishes an out-of-memory event of container `id`.
    pub fn oom(&self, id: &str) {
        self.inner.state.lock().publish(&Event::TaskOom { id: id.to_owned() });
    }

    /// Breaks all event streams, as a restart of containerd does.
    pub fn break_streams(&self) {
        self.inner.state.lock().streams.drain(..).for_each(|stream| stream.break_off());
    }

    /// Runs `then` once, when the next call of this name has been done and before its caller hears of it: what may
    /// happen in that moment, happens. One at a time.
    pub fn after(&self, name: &'static str, then: impl FnOnce() + Send + 'static) {
        self.inner.state.lock().after = Some((name, Box::new(then)));
    }

    /// One call: noted, failed if its turn has come, done under the lock.
    fn serve<T>(&self, call: &Call, name: &'static str, act: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let lost = self.arrive(call, name)?;
        let (answer, after) = {
            let mut state = self.inner.state.lock();
            (act(&mut state), state.after.take_if(|(wanted, _)| *wanted == name))
        };
        self.inner.changed.notify_all();
        if let Some((_, then)) = after {
            then();
        }
        lost.map_or(answer, Err)
    }

    /// Notes a call; the error with which its reply gets lost, if it does.
    fn arrive(&self, call: &Call, name: &'static str) -> Result<Option<Error>> {
        call.check()?;
        let mut state = self.inner.state.lock();
        state.calls.push(name);
        let turn = state.calls.len();
        if state.collects_always {
            state.collect_garbage();
        }
        match state.fault.take_if(|(at, _)| *at == turn) {
            Some((_, Fault::Refused)) => Err(Error::new(Kind::Unavailable, format!("fake containerd refuses {name}"))),
            Some((_, Fault::LostReply)) => {
                Ok(Some(Error::new(Kind::Unavailable, format!("fake containerd loses the reply of {name}"))))
            }
            None => Ok(None),
        }
    }

    fn root(&self) -> &Path {
        self.inner.root.as_deref().unwrap_or(Path::new("/nonexistent/fake-containerd"))
    }
}

impl Containerd for Fake {
    fn version(&self, call: &Call) -> Result<Version> {
        self.serve(call, "version", |_| Ok(Version { version: "1.7.0".into(), revision: "fake".into() }))
    }
    fn ensure_namespace(&self, call: &Call) -> Result<()> {
        self.serve(call, "ensure_namespace", |_| Ok(()))
    }
    fn plugins(&self, call: &Call, kind: &str) -> Result<Vec<Plugin>> {
        let snapshotters = SNAPSHOTTERS.map(|id| Plugin {
            kind: "io.containerd.snapshotter.v1".into(),
            id: id.into(),
            exports: Labels::from([("root".into(), self.root().join(id).display().to_string())]),
            capabilities: self.inner.state.lock().remaps.then(|| "remap-ids".to_owned()).into_iter().collect(),
            error: None,
        });
        let all = snapshotters.into_iter().filter(|plugin| kind.is_empty() || plugin.kind == kind).collect();
        self.serve(call, "plugins", |_| Ok(all))
    }

    fn create_container(&self, call: &Call, container: &Record) -> Result<()> {
        self.serve(call, "create_container", |s| s.create_container(container))
    }
    fn container(&self, call: &Call, id: &str) -> Result<Record> {
        self.serve(call, "container", |s| s.container(id).cloned())
    }
    fn containers(&self, call: &Call, filters: &[String]) -> Result<Vec<Record>> {
        self.serve(call, "containers", |s| s.list_containers(filters))
    }
    fn update_container(&self, call: &Call, container: &Record) -> Result<()> {
        self.serve(call, "update_container", |s| s.update_container(container))
    }
    fn delete_container(&self, call: &Call, id: &str) -> Result<()> {
        self.serve(call, "delete_container", |s| s.delete_container(id))
    }

    fn prepare_snapshot(&self, call: &Call, at: &SnapshotRef<'_>, parent: &str, labels: &Labels) -> Result<Vec<Mount>> {
        self.serve(call, "prepare_snapshot", |s| {
            s.make_snapshot(call, at, super::SnapshotKind::Active, parent, labels)?;
            s.mounts(self.root(), at)
        })
    }
    fn view_snapshot(&self, call: &Call, at: &SnapshotRef<'_>, parent: &str, labels: &Labels) -> Result<Vec<Mount>> {
        self.serve(call, "view_snapshot", |s| {
            s.make_snapshot(call, at, super::SnapshotKind::View, parent, labels)?;
            s.mounts(self.root(), at)
        })
    }
    fn snapshot_mounts(&self, call: &Call, at: &SnapshotRef<'_>) -> Result<Vec<Mount>> {
        self.serve(call, "snapshot_mounts", |s| s.mounts(self.root(), at))
    }
    fn commit_snapshot(&self, call: &Call, at: &SnapshotRef<'_>, name: &str, labels: &Labels) -> Result<()> {
        self.serve(call, "commit_snapshot", |s| s.commit_snapshot(call, at, name, labels))
    }
    fn snapshot(&self, call: &Call, at: &SnapshotRef<'_>) -> Result<Snapshot> {
        self.serve(call, "snapshot", |s| s.snapshot(at).cloned())
    }
    fn snapshots(&self, call: &Call, snapshotter: &str) -> Result<Vec<Snapshot>> {
        self.serve(call, "snapshots", |s| s.list_snapshots(snapshotter))
    }
    fn snapshot_usage(&self, call: &Call, at: &SnapshotRef<'_>) -> Result<Usage> {
        self.serve(call, "snapshot_usage", |s| s.snapshot(at).map(|_| Usage { size_bytes: 4096, inodes: 1 }))
    }
    fn remove_snapshot(&self, call: &Call, at: &SnapshotRef<'_>) -> Result<()> {
        self.serve(call, "remove_snapshot", |s| s.remove_snapshot(at))
    }

    fn create_task(&self, call: &Call, task: &NewTask) -> Result<u32> {
        self.serve(call, "create_task", |s| s.create_task(task))
    }
    fn start_task(&self, call: &Call, id: &str, exec_id: Option<&str>) -> Result<u32> {
        self.serve(call, "start_task", |s| s.start_task(id, exec_id))
    }
    fn delete_task(&self, call: &Call, id: &str, exec_id: Option<&str>) -> Result<Exit> {
        self.serve(call, "delete_task", |s| s.delete_task(id, exec_id))
    }
    fn task(&self, call: &Call, id: &str, exec_id: Option<&str>) -> Result<Task> {
        self.serve(call, "task", |s| s.process(id, exec_id).cloned())
    }
    fn tasks(&self, call: &Call) -> Result<Vec<Task>> {
        self.serve(call, "tasks", |s| Ok(s.tasks.values().map(|task| task.first.clone()).collect()))
    }
    fn kill(&self, call: &Call, id: &str, exec_id: Option<&str>, signal: u32, all: bool) -> Result<()> {
        self.serve(call, "kill", |s| s.kill(id, exec_id, signal, all))
    }
    fn exec(&self, call: &Call, exec: &NewExec) -> Result<()> {
        self.serve(call, "exec", |s| s.exec(exec))
    }
    fn resize_pty(&self, call: &Call, id: &str, exec_id: Option<&str>, _width: u32, _height: u32) -> Result<()> {
        self.serve(call, "resize_pty", |s| s.process(id, exec_id).map(drop))
    }
    fn close_stdin(&self, call: &Call, id: &str, exec_id: Option<&str>) -> Result<()> {
        self.serve(call, "close_stdin", |s| s.process(id, exec_id).map(drop))
    }
    fn update_task(&self, call: &Call, id: &str, resources: &[u8]) -> Result<()> {
        self.serve(call, "update_task", |s| s.update_task(id, resources))
    }
    fn wait_task(&self, call: &Call, id: &str, exec_id: Option<&str>) -> Result<Exit> {
        let lost = self.arrive(call, "wait_task")?;
        let mut state = self.inner.state.lock();
        loop {
            if let Some(exit) = state.exit_of(id, exec_id)? {
                return lost.map_or(Ok(exit), Err);
            }
            call.check()?;
            state = self.inner.changed.wait_until(state, call.deadline());
        }
    }

    fn images(&self, call: &Call) -> Result<Vec<ImageRecord>> {
        self.serve(call, "images", |s| Ok(s.images.values().cloned().collect()))
    }
    fn image(&self, call: &Call, name: &str) -> Result<ImageRecord> {
        self.serve(call, "image", |s| s.image(name))
    }
    fn put_image(&self, call: &Call, image: &ImageRecord) -> Result<()> {
        self.serve(call, "put_image", |s| s.put_image(image))
    }
    fn delete_image(&self, call: &Call, name: &str, sync: bool) -> Result<()> {
        self.serve(call, "delete_image", |s| s.delete_image(name, sync))
    }

    fn content(&self, call: &Call, digest: &str) -> Result<Content> {
        self.serve(call, "content", |s| s.content(digest))
    }
    fn contents(&self, call: &Call, digests: &[&str]) -> Result<HashSet<String>> {
        self.serve(call, "contents", |s| Ok(s.contents(digests)))
    }
    fn read_content(&self, call: &Call, digest: &str, max_bytes: u64) -> Result<Vec<u8>> {
        self.serve(call, "read_content", |s| s.read_content(digest, max_bytes))
    }
    fn copy_content(&self, call: &Call, digest: &str, to: &mut dyn Write) -> Result<u64> {
        let bytes = self.serve(call, "copy_content", |s| s.read_content(digest, u64::MAX))?;
        to.write_all(&bytes)?;
        Ok(bytes.len() as u64)
    }
    fn write_content(&self, call: &Call, reference: &str, blob: &Content, from: &mut dyn Source) -> Result<()> {
        // The source is read outside the lock: it may be a pipe.
        let lost = self.arrive(call, "write_content")?;
        let written = content::write(&self.inner.state, call, reference, blob, from);
        lost.map_or(written, Err)
    }
    fn label_content(&self, call: &Call, digest: &str, labels: &Labels) -> Result<()> {
        self.serve(call, "label_content", |s| s.label_content(digest, labels))
    }
    fn apply_layer(&self, call: &Call, layer: &Descriptor, mounts: &[Mount]) -> Result<String> {
        self.serve(call, "apply_layer", |s| s.apply_layer(layer, mounts))
    }

    fn create_lease(&self, call: &Call, id: &str, ttl: Duration) -> Result<()> {
        self.serve(call, "create_lease", |s| s.create_lease(id, ttl))
    }
    fn delete_lease(&self, call: &Call, id: &str, sync: bool) -> Result<()> {
        self.serve(call, "delete_lease", |s| s.delete_lease(id, sync))
    }
    fn leases(&self, call: &Call) -> Result<Vec<String>> {
        self.serve(call, "leases", |s| Ok(s.leases.keys().cloned().collect()))
    }

    fn subscribe(&self) -> Result<Box<dyn EventStream>> {
        self.serve(&Call::unbounded(), "subscribe", |s| Ok(s.subscribe()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str) -> Record {
        Record { id: id.into(), runtime: "io.containerd.runc.v2".into(), ..Record::default() }
    }

    fn call() -> Call {
        Call::unbounded()
    }

    #[test]
    fn a_refused_call_does_nothing_and_a_lost_reply_does_it() {
        let fake = Fake::new();
        fake.fail_at(2, Fault::Refused);
        fake.version(&call()).expect("the first");
        assert!(fake.fault_pending());
        let refused = fake.create_container(&call(), &record("a")).map_err(|e| e.kind());
        assert_eq!((refused, fake.fault_pending()), (Err(Kind::Unavailable), false));
        assert_eq!(fake.leftovers(), Vec::<String>::new());
        fake.fail_at(1, Fault::LostReply);
        let lost = fake.create_container(&call(), &record("a")).map_err(|e| e.kind());
        assert_eq!(lost, Err(Kind::Unavailable));
        assert_eq!(fake.leftovers(), ["container:a"]);
        assert_eq!(fake.calls(), ["version", "create_container", "create_container"]);
    }

    #[test]
    fn a_refused_write_does_not_touch_its_source() {
        let fake = Fake::new();
        let blob = Content { digest: format!("sha256:{}", "0".repeat(64)), size_bytes: 3, ..Content::default() };
        let mut source = &b"abc"[..];
        fake.fail_at(1, Fault::Refused);
        let refused = fake.write_content(&call(), "r", &blob, &mut source).map_err(|e| e.kind());
        assert_eq!((refused, source), (Err(Kind::Unavailable), &b"abc"[..]));
    }

    #[test]
    fn everything_that_exists_is_a_leftover() {
        let fake = Fake::new();
        fake.create_container(&call(), &record("c")).expect("create");
        let task = NewTask { id: "c".into(), ..NewTask::default() };
        fake.create_task(&call(), &task).expect("create");
        fake.start_task(&call(), "c", None).expect("start");
        let exec = NewExec { id: "c".into(), exec_id: "e".into(), ..NewExec::default() };
        fake.exec(&call(), &exec).expect("exec");
        fake.create_lease(&call(), "l", Duration::from_secs(9)).expect("lease");
        let at = SnapshotRef { snapshotter: "overlayfs", key: "s" };
        fake.prepare_snapshot(&call(), &at, "", &Labels::new()).expect("prepare");
        assert_eq!(fake.leftovers(), ["container:c", "task:c", "exec:c/e", "snapshot:s", "lease:l"]);
    }

    #[test]
    fn an_exec_can_end_at_once() {
        let fake = Fake::new();
        fake.create_container(&call(), &record("c")).expect("create");
        fake.create_task(&call(), &NewTask { id: "c".into(), ..NewTask::default() }).expect("create");
        fake.start_task(&call(), "c", None).expect("start");
        fake.execs_exit(Some(3));
        let exec = NewExec { id: "c".into(), exec_id: "e".into(), ..NewExec::default() };
        fake.exec(&call(), &exec).expect("exec");
        fake.start_task(&call(), "c", Some("e")).expect("start");
        assert_eq!(fake.wait_task(&call(), "c", Some("e")).expect("ended").code, 3);
        assert_eq!(fake.task(&call(), "c", None).expect("runs").state, crate::containerd::TaskState::Running);
    }

    #[test]
    fn an_expired_lease_keeps_nothing() {
        let fake = Fake::new();
        fake.collect_garbage_always();
        fake.create_lease(&call(), "old", Duration::ZERO).expect("lease");
        let leased = call().with_lease("old");
        let at = SnapshotRef { snapshotter: "overlayfs", key: "s" };
        let late = fake.prepare_snapshot(&leased, &at, "", &Labels::new()).map_err(|e| e.kind());
        assert_eq!(late, Err(Kind::NotFound));
        fake.prepare_snapshot(&call(), &at, "", &Labels::new()).expect("prepare");
        assert_eq!(fake.snapshot(&call(), &at).map_err(|e| e.kind()), Err(Kind::NotFound));
    }
}
