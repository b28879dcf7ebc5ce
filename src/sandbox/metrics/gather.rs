//! What is asked for one answer: of the machine once, of each pod and container what its files say.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use super::disk::Disks;
use super::row;
use super::write::{labels, Values};
use crate::call::Call;
use crate::cgroup::{self, Detail, Processes, Usage};
use crate::encoded::put_bytes;
use crate::error::Result;
use crate::ids::SandboxId;
use crate::runtime::Runtime;
use crate::sandbox::interfaces::{self, Interface};
use crate::store::fs_usage::Measured;
use crate::store::{Container, ContainerState, Sandbox};
use crate::sys::mount::{self, Capacity};
use crate::{clock, image, oci};

// runtime.v1: `PodSandboxMetrics` and `ContainerMetrics`.
const ID: u32 = 1;
const CONTAINER_METRICS: u32 = 3;

/// What is known of a pod or a container, from which the rows take their values.
pub struct Sample<'a> {
    /// Nanoseconds since the epoch.
    pub now: i64,
    pub started_at: i64,
    pub usage: Usage,
    pub detail: Detail,
    /// As configured.
    pub shares: Option<u64>,
    pub processes: Option<Processes>,
    pub max_open_files: Option<u64>,
    pub layer: Option<Layer<'a>>,
    pub network: &'a [Interface],
    pub disks: &'a Disks,
}

/// The writable layer of a container.
pub struct Layer<'a> {
    pub used_bytes: u64,
    /// Nanoseconds since the epoch.
    pub measured_at: u64,
    pub filesystem: &'a Filesystem,
}

/// That of the writable layers.
pub struct Filesystem {
    pub device: String,
    pub capacity: Capacity,
}

/// A container that runs: its first process, and since when.
type Running = (Arc<Container>, u32, i64);

/// What all samples of an answer share.
struct Round<'a> {
    rt: &'a Runtime,
    layers: Option<Measured>,
    filesystem: Option<Filesystem>,
    measured_at: u64,
    disks: Disks,
    /// Of huge pages.
    sizes: Vec<String>,
}

/// Hands out the `PodSandboxMetrics` of each sandbox in its wire form. One thread visits all the networks.
///
/// # Errors
/// Those of the call.
pub fn each(rt: &Runtime, call: &Call, sandboxes: &[Arc<Sandbox>], pod: &mut dyn FnMut(&[u8])) -> Result<()> {
    let mut running = running(rt, sandboxes);
    let round = Round::begin(rt, call, &running);
    let networks: Vec<_> = sandboxes.iter().map(|s| s.netns.clone()).collect();
    let (mut message, mut inner) = (Vec::new(), Vec::new());
    for (sandbox, network) in sandboxes.iter().zip(interfaces::read_all(&networks)) {
        call.check()?;
        message.clear();
        put_bytes(&mut message, ID, sandbox.id.as_str().as_bytes());
        round.of_pod(sandbox, &network.map(|n| n.all).unwrap_or_default(), &mut message);
        for container in running.remove(&sandbox.id).unwrap_or_default() {
            inner.clear();
            put_bytes(&mut inner, ID, container.0.id.as_str().as_bytes());
            round.of_container(sandbox, &container, &mut inner);
            put_bytes(&mut message, CONTAINER_METRICS, &inner);
        }
        pod(&message);
    }
    Ok(())
}

fn running(rt: &Runtime, sandboxes: &[Arc<Sandbox>]) -> HashMap<SandboxId, Vec<Running>> {
    let mut running: HashMap<SandboxId, Vec<Running>> = sandboxes.iter().map(|s| (s.id.clone(), Vec::new())).collect();
    for container in rt.containers.list() {
        let ContainerState::Running { pid, started_at } = container.state() else { continue };
        if let Some(of_pod) = running.get_mut(&container.sandbox_id) {
            of_pod.push((container, pid, started_at));
        }
    }
    running
}

impl<'a> Round<'a> {
    fn begin(rt: &'a Runtime, call: &Call, running: &HashMap<SandboxId, Vec<Running>>) -> Round<'a> {
        let keys: Vec<&str> = running.values().flatten().map(|(container, ..)| container.id.as_str()).collect();
        let measured = (!keys.is_empty()).then(|| image::usage_of(rt, call, &keys));
        // Without containerd the counters are still worth an answer.
        let layers = measured.and_then(|m| m.inspect_err(|e| log::debug!("usage of writable layers: {e}")).ok());
        let disks = Disks::default();
        let place = layers.as_ref().and_then(|layers| layers.mountpoint.as_deref());
        let filesystem = place.and_then(|place| filesystem(Path::new(place), &disks));
        let age = layers.as_ref().and_then(|layers| layers.active_at).map_or(0, |at| at.elapsed().as_nanos());
        let measured_at = u128::try_from(clock::now()).unwrap_or(0).saturating_sub(age);
        Round {
            rt,
            layers,
            filesystem,
            measured_at: u64::try_from(measured_at).unwrap_or(0),
            disks,
            sizes: cgroup::huge_pages(),
        }
    }

    fn of_pod(&self, sandbox: &Sandbox, network: &[Interface], to: &mut Vec<u8>) {
        let group = oci::cgroup::directory(&sandbox.config.linux.cgroup_parent);
        let groups = group.and_then(|path| sandbox.meter.groups_at(&path));
        let (usage, detail) = groups.map(|groups| cgroup::read_in_detail(&groups, &self.sizes)).unwrap_or_default();
        let sample = Sample {
            now: clock::now(),
            started_at: sandbox.created_at,
            usage,
            detail,
            shares: None,
            processes: None,
            max_open_files: None,
            layer: None,
            network,
            disks: &self.disks,
        };
        let metadata = &sandbox.config.metadata;
        tell(&sample, &[sandbox.id.as_str(), "", &metadata.namespace, &metadata.name, ""], to);
    }

    fn of_container(&self, sandbox: &Sandbox, (container, pid, started_at): &Running, to: &mut Vec<u8>) {
        let groups = container.meter.groups(*pid);
        let counted = groups.as_ref().map(|groups| cgroup::read_in_detail(groups, &self.sizes));
        let (usage, detail) = counted.unwrap_or_default();
        let sample = Sample {
            now: clock::now(),
            started_at: *started_at,
            usage,
            detail,
            shares: u64::try_from(container.resources().cpu_shares).ok().filter(|shares| *shares > 0),
            processes: groups.and_then(|groups| Processes::read(&groups)),
            max_open_files: cgroup::max_open_files(*pid),
            layer: self.layer(container),
            network: &[],
            disks: &self.disks,
        };
        let image = self.image(container);
        let (pod, name) = (&sandbox.config.metadata, &container.config.metadata.name);
        tell(&sample, &[container.id.as_str(), &image, &pod.namespace, &pod.name, name], to);
    }

    fn layer(&self, container: &Container) -> Option<Layer<'_>> {
        let usage = self.layers.as_ref()?.usage.get(container.id.as_str())?;
        let (used_bytes, measured_at) = (usage.size_bytes, self.measured_at);
        Some(Layer { used_bytes, measured_at, filesystem: self.filesystem.as_ref()? })
    }

    /// As in the pod, else the first of its names, else what was asked for, which may be its id.
    fn image(&self, container: &Container) -> String {
        let asked = &container.config.image;
        if !asked.user_specified_image.is_empty() {
            return asked.user_specified_image.clone();
        }
        let known = self.rt.images.get(&container.image_id).ok();
        known.and_then(|image| image.repo_tags.first().cloned()).unwrap_or_else(|| asked.image.clone())
    }
}

fn tell(sample: &Sample<'_>, object: &[&str; super::LABELS.len()], to: &mut Vec<u8>) {
    let object = labels(object);
    let mut rows = row::all();
    let Some(first) = rows.next() else { return };
    let mut values = Values::new(first, &object, to);
    first.tell(sample, &mut values);
    for row in rows {
        values.of(row);
        row.tell(sample, &mut values);
    }
}

fn filesystem(place: &Path, disks: &Disks) -> Option<Filesystem> {
    let facts = mount::capacity(place).and_then(|capacity| Ok((capacity, fs::metadata(place)?.dev())));
    let (capacity, number) = facts.inspect_err(|e| log::debug!("the file system of {}: {e}", place.display())).ok()?;
    let mut device = String::new();
    disks.name((libc::major(number), libc::minor(number)), |name| name.clone_into(&mut device));
    Some(Filesystem { device, capacity })
}
