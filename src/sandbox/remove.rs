//! RemovePodSandbox: stops it, removes its containers, forgets it.

use cricket_proto::runtime::{ContainerEventType, RemovePodSandboxRequest, RemovePodSandboxResponse};

use crate::call::Call;
use crate::container;
use crate::error::{Context, Result};
use crate::runtime::Runtime;
use crate::sandbox::stop::{begin, stop_sandbox};
use crate::store::{record, Sandbox};

/// Removes a sandbox and what is left of its containers. Idempotent; a missing sandbox is success.
pub fn remove(rt: &Runtime, call: &Call, request: RemovePodSandboxRequest) -> Result<RemovePodSandboxResponse> {
    if let Some(sandbox) = rt.sandboxes.find(&request.pod_sandbox_id)? {
        remove_sandbox(rt, call, &sandbox).with_context(|| format!("remove pod sandbox {}", sandbox.id))?;
    }
    Ok(RemovePodSandboxResponse::default())
}

fn remove_sandbox(rt: &Runtime, call: &Call, sandbox: &Sandbox) -> Result<()> {
    let ending = begin(call, sandbox)?;
    stop_sandbox(rt, call, sandbox, &ending)?;
    for container in container::of_sandbox(rt, &sandbox.id) {
        container::remove_container(rt, call, &container)?;
    }
    let root = rt.layout.sandbox_root(&sandbox.id);
    record::remove_dir(&root).with_context(|| format!("remove {}", root.display()))?;
    rt.tell(ContainerEventType::CONTAINER_DELETED_EVENT, sandbox.id.as_str(), &sandbox.id);
    rt.sandboxes.remove(sandbox.id.as_str());
    Ok(())
}
