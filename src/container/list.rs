//! ListContainers: from memory, every second.

use std::collections::HashMap;
use std::sync::Arc;

use cricket_proto::runtime::{ListContainersRequest, ListContainersResponse};

use crate::call::Call;
use crate::encoded::Encoded;
use crate::error::Result;
use crate::ids::SandboxId;
use crate::runtime::Runtime;
use crate::store::Container;

/// runtime.v1: `ListContainersResponse.containers`, `Container.state`.
const CONTAINERS: u32 = 1;
const STATE: u32 = 6;

/// The containers that match every part of the filter. Never leaves the process.
pub fn list(rt: &Runtime, _: &Call, request: ListContainersRequest) -> Result<Encoded<ListContainersResponse>> {
    let filter = request.filter.unwrap_or_default();
    let mut answer = Encoded::default();
    for container in rt.containers.list() {
        let state = container.state().cri();
        let wanted = filter.state.as_ref().is_none_or(|wanted| wanted.state == state.into());
        if wanted && selected(&container, &filter.id, &filter.pod_sandbox_id, &filter.label_selector) {
            answer.push(CONTAINERS, container.listed(), (STATE, state as i32))?;
        }
    }
    Ok(answer)
}

/// Whether it has the id, is of the pod, both as far as they are given, and has all the labels.
pub(super) fn selected(container: &Container, id: &str, pod: &str, labels: &HashMap<String, String>) -> bool {
    container.id.as_str().starts_with(id)
        && container.sandbox_id.as_str().starts_with(pod)
        && labels.iter().all(|(key, value)| container.config.labels.get(key) == Some(value))
}

/// The containers of a pod.
pub fn of_sandbox(rt: &Runtime, sandbox: &SandboxId) -> Vec<Arc<Container>> {
    rt.containers.list().into_iter().filter(|c| c.sandbox_id == *sandbox).collect()
}
