//! RemoveContainer: ends it if it runs, then forgets it.

use std::path::Path;

use cricket_proto::records::ContainerStatus;
use cricket_proto::runtime::{ContainerEventType, RemoveContainerRequest, RemoveContainerResponse};

use crate::call::Call;
use crate::cgroup;
use crate::container::{exit, stop, task};
use crate::containerd::SnapshotRef;
use crate::error::{Context, Idempotent, Kind, Result};
use crate::ids::ContainerId;
use crate::oci;
use crate::runtime::Runtime;
use crate::store::container::Ended;
use crate::store::{record, Container, ContainerState, Sandbox};
use crate::sys::tree;

/// Removes a container, killing it first if it runs. Idempotent; a missing one is success. Its log stays: that is the
/// kubelet's.
///
/// # Errors
/// `FailedPrecondition` while it is being started or removed by another call.
pub fn remove(rt: &Runtime, call: &Call, request: RemoveContainerRequest) -> Result<RemoveContainerResponse> {
    if let Some(container) = rt.containers.find(&request.container_id)? {
        remove_container(rt, call, &container)?;
    }
    Ok(RemoveContainerResponse::default())
}

/// As [`remove`], for a container at hand.
pub fn remove_container(rt: &Runtime, call: &Call, container: &Container) -> Result<()> {
    let removing = container.begin_remove()?;
    erase(rt, call, container).with_context(|| format!("remove container {}", container.id))?;
    rt.containers.remove(container.id.as_str());
    rt.tell(ContainerEventType::CONTAINER_DELETED_EVENT, container.id.as_str(), &container.sandbox_id);
    drop(removing);
    Ok(())
}

/// Every step is idempotent. The record goes before what it owns: what is left without a record is swept at start.
fn erase(rt: &Runtime, call: &Call, container: &Container) -> Result<()> {
    let id = container.id.as_str();
    if container.state().may_run() {
        stop::kill(rt, call, container)?;
        stop::await_death(rt, call, container)?;
    }
    outlive_task(rt, container)?;
    task::destroy(&*rt.containerd, call, id, None)?;
    if let Some(sandbox) = rt.sandboxes.exact(container.sandbox_id.as_str()) {
        remove_group(rt, &sandbox, id);
    }
    rt.hub.close(id);
    let record = match rt.containerd.container(call, id) {
        Err(e) if e.kind() == Kind::NotFound => None,
        found => Some(found?),
    };
    rt.containerd.delete_container(call, id).or_gone().context("delete its containerd record")?;
    // Without a record, an earlier try came this far: the key is the id, the snapshotter the handler's.
    let snapshotter = match &record {
        Some(record) => record.snapshotter.clone(),
        None => rt.snapshotter_of(container)?,
    };
    rt.containerd
        .remove_snapshot(call, &SnapshotRef { snapshotter: &snapshotter, key: id })
        .or_gone()
        .context("remove its snapshot")?;
    remove_tree(&rt.layout.container_state(&container.id))?;
    remove_tree(&rt.layout.container_root(&container.id))
}

/// The task may be the only one, besides us, to know how the container ended: when that did not go onto a full disk. Before
/// the task goes it is written down after all, or, since a name takes no space, that the container is being removed: the
/// next daemon then finishes that, see [`was_removing`].
fn outlive_task(rt: &Runtime, container: &Container) -> Result<()> {
    let ContainerState::Exited(ended) = container.state() else { return Ok(()) };
    let (status, removal) = (rt.layout.container_status(&container.id), rt.layout.container_removal(&container.id));
    let known = |record: Option<ContainerStatus>| record.as_ref().and_then(Ended::of_record).is_some();
    if removal.exists() || record::read(&status).is_ok_and(known) {
        return Ok(());
    }
    let Err(unwritten) = exit::write_end(rt, &container.id, &ended) else { return Ok(()) };
    log::warn!("container {} is removed for good, also if cricket ends meanwhile: {unwritten}", container.id);
    record::rename(&status, &removal).with_context(|| format!("rename {}", status.display()))
}

/// Whether an earlier daemon was removing this container, and can no longer be asked how it had ended.
pub fn was_removing(rt: &Runtime, id: &ContainerId) -> bool {
    rt.layout.container_removal(id).exists()
}

/// Removes the control group of a container, or of the sandbox's process, whose task is gone: mostly the runtime has done so.
/// Those of systemd go by themselves.
pub fn remove_group(rt: &Runtime, sandbox: &Sandbox, id: &str) {
    let Ok(handler) = rt.handler(&sandbox.runtime_handler) else { return };
    if rt.systemd_cgroup(handler) {
        return;
    }
    let removed =
        oci::cgroup::path(&sandbox.config.linux.cgroup_parent, false, id).and_then(|path| cgroup::remove(&path));
    if let Err(e) = removed {
        log::warn!("a control group is left: {e}");
    }
}

fn remove_tree(path: &Path) -> Result<()> {
    tree::remove(path).or_gone().with_context(|| format!("remove {}", path.display()))
}
