//! Images as volumes: each is mounted once for a pod, read-only, and stays until the pod is stopped.

use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use cricket_proto::runtime::{ContainerConfig, ImageSpec};

use crate::call::Call;
use crate::containerd::{Labels, Mount, SnapshotRef};
use crate::error::{Context, Error, Idempotent, Kind, Result};
use crate::ids::SandboxId;
use crate::image::{unpack, Images};
use crate::oci::mounts::IMAGE_MOUNT_FAILED;
use crate::rollback::Rollback;
use crate::runtime::Runtime;
use crate::store::Sandbox;
use crate::sys::layer::Layer;
use crate::sys::{mount, view};

/// Marks the snapshots of image volumes; its value is the sandbox's id.
pub const IMAGE_VOLUME: &str = "cricket/image-volume";
/// Keeps containerd's garbage collection away from a snapshot that no record names, whatever becomes of its image.
const GC_ROOT: &str = "containerd.io/gc.root";

/// Where the content is of each of the container's mounts that is one of an image, in the order of its mounts. Those
/// that the pod has not mounted yet are mounted, and stay with the pod. The sandbox must not be ending. Blocks for
/// containerd.
///
/// # Errors
/// `NotFound` for an image that is not here, `InvalidArgument` for a path that it does not have. Every message begins
/// with `ImageVolumeMountFailed`, which the kubelet looks for: do not prefix it.
pub fn mount_images(
    rt: &Runtime,
    call: &Call,
    sandbox: &Sandbox,
    snapshotter: &str,
    config: &ContainerConfig,
) -> Result<Vec<Option<PathBuf>>> {
    let mounts = config.mounts.iter().map(|mount| {
        let Some(image) = mount.image.as_ref() else { return Ok(None) };
        let root = mount_image(rt, call, sandbox, snapshotter, image)?;
        match mount.image_sub_path.as_str() {
            "" => Ok(Some(root)),
            path => view::directory_inside(&root, Path::new(path)).context("image_sub_path").map(Some),
        }
        .with_context(|| format!("mount {} of image {}", mount.container_path, image.image))
    });
    mounts.collect::<Result<_>>().context(IMAGE_MOUNT_FAILED)
}

fn mount_image(rt: &Runtime, call: &Call, sandbox: &Sandbox, snapshotter: &str, image: &ImageSpec) -> Result<PathBuf> {
    let image = rt.images.get(&image.image).map_err(|e| match e.kind() {
        Kind::NotFound => e.context("the image must be pulled or imported first"),
        _ => e,
    })?;
    let containerd = &*rt.containerd;
    unpack::ensure(&Images { containerd, store: &rt.images, snapshotter }, call, &image)?;
    let volume = Volume::new(rt, &sandbox.id, image.id.trim_start_matches("sha256:"));
    let turn = sandbox.turn(call, &volume.name)?;
    if mount::is_mounted(&volume.at)? {
        return Ok(volume.at);
    }
    let (key, labels) = (volume.key(&sandbox.id), labels(&sandbox.id));
    let snapshot = SnapshotRef { snapshotter, key: &key };
    let mut undo = Rollback::new();
    undo.push("image volume", || volume.remove(rt, &Call::undo(), &sandbox.id));
    volume.note(snapshotter)?;
    let mounts = match containerd.view_snapshot(call, &snapshot, &image.chain_id, &labels) {
        // Of a daemon that was killed here, or from before a boot.
        Err(e) if e.kind() == Kind::AlreadyExists => containerd.snapshot_mounts(call, &snapshot),
        mounts => mounts,
    };
    let mounts = mounts.context("view the image's snapshot")?;
    volume.mount(&mounts)?;
    undo.commit();
    drop(turn);
    Ok(volume.at)
}

fn labels(sandbox: &SandboxId) -> Labels {
    Labels::from([(IMAGE_VOLUME.into(), sandbox.to_string()), (GC_ROOT.into(), "cricket".into())])
}

/// Unmounts the image volumes of a pod and removes their snapshots. Idempotent.
pub fn unmount_images(rt: &Runtime, call: &Call, sandbox: &SandboxId) -> Result<()> {
    let notes = rt.layout.image_notes(sandbox);
    let names = match fs::read_dir(&notes) {
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(()),
        read => read.with_context(|| format!("read {}", notes.display()))?,
    };
    for entry in names {
        let name = entry.map_err(Error::from)?.file_name();
        Volume::new(rt, sandbox, &name.to_string_lossy()).remove(rt, call, sandbox)?;
    }
    for dir in [rt.layout.image_mounts(sandbox), notes] {
        fs::remove_dir(&dir).or_gone().with_context(|| format!("remove {}", dir.display()))?;
    }
    Ok(())
}

/// One image in one pod.
struct Volume {
    /// The image's id without its algorithm.
    name: String,
    /// Where it is mounted.
    at: PathBuf,
    /// The file that tells of it, from before it exists until it is gone: the name of its snapshotter.
    note: PathBuf,
}

impl Volume {
    fn new(rt: &Runtime, sandbox: &SandboxId, name: &str) -> Volume {
        let (at, note) = (rt.layout.image_mounts(sandbox).join(name), rt.layout.image_notes(sandbox).join(name));
        Volume { name: name.to_owned(), at, note }
    }

    fn key(&self, sandbox: &SandboxId) -> String {
        format!("volume-{sandbox}-{}", self.name)
    }

    fn note(&self, snapshotter: &str) -> Result<()> {
        for dir in [self.note.parent(), Some(self.at.as_path())].into_iter().flatten() {
            let made = DirBuilder::new().mode(0o755).recursive(true).create(dir);
            made.with_context(|| format!("make {}", dir.display()))?;
        }
        fs::write(&self.note, snapshotter).with_context(|| format!("write {}", self.note.display()))
    }

    fn mount(&self, mounts: &[Mount]) -> Result<()> {
        let layers: Vec<Layer<'_>> =
            mounts.iter().map(|m| Layer { kind: &m.kind, source: &m.source, options: &m.options }).collect();
        view::mount_view(&layers, &self.at)
    }

    /// Every step is idempotent, and the note goes last.
    fn remove(&self, rt: &Runtime, call: &Call, sandbox: &SandboxId) -> Result<()> {
        mount::detach(&self.at).with_context(|| format!("unmount {}", self.at.display()))?;
        fs::remove_dir(&self.at).or_gone().with_context(|| format!("remove {}", self.at.display()))?;
        let snapshotter = match fs::read_to_string(&self.note) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            read => read.with_context(|| format!("read {}", self.note.display()))?,
        };
        // An empty one was being written when we were killed: nothing came after it.
        if !snapshotter.is_empty() {
            let snapshot = SnapshotRef { snapshotter: &snapshotter, key: &self.key(sandbox) };
            let removed = rt.containerd.remove_snapshot(call, &snapshot).or_gone();
            removed.with_context(|| format!("remove the snapshot of image volume {}", self.name))?;
        }
        fs::remove_file(&self.note).or_gone().with_context(|| format!("remove {}", self.note.display()))
    }
}
