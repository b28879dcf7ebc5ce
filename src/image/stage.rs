//! A layer that is unpacked while it is fetched, before what it lies on is there.
//!
//! It goes into a snapshot of its own. Once the layers below are there it is that snapshot which is committed, or what is in
//! it moves in one step into one that has the right parent. Only for overlays: there a layer is a directory like any other,
//! in which the kernel's marks say what is gone of others.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::document::OCI_LAYER;
use super::fs_info::files_of;
use super::labels;
use super::resolve::Layer;
use super::unpack::{commit, exists, keep, on_snapshot, work_key};
use super::Images;
use crate::call::Call;
use crate::containerd::{Containerd, Labels, Mount, SnapshotRef};
use crate::error::{Error, Kind, Result};
use crate::extract::{adopt, is_empty, Compression, Onto, Unpacked, Unpacker};

/// The snapshotter whose directories these are.
const SNAPSHOTTER: &str = "overlayfs";
/// What is shorter is unpacked faster than a process for it is started.
const LEAST_BYTES: u64 = 1 << 20;

/// Where layers are unpacked while they are fetched.
pub(super) struct Stager {
    containerd: Arc<dyn Containerd>,
    program: PathBuf,
}

/// A snapshot that goes unless it was committed.
struct Held {
    containerd: Arc<dyn Containerd>,
    key: String,
    mounts: Vec<Mount>,
    /// Where it is.
    directory: PathBuf,
    /// What it lies on already, if that was there.
    parent: String,
}

/// A layer on its way, or one that waits for those below it.
pub(super) struct Staging {
    // Ends before its directory goes.
    unpacker: Unpacker,
    held: Held,
    /// How much of it there was.
    bytes: u64,
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
            directory: PathBuf::new(),
            parent: parent.to_owned(),
        };
        // Not the label that says what it will be: it is not that yet.
        held.mounts = self.containerd.prepare_snapshot(call, &held.at(), parent, &Labels::new())?;
        let Some(directory) = files_of(&held.mounts).filter(|directory| directory.is_dir()) else { return Ok(None) };
        held.directory = directory;
        // containerd may see something else there than we do.
        if !is_empty(&held.directory)? {
            return Err(Error::precondition(format!("{} is not empty", held.directory.display())));
        }
        let onto = if below.is_some() { Onto::Layers } else { Onto::Nothing };
        let unpacker = Unpacker::start(&self.program, call, &held.directory, onto, compression)?;
        Ok(Some(Staging { unpacker, held, bytes: 0 }))
    }

    fn has(&self, call: &Call, key: &str) -> Result<bool> {
        exists(&*self.containerd, call, &SnapshotRef { snapshotter: SNAPSHOTTER, key })
    }
}

impl Staging {
    /// More of the layer. Blocks while what came before is being unpacked.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.unpacker.write(bytes);
    }

    /// That was all that there is to come. Nothing if that was not the layer: others may have brought the rest of it.
    pub(super) fn end(mut self, layer: &Layer) -> Option<Self> {
        self.unpacker.end();
        (self.bytes == layer.descriptor.size_bytes).then_some(self)
    }

    /// Makes it snapshot `name` on `parent`, which is there. Blocks. False if that is left to containerd: then nothing is
    /// left of it.
    pub(super) fn settle(self, at: &Images<'_>, call: &Call, layer: &Layer, parent: &str, name: &str) -> bool {
        let done = self.unpacker.finish().and_then(|unpacked| {
            // Whether the layer is to blame, containerd will say.
            layer.check(&unpacked.diff_id)?;
            self.held.settle(&unpacked, at, call, parent, name)
        });
        match &done {
            Ok(()) => log::debug!("layer {}: unpacked while it was fetched", layer.descriptor.digest),
            Err(e) => log::info!("layer {}: containerd unpacks it: {e}", layer.descriptor.digest),
        }
        done.is_ok()
    }
}

impl Held {
    fn settle(mut self, unpacked: &Unpacked, at: &Images<'_>, call: &Call, parent: &str, name: &str) -> Result<()> {
        if self.parent != parent {
            return on_snapshot(at, call, parent, name, |mounts| self.take(mounts, unpacked));
        }
        self.take(&self.mounts, unpacked)?;
        keep(&self.mounts)?;
        if commit(at, call, &self.at(), name, &labels::of_snapshot(name))? {
            self.key.clear();
        }
        Ok(())
    }

    /// Puts what was unpacked where these mounts write.
    fn take(&self, mounts: &[Mount], unpacked: &Unpacked) -> Result<()> {
        let upper = files_of(mounts).ok_or_else(|| Error::precondition("its directory is not to be seen"))?;
        let lower = mounts.iter().flat_map(|mount| &mount.options).find_map(|option| option.strip_prefix("lowerdir="));
        let lower: Vec<&Path> = lower.into_iter().flat_map(|all| all.split(':')).map(Path::new).collect();
        adopt(&self.directory, &upper, &lower, unpacked)
    }

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
        OCI_LAYER => Some(Compression::None),
        "application/vnd.oci.image.layer.v1.tar+gzip" | "application/vnd.docker.image.rootfs.diff.tar.gzip" => {
            Some(Compression::Gzip)
        }
        _ => None,
    }
}
