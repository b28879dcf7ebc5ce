//! Taking down everything a sandbox holds on the machine, however much of it there is.

use std::fs;
use std::path::Path;

use crate::call::Call;
use crate::container;
use crate::error::{Context, Idempotent, Result};
use crate::runtime::Runtime;
use crate::sandbox::{files, network, pins, process};
use crate::store::Sandbox;

/// Ends its process, gives the network back, unmounts images and /dev/shm, unpins the namespaces and removes
/// the volatile directory; the durable one stays.
///
/// Idempotent, and right for a half-made sandbox: the undo of RunPodSandbox, StopPodSandbox and recovery all end here.
/// The network comes first and keeps its namespace until it is given back, so that a retry has something to work with.
pub fn teardown(rt: &Runtime, call: &Call, sandbox: &Sandbox) -> Result<()> {
    let id = &sandbox.id;
    let process = match sandbox.process {
        true => process::remove(rt, call, id.as_str())
            .map(|()| container::remove_group(rt, sandbox, id.as_str()))
            .context("end the process of the sandbox"),
        false => Ok(()),
    };
    let network = match &sandbox.pins(&rt.layout).net {
        Some(netns) => network::detach(rt, call, id, &sandbox.config, netns),
        None => Ok(()),
    };
    let images = container::unmount_images(rt, call, id);
    let shm = files::unmount_shm(rt, id);
    process?;
    network?;
    images?;
    // All there can be: the record that says which may be lost.
    pins::remove(&rt.layout.all_pins(id))?;
    shm?;
    remove_dir(&rt.layout.sandbox_state(id))
}

/// Whether everything that makes a sandbox READY is there; not after a reboot.
pub fn stands(rt: &Runtime, sandbox: &Sandbox) -> bool {
    let held = sandbox.pins(&rt.layout);
    rt.layout.sandbox_state(&sandbox.id).is_dir() && pins::stand(&held)
}

fn remove_dir(path: &Path) -> Result<()> {
    fs::remove_dir(path).or_gone().with_context(|| format!("remove {}", path.display()))
}
