//! A container's first process ended: settle it, once.

use std::time::{Duration, Instant};

use cricket_proto::records::ContainerStatus;
use cricket_proto::runtime::ContainerEventType;

use crate::call::Call;
use crate::cgroup;
use crate::clock;
use crate::containerd::{Exit, TaskState};
use crate::error::{Error, Idempotent, Kind, Result};
use crate::ids::ContainerId;
use crate::runtime::Runtime;
use crate::store::container::{Ended, Settling};
use crate::store::later::Errand;
use crate::store::record::{self, Durability};
use crate::store::{Container, ContainerState};

/// How long deleting the task may take before we go on without: a hung shim must not hide an exit.
const DELETE_BUDGET: Duration = Duration::from_secs(10);
/// How long the shim may take to close the output after the task is deleted.
const DRAIN_BUDGET: Duration = Duration::from_secs(2);
/// 128 + SIGKILL.
pub const KILLED: u32 = 137;

/// Settles an exit: the status is on disk, the task is deleted, the log is complete; then the container is EXITED.
/// Blocks up to the budgets above; fails only in the log. A status that an earlier daemon wrote stays: somebody may have
/// seen it.
pub fn settle(rt: &Runtime, settling: Settling<'_>) {
    let (container, exit) = (settling.container(), settling.exit());
    let id = container.id.as_str();
    // The counter goes with the cgroup, which goes with the task.
    let counted = || container.oom_file().is_some_and(|file| cgroup::oom_kills(&file) > 0);
    let oom = container.saw_oom() || (exit.code == KILLED && counted());
    // Before the task goes, which is all that knows of it besides.
    let (ended, written) = recorded(rt, container, || Ended::exit(started_at(container), exit, oom));
    if written {
        if let Err(e) = rt.containerd.delete_task(&Call::within(DELETE_BUDGET), id, None).or_gone() {
            log::warn!("container {id} ended, but its task cannot be deleted (it is tried again): {e}");
            rt.later.add(Errand::Settle(id.to_owned()));
        }
    }
    end_with(rt, settling, ended);
}

/// The common end of what is on disk, or will be: output drained, state set.
fn end_with(rt: &Runtime, settling: Settling<'_>, ended: Ended) {
    let container = settling.container();
    if let Err(e) = rt.hub.finish(container.id.as_str(), Instant::now() + DRAIN_BUDGET) {
        log::warn!("log of container {}: {e}", container.id);
    }
    settling.exited(ended);
    rt.tell(ContainerEventType::CONTAINER_STOPPED_EVENT, container.id.as_str(), &container.sandbox_id);
}

/// Writes down how a container ended, for good.
///
/// # Errors
/// `ResourceExhausted` on a full disk, or whatever else is in the way.
pub fn write_end(rt: &Runtime, id: &ContainerId, ended: &Ended) -> Result<()> {
    let record = ContainerState::Exited(ended.clone()).record();
    let written = record::write(&rt.layout.container_status(id), &record, Durability::Disk);
    written.map_err(|e| e.context(format_args!("write down how container {id} ended")))
}

/// The same; if it cannot be done now it is done later, and its task must stay until then. Whether it is done.
pub fn record_end(rt: &Runtime, id: &ContainerId, ended: &Ended) -> bool {
    let written = write_end(rt, id, ended);
    if let Err(e) = &written {
        log::error!("a restart of cricket would not know (it is tried again): {e}");
        rt.later.add(Errand::Settle(id.to_string()));
    }
    written.is_ok()
}

/// Writes down that a container runs. For our own restart only: a power cut ends it anyway.
pub fn record_running(rt: &Runtime, id: &ContainerId, state: &ContainerState) {
    if let Err(e) = record::write(&rt.layout.container_status(id), &state.record(), Durability::Memory) {
        log::warn!("container {id} runs, but its start cannot be recorded: {e}");
    }
}

/// How a container ended: as an earlier daemon wrote it down, since somebody may have seen that, or as `now` has it, which is
/// written down; and whether it is on disk.
fn recorded(rt: &Runtime, container: &Container, now: impl FnOnce() -> Ended) -> (Ended, bool) {
    let id = &container.id;
    match record::read::<ContainerStatus>(&rt.layout.container_status(id)) {
        Ok(record) => {
            if let Some(ended) = record.as_ref().and_then(Ended::of_record) {
                return (ended, true);
            }
        }
        Err(e) => log::warn!("the end of container {id} is written down anew: {e}"),
    }
    let ended = now();
    let written = record_end(rt, id, &ended);
    (ended, written)
}

fn started_at(container: &Container) -> i64 {
    match container.state() {
        ContainerState::Running { started_at, .. } => started_at,
        _ => 0,
    }
}

/// Asks containerd what became of a container that may run, and settles what we missed.
///
/// For every suspicion that an event was lost: after a reconnect, when a kill finds nothing to kill, when a stop waits
/// in vain.
pub fn reconcile(rt: &Runtime, call: &Call, container: &Container) -> Result<()> {
    if !container.state().may_run() {
        return Ok(());
    }
    match rt.containerd.task(call, container.id.as_str(), None) {
        Ok(task) if task.state == TaskState::Stopped => {
            if let Some(settling) = container.begin_settle(task.pid, task.exit) {
                settle(rt, settling);
            }
            Ok(())
        }
        Ok(_) => Ok(()),
        Err(e) if e.kind() == Kind::NotFound => {
            let at = clock::now();
            if let Some(settling) = container.begin_settle(0, Exit { code: u32::from(u8::MAX), at }) {
                let (ended, _) = recorded(rt, container, || Ended::unseen(started_at(container), at));
                end_with(rt, settling, ended);
            }
            Ok(())
        }
        Err(e) => Err(Error::context(e, format_args!("ask for the task of container {}", container.id))),
    }
}
