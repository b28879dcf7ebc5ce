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
            // What the same target was found to be need not be read again. That it has lost its layers since is nothing that
            // a record could tell.
            Some(record) => match at.store.of_target(&record.target.digest) {
                None => usable(at, call, record)?,
                known => known.map(|image| Image::clone(&image)),
            },
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

/// Reads records again that we have just put. That they are there is certain, only lists may not show it yet.
pub(super) fn refresh_records(at: &Images<'_>, call: &Call, records: &[ImageRecord]) {
    for record in records {
        if let Err(e) = refresh(at, call, &record.name) {
            log::warn!("image {} is there but not listed yet: {e}", record.name);
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
    fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        self.containerd.read_content(self.call, &descriptor.digest, MAX_BYTES)
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

/// One image that cannot be read must not hide the others; only containerd's absence concerns them all.
fn is_about_the_image(kind: Kind) -> bool {
    !matches!(kind, Kind::Unavailable | Kind::DeadlineExceeded | Kind::Canceled)
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

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::containerd::fake::Fault;
    use crate::digest;
    use crate::store::image::ImageStore;

    const APP: &str = "docker.io/library/app:1";

    /// A node where another tool put the sample under [`APP`], unpacked or not.
    fn foreign(sample: &Sample) -> Node {
        let node = Node::new();
        node.import(&layout(&[(sample, APP)]), None).unwrap();
        let call = Call::unbounded();
        for name in node.left("image") {
            let mut record = node.fake.image(&call, &name).unwrap();
            record.labels.clear();
            node.fake.put_image(&call, &record).unwrap();
            if name != APP {
                node.fake.delete_image(&call, &name, false).unwrap();
            }
        }
        Node { store: ImageStore::new(), ..node }
    }

    #[test]
    fn what_others_put_there_is_adopted() {
        let sample = Sample::new();
        for all in [true, false] {
            let node = foreign(&sample);
            match all {
                true => refresh_all(&node.images(), &Call::unbounded()).unwrap(),
                false => refresh(&node.images(), &Call::unbounded(), APP).unwrap(),
            }
            assert_eq!(node.store.get(APP).unwrap().id, sample.id());
            for name in [APP, &sample.id()] {
                let record = node.fake.image(&Call::unbounded(), name).unwrap();
                assert!(labels::has(&record.labels, labels::MANAGED), "{name}");
            }
            // The events of what we put ourselves: nothing more to adopt, nor to read.
            let calls = node.fake.calls().len();
            refresh(&node.images(), &Call::unbounded(), &sample.id()).unwrap();
            assert_eq!(node.fake.calls()[calls..], ["image"]);
            assert_eq!(node.store.get(&sample.id()).unwrap().names, [APP.to_owned(), sample.id()]);
        }
    }

    #[test]
    fn a_start_reads_the_same_as_the_events_before_it() {
        let node = Node::new();
        node.import(&layout(&[(&Sample::new(), APP)]), None).unwrap();
        let before = node.store.list();
        refresh_all(&node.images(), &Call::unbounded()).unwrap();
        assert_eq!(node.store.list(), before);
    }

    #[test]
    fn what_is_incomplete_or_foreign_is_left_out_and_left_alone() {
        let sample = Sample::new();
        let node = foreign(&sample);
        let call = Call::unbounded();
        let missing = ImageRecord {
            name: "docker.io/library/gone:1".into(),
            target: Descriptor {
                media_type: "application/vnd.oci.image.manifest.v1+json".into(),
                digest: digest::of(b"gone"),
                size_bytes: 4,
                ..Descriptor::default()
            },
            ..ImageRecord::default()
        };
        node.fake.put_image(&call, &missing).unwrap();
        refresh_all(&node.images(), &call).unwrap();
        assert_eq!(node.store.list().len(), 1);
        assert_eq!(node.fake.image(&call, &missing.name).unwrap().labels.len(), 0);
    }

    /// The content of the sample under [`APP`] without these blobs, never unpacked.
    fn packed(sample: &Sample, without: &[&[u8]]) -> Node {
        let node = Node::new();
        let call = Call::unbounded();
        let all = sample.blobs();
        for (_, bytes) in all.iter().filter(|(_, bytes)| !without.contains(&bytes.as_slice())) {
            let blob = crate::containerd::Content {
                digest: digest::of(bytes),
                size_bytes: bytes.len() as u64,
                ..Default::default()
            };
            node.fake.write_content(&call, &blob.digest, &blob, &mut bytes.as_slice()).unwrap();
        }
        let manifest = sample.manifest();
        let target = Descriptor {
            media_type: "application/vnd.oci.image.manifest.v1+json".into(),
            digest: digest::of(&manifest),
            size_bytes: manifest.len() as u64,
            ..Descriptor::default()
        };
        let record = ImageRecord { name: APP.into(), target, ..ImageRecord::default() };
        node.fake.put_image(&call, &record).unwrap();
        node
    }

    #[test]
    fn without_a_snapshot_all_layers_must_be_there() {
        let sample = Sample::new();
        let node = packed(&sample, &[]);
        refresh_all(&node.images(), &Call::unbounded()).unwrap();
        assert!(node.store.get(APP).is_ok());
        for gone in [&sample.layers[1].0, &sample.config()] {
            let node = packed(&sample, &[gone]);
            refresh_all(&node.images(), &Call::unbounded()).unwrap();
            assert!(node.store.list().is_empty());
        }
        let other = Sample::foreign();
        let node = packed(&other, &[]);
        refresh_all(&node.images(), &Call::unbounded()).unwrap();
        assert!(node.store.list().is_empty());
    }

    #[test]
    fn what_was_not_unpacked_is_unpacked_on_demand() {
        let sample = Sample::new();
        let node = packed(&sample, &[]);
        let call = Call::unbounded();
        refresh_all(&node.images(), &call).unwrap();
        let image = node.store.get(APP).unwrap();
        super::super::unpack::ensure(&node.images(), &call, &image).unwrap();
        assert!(node.left("snapshot").contains(&image.chain_id));
        assert_eq!(node.left("lease"), [""; 0]);
        let config = node.fake.content(&call, &image.id).unwrap();
        assert_eq!(config.labels, labels::of_config("overlayfs", &image.chain_id));
        // And once only.
        let calls = node.fake.calls().len();
        super::super::unpack::ensure(&node.images(), &call, &image).unwrap();
        assert_eq!(node.fake.calls()[calls..], ["snapshot"]);
    }

    #[test]
    fn a_deleted_record_takes_its_name_and_the_last_one_the_image() {
        let node = foreign(&Sample::new());
        let call = Call::unbounded();
        refresh(&node.images(), &call, APP).unwrap();
        refresh(&node.images(), &call, &Sample::new().id()).unwrap();
        node.fake.delete_image(&call, APP, false).unwrap();
        refresh(&node.images(), &call, APP).unwrap();
        assert!(node.store.get(&Sample::new().id()).unwrap().repo_tags.is_empty());
        node.fake.delete_image(&call, &Sample::new().id(), false).unwrap();
        refresh(&node.images(), &call, &Sample::new().id()).unwrap();
        assert!(node.store.list().is_empty());
    }

    #[test]
    fn a_containerd_that_is_away_changes_nothing() {
        let node = Node::new();
        node.import(&layout(&[(&Sample::new(), APP)]), None).unwrap();
        let before = node.store.list();
        for n in 1..=3 {
            node.fake.fail_at(n, Fault::Refused);
            assert_eq!(refresh_all(&node.images(), &Call::unbounded()).unwrap_err().kind(), Kind::Unavailable);
            assert_eq!(node.store.list(), before);
        }
        let node = foreign(&Sample::new());
        for n in 1..=3 {
            node.fake.fail_at(n, Fault::Refused);
            assert_eq!(refresh(&node.images(), &Call::unbounded(), APP).unwrap_err().kind(), Kind::Unavailable);
            assert_eq!(node.store.list(), []);
        }
    }
}
