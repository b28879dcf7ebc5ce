//! StopPodSandbox: its containers end, its network is given back.

use std::time::Duration;

use cricket_proto::runtime::{ContainerEventType, StopPodSandboxRequest, StopPodSandboxResponse};

use crate::call::Call;
use crate::container;
use crate::error::{Context, Result};
use crate::runtime::Runtime;
use crate::sandbox::save::save;
use crate::sandbox::teardown;
use crate::store::sandbox::Ending;
use crate::store::Sandbox;

/// How long to wait for others at work in the pod where the client set no deadline.
const PATIENCE: Duration = Duration::from_secs(120);

/// Kills the pod's containers and takes its namespaces and network down. Idempotent: a repeated call goes on where the
/// last one failed, and a missing sandbox is success. Waits for containers that are being created or started in it.
pub fn stop(rt: &Runtime, call: &Call, request: StopPodSandboxRequest) -> Result<StopPodSandboxResponse> {
    if let Some(sandbox) = rt.sandboxes.find(&request.pod_sandbox_id)? {
        let ending = begin(call, &sandbox)?;
        stop_sandbox(rt, call, &sandbox, &ending).with_context(|| format!("stop pod sandbox {}", sandbox.id))?;
    }
    Ok(StopPodSandboxResponse::default())
}

/// Keeps everybody else out until the guard is dropped.
pub fn begin<'a>(call: &Call, sandbox: &'a Sandbox) -> Result<Ending<'a>> {
    let ending = sandbox.begin_end(&call.at_most(PATIENCE));
    ending.with_context(|| format!("pod sandbox {} is busy", sandbox.id))
}

/// As [`stop`], for a sandbox at hand.
pub fn stop_sandbox(rt: &Runtime, call: &Call, sandbox: &Sandbox, ending: &Ending<'_>) -> Result<()> {
    if ending.was_ready {
        // So that a daemon that is killed midway does not call it ready again. Where that cannot be written it is told to be
        // ready until it is down, which the next one sees.
        match save(rt, sandbox) {
            Ok(()) => ending.set_not_ready(),
            Err(e) => log::warn!("pod sandbox {} stops, which cricket could not write down: {e}", sandbox.id),
        }
    }
    container::kill_all(rt, call, &sandbox.id)?;
    if !ending.is_down() {
        teardown::teardown(rt, call, sandbox)?;
        ending.set_down();
        rt.tell(ContainerEventType::CONTAINER_STOPPED_EVENT, sandbox.id.as_str(), &sandbox.id);
    }
    Ok(())
}
