//! ListPodSandbox: from memory, every second.

use std::collections::HashMap;

use cricket_proto::runtime::{ListPodSandboxRequest, ListPodSandboxResponse, PodSandbox};

use crate::call::Call;
use crate::error::Result;
use crate::runtime::Runtime;
use crate::sandbox::status::cri_state;
use crate::store::Sandbox;

/// The sandboxes that match every part of the filter. Never leaves the process.
pub fn list(rt: &Runtime, _: &Call, request: ListPodSandboxRequest) -> Result<ListPodSandboxResponse> {
    let filter = request.filter.unwrap_or_default();
    let matches = |sandbox: &Sandbox| {
        sandbox.id.as_str().starts_with(&filter.id)
            && filter.state.as_ref().is_none_or(|wanted| wanted.state == cri_state(sandbox).into())
            && selects(&filter.label_selector, &sandbox.config.labels)
    };
    let items = rt.sandboxes.list().iter().filter(|s| matches(s)).map(|s| item(s)).collect();
    Ok(ListPodSandboxResponse { items, ..Default::default() })
}

/// Whether every label of the selector is there with its value.
fn selects(selector: &HashMap<String, String>, labels: &HashMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

fn item(sandbox: &Sandbox) -> PodSandbox {
    PodSandbox {
        id: sandbox.id.to_string(),
        metadata: sandbox.config.metadata.clone(),
        state: cri_state(sandbox).into(),
        created_at: sandbox.created_at,
        labels: sandbox.config.labels.clone(),
        annotations: sandbox.config.annotations.clone(),
        runtime_handler: sandbox.runtime_handler.clone(),
        ..Default::default()
    }
}
