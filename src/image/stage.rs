//! A layer that is unpacked while it is fetched, before what it lies on is there.
//!
//! It goes into a snapshot of its own. Once the layers below are there it is that snapshot which is committed, or what is in
//! it moves in one step into one that has the right parent. Only for overlays: there a layer is a directory like any other,
//! in which the kernel's marks say what is gone of others.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::fs_info::files_of;
use super::labels;
use super::resolve::Layer;
use super::unpack::{commit, exists, keep, on_snapshot, work_key};
use super::Images;
use crate::call::Call;
use crate::containerd::{Containerd, Labels, Mount, SnapshotRef};
use crate::error::{Error, Kind, Result};
use crate::extract::{adopt, Compression, Onto, Unpacked, Unpacker};

/// The snapshotter whose directories these are.
const SNAPSHOTTER: &str = "overlayfs";
/// What is shorter is unpacked faster than a process for it is started.
const LEAST_BYTES: u64 = 1 << 20;

/// Where layers are unpacked while they are fetched.
#[derive(Clone)]
pub(super) struct Stager {
    containerd: Arc<dyn Containerd>,
    program: PathBuf,
}

/// A snapshot that goes unless it was committed.
struct Held {
    containerd: Arc<dyn Containerd>,
    key: String,
    mounts: Vec<Mount>,
    /// What it lies on already, if that was there.
    parent: String,
}

/// A layer on its way.
pub(super) struct Staging {
    // Ends before its directory goes.
    unpacker: Unpacker,
    held: Held,
    directory: PathBuf,
}

/// A layer that waits for those below it.
pub(super) struct Staged {
    held: Held,
    directory: PathBuf,
    implied: Vec<String>,
}

impl Stager {
    /// For images of `snapshotter`, by `program`, which is a cricket; none if it cannot be done there.
    pub(super) fn new(containerd: &Arc<dyn Containerd>, snapshotter: &str, program: Option<&Path>) -> Option<Self> {
        let program = program.filter(|_| snapshotter == SNAPSHOTTER)?;
        Some(Stager { containerd: containerd.clone(), program: program.to_owned() })
    }

    /// Begins with layer `number` of an image, if that is worth it. `chain` are the names of its layers' snapshots. Blocks
    /// for containerd.
    ///
    /// # Errors
    /// What containerd or the kernel says. The layer can still be unpacked by containerd.
    pub(super) fn begin(&self, call: &Call, layer: &Layer, number: usize, chain: &[String]) -> Result<Option<Staging>> {
        let compression = compression(&layer.descriptor.media_type);
        let (Some(compression), Some(name)) = (compression, chain.get(number)) else { return Ok(None) };
        if layer.descriptor.size_bytes < LEAST_BYTES || self.has(call, name)? {
            return Ok(None);
        }
        let below = number.checked_sub(1).and_then(|below| chain.get(below));
        let parent = match below {
            Some(below) if self.has(call, below)? => below.as_str(),
            _ => "",
        };
        let mut held = Held {
            containerd: self.containerd.clone(),
            key: work_key(name)?,
            mounts: Vec::new(),
            parent: parent.to_owned(),
        };
        // Not the label that says what it will be: it is not that yet.
        held.mounts = self.containerd.prepare_snapshot(call, &held.at(), parent, &Labels::new())?;
        let Some(directory) = files_of(&held.mounts).filter(|directory| directory.is_dir()) else { return Ok(None) };
        let onto = if below.is_some() { Onto::Layers } else { Onto::Nothing };
        let unpacker = Unpacker::start(&self.program, call, &directory, onto, compression)?;
        Ok(Some(Staging { unpacker, held, directory }))
    }

    fn has(&self, call: &Call, key: &str) -> Result<bool> {
        exists(&*self.containerd, call, &SnapshotRef { snapshotter: SNAPSHOTTER, key })
    }
}

impl Staging {
    /// More of the layer. Blocks while what came before is being unpacked.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        self.unpacker.write(bytes);
    }

    /// That was all of it. Blocks until it is unpacked.
    ///
    /// # Errors
    /// `InvalidArgument` if it unpacks to something else than its diff id; else what makes it containerd's to unpack.
    pub(super) fn finish(self, layer: &Layer) -> Result<Option<Staged>> {
        let Unpacked { diff_id, implied } = match self.unpacker.finish() {
            Ok(unpacked) => unpacked,
            Err(e) => {
                log::info!("layer {}: containerd unpacks it: {e}", layer.descriptor.digest);
                return Ok(None);
            }
        };
        layer.check(&diff_id)?;
        log::debug!("layer {}: unpacked while it was fetched", layer.descriptor.digest);
        Ok(Some(Staged { held: self.held, directory: self.directory, implied }))
    }
}

impl Staged {
    /// Makes it snapshot `name` on `parent`, which is there. Blocks.
    ///
    /// # Errors
    /// What containerd or the kernel says. Nothing is left of it then, and the layer can still be unpacked by containerd.
    pub(super) fn settle(mut self, at: &Images<'_>, call: &Call, parent: &str, name: &str) -> Result<()> {
        if self.held.parent != parent {
            return on_snapshot(at, call, parent, name, |mounts| self.move_to(mounts));
        }
        let mounts = std::mem::take(&mut self.held.mounts);
        self.move_to(&mounts)?;
        keep(&mounts)?;
        if commit(at, call, &self.held.at(), name, &labels::of_snapshot(name))? {
            self.held.key.clear();
        }
        Ok(())
    }

    fn move_to(&self, mounts: &[Mount]) -> Result<()> {
        let upper = files_of(mounts).ok_or_else(|| Error::precondition("its directory is not to be seen"))?;
        let lower = mounts.iter().flat_map(|mount| &mount.options).find_map(|option| option.strip_prefix("lowerdir="));
        let lower: Vec<&Path> = lower.into_iter().flat_map(|all| all.split(':')).map(Path::new).collect();
        adopt(&self.directory, &upper, &lower, &self.implied)
    }
}

impl Held {
    fn at(&self) -> SnapshotRef<'_> {
        SnapshotRef { snapshotter: SNAPSHOTTER, key: &self.key }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.key.is_empty() {
            return;
        }
        match self.containerd.remove_snapshot(&Call::undo(), &self.at()) {
            Err(e) if e.kind() != Kind::NotFound => log::warn!("remove snapshot {}: {e}", self.key),
            _ => {}
        }
    }
}

/// How a layer of this media type is stored; none for those that are left to containerd.
fn compression(media_type: &str) -> Option<Compression> {
    match media_type {
        "application/vnd.oci.image.layer.v1.tar" => Some(Compression::None),
        "application/vnd.oci.image.layer.v1.tar+gzip" | "application/vnd.docker.image.rootfs.diff.tar.gzip" => {
            Some(Compression::Gzip)
        }
        _ => None,
    }
}
