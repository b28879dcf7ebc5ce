//! ListPodSandbox: from memory, every second.

use std::collections::HashMap;

use cricket_proto::runtime::{ListPodSandboxRequest, ListPodSandboxResponse};

use crate::call::Call;
use crate::encoded::Encoded;
use crate::error::Result;
use crate::runtime::Runtime;
use crate::sandbox::status::cri_state;

/// runtime.v1: `ListPodSandboxResponse.items`, `PodSandbox.state`.
const ITEMS: u32 = 1;
const STATE: u32 = 3;

/// The sandboxes that match every part of the filter. Never leaves the process.
pub fn list(rt: &Runtime, _: &Call, request: ListPodSandboxRequest) -> Result<Encoded<ListPodSandboxResponse>> {
    let filter = request.filter.unwrap_or_default();
    let mut answer = Encoded::default();
    for sandbox in rt.sandboxes.list() {
        let state = cri_state(&sandbox);
        if sandbox.id.as_str().starts_with(&filter.id)
            && filter.state.as_ref().is_none_or(|wanted| wanted.state == state.into())
            && selects(&filter.label_selector, &sandbox.config.labels)
        {
            answer.push(ITEMS, sandbox.listed(), (STATE, state as i32))?;
        }
    }
    Ok(answer)
}

/// Whether every label of the selector is there with its value.
fn selects(selector: &HashMap<String, String>, labels: &HashMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}
