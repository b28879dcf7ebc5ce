//! Fills the image store from containerd, at start and when an image record changes, and adopts what others put there.

use std::collections::{HashMap, HashSet};

use super::document::MAX_BYTES;
use super::labels;
use super::platform;
use super::resolve::{self, Blobs, Resolved};
use super::Images;
use crate::call::Call;
use crate::containerd::{Containerd, Descriptor, ImageRecord, SnapshotRef};
use crate::error::{Kind, Result};
use crate::store::image::{Image, NamedImage};

/// Reads all image records. Blocks; to be called at start and after every gap in the event stream.
///
/// Records whose content is not all here, and those of other platforms, are left out. Those that other tools made get
/// the managed label and an id record.
///
/// # Errors
/// Whatever says that containerd cannot be asked; the store is unchanged then.
pub fn refresh_all(at: &Images<'_>, call: &Call) -> Result<()> {
    loop {
        call.check()?;
        let epoch = at.store.epoch();
        let records = at.containerd.images(call)?;
        let ids: HashSet<&str> = records.iter().map(|r| r.name.as_str()).collect();
        // An image has several records with the same target.
        let mut seen: HashMap<&str, Option<Image>> = HashMap::new();
        let mut named = Vec::new();
        for record in &records {
            let image = match seen.get(record.target.digest.as_str()) {
                Some(known) => known.clone(),
                None => {
                    let image = usable(at, call, record)?;
                    seen.entry(&record.target.digest).or_insert(image).clone()
                }
            };
            if let Some(image) = image {
                let has_id = ids.contains(image.id.as_str());
                named.extend(adopt(at, call, record, &image, has_id)?);
                named.push(NamedImage { name: record.name.clone(), pinned: pinned(record), image });
            }
        }
        if at.store.replace_all(epoch, named) {
            return Ok(());
        }
    }
}

/// Reads one image record again. Blocks; for every image event, and after own changes.
///
/// # Errors
/// Whatever says that containerd cannot be asked; the store is unchanged then.
pub fn refresh(at: &Images<'_>, call: &Call, name: &str) -> Result<()> {
    loop {
        call.check()?;
        let epoch = at.store.epoch();
        let record = match at.containerd.image(call, name) {
            Ok(record) => Some(record),
            Err(e) if e.kind() == Kind::NotFound => None,
            Err(e) => return Err(e),
        };
        let image = match &record {
            Some(record) => usable(at, call, record)?,
            None => None,
        };
        let (Some(record), Some(image)) = (record, image) else {
            if at.store.unbind(epoch, name) {
                return Ok(());
            }
            continue;
        };
        // Its id record, if that is missing, comes back to us as an event of its own.
        adopt(at, call, &record, &image, false)?;
        if at.store.bind(epoch, NamedImage { name: record.name.clone(), pinned: pinned(&record), image }) {
            return Ok(());
        }
    }
}

/// Follows a record's target to the image for this node's platform.
pub(super) fn resolve(containerd: &dyn Containerd, call: &Call, target: &Descriptor) -> Result<Resolved> {
    resolve::resolve(&Store { containerd, call }, target, &platform::host())
}

struct Store<'a> {
    containerd: &'a dyn Containerd,
    call: &'a Call,
}

impl Blobs for Store<'_> {
    fn document(&self, digest: &str) -> Result<Vec<u8>> {
        self.containerd.read_content(self.call, digest, MAX_BYTES)
    }
}

/// The image a record names; none if containers cannot be made from it.
fn usable(at: &Images<'_>, call: &Call, record: &ImageRecord) -> Result<Option<Image>> {
    let complete = || -> Result<Image> {
        let resolved = resolve(at.containerd, call, &record.target)?;
        let image = resolved.image();
        // Unpacked it needs its layers no more, and this is one question instead of one per layer.
        let root = SnapshotRef { snapshotter: at.snapshotter, key: &image.chain_id };
        if image.chain_id.is_empty() || at.containerd.snapshot(call, &root).is_ok() {
            return Ok(image);
        }
        for layer in &resolved.layers {
            at.containerd.content(call, &layer.descriptor.digest)?;
        }
        Ok(image)
    };
    match complete() {
        Ok(image) => Ok(Some(image)),
        Err(e) if is_about_the_image(e.kind()) => {
            log::debug!("image record {} is left out: {e}", record.name);
            Ok(None)
        }
        Err(e) => Err(e.context(format!("image record {}", record.name))),
    }
}

fn is_about_the_image(kind: Kind) -> bool {
    matches!(kind, Kind::NotFound | Kind::InvalidArgument | Kind::FailedPrecondition | Kind::ResourceExhausted)
}

/// Makes a record one of ours; returns the id record if it had to be made.
fn adopt(
    at: &Images<'_>,
    call: &Call,
    record: &ImageRecord,
    image: &Image,
    has_id: bool,
) -> Result<Option<NamedImage>> {
    if labels::has(&record.labels, labels::MANAGED) {
        return Ok(None);
    }
    let managed = |name: &str| {
        let mut ours = ImageRecord { name: name.to_owned(), ..record.clone() };
        ours.labels.insert(labels::MANAGED.0.into(), labels::MANAGED.1.into());
        ours
    };
    at.containerd.put_image(call, &managed(&record.name))?;
    if has_id || record.name == image.id {
        return Ok(None);
    }
    match at.containerd.image(call, &image.id) {
        Err(e) if e.kind() == Kind::NotFound => {}
        known => return known.map(|_| None),
    }
    at.containerd.put_image(call, &managed(&image.id))?;
    Ok(Some(NamedImage { name: image.id.clone(), pinned: pinned(record), image: image.clone() }))
}

fn pinned(record: &ImageRecord) -> bool {
    labels::has(&record.labels, labels::PINNED)
}
