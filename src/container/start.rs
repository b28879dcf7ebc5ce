//! StartContainer: a task of a created container.

use std::fs;

use cricket_proto::records::{container_status::Start, ContainerStatus};
use cricket_proto::runtime::{ContainerEventType, StartContainerRequest, StartContainerResponse};
use serde_json::Value;

use crate::call::Call;
use crate::cgroup;
use crate::clock;
use crate::container::streams::attach;
use crate::container::{exit, quiet, task};
use crate::containerd::{Mount, NewTask, Record, SnapshotRef};
use crate::error::{Context, Error, Idempotent, Result};
use crate::ids::ContainerId;
use crate::runtime::Runtime;
use crate::store::container::{Ended, Parts, Starting};
use crate::store::later::Errand;
use crate::store::record::{self, Durability};
use crate::store::{Container, ContainerState};

/// Starts a created container. Blocks for the OCI runtime.
///
/// # Errors
/// `NotFound`; `FailedPrecondition` unless it is CREATED and its sandbox ready. Any later failure leaves it EXITED with
/// code 128 and reason `StartError`.
pub fn start(rt: &Runtime, call: &Call, request: StartContainerRequest) -> Result<StartContainerResponse> {
    let container = rt.containers.get(&request.container_id)?;
    let starting = container.begin_start()?;
    let sandbox = rt.sandboxes.exact(container.sandbox_id.as_str());
    let sandbox = sandbox.ok_or_else(|| Error::not_found(format!("pod sandbox {} is gone", container.sandbox_id)))?;
    // Until the end: a stop of the pod waits for us and then kills what we started.
    let joined = sandbox.join()?;
    match launch(rt, call, &container) {
        Ok((pid, started_at)) => {
            exit::record_running(rt, &container.id, &ContainerState::Running { pid, started_at });
            let early = starting.running(pid, started_at);
            rt.tell(ContainerEventType::CONTAINER_STARTED_EVENT, container.id.as_str(), &container.sandbox_id);
            if let Some(early) = early {
                exit::settle(rt, early);
            }
            drop(joined);
            Ok(StartContainerResponse::default())
        }
        Err(e) => Err(failed(rt, &container, starting, e)),
    }
}

/// Undoes a start, and says so of the container. An end that cannot be written down is not told: then it can be started
/// again, as it could after our restart.
fn failed(rt: &Runtime, container: &Container, starting: Starting<'_>, e: Error) -> Error {
    let e = e.context(format_args!("start container {}", container.id));
    let ended = Ended::start_error(clock::now(), e.to_string());
    // Before the undo, which kills: the next daemon must not take that for the end of one that had run.
    let written = exit::write_end(rt, &container.id, &ended);
    let undone = task::destroy(&*rt.containerd, &Call::undo(), container.id.as_str(), None);
    rt.hub.close(container.id.as_str());
    match written {
        Err(unwritten) => {
            log::error!("container {} can be started again: {unwritten}", container.id);
            container.set_cut_short();
            // Or our restart would find that it was asked to run, and is gone.
            if undone.is_ok() {
                let removed = fs::remove_file(rt.layout.container_status(&container.id)).or_gone();
                removed.unwrap_or_else(|e| log::error!("container {} has ended for our restart: {e}", container.id));
            }
        }
        Ok(()) => {
            starting.failed(ended);
            if undone.is_err() {
                rt.later.add(Errand::Settle(container.id.to_string()));
            }
            rt.tell(ContainerEventType::CONTAINER_STOPPED_EVENT, container.id.as_str(), &container.sandbox_id);
        }
    }
    if let Err(left) = undone {
        log::warn!("undo start of container {} (it is tried again): {left}", container.id);
    }
    e
}

/// Creates and starts the task; returns the pid of the first process and when it started.
fn launch(rt: &Runtime, call: &Call, container: &Container) -> Result<(u32, i64)> {
    let id = container.id.as_str();
    let parts = match container.take_parts() {
        Some(parts) => *parts,
        None => {
            let record = rt.containerd.container(call, id)?;
            let at = SnapshotRef { snapshotter: &record.snapshotter, key: &record.snapshot_key };
            let rootfs = rt.containerd.snapshot_mounts(call, &at).context("mounts of the root filesystem")?;
            parts_of(rt, record, rootfs)
        }
    };
    let wires = attach(rt, container, &parts.runtime)?;
    let new = NewTask {
        id: id.to_owned(),
        rootfs: parts.rootfs,
        stdin: wires.stdin,
        stdout: wires.stdout,
        stderr: wires.stderr,
        terminal: container.config.tty,
        options: parts.options,
    };
    call.check()?;
    cgroup::expect_move();
    mark(rt, &container.id, Start::CREATING, 0)?;
    if container.was_cut_short() {
        quiet::await_quiet(rt, call, &container.id)?;
    }
    let pid = rt.containerd.create_task(call, &new).context("create task")?;
    // Now, while the process waits to be started: later it may be gone.
    container.set_oom_file(cgroup::oom_file(pid));
    container.meter.attach(pid);
    call.check()?;
    // Before the start: a short process has ended before containerd answers, and not before it started.
    let started_at = clock::now();
    mark(rt, &container.id, Start::STARTING, started_at)?;
    rt.containerd.start_task(call, id, None).context("start task")?;
    Ok((pid, started_at))
}

/// Writes down how far a start has come, before that step: if we are killed meanwhile, containerd is at work on it yet when
/// the next daemon looks, and takes back a task that was not made to the end.
pub fn mark(rt: &Runtime, id: &ContainerId, start: Start, started_at: i64) -> Result<()> {
    let record = ContainerStatus { start: start.into(), started_at, ..Default::default() };
    record::write(&rt.layout.container_status(id), &record, Durability::Memory)
}

/// What the task of a container with this record is made of.
pub fn parts_of(rt: &Runtime, record: Record, rootfs: Vec<Mount>) -> Parts {
    let rootfs = labelled(rt, rootfs, &record.spec);
    Parts { runtime: record.runtime, options: record.runtime_options, rootfs }
}

/// The root filesystem with the label that the spec has for mounts: an overlay takes it when it is mounted, and only
/// then.
fn labelled(rt: &Runtime, mut rootfs: Vec<Mount>, spec: &[u8]) -> Vec<Mount> {
    if !(rt.config.enable_selinux && rt.host.facts.selinux) {
        return rootfs;
    }
    let spec: Value = serde_json::from_slice(spec).unwrap_or(Value::Null);
    if let Some(label) = spec["linux"]["mountLabel"].as_str() {
        for mount in rootfs.iter_mut().filter(|m| m.kind == "overlay") {
            // In quotes, because there are commas in it.
            mount.options.push(format!("context=\"{label}\""));
        }
    }
    rootfs
}
