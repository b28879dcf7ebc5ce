//! StopPodSandbox: its containers end, its network is given back.

use cricket_proto::runtime::{StopPodSandboxRequest, StopPodSandboxResponse};

use crate::call::Call;
use crate::container;
use crate::error::{Context, Result};
use crate::runtime::Runtime;
use crate::sandbox::teardown;
use crate::store::record::{self, Durability};
use crate::store::{Sandbox, SandboxState};

/// Kills the pod's containers and takes its namespaces and network down. Idempotent: a repeated call goes on where the
/// last one failed, and a missing sandbox is success.
pub fn stop(rt: &Runtime, call: &Call, request: StopPodSandboxRequest) -> Result<StopPodSandboxResponse> {
    if let Some(sandbox) = rt.sandboxes.find(&request.pod_sandbox_id)? {
        stop_sandbox(rt, call, &sandbox).with_context(|| format!("stop pod sandbox {}", sandbox.id))?;
    }
    Ok(StopPodSandboxResponse::default())
}

/// As [`stop`], for a sandbox at hand.
pub fn stop_sandbox(rt: &Runtime, call: &Call, sandbox: &Sandbox) -> Result<()> {
    let was_ready = sandbox.state() == SandboxState::Ready;
    // From here on no container may join, and a daemon that is killed midway does not call it ready again.
    sandbox.set_not_ready();
    if was_ready {
        record::write(&rt.layout.sandbox_record(&sandbox.id), &sandbox.record(), Durability::Memory)?;
    }
    container::kill_all(rt, call, &sandbox.id)?;
    teardown::teardown(rt, call, &sandbox.id, &sandbox.config)
}
