//! After a start: the stores are rebuilt from the records, and what was left half-made is undone.
//!
//! A sandbox is what its record says; a container is what containerd's record says, together with its task and our
//! status file. Directories and snapshots without a record are left-overs of a killed daemon.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;

use cricket_proto::records::{self, sandbox::Phase, ContainerStatus};
use protobuf::Message;

use crate::call::Call;
use crate::cgroup;
use crate::clock;
use crate::container::{self, METADATA_TYPE, OWN_SNAPSHOT};
use crate::containerd::{Record, SnapshotRef, Task, TaskState};
use crate::error::{Context, Error, Idempotent, Kind, Result};
use crate::ids::SandboxId;
use crate::runtime::Runtime;
use crate::sandbox;
use crate::store::container::{reserved_name as container_name, Ended};
use crate::store::record;
use crate::store::sandbox::reserved_name as sandbox_name;
use crate::store::{Container, ContainerState, Sandbox, SandboxState};

/// Rebuilds the stores. Blocks; called once, before any request is served.
///
/// # Errors
/// Only if containerd or our directories cannot be read at all; trouble with one object is logged, and the object is
/// kept in a state that lets the kubelet remove it.
pub fn recover(rt: &Runtime, call: &Call) -> Result<()> {
    for id in entries(&rt.layout.sandboxes())? {
        if let Err(e) = recover_sandbox(rt, call, &SandboxId::from_record(&id)) {
            log::error!("pod sandbox {id} cannot be recovered: {e}");
        }
    }
    let tasks: HashMap<String, Task> = rt.containerd.tasks(call)?.into_iter().map(|t| (t.id.clone(), t)).collect();
    let records = rt.containerd.containers(call, &[])?;
    for record in &records {
        if let Err(e) = recover_container(rt, call, record, tasks.get(&record.id)) {
            log::error!("container {} cannot be recovered: {e}", record.id);
        }
    }
    sweep(rt, call, &records)
}

/// The names in a directory; none if it does not exist.
fn entries(dir: &Path) -> Result<Vec<String>> {
    let read = match fs::read_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read.with_context(|| format!("read {}", dir.display()))?,
    };
    read.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<std::io::Result<_>>()
        .map_err(Error::from)
}

fn recover_sandbox(rt: &Runtime, call: &Call, id: &SandboxId) -> Result<()> {
    let root = rt.layout.sandbox_root(id);
    let Some(record) = record::read::<records::Sandbox>(&rt.layout.sandbox_record(id))? else {
        // Killed before the record, or after its removal: nothing else of it exists.
        return fs::remove_dir_all(&root).or_gone().with_context(|| format!("remove {}", root.display()));
    };
    let half_made = record.phase == Phase::PREPARING.into();
    let sandbox = Sandbox::from_record(&record, SandboxState::NotReady);
    if half_made {
        match sandbox::teardown(rt, call, id, &sandbox.config) {
            Ok(()) => return fs::remove_dir_all(&root).or_gone().with_context(|| format!("remove {}", root.display())),
            Err(e) => log::warn!("half-made pod sandbox {id} is kept, not ready, until it can be stopped: {e}"),
        }
    }
    let stands = record.phase == Phase::READY.into() && sandbox::stands(rt, &sandbox);
    let name = sandbox_name(&sandbox.config)?;
    let slot = rt.sandboxes.reserve(&name, id.as_str())?;
    slot.fill(if stands { Sandbox::ready(&record) } else { sandbox });
    Ok(())
}

fn recover_container(rt: &Runtime, call: &Call, record: &Record, task: Option<&Task>) -> Result<()> {
    let Some(metadata) = record.extensions.get(METADATA_TYPE) else {
        // Somebody else's, in our namespace.
        return Ok(());
    };
    let damaged = |e| Error::caused(Kind::Internal, "its metadata is damaged", e);
    let metadata = records::Container::parse_from_bytes(&metadata.value).map_err(damaged)?;
    let container = Container::from_record(&record.id, &metadata, ContainerState::Created);
    let status: ContainerStatus = record::read(&rt.layout.container_status(&container.id))?.unwrap_or_default();
    let seen = task.map(|t| t.state);
    let state = match (ended(&status), seen) {
        (Some(ended), None) => ContainerState::Exited(ended),
        (Some(_), Some(_)) | (None, Some(TaskState::Unknown)) => ContainerState::Unknown,
        (None, None) if status.started_at == 0 => ContainerState::Created,
        (None, None) => ContainerState::Exited(Ended::unseen(status.started_at, clock::now())),
        // The start was never acknowledged: the kubelet starts it again.
        (None, Some(TaskState::Created)) => {
            container::destroy(&*rt.containerd, call, &record.id, None)?;
            ContainerState::Created
        }
        (None, Some(TaskState::Running | TaskState::Paused | TaskState::Stopped)) => {
            let started_at = if status.started_at == 0 { clock::now() } else { status.started_at };
            ContainerState::Running { pid: task.map_or(0, |t| t.pid), started_at }
        }
    };
    let container = Container::from_record(&record.id, &metadata, state);
    if let (ContainerState::Running { pid, .. }, Some(task)) = (container.state(), task) {
        container.set_oom_file(cgroup::oom_file(pid));
        if let Err(e) = container::reattach(rt, &container, task) {
            log::error!("the output of container {} cannot be read any more: {e}", record.id);
        }
    }
    let sandbox = rt.sandboxes.find(container.sandbox_id.as_str())?;
    let pod = sandbox.map(|s| s.config.metadata.clone().unwrap_or_default()).unwrap_or_default();
    let slot = rt.containers.reserve(&container_name(&container.config, &pod)?, &record.id)?;
    let container = slot.fill(container);
    // One that ended while we were away settles as ever.
    container::reconcile(rt, call, &container)
}

fn ended(status: &ContainerStatus) -> Option<Ended> {
    (status.finished_at != 0).then(|| Ended {
        started_at: status.started_at,
        finished_at: status.finished_at,
        code: status.exit_code,
        reason: status.reason.clone(),
        message: status.message.clone(),
    })
}

/// Removes directories and snapshots of containers that have no record.
fn sweep(rt: &Runtime, call: &Call, records: &[Record]) -> Result<()> {
    let whole: HashSet<&str> = records.iter().map(|r| r.id.as_str()).collect();
    for parent in rt.layout.containers() {
        for id in entries(&parent)?.iter().filter(|id| !whole.contains(id.as_str())) {
            log::info!("removing {}: its container has no record", parent.join(id).display());
            if let Err(e) = fs::remove_dir_all(parent.join(id)) {
                log::warn!("remove {}: {e}", parent.join(id).display());
            }
        }
    }
    let snapshotters: HashSet<&str> = rt.config.runtimes.values().map(|h| rt.config.snapshotter(h)).collect();
    for snapshotter in snapshotters {
        for snapshot in rt.containerd.snapshots(call, snapshotter)? {
            if snapshot.labels.contains_key(OWN_SNAPSHOT) && !whole.contains(snapshot.key.as_str()) {
                log::info!("removing snapshot {}: its container has no record", snapshot.key);
                let at = SnapshotRef { snapshotter, key: &snapshot.key };
                if let Err(e) = rt.containerd.remove_snapshot(call, &at).or_gone() {
                    log::warn!("remove snapshot {}: {e}", snapshot.key);
                }
            }
        }
    }
    Ok(())
}

/// Compares what may run with what containerd says runs, and settles the exits that were missed. After every
/// (re)connect: the event stream has no memory.
pub fn reconcile(rt: &Runtime, call: &Call) -> Result<()> {
    let tasks = rt.containerd.tasks(call)?;
    let alive = |t: &&Task| matches!(t.state, TaskState::Created | TaskState::Running | TaskState::Paused);
    let alive: HashSet<&str> = tasks.iter().filter(alive).map(|t| t.id.as_str()).collect();
    for container in rt.containers.list() {
        if container.state().may_run() && !alive.contains(container.id.as_str()) {
            container::reconcile(rt, call, &container)?;
        }
    }
    Ok(())
}
