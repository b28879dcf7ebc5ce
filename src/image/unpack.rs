//! Layers onto snapshots: one committed snapshot per layer, named by its chain id and shared by all images.

use super::document::chain_ids;
use super::fs_info::files_of;
use super::labels;
use super::load;
use super::resolve::Layer;
use super::stage::Staged;
use super::Images;
use crate::call::Call;
use crate::containerd::{Containerd, Mount, SnapshotRef};
use crate::error::{Context, Error, Idempotent, Kind, Result};
use crate::ids::random_hex;
use crate::rollback::Rollback;
use crate::store::image::Image;
use crate::sys::durable::sync_filesystem;

/// Makes sure that an image's root filesystem is there as a snapshot, unpacking it if other tools left that undone or
/// did it elsewhere. Blocks; idempotent.
///
/// # Errors
/// `NotFound` if its layers are not in containerd; what containerd says.
pub fn ensure(at: &Images<'_>, call: &Call, image: &Image) -> Result<()> {
    let root = SnapshotRef { snapshotter: at.snapshotter, key: &image.chain_id };
    if image.chain_id.is_empty() || exists(at.containerd, call, &root)? {
        return Ok(());
    }
    let resolved = load::resolve(at.containerd, call, &image.target)?;
    super::lease::leased(at, call, |call| {
        // First the label: it makes the collector keep what is unpacked, under the lease and after it.
        at.containerd.label_content(
            call,
            &resolved.config.digest,
            &labels::of_config(at.snapshotter, &image.chain_id),
        )?;
        unpack(at, call, &resolved.layers, &|_| ())
    })
    .with_context(|| format!("unpack image {}", image.id))
}

/// Unpacks `layers`, lowest first; those that are there are left alone. `call` has a lease that protects the rest of
/// the image. `done` hears the number of each.
///
/// # Errors
/// `InvalidArgument` if a layer unpacks to something else than its diff id.
pub(super) fn unpack(at: &Images<'_>, call: &Call, layers: &[Layer], done: &dyn Fn(usize)) -> Result<()> {
    let chain = chain_ids(layers.iter().map(|l| l.diff_id.as_str()));
    let mut parent = "";
    for (number, (layer, name)) in layers.iter().zip(&chain).enumerate() {
        call.check()?;
        if !exists(at.containerd, call, &SnapshotRef { snapshotter: at.snapshotter, key: name })? {
            extract(at, call, layer, parent, name, None)
                .with_context(|| format!("layer {}", layer.descriptor.digest))?;
        }
        done(number);
        parent = name;
    }
    Ok(())
}

/// Makes snapshot `name` of `layer` on `parent`, with what was unpacked of it already, if that is so.
pub(super) fn extract(
    at: &Images<'_>,
    call: &Call,
    layer: &Layer,
    parent: &str,
    name: &str,
    staged: Option<Staged>,
) -> Result<()> {
    if let Some(staged) = staged {
        if staged.settle(at, call, layer, parent, name) {
            return Ok(());
        }
        call.check()?;
    }
    on_snapshot(at, call, parent, name, |mounts| {
        layer.check(&at.containerd.apply_layer(call, &layer.descriptor, mounts).context("unpack")?)
    })
}

impl Layer {
    /// # Errors
    /// `InvalidArgument` if it was unpacked to something else than its diff id.
    pub(super) fn check(&self, found: &str) -> Result<()> {
        match found == self.diff_id {
            true => Ok(()),
            false => Err(Error::invalid(format!("it unpacks to {found}, but the configuration says {}", self.diff_id))),
        }
    }
}

/// Makes snapshot `name` on `parent` of what `fill` puts into it.
pub(super) fn on_snapshot(
    at: &Images<'_>,
    call: &Call,
    parent: &str,
    name: &str,
    fill: impl FnOnce(&[Mount]) -> Result<()>,
) -> Result<()> {
    let key = work_key(name)?;
    let work = SnapshotRef { snapshotter: at.snapshotter, key: &key };
    let labels = labels::of_snapshot(name);
    let mut undo = Rollback::new();
    undo.push("extract snapshot", || at.containerd.remove_snapshot(&Call::undo(), &work).or_gone());
    let mounts = match at.containerd.prepare_snapshot(call, &work, parent, &labels) {
        // Snapshotters that fetch layers by themselves answer so when they have it.
        Err(e) if e.kind() == Kind::AlreadyExists => {
            let snapshot = SnapshotRef { snapshotter: at.snapshotter, key: name };
            return match exists(at.containerd, call, &snapshot)? {
                true => Ok(()),
                false => Err(e),
            };
        }
        mounts => mounts?,
    };
    fill(&mounts)?;
    keep(&mounts)?;
    match at.containerd.commit_snapshot(call, &work, name, &labels) {
        // Somebody was faster, and what was made is to go away.
        Err(e) if e.kind() == Kind::AlreadyExists => {}
        committed => {
            committed?;
            undo.commit();
        }
    }
    Ok(())
}

/// The key of a snapshot in which `name` is in the making.
pub(super) fn work_key(name: &str) -> Result<String> {
    Ok(format!("extract-{} {name}", &random_hex()?[..16]))
}

/// What was unpacked is on the disk when this returns. The record of a snapshot is, and nobody unpacks a second time what
/// has one: after a power cut it would be there for good, with empty files.
fn keep(mounts: &[Mount]) -> Result<()> {
    // Of other kinds of snapshotters we do not know where their files are, nor of one that we do not see.
    let Some(files) = files_of(mounts).filter(|files| files.exists()) else { return Ok(()) };
    sync_filesystem(&files).with_context(|| format!("write out {}", files.display()))
}

/// Whether there is such a snapshot.
pub(super) fn exists(containerd: &dyn Containerd, call: &Call, snapshot: &SnapshotRef<'_>) -> Result<bool> {
    match containerd.snapshot(call, snapshot) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == Kind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::containerd::fake::Fault;
    use crate::containerd::{Content, Descriptor};
    use crate::digest;

    /// A node with one plain layer in its content store.
    fn node() -> (Node, Layer) {
        let node = Node::new();
        let bytes = layer("a");
        let (digest, size_bytes) = (digest::of(&bytes), bytes.len() as u64);
        let blob = Content { digest: digest.clone(), size_bytes, labels: Default::default() };
        node.images().containerd.write_content(&Call::unbounded(), "a", &blob, &mut bytes.as_slice()).unwrap();
        let media_type = super::super::document::OCI_LAYER.to_owned();
        let descriptor = Descriptor { media_type, digest: digest.clone(), size_bytes, ..Descriptor::default() };
        (node, Layer { descriptor, diff_id: digest })
    }

    #[test]
    fn who_comes_second_takes_what_the_first_has_made() {
        let (node, layer) = node();
        let (at, call) = (node.images(), Call::unbounded());
        unpack(&at, &call, std::slice::from_ref(&layer), &|_| ()).unwrap();
        // As if it had not been there when we looked.
        extract(&at, &call, &layer, "", &layer.diff_id, None).unwrap();
        assert_eq!(node.left("snapshot"), [layer.diff_id.as_str()]);
        let calls = node.fake.calls().len();
        unpack(&at, &call, &[layer], &|_| ()).unwrap();
        assert_eq!(node.fake.calls()[calls..], ["snapshot"], "what is there is not unpacked again");
    }

    #[test]
    fn a_layer_that_is_something_else_is_refused_and_nothing_stays() {
        let (node, mut layer) = node();
        layer.diff_id = digest::of(b"else");
        let e = unpack(&node.images(), &Call::unbounded(), &[layer], &|_| ()).unwrap_err();
        assert_eq!(e.kind(), Kind::InvalidArgument);
        assert_eq!(node.left("snapshot"), [""; 0]);
    }

    #[test]
    fn whichever_call_fails_no_extract_snapshot_stays() {
        for fault in [Fault::Refused, Fault::LostReply] {
            for n in 1.. {
                let (node, layer) = node();
                node.fake.fail_at(n, fault);
                let outcome = unpack(&node.images(), &Call::unbounded(), std::slice::from_ref(&layer), &|_| ());
                assert!(node.left("snapshot").iter().all(|key| *key == layer.diff_id), "{fault:?} at call {n}");
                if node.fake.fault_pending() {
                    outcome.unwrap();
                    break;
                }
                assert_eq!(outcome.unwrap_err().kind(), Kind::Unavailable);
            }
        }
    }
}
