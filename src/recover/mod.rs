//! After a start: the stores are rebuilt from the records, and what was left half-made is undone.
//!
//! A sandbox is what its record says; a container is what containerd's record says, together with its task and our
//! status file. Directories and snapshots without a record are left-overs of a killed daemon.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use cricket_proto::records::{self, sandbox::Phase};

use crate::call::Call;
use crate::cgroup;
use crate::cni::Left;
use crate::container::{self, METADATA_TYPE};
use crate::containerd::{Record, Task, TaskState};
use crate::error::{Context, Error, Idempotent, Kind, Result};
use crate::ids::{ContainerId, SandboxId};
use crate::runtime::Runtime;
use crate::sandbox;
use crate::store::container::reserved_name as container_name;
use crate::store::later::Errand;
use crate::store::record;
use crate::store::sandbox::reserved_name as sandbox_name;
use crate::store::{Container, ContainerState, Sandbox, SandboxState};
use crate::sys::tree;
use crate::workers;

pub mod errands;
pub mod orphans;
mod state;

use errands::SETTLED;
use orphans::Place;

/// How long one object may hold up the others.
const UNDO_BUDGET: Duration = Duration::from_secs(10);

/// Rebuilds the stores. Blocks; called once, before any request is served. Objects are looked at side by side, and each
/// is given a bounded time, so that one whose shim hangs does not hold up the others.
///
/// # Errors
/// If containerd or our directories cannot be read at all, or a record is of a newer cricket: nothing is served then, for
/// what we cannot read would be made again. Other trouble with one object is logged, and the object is kept in a state
/// that lets the kubelet remove it.
pub fn recover(rt: &Runtime, call: &Call) -> Result<()> {
    let plugins = LazyLock::new(Left::find as fn() -> Left);
    let sandboxes = rt.layout.sandboxes();
    workers::each("recover", &names(&sandboxes)?, |id| {
        unless_newer(recover_sandbox(rt, call, &SandboxId::from_record(id), &plugins), |e| {
            log::error!("pod sandbox {id} cannot be recovered: {e}");
        })
    })?;
    // What a killed daemon was removing, and what was left of it just now: from here on it is told that it is gone.
    record::sync_dir(&sandboxes).or_gone().with_context(|| format!("write out {}", sandboxes.display()))?;
    let tasks: HashMap<String, Task> = rt.containerd.tasks(call)?.into_iter().map(|t| (t.id.clone(), t)).collect();
    let records = rt.containerd.containers(call, &[])?;
    if let Err(e) = rt.shipped.sweep(records.iter().map(|record| record.runtime.as_str())) {
        log::warn!("old versions of the shim: {e}");
    }
    workers::each("recover", &records, |record| {
        unless_newer(recover_container(rt, call, record, tasks.get(&record.id)), |e| {
            log::error!("container {} cannot be recovered: {e}", record.id);
        })
    })?;
    if let Err(e) = sandbox::sweep_pause_roots(rt) {
        log::warn!("sweep what sandbox processes of other versions ran from: {e}");
    }
    let orphans = orphans::find(&Place::of(rt), call, || Ok(records))?;
    // What does not go is told of there, and an earlier daemon may have asked containerd for something that is done only
    // now: both are looked for again.
    orphans::remove_all(rt, call, &orphans).ok();
    rt.later.add_after(Errand::Sweep, SETTLED);
    Ok(())
}

/// What is wrong with one object is told, and is no reason to stop; unless its record is of a newer cricket, which alone is
/// `Unimplemented` here.
fn unless_newer(done: Result<()>, tell: impl FnOnce(Error)) -> Result<()> {
    match done {
        Err(e) if e.kind() == Kind::Unimplemented => Err(e),
        Err(e) => {
            tell(e);
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// The names in a directory; none if it does not exist.
fn names(dir: &Path) -> Result<Vec<String>> {
    let paths = tree::entries(dir).with_context(|| format!("read {}", dir.display()))?;
    Ok(paths.iter().filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect())
}

/// `plugins` are looked for only if they may be at work: not for a sandbox that stands, nor for none.
fn recover_sandbox(rt: &Runtime, call: &Call, id: &SandboxId, plugins: &LazyLock<Left>) -> Result<()> {
    if rt.sandboxes.exact(id.as_str()).is_some() {
        return Ok(());
    }
    let (mut known, root) = (true, rt.layout.sandbox_root(id));
    let record = match record::read::<records::Sandbox>(&rt.layout.sandbox_record(id)) {
        Ok(record) => {
            known = record.as_ref().is_some_and(|record| record.config.is_some());
            record.unwrap_or_default()
        }
        // Unreadable, not of a newer cricket.
        Err(e) if e.kind() != Kind::Unimplemented => {
            let aside = set_aside(rt, id)?;
            log::error!("pod sandbox {id} is taken down: {e}; its record is kept as {}", aside.display());
            records::Sandbox::default()
        }
        Err(e) => return Err(e.context(format_args!("pod sandbox {id}"))),
    };
    // Without a readable record, or half made: to be undone. An empty record is of that phase.
    let record = records::Sandbox { id: id.to_string(), ..record };
    let sandbox = Sandbox::from_record(&record, SandboxState::NotReady);
    if record.phase != Phase::READY.into() {
        plugins.end(id.as_str()).unwrap_or_else(|e| log::warn!("network of pod sandbox {id}: {e}"));
    }
    if record.phase == Phase::PREPARING.into() {
        let undone = sandbox::teardown(rt, &call.at_most(UNDO_BUDGET), &sandbox);
        if let Err(e) = &undone {
            log::warn!("half-made pod sandbox {id} is left until it can be stopped, or swept: {e}");
        }
        // Nobody was told of one without a record, or it was being forgotten: what is left of it, if anything, is swept.
        if undone.is_ok() || !known {
            return fs::remove_dir_all(&root).or_gone().with_context(|| format!("remove {}", root.display()));
        }
    }
    let stands = record.phase == Phase::READY.into() && sandbox::stands(rt, &sandbox);
    let name = sandbox_name(&sandbox.config).unwrap_or_else(|_| id.to_string());
    let slot = rt.sandboxes.reserve(&name, id.as_str())?;
    slot.fill(if stands { Sandbox::ready(&record) } else { sandbox });
    Ok(())
}

/// Keeps a damaged record for whoever wants to know what it was.
fn set_aside(rt: &Runtime, id: &SandboxId) -> Result<PathBuf> {
    let (dir, record) = (rt.layout.damaged(), rt.layout.sandbox_record(id));
    let aside = dir.join(format!("sandbox-{id}"));
    let made = fs::DirBuilder::new().mode(0o700).recursive(true).create(&dir);
    made.and_then(|()| fs::rename(&record, &aside)).with_context(|| format!("set {} aside", record.display()))?;
    Ok(aside)
}

fn recover_container(rt: &Runtime, call: &Call, record: &Record, task: Option<&Task>) -> Result<()> {
    let Some(metadata) = record.extensions.get(METADATA_TYPE) else {
        // Somebody else's, in our namespace.
        return Ok(());
    };
    if rt.containers.exact(&record.id).is_some() {
        return Ok(());
    }
    let metadata: records::Container = record::parse(&metadata.value).context("its metadata")?;
    let id = ContainerId::from_record(&record.id);
    if container::was_removing(rt, &id) {
        log::info!("container {id}: its removal is finished");
        let container = Container::from_record(&record.id, &metadata, ContainerState::Created);
        return container::remove_container(rt, &call.at_most(UNDO_BUDGET), &container);
    }
    let (starting, state) = state::of(rt, call, &id, task);
    let state = match state {
        Err(e) if e.kind() == Kind::Unimplemented => return Err(e),
        Err(e) => {
            log::error!("container {id} is in an unknown state until it is stopped or removed, or can be asked: {e}");
            ContainerState::Unknown
        }
        Ok(state) => state,
    };
    if state == ContainerState::Unknown {
        rt.later.add(Errand::Ask(id.to_string()));
    }
    let container = Container::from_record(&record.id, &metadata, state);
    if starting {
        container.set_cut_short();
    }
    match container::recorded_resources(rt, &container) {
        Ok(Some(resources)) => container.set_resources(resources),
        Ok(None) => {}
        Err(e) => log::error!("container {} is shown with the limits it was created with: {e}", record.id),
    }
    take_up(rt, &container, &record.runtime);
    let sandbox = rt.sandboxes.exact(container.sandbox_id.as_str());
    let name = sandbox.and_then(|sandbox| container_name(&container.config, &sandbox.config.metadata).ok());
    let slot = rt.containers.reserve(&name.unwrap_or_else(|| record.id.clone()), &record.id)?;
    slot.fill(container);
    Ok(())
}

/// What goes on with a container that runs: its output, and the counting of what the kernel kills in it.
fn take_up(rt: &Runtime, container: &Container, shim: &str) {
    if let ContainerState::Running { pid, .. } = container.state() {
        container.set_oom_file(cgroup::oom_file(pid));
        if let Err(e) = container::reattach(rt, container, shim) {
            log::error!("the output of container {} cannot be read any more: {e}", container.id);
        }
    }
}

/// Compares what may run with what containerd says runs, and settles the exits that were missed. After every
/// (re)connect: the event stream has no memory. What is left of containers that have ended goes.
///
/// # Errors
/// If containerd cannot be asked at all; trouble with one container is logged, and a stop of it tries again.
pub fn reconcile(rt: &Runtime, call: &Call) -> Result<()> {
    let tasks = rt.containerd.tasks(call)?;
    let alive = |t: &&Task| matches!(t.state, TaskState::Created | TaskState::Running | TaskState::Paused);
    let alive: HashSet<&str> = tasks.iter().filter(alive).map(|t| t.id.as_str()).collect();
    let mut missed = rt.containers.list();
    missed.retain(|container| container.state().may_run() && !alive.contains(container.id.as_str()));
    workers::each("reconcile", &missed, |container| {
        call.check()?;
        match container::reconcile(rt, &call.at_most(UNDO_BUDGET), container) {
            Err(e) if e.kind() == Kind::Unavailable => return Err(e),
            Err(e) => log::warn!("container {}: {e}", container.id),
            Ok(()) => {}
        }
        Ok(())
    })?;
    for task in &tasks {
        let ended = |c: &Arc<Container>| matches!(c.state(), ContainerState::Exited(_));
        if rt.containers.exact(&task.id).as_ref().is_some_and(ended) {
            // containerd was away when it was to go, or the disk was full: then the task is all that knows of the end.
            if let Err(e) = errands::settle(rt, &call.at_most(UNDO_BUDGET), &task.id) {
                log::warn!("task of container {}, which has ended (it is tried again): {e}", task.id);
                rt.later.add(Errand::Settle(task.id.clone()));
            }
        }
    }
    for sandbox in rt.sandboxes.list() {
        if sandbox.process && sandbox.state() == SandboxState::Ready {
            match tasks.iter().find(|t| t.id == sandbox.id.as_str()) {
                Some(task) if alive.contains(task.id.as_str()) => sandbox.set_pid(task.pid),
                _ => sandbox::reconcile_process(rt, &call.at_most(UNDO_BUDGET), &sandbox)?,
            }
        }
    }
    Ok(())
}
