//! A container's first process ended: settle it, once.

use std::time::{Duration, Instant};

use crate::call::Call;
use crate::cgroup;
use crate::clock;
use crate::containerd::{Exit, TaskState};
use crate::error::{Error, Idempotent, Kind, Result};
use crate::runtime::Runtime;
use crate::store::container::Ended;
use crate::store::record::{self, Durability};
use crate::store::{Container, ContainerState};

/// How long deleting the task may take before we go on without: a hung shim must not hide an exit.
const DELETE_BUDGET: Duration = Duration::from_secs(10);
/// How long the shim may take to close the output after the task is deleted.
const DRAIN_BUDGET: Duration = Duration::from_secs(2);
/// 128 + SIGKILL.
const KILLED: u32 = 137;

/// Settles an exit that [`Container::begin_settle`] gave us: the task is deleted, the log is complete, the status is on
/// disk; then the container is EXITED. Blocks up to the budgets above; fails only in the log.
pub fn settle(rt: &Runtime, container: &Container, exit: Exit) {
    let id = container.id.as_str();
    // The counter goes with the cgroup, which goes with the task.
    let oom =
        container.saw_oom() || (exit.code == KILLED && container.oom_file().is_some_and(|f| cgroup::oom_kills(&f) > 0));
    if let Err(e) = rt.containerd.delete_task(&Call::within(DELETE_BUDGET), id, None).or_gone() {
        log::warn!("container {id} ended, but its task cannot be deleted (its removal will try again): {e}");
    }
    end_with(rt, container, Ended::exit(started_at(container), exit, oom));
}

/// The common end: output drained, status on disk, state set.
fn end_with(rt: &Runtime, container: &Container, ended: Ended) {
    let id = container.id.as_str();
    if let Err(e) = rt.hub.finish(id, Instant::now() + DRAIN_BUDGET) {
        log::warn!("log of container {id}: {e}");
    }
    let state = ContainerState::Exited(ended.clone());
    if let Err(e) = record::write(&rt.layout.container_status(&container.id), &state.record(), Durability::Disk) {
        log::error!("container {id} ended with code {}, which a restart of cricket will not know: {e}", ended.code);
    }
    container.set_exited(ended);
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
            if container.begin_settle(task.exit) {
                settle(rt, container, task.exit);
            }
            Ok(())
        }
        Ok(_) => Ok(()),
        Err(e) if e.kind() == Kind::NotFound => {
            let at = clock::now();
            if container.begin_settle(Exit { code: u32::from(u8::MAX), at }) {
                end_with(rt, container, Ended::unseen(started_at(container), at));
            }
            Ok(())
        }
        Err(e) => Err(Error::context(e, format_args!("ask for the task of container {}", container.id))),
    }
}
