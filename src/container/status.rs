//! ContainerStatus: from memory; only its verbose form asks containerd.

use std::collections::HashMap;

use cricket_proto::runtime::{
    ContainerResources, ContainerStatus, ContainerStatusRequest, ContainerStatusResponse, ContainerUser, ImageSpec,
    LinuxContainerUser, Mount,
};
use protobuf::MessageField;
use serde_json::{json, Value};

use crate::call::Call;
use crate::error::Result;
use crate::oci;
use crate::runtime::Runtime;
use crate::store::{Container, ContainerState};

/// The status of a container; verbose adds `info`, a JSON text for people that holds the OCI runtime spec.
///
/// # Errors
/// `NotFound`.
pub fn status(rt: &Runtime, call: &Call, request: ContainerStatusRequest) -> Result<ContainerStatusResponse> {
    let container = rt.containers.get(&request.container_id)?;
    let info = if request.verbose { info(rt, call, &container)? } else { HashMap::new() };
    Ok(ContainerStatusResponse { status: MessageField::some(describe(rt, &container)), info, ..Default::default() })
}

/// Its status.
pub fn describe(rt: &Runtime, container: &Container) -> ContainerStatus {
    let config = &container.config;
    let state = container.state();
    let record = state.record();
    let mut image = config.image.clone().unwrap_or_default();
    let mut image_ref = container.image_id.clone();
    if let Ok(known) = rt.images.get(&container.image_id) {
        image = ImageSpec { image: known.repo_tags.first().cloned().unwrap_or(image.image), ..image };
        image_ref = known.repo_digests.first().cloned().unwrap_or(image_ref);
    }
    let (uid, gid, ref groups) = container.user;
    let user = LinuxContainerUser { uid, gid, supplemental_groups: groups.clone(), ..Default::default() };
    ContainerStatus {
        id: container.id.to_string(),
        metadata: config.metadata.clone(),
        state: state.cri().into(),
        created_at: container.created_at,
        started_at: record.started_at,
        finished_at: record.finished_at,
        exit_code: record.exit_code,
        image: MessageField::some(image),
        image_ref,
        image_id: container.image_id.clone(),
        reason: record.reason,
        message: record.message,
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
        mounts: config.mounts.iter().cloned().map(|mount| resolved(rt, mount)).collect(),
        log_path: container.log_path.as_deref().map(|p| p.display().to_string()).unwrap_or_default(),
        resources: MessageField::some(ContainerResources {
            linux: MessageField::some(container.resources()),
            ..Default::default()
        }),
        user: MessageField::some(ContainerUser { linux: MessageField::some(user), ..Default::default() }),
        stop_signal: oci::signal::to_cri(container.stop_signal).into(),
        ..Default::default()
    }
}

/// A mount as asked for, with the id of its image, if it is one and still here.
fn resolved(rt: &Runtime, mut mount: Mount) -> Mount {
    if let Some(image) = mount.image.as_mut() {
        if let Ok(known) = rt.images.get(&image.image) {
            image.image_ref.clone_from(&known.id);
        }
    }
    mount
}

fn info(rt: &Runtime, call: &Call, container: &Container) -> Result<HashMap<String, String>> {
    let record = rt.containerd.container(call, container.id.as_str())?;
    let spec: Value = serde_json::from_slice(&record.spec).unwrap_or(Value::Null);
    let pid = match container.state() {
        ContainerState::Running { pid, .. } => pid,
        _ => 0,
    };
    let info = json!({
        "sandboxID": container.sandbox_id.as_str(),
        "pid": pid,
        "snapshotKey": record.snapshot_key,
        "snapshotter": record.snapshotter,
        "runtimeType": record.runtime,
        "runtimeSpec": spec,
    });
    Ok(HashMap::from([("info".to_owned(), info.to_string())]))
}
