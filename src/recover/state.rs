//! What a container does when a daemon begins: by its status record, which says how far the last one had come, and its task.

use cricket_proto::records::{container_status::Start, ContainerStatus};

use super::UNDO_BUDGET;
use crate::call::Call;
use crate::clock;
use crate::container::{self, KILLED};
use crate::containerd::{Task, TaskState};
use crate::error::{Kind, Result};
use crate::ids::ContainerId;
use crate::runtime::Runtime;
use crate::store::container::Ended;
use crate::store::{record, ContainerState};

/// Whether a start of the container was under way when the last daemon ended, and what it does now. What ended while we
/// were away is called running: it settles like any other.
pub fn of(rt: &Runtime, call: &Call, id: &ContainerId, task: Option<&Task>) -> (bool, Result<ContainerState>) {
    match record::read::<ContainerStatus>(&rt.layout.container_status(id)).map(Option::unwrap_or_default) {
        Ok(status) => {
            let found = Found { rt, id, status: &status };
            (status.start != Start::NONE.into(), found.state(&call.at_most(UNDO_BUDGET), task))
        }
        Err(e) => (false, Err(e)),
    }
}

/// A container, and what the last daemon wrote of it.
struct Found<'a> {
    rt: &'a Runtime,
    id: &'a ContainerId,
    status: &'a ContainerStatus,
}

impl Found<'_> {
    fn state(&self, call: &Call, task: Option<&Task>) -> Result<ContainerState> {
        let Found { rt, id, status } = *self;
        let asked;
        let task = match task {
            // Its shim did not answer in time for the list.
            Some(task) if task.state == TaskState::Unknown => {
                asked = rt.containerd.task(call, id.as_str(), None)?;
                Some(&asked)
            }
            task => task,
        };
        Ok(match (Ended::of_record(status), task.map(|t| (t, t.state))) {
            (Some(ended), None) => ContainerState::Exited(ended),
            // That is written down already, but the rest of it may not be done.
            (Some(ended), Some((task, TaskState::Stopped))) if ended.started_at != 0 => {
                ContainerState::Running { pid: task.pid, started_at: ended.started_at }
            }
            // A start that failed, and was not undone to the end.
            (
                Some(ended),
                Some((_, TaskState::Created | TaskState::Running | TaskState::Paused | TaskState::Stopped)),
            ) => {
                container::destroy(&*rt.containerd, call, id.as_str(), None)?;
                ContainerState::Exited(ended)
            }
            (None, None) if status.started_at == 0 || status.start == Start::RETRACTING.into() => {
                ContainerState::Created
            }
            // It ran, or it may have: it does not run twice.
            (None, None) => {
                let ended = Ended::unseen(status.started_at, clock::now());
                container::record_end(rt, id, &ended);
                ContainerState::Exited(ended)
            }
            // It was not asked to run, and containerd is about to take it back.
            (None, Some(_)) if status.start == Start::CREATING.into() => {
                if let Err(e) = container::destroy(&*rt.containerd, call, id.as_str(), None) {
                    log::info!(
                        "end the task of container {id}, whose start was cut short (the next one tries again): {e}"
                    );
                }
                ContainerState::Created
            }
            // Its start was never acknowledged.
            (None, Some((_, TaskState::Created))) => self.take_back(call)?,
            // As an earlier daemon had it, if not by its own end.
            (None, Some((task, _))) if status.start == Start::RETRACTING.into() && killed(task) => {
                self.take_back(call)?
            }
            (None, Some((task, TaskState::Running | TaskState::Paused | TaskState::Stopped))) => self.alive(task),
            (_, Some((_, TaskState::Unknown))) => ContainerState::Unknown,
        })
    }

    /// Takes away a task that was not started; or finds that it was, by an earlier daemon whose call goes on.
    fn take_back(&self, call: &Call) -> Result<ContainerState> {
        let Found { rt, id, status } = *self;
        // Before it goes: it is killed by that, and the next daemon must not take it for one that had run.
        if let Err(e) = container::mark(rt, id, Start::RETRACTING, status.started_at) {
            log::warn!("container {id}, whose start was cut short: {e}");
        }
        match rt.containerd.delete_task(call, id.as_str(), None) {
            // It was started after all, and has come to its end since we looked: what is deleted otherwise is killed.
            Ok(exit) if exit.at > 0 && exit.code != KILLED => {
                let ended = Ended::exit(status.started_at, exit, false);
                container::record_end(rt, id, &ended);
                return Ok(ContainerState::Exited(ended));
            }
            Err(e) if e.kind() != Kind::NotFound => match rt.containerd.task(call, id.as_str(), None) {
                Ok(task) if task.state == TaskState::Unknown => return Ok(ContainerState::Unknown),
                Ok(task) if !(task.state == TaskState::Created || killed(&task)) => return Ok(self.alive(&task)),
                _ => container::destroy(&*rt.containerd, call, id.as_str(), None)?,
            },
            Ok(_) | Err(_) => {}
        }
        Ok(ContainerState::Created)
    }

    /// It was started, and if nobody wrote that down, the next daemon is to know.
    fn alive(&self, task: &Task) -> ContainerState {
        let Found { rt, id, status } = *self;
        let started_at = if status.started_at == 0 { clock::now() } else { status.started_at };
        let state = ContainerState::Running { pid: task.pid, started_at };
        if status.started_at == 0 || status.start != Start::NONE.into() {
            container::record_running(rt, id, &state);
        }
        state
    }
}

fn killed(task: &Task) -> bool {
    task.state == TaskState::Stopped && task.exit.code == KILLED
}
