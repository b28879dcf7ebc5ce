//! UpdatePodSandboxResources: other limits for a pod as a whole.

use cricket_proto::runtime::{UpdatePodSandboxResourcesRequest, UpdatePodSandboxResourcesResponse};

use super::save::save;
use crate::call::Call;
use crate::error::{Context, Result};
use crate::runtime::Runtime;

/// Notes what the pod may use from now on; what is absent stays as it is. The kubelet has changed the pod's control
/// group, which is its own, before it calls.
///
/// # Errors
/// `NotFound`; `FailedPrecondition` for a sandbox that is not ready; otherwise its record cannot be written.
pub fn update_resources(
    rt: &Runtime,
    _: &Call,
    request: UpdatePodSandboxResourcesRequest,
) -> Result<UpdatePodSandboxResourcesResponse> {
    let sandbox = rt.sandboxes.get(&request.pod_sandbox_id)?;
    let joined = sandbox.join()?;
    sandbox.set_limits([request.overhead.into_option(), request.resources.into_option()]);
    save(rt, &sandbox).with_context(|| format!("update pod sandbox {}", sandbox.id))?;
    drop(joined);
    Ok(UpdatePodSandboxResourcesResponse::default())
}
