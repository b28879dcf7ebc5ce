//! Ending a task for good.

use std::time::Duration;

use crate::call::Call;
use crate::containerd::Containerd;
use crate::error::{Context, Idempotent, Kind, Result};

/// SIGKILL, as the kernel numbers it everywhere.
pub const SIGKILL: u32 = 9;
/// How long the kernel may take to end a killed process.
const DEATH_BUDGET: Duration = Duration::from_secs(10);

/// Kills what runs of a task and deletes it. Idempotent; no task is success.
pub fn destroy(containerd: &dyn Containerd, call: &Call, id: &str) -> Result<()> {
    match containerd.delete_task(call, id, None).or_gone() {
        // It still runs.
        Err(e) if e.kind() == Kind::FailedPrecondition => {}
        done => return done.with_context(|| format!("delete task {id}")),
    }
    containerd.kill(call, id, None, SIGKILL, true).or_gone().with_context(|| format!("kill task {id}"))?;
    containerd.wait_task(&call.at_most(DEATH_BUDGET), id, None).or_gone().with_context(|| format!("wait for task {id}"))?;
    containerd.delete_task(call, id, None).or_gone().with_context(|| format!("delete task {id}"))
}
