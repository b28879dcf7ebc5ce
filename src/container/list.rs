//! ListContainers, from memory, every second; and StreamContainers.

use std::collections::HashMap;
use std::sync::Arc;

use cricket_proto::runtime::{
    ContainerFilter, ListContainersRequest, ListContainersResponse, StreamContainersRequest, StreamContainersResponse,
};

use crate::call::Call;
use crate::encoded::Encoded;
use crate::error::Result;
use crate::ids::SandboxId;
use crate::runtime::Runtime;
use crate::store::{Container, ContainerState};

/// Containers in one message of a stream; far below what one may hold, whatever is in their annotations.
pub const BATCH: usize = 100;

/// runtime.v1: `ListContainersResponse.containers` and `StreamContainersResponse.containers`; `Container.state`.
const CONTAINERS: u32 = 1;
const STATE: u32 = 6;

/// A container, and the state by which it was chosen.
type Chosen = (Arc<Container>, ContainerState);

/// The containers that match every part of the filter. Never leaves the process.
pub fn list(rt: &Runtime, _: &Call, request: ListContainersRequest) -> Result<Encoded<ListContainersResponse>> {
    encode(&chosen(rt, &request.filter.unwrap_or_default()))
}

/// The same, some at a time. Blocks as long as `send` does.
///
/// # Errors
/// Those of `send`.
pub fn stream(
    rt: &Runtime,
    request: StreamContainersRequest,
    send: &mut dyn FnMut(Encoded<StreamContainersResponse>) -> Result<()>,
) -> Result<()> {
    chosen(rt, &request.filter.unwrap_or_default()).chunks(BATCH).try_for_each(|batch| send(encode(batch)?))
}

fn chosen(rt: &Runtime, filter: &ContainerFilter) -> Vec<Chosen> {
    let all = rt.containers.list().into_iter().map(|container| {
        let state = container.state();
        (container, state)
    });
    all.filter(|(container, state)| {
        selected(container, &filter.id, &filter.pod_sandbox_id, &filter.label_selector)
            && filter.state.as_ref().is_none_or(|wanted| wanted.state == state.cri().into())
    })
    .collect()
}

fn encode<R>(chosen: &[Chosen]) -> Result<Encoded<R>> {
    let mut answer = Encoded::default();
    for (container, state) in chosen {
        answer.push(CONTAINERS, container.listed(), (STATE, state.cri() as i32))?;
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
