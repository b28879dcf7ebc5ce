//! UpdateContainerResources: other limits for a container, whether it runs or not.

use cricket_proto::records;
use cricket_proto::runtime::{
    LinuxContainerResources, UpdateContainerResourcesRequest, UpdateContainerResourcesResponse,
};
use oci_spec::runtime::LinuxResources;
use protobuf::MessageField;
use serde_json::Value;

use crate::call::Call;
use crate::containerd::Record;
use crate::error::{Context, Error, Idempotent, Kind, Result};
use crate::oci::resources;
use crate::rollback::Rollback;
use crate::runtime::Runtime;
use crate::store::record::{self, Durability};
use crate::store::{Container, ContainerState};

/// Changes the limits of a container; those left at zero stay as they are. A container that runs has them when the call
/// returns, another one when it is started. Blocks for the OCI runtime.
///
/// `oom_score_adj` belongs to a process and cannot be changed: it is not looked at.
///
/// # Errors
/// `NotFound`; `InvalidArgument` and `FailedPrecondition` for limits that cannot be; `FailedPrecondition` while it is
/// being started, updated or removed, and in an unknown state; otherwise what failed, and the limits are the old ones.
pub fn update_resources(
    rt: &Runtime,
    call: &Call,
    request: UpdateContainerResourcesRequest,
) -> Result<UpdateContainerResourcesResponse> {
    let container = rt.containers.get(&request.container_id)?;
    let asked = request.linux.unwrap_or_default();
    let mut change = LinuxResources::default();
    resources::apply(&mut change, &asked, &rt.host.facts)?;
    let updating = container.begin_update()?;
    apply(rt, call, &container, &change).with_context(|| format!("update container {}", container.id))?;
    let now = resources::merged(container.resources(), &asked);
    let record = records::ContainerResources { linux: MessageField::some(now.clone()), ..Default::default() };
    // After the effect: a status that shows old limits makes the kubelet try again, one that shows new ones does not.
    let written = record::write(&rt.layout.container_resources(&container.id), &record, Durability::Memory);
    if let Err(e) = written {
        log::warn!("container {} has new limits, which a restart of cricket will not know: {e}", container.id);
    }
    container.set_resources(now);
    drop(updating);
    Ok(UpdateContainerResourcesResponse::default())
}

/// What a container may use now: as created, or as last updated.
pub fn recorded(rt: &Runtime, container: &Container) -> Result<Option<LinuxContainerResources>> {
    let record: Option<records::ContainerResources> = record::read(&rt.layout.container_resources(&container.id))?;
    Ok(record.and_then(|r| r.linux.into_option()))
}

/// The record first, so that a start finds them; then the task, if there is one.
fn apply(rt: &Runtime, call: &Call, container: &Container, change: &LinuxResources) -> Result<()> {
    let containerd = &*rt.containerd;
    let old = containerd.container(call, container.id.as_str())?;
    let mut spec: Value = serde_json::from_slice(&old.spec)
        .map_err(|e| Error::caused(Kind::Internal, "the runtime spec in its record is damaged", e))?;
    let change = serde_json::to_value(change).map_err(|e| Error::caused(Kind::Internal, "encode resources", e))?;
    let limits = spec.pointer_mut("/linux/resources");
    let limits = limits.ok_or_else(|| Error::internal("the runtime spec in its record has no resources"))?;
    resources::merge_json(limits, change);
    let whole = limits.to_string();
    let new = Record { spec: spec.to_string().into_bytes(), ..old.clone() };

    let mut undo = Rollback::new();
    undo.push("its record", || containerd.update_container(&Call::undo(), &old).or_gone());
    containerd.update_container(call, &new).context("update its record")?;
    if let ContainerState::Running { .. } = container.state() {
        call.check()?;
        containerd.update_task(call, container.id.as_str(), whole.as_bytes()).context("update its task")?;
    }
    undo.commit();
    Ok(())
}
