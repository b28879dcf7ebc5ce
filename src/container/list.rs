//! ListContainers: from memory, every second.

use std::collections::HashMap;
use std::sync::Arc;

use cricket_proto::runtime::{self, ListContainersRequest, ListContainersResponse};

use crate::call::Call;
use crate::error::Result;
use crate::ids::SandboxId;
use crate::runtime::Runtime;
use crate::store::Container;

/// The containers that match every part of the filter. Never leaves the process.
pub fn list(rt: &Runtime, _: &Call, request: ListContainersRequest) -> Result<ListContainersResponse> {
    let filter = request.filter.unwrap_or_default();
    let matches = |container: &Container| {
        selected(container, &filter.id, &filter.pod_sandbox_id, &filter.label_selector)
            && filter.state.as_ref().is_none_or(|wanted| wanted.state == container.state().cri().into())
    };
    let containers = rt.containers.list().iter().filter(|c| matches(c)).map(|c| item(c)).collect();
    Ok(ListContainersResponse { containers, ..Default::default() })
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

fn item(container: &Container) -> runtime::Container {
    runtime::Container {
        id: container.id.to_string(),
        pod_sandbox_id: container.sandbox_id.to_string(),
        metadata: container.config.metadata.clone(),
        image: container.config.image.clone(),
        image_ref: container.image_id.clone(),
        image_id: container.image_id.clone(),
        state: container.state().cri().into(),
        created_at: container.created_at,
        labels: container.config.labels.clone(),
        annotations: container.config.annotations.clone(),
        ..Default::default()
    }
}
