//! Layers that are unpacked while they are fetched, before what they lie on is there.
//!
//! Each goes into a directory of its own, in a snapshot that the pull has for that. Once the layers below are there it moves
//! in one step into a snapshot that has the right parent. Only for overlays: there a layer is a directory like any other, in
//! which the kernel's marks say what is gone of others.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;

use super::document::OCI_LAYER;
use super::fs_info::{files_of, lower_of};
use super::resolve::Layer;
use super::unpack::{exists, on_snapshot, work_key};
use super::Images;
use crate::call::Call;
use crate::containerd::{Containerd, Labels, Mount, SnapshotRef};
use crate::error::{Context, Error, Kind, Result};
use crate::extract::{adopt, must_be_empty, Compression, Onto, Stored, Unpacked, Unpacker};
use crate::flights::Flights;
use crate::sync::Mutex;
use crate::sys::tree;

/// The snapshotter whose directories these are.
pub(super) const SNAPSHOTTER: &str = "overlayfs";
/// What is shorter costs containerd less than a process for it would.
pub(super) const LEAST_BYTES: u64 = 256 << 10;

/// Where the layers of one pull are unpacked while they are fetched.
pub(super) struct Stager {
    containerd: Arc<dyn Containerd>,
    program: PathBuf,
    /// The names of the layers' snapshots.
    chain: Vec<String>,
    /// From which layer on there is none: seldom without the one below.
    absent: AtomicUsize,
    space: Mutex<Space>,
    /// The first layers of a pull come together.
    preparing: Flights<(), (), ()>,
}

/// Where the directories of the layers are made.
#[derive(Clone, Default)]
enum Space {
    #[default]
    Unprepared,
    /// What containerd has given is not to be seen.
    Hidden,
    In(Arc<Scratch>),
}

/// A snapshot for the directories. It goes with the last of them.
struct Scratch {
    containerd: Arc<dyn Containerd>,
    key: String,
    directory: PathBuf,
    /// How many have been made in it.
    made: AtomicUsize,
    /// Nothing more is to be made in it: there who unpacks is held up.
    slow: AtomicBool,
}

/// A layer on its way.
pub(super) struct Staging {
    // Ends before its directory goes.
    unpacker: Unpacker,
    place: Place,
    /// How much of it is to come.
    left: u64,
}

/// A layer that waits for those below it.
pub(super) struct Staged {
    place: Place,
    unpacked: Unpacked,
}

/// A directory for a layer, below one that is ours alone.
struct Place {
    top: PathBuf,
    scratch: Arc<Scratch>,
}

impl Stager {
    /// For the layers whose snapshots of `snapshotter` are to be `chain`, by `program`, which is a cricket; none if it cannot
    /// be done there.
    pub(super) fn new(
        containerd: &Arc<dyn Containerd>,
        snapshotter: &str,
        program: Option<&Path>,
        chain: Vec<String>,
    ) -> Option<Self> {
        let program = program.filter(|_| snapshotter == SNAPSHOTTER)?;
        Some(Stager {
            containerd: containerd.clone(),
            program: program.to_owned(),
            absent: AtomicUsize::new(chain.len()),
            chain,
            space: Mutex::default(),
            preparing: Flights::default(),
        })
    }

    /// Begins with layer `number`, if that is worth it. Blocks for containerd.
    ///
    /// # Errors
    /// What containerd or the kernel says. The layer can still be unpacked by containerd.
    pub(super) fn begin(&self, call: &Call, layer: &Layer, number: usize) -> Result<Option<Staging>> {
        let Some(stored) = stored(layer) else { return Ok(None) };
        if stored.size_bytes < LEAST_BYTES || self.is_there(call, number)? {
            return Ok(None);
        }
        self.preparing.join(call, &(), (), |call, ()| self.prepare(call))?;
        let Space::In(scratch) = self.space.lock().clone() else { return Ok(None) };
        if scratch.slow.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let place = Place::new(scratch)?;
        let onto = if number == 0 { Onto::Nothing } else { Onto::Layers };
        let unpacker = Unpacker::start(&self.program, call, &place.directory(), onto, &[stored])?;
        Ok(Some(Staging { unpacker, place, left: stored.size_bytes }))
    }

    /// Whether the layer is unpacked already.
    fn is_there(&self, call: &Call, number: usize) -> Result<bool> {
        let (Some(key), true) = (self.chain.get(number), number < self.absent.load(Ordering::Relaxed)) else {
            return Ok(false);
        };
        let there = exists(&*self.containerd, call, &SnapshotRef { snapshotter: SNAPSHOTTER, key })?;
        if !there {
            self.absent.fetch_min(number, Ordering::Relaxed);
        }
        Ok(there)
    }

    /// Gives the snapshot up that all are in. Nothing begins any more. Blocks for containerd.
    pub(super) fn end(&self) {
        let space = std::mem::take(&mut *self.space.lock());
        drop(space);
    }

    /// Prepares the snapshot, once.
    fn prepare(&self, call: &Call) -> Result<()> {
        if !matches!(*self.space.lock(), Space::Unprepared) {
            return Ok(());
        }
        let name = self.chain.last().map_or("", String::as_str);
        let (containerd, key) = (self.containerd.clone(), work_key(name)?);
        // From here on it is to go, also if the answer is lost.
        let (made, slow) = (AtomicUsize::new(0), AtomicBool::new(false));
        let mut scratch = Scratch { containerd, key, directory: PathBuf::new(), made, slow };
        let mounts = self.containerd.prepare_snapshot(call, &scratch.at(), "", &Labels::new())?;
        let space = match files_of(&mounts).filter(|directory| directory.is_dir()) {
            None => Space::Hidden,
            Some(directory) => {
                // containerd may see something else there than we do.
                must_be_empty(&directory)?;
                scratch.directory = directory;
                Space::In(Arc::new(scratch))
            }
        };
        *self.space.lock() = space;
        Ok(())
    }
}

impl Staging {
    /// More of the layer. Blocks while what came before is being unpacked.
    ///
    /// # Errors
    /// If nothing will become of it. It should be dropped then.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let left = self.left.checked_sub(bytes.len() as u64);
        self.left = left.ok_or_else(|| Error::precondition("there is more of it than there should be"))?;
        self.unpacker.write(bytes).inspect_err(|e| self.place.note(e))?;
        if self.left == 0 {
            self.unpacker.end();
        }
        Ok(())
    }

    /// That was all that there is to come. Blocks until it is unpacked. Nothing if that was not the layer, or did not go
    /// well: others may have brought the rest of it, and containerd can unpack it.
    pub(super) fn finish(self, call: &Call, layer: &Layer) -> Option<Staged> {
        if self.left > 0 {
            return None;
        }
        // Whether the layer is to blame for another diff id, containerd will say.
        let done = self.unpacker.finish().and_then(|unpacked| {
            check(std::slice::from_ref(layer), &unpacked)?;
            Ok(unpacked)
        });
        match done {
            Ok(unpacked) => Some(Staged { place: self.place, unpacked }),
            Err(e) => {
                leave(layer, &e);
                self.place.note(&e);
                self.place.clear(call);
                None
            }
        }
    }
}

impl Staged {
    /// Makes it snapshot `name` on `parent`, which is there. Blocks. False if that is left to containerd.
    pub(super) fn settle(self, at: &Images<'_>, call: &Call, layer: &Layer, parent: &str, name: &str) -> bool {
        let done = on_snapshot(at, call, parent, name, |mounts| self.take(mounts));
        match &done {
            Ok(()) => log::debug!("layer {}: unpacked while it was fetched", layer.descriptor.digest),
            Err(e) => leave(layer, e),
        }
        // If it was taken, there is nothing.
        self.give_up(call);
        done.is_ok()
    }

    /// Makes room. Blocks.
    pub(super) fn give_up(self, call: &Call) {
        self.place.clear(call);
    }

    /// Puts what was unpacked where these mounts write.
    fn take(&self, mounts: &[Mount]) -> Result<()> {
        let upper = files_of(mounts).ok_or_else(|| Error::precondition("its directory is not to be seen"))?;
        adopt(&self.place.directory(), &upper, &lower_of(mounts), &self.unpacked)
    }
}

impl Place {
    fn new(scratch: Arc<Scratch>) -> Result<Self> {
        let top = scratch.directory.join(scratch.made.fetch_add(1, Ordering::Relaxed).to_string());
        let place = Place { top, scratch };
        for directory in [place.top.clone(), place.directory()] {
            let made = DirBuilder::new().mode(0o700).create(&directory);
            made.with_context(|| format!("make {}", directory.display()))?;
        }
        Ok(place)
    }

    fn directory(&self) -> PathBuf {
        self.top.join("layer")
    }

    /// A process that took too long was held up by what others would be held up by as well, and whoever removes what it has
    /// made. So may one have been that nobody waited for any more.
    fn note(&self, why: &Error) {
        if matches!(why.kind(), Kind::DeadlineExceeded | Kind::Canceled) {
            self.scratch.slow.store(true, Ordering::Relaxed);
        }
    }

    /// Makes room for what is to come. What is not removed goes with the snapshot.
    fn clear(&self, call: &Call) {
        if call.check().is_err() || self.scratch.slow.load(Ordering::Relaxed) {
            return;
        }
        if let Err(e) = tree::remove(&self.top) {
            log::debug!("remove {}: {e}", self.top.display());
        }
    }
}

impl Scratch {
    fn at(&self) -> SnapshotRef<'_> {
        SnapshotRef { snapshotter: SNAPSHOTTER, key: &self.key }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        match self.containerd.remove_snapshot(&Call::undo(), &self.at()) {
            Err(e) if e.kind() != Kind::NotFound => log::warn!("remove snapshot {}: {e}", self.key),
            _ => {}
        }
    }
}

/// Says why a layer is left to containerd.
pub(super) fn leave(layer: &Layer, why: &Error) {
    // A pull that is over unpacks nothing.
    if why.kind() != Kind::Canceled {
        log::info!("layer {}: containerd unpacks it: {why}", layer.descriptor.digest);
    }
}

/// Whether those layers were unpacked.
pub(super) fn check(layers: &[Layer], unpacked: &Unpacked) -> Result<()> {
    if layers.len() != unpacked.diff_ids.len() {
        return Err(Error::internal(format!("{} of {} layers were unpacked", unpacked.diff_ids.len(), layers.len())));
    }
    layers.iter().zip(&unpacked.diff_ids).try_for_each(|(layer, found)| layer.check(found))
}

/// How a layer is stored; none for one that is left to containerd.
pub(super) fn stored(layer: &Layer) -> Option<Stored> {
    let compression = match layer.descriptor.media_type.as_str() {
        OCI_LAYER => Compression::None,
        "application/vnd.oci.image.layer.v1.tar+gzip" | "application/vnd.docker.image.rootfs.diff.tar.gzip" => {
            Compression::Gzip
        }
        _ => return None,
    };
    Some(Stored { compression, size_bytes: layer.descriptor.size_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containerd::fake::Fake;
    use crate::image::testing::TempDir;

    #[test]
    fn what_is_given_up_makes_room_unless_somebody_is_held_up_there() {
        let dir = TempDir::new();
        let scratch = Arc::new(Scratch {
            containerd: Arc::new(Fake::new()),
            key: "scratch".into(),
            directory: dir.0.clone(),
            made: AtomicUsize::new(0),
            slow: AtomicBool::new(false),
        });
        let places = [0, 1].map(|_| Place::new(scratch.clone()).unwrap());
        for place in &places {
            std::fs::write(place.directory().join("file"), "a").unwrap();
        }
        places[0].note(&Error::invalid("an odd layer"));
        places[0].clear(&Call::unbounded());
        assert!(!places[0].top.exists());
        places[1].note(&Error::new(Kind::DeadlineExceeded, "for minutes"));
        places[1].clear(&Call::unbounded());
        assert!(places[1].directory().join("file").exists());
    }
}
