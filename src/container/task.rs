//! Ending a task for good.

use std::time::Duration;

use crate::call::Call;
use crate::containerd::Containerd;
use crate::error::{Context, Idempotent, Kind, Result};

/// SIGKILL, as the kernel numbers it everywhere.
pub const SIGKILL: u32 = 9;
/// How long the kernel may take to end a killed process.
const DEATH_BUDGET: Duration = Duration::from_secs(10);

/// Kills what runs of a task, or of an exec in it, and deletes it. Idempotent; nothing there is success.
pub fn destroy(containerd: &dyn Containerd, call: &Call, id: &str, exec_id: Option<&str>) -> Result<()> {
    // One that has ended is gone with this. The shim has no code of its own for one that runs.
    match containerd.delete_task(call, id, exec_id).or_gone() {
        Ok(()) => return Ok(()),
        Err(e) if matches!(e.kind(), Kind::Unavailable | Kind::DeadlineExceeded | Kind::Canceled) => return Err(e),
        Err(_) => {}
    }
    let all = exec_id.is_none();
    containerd.kill(call, id, exec_id, SIGKILL, all).or_gone().with_context(|| format!("kill task {id}"))?;
    let waited = containerd.wait_task(&call.at_most(DEATH_BUDGET), id, exec_id).or_gone();
    waited.with_context(|| format!("wait for the end of task {id}"))?;
    containerd.delete_task(call, id, exec_id).or_gone().with_context(|| format!("delete task {id}"))
}
