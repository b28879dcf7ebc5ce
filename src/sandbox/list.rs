//! ListPodSandbox, from memory, every second; and StreamPodSandboxes.

use std::collections::HashMap;
use std::sync::Arc;

use cricket_proto::runtime::{
    ListPodSandboxRequest, ListPodSandboxResponse, PodSandboxFilter, PodSandboxState, StreamPodSandboxesRequest,
    StreamPodSandboxesResponse,
};

use crate::call::Call;
use crate::container::BATCH;
use crate::encoded::Encoded;
use crate::error::Result;
use crate::runtime::Runtime;
use crate::sandbox::status::cri_state;
use crate::store::Sandbox;

/// runtime.v1: `ListPodSandboxResponse.items` and `StreamPodSandboxesResponse.pod_sandboxes`; `PodSandbox.state`.
const ITEMS: u32 = 1;
const STATE: u32 = 3;

/// A sandbox, and the state by which it was chosen.
type Chosen = (Arc<Sandbox>, PodSandboxState);

/// The sandboxes that match every part of the filter. Never leaves the process.
pub fn list(rt: &Runtime, _: &Call, request: ListPodSandboxRequest) -> Result<Encoded<ListPodSandboxResponse>> {
    encode(&chosen(rt, &request.filter.unwrap_or_default()))
}

/// The same, some at a time. Blocks as long as `send` does.
///
/// # Errors
/// Those of `send`.
pub fn stream(
    rt: &Runtime,
    request: StreamPodSandboxesRequest,
    send: &mut dyn FnMut(Encoded<StreamPodSandboxesResponse>) -> Result<()>,
) -> Result<()> {
    chosen(rt, &request.filter.unwrap_or_default()).chunks(BATCH).try_for_each(|batch| send(encode(batch)?))
}

fn chosen(rt: &Runtime, filter: &PodSandboxFilter) -> Vec<Chosen> {
    let all = rt.sandboxes.list().into_iter().map(|sandbox| {
        let state = cri_state(&sandbox);
        (sandbox, state)
    });
    all.filter(|(sandbox, state)| {
        selected(sandbox, &filter.id, &filter.label_selector)
            && filter.state.as_ref().is_none_or(|wanted| wanted.state == (*state).into())
    })
    .collect()
}

fn encode<R>(chosen: &[Chosen]) -> Result<Encoded<R>> {
    let mut answer = Encoded::default();
    for (sandbox, state) in chosen {
        answer.push(ITEMS, sandbox.listed(), (STATE, *state as i32))?;
    }
    Ok(answer)
}

/// Whether it has the id, as far as it is given, and all the labels.
pub(super) fn selected(sandbox: &Sandbox, id: &str, labels: &HashMap<String, String>) -> bool {
    sandbox.id.as_str().starts_with(id)
        && labels.iter().all(|(key, value)| sandbox.config.labels.get(key) == Some(value))
}
