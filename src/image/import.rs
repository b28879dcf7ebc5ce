//! `cricket import`: images from an archive into containerd, without a registry.

use std::io::Read;
use std::path::Path;

use super::archive::{Archive, Archived};
use super::lease::leased;
use super::publish::{publish, records};
use super::pull::Step;
use super::{labels, load, platform, unpack, Images};
use crate::call::Call;
use crate::containerd::{Content, Descriptor, ImageRecord, Labels};
use crate::digest::Hashing;
use crate::error::{Context, Error, Result};
use crate::reference::Reference;

/// An image that was imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// Its id.
    pub id: String,
    /// Its names, normalised. Empty when neither the archive nor the caller gives one: it can be found by id only.
    pub references: Vec<String>,
}

/// Imports all images of an archive that suit this node: an OCI layout or `docker save`, as a tar that may be
/// compressed. `name` replaces the names in it. `spool_dir` takes a compressed archive's uncompressed copy.
///
/// Blocks. All or nothing: when it fails, containerd has what it had before. What is there already is not written again.
///
/// # Errors
/// `InvalidArgument` for a broken archive, `FailedPrecondition` for one without an image for this node's platform.
pub fn import(
    at: &Images<'_>,
    call: &Call,
    file: &Path,
    spool_dir: &Path,
    name: Option<&str>,
) -> Result<Vec<Imported>> {
    import_telling(at, call, file, spool_dir, name, &|_| ())
}

/// The same, and `report` hears how it is getting on, as with a pull: layers are numbered through all images.
///
/// # Errors
/// As [`import`].
pub fn import_telling(
    at: &Images<'_>,
    call: &Call,
    file: &Path,
    spool_dir: &Path,
    name: Option<&str>,
    report: &dyn Fn(Step),
) -> Result<Vec<Imported>> {
    let archive = Archive::open(file, spool_dir)?;
    let mut images = archive.images(&platform::host())?;
    if let Some(name) = name {
        rename(&mut images, name)?;
    }
    let records: Vec<ImageRecord> = images.iter().flat_map(|image| records(&image.names, &image.resolved)).collect();
    let layers = images.iter().flat_map(|image| &image.resolved.layers).map(|layer| &layer.descriptor);
    report(Step::Resolved(layers.map(|layer| (layer.digest.clone(), layer.size_bytes)).collect()));
    leased(at, call, |call| {
        let mut first = 0;
        for image in &images {
            write(at, call, &archive, image, &|layer, bytes| report(fetched(image, first, layer, bytes)))
                .with_context(|| format!("image {}", image.resolved.config.digest))?;
            first += image.resolved.layers.len();
        }
        let mut first = 0;
        for image in &images {
            let done = |layer| report(Step::Unpacked { layer: first + layer });
            unpack::unpack(at, call, &image.resolved.layers, &done)
                .with_context(|| format!("unpack image {}", image.resolved.config.digest))?;
            first += image.resolved.layers.len();
        }
        call.check()?;
        publish(at, call, &records)
    })?;
    load::refresh_records(at, call, &records);
    let imported = images.into_iter().map(|image| Imported {
        id: image.resolved.config.digest,
        references: image.names.iter().map(Reference::to_string).collect(),
    });
    Ok(imported.collect())
}

fn rename(images: &mut [Archived], name: &str) -> Result<()> {
    let name = Reference::parse(name)?;
    if name.digest().is_some() {
        return Err(Error::invalid(format!("name {name}: give a tag, the digest follows from the image")));
    }
    match images {
        [image] => {
            image.names = vec![name];
            Ok(())
        }
        _ => Err(Error::invalid(format!("the archive has {} images, one name does not do for them", images.len()))),
    }
}

/// Of the `bytes` of a layer that were read of the archive; the image's layers are numbered from `first`.
fn fetched(image: &Archived, first: usize, layer: usize, bytes: u64) -> Step {
    let whole = image.resolved.layers.get(layer).is_some_and(|layer| layer.descriptor.size_bytes == bytes);
    let layer = first + layer;
    if whole {
        Step::Fetched { layer }
    } else {
        Step::Fetching { layer, bytes }
    }
}

/// What is read of a layer, counted.
struct Counting<'a, R> {
    from: R,
    bytes: u64,
    tell: &'a dyn Fn(u64),
}

impl<R: Read> Read for Counting<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let n = self.from.read(into)?;
        self.bytes += n as u64;
        if n > 0 {
            (self.tell)(self.bytes);
        }
        Ok(n)
    }
}

/// Layers, configuration, manifest, indexes into the content store, with the labels that keep them together. `tell` hears
/// how many bytes of which layer were read.
fn write(at: &Images<'_>, call: &Call, archive: &Archive, image: &Archived, tell: &dyn Fn(usize, u64)) -> Result<()> {
    let resolved = &image.resolved;
    for (number, (layer, bytes)) in archive.layers(image).enumerate() {
        let mut bytes = Counting { from: bytes, bytes: 0, tell: &|bytes| tell(number, bytes) };
        write_blob(at, call, &layer.descriptor, Labels::new(), &mut bytes)?;
    }
    let config_labels = labels::of_config(at.snapshotter, &resolved.chain_id());
    write_blob(at, call, &resolved.config, config_labels, &mut resolved.config_bytes.as_slice())?;
    for document in resolved.documents.iter().rev() {
        write_blob(at, call, &document.descriptor, document.labels.clone(), &mut document.bytes.as_slice())?;
    }
    Ok(())
}

fn write_blob(at: &Images<'_>, call: &Call, blob: &Descriptor, labels: Labels, from: &mut dyn Read) -> Result<()> {
    call.check()?;
    let Descriptor { digest, size_bytes, .. } = blob;
    let ingest = format!("{}-{digest}", call.lease().unwrap_or("cricket-image"));
    let mut hashing = Hashing::new(from);
    let content = Content { digest: digest.clone(), size_bytes: *size_bytes, labels };
    let written = at.containerd.write_content(call, &ingest, &content, &mut hashing);
    // containerd refuses it as well, but does not say which blob of ours it was. One that it has it does not read.
    if hashing.seen_bytes() == *size_bytes {
        let found = hashing.digest();
        if found != *digest && *size_bytes > 0 {
            return Err(Error::invalid(format!("blob {digest}: its content in the archive has digest {found}")));
        }
    }
    written.with_context(|| format!("blob {digest}"))
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::containerd::fake::Fault;
    use crate::containerd::Containerd;
    use crate::digest;
    use crate::error::{Idempotent, Kind};

    const APP: &str = "docker.io/library/app:1";

    /// The archive, the layers' chain and the records are there, and the garbage collector thinks so too.
    fn assert_whole(node: &Node, sample: &Sample, digest_names: usize) {
        node.fake.delete_image(&Call::unbounded(), "none", true).or_gone().unwrap();
        assert_eq!(node.left("content").len(), 5, "manifest, configuration, three layers");
        assert_eq!(node.left("snapshot").len(), 3);
        assert_eq!(node.left("ingest").len() + node.left("lease").len(), 0);
        let image = node.store.get(&sample.id()).unwrap();
        assert_eq!(image.repo_digests.len(), digest_names);
        assert_eq!(node.left("image"), image.names, "containerd and the store agree");
        assert!(node.left("snapshot").contains(&image.chain_id));
        for name in &image.names {
            let record = node.fake.image(&Call::unbounded(), name).unwrap();
            assert!(labels::has(&record.labels, labels::MANAGED), "{name}");
        }
    }

    #[test]
    fn it_tells_how_it_is_getting_on() {
        let (sample, node) = (Sample::new(), Node::new());
        let two = layout(&[(&sample, APP), (&Sample { env: "A=2", ..sample.clone() }, "other")]);
        let file = node.dir.file("two.tar", &tar(&two));
        let steps = std::cell::RefCell::new(Vec::new());
        let report = |step| steps.borrow_mut().push(step);
        import_telling(&node.images(), &Call::unbounded(), &file, &node.dir.0, None, &report).unwrap();
        let steps = steps.into_inner();
        let Some(Step::Resolved(layers)) = steps.first() else { panic!("{steps:?}") };
        assert_eq!(layers.len(), 6);
        for layer in 0..6 {
            let of_it = |step: &&Step| matches!(step, Step::Unpacked { layer: n } if *n == layer);
            assert_eq!(steps.iter().filter(of_it).count(), 1, "{steps:?}");
            // The second image has the same layers, which are there already, and are not read.
            assert_eq!(steps.contains(&Step::Fetched { layer }), layer < 3, "{steps:?}");
        }
    }

    #[test]
    fn every_shape_is_imported_whole() {
        let sample = Sample::new();
        for entries in [layout(&[(&sample, APP)]), saved(&sample, &[APP])] {
            let node = Node::new();
            let imported = node.import(&entries, None).unwrap();
            assert_eq!(imported, [Imported { id: sample.id(), references: vec![APP.into()] }]);
            assert_whole(&node, &sample, 1);
            let image = node.store.get("app:1").unwrap();
            assert_eq!((image.repo_tags.as_slice(), image.config.user.as_str()), (&[APP.to_owned()][..], "7:8"));
            let layers: usize = sample.layers.iter().map(|(stored, ..)| stored.len()).sum();
            assert!(image.size_bytes > layers as u64);
        }
    }

    #[test]
    fn labels_say_what_keeps_what() {
        let node = Node::new();
        let sample = Sample::new();
        node.import(&layout(&[(&sample, APP)]), None).unwrap();
        let labels_of = |bytes: &[u8]| node.fake.content(&Call::unbounded(), &digest::of(bytes)).unwrap().labels;
        let chain_id = node.store.get(APP).unwrap().chain_id.clone();
        assert_eq!(labels_of(&sample.config()), labels::of_config("overlayfs", &chain_id));
        assert_eq!(labels_of(&sample.manifest()).len(), 4);
        for (stored, ..) in &sample.layers {
            assert!(labels_of(stored).is_empty());
        }
    }

    #[test]
    fn an_import_over_an_import_changes_nothing() {
        let node = Node::new();
        let sample = Sample::new();
        node.import(&layout(&[(&sample, APP)]), None).unwrap();
        let before = node.fake.leftovers();
        node.import(&layout(&[(&sample, APP)]), None).unwrap();
        assert_eq!(node.fake.leftovers(), before);
    }

    #[test]
    fn a_name_that_moves_leaves_the_old_image_its_id_and_digest() {
        let node = Node::new();
        let (old, new) = (Sample::new(), Sample { env: "A=new", ..Sample::new() });
        node.import(&layout(&[(&old, APP)]), None).unwrap();
        node.import(&layout(&[(&new, APP)]), None).unwrap();
        assert_eq!(node.store.get(APP).unwrap().id, new.id());
        let old = node.store.get(&old.id()).unwrap();
        assert_eq!((old.repo_tags.len(), old.repo_digests.len()), (0, 1));
    }

    #[test]
    fn the_caller_may_name_what_has_no_name() {
        let sample = Sample::new();
        let node = Node::new();
        let imported = node.import(&layout(&[(&sample, "")]), None).unwrap();
        assert_eq!(imported, [Imported { id: sample.id(), references: vec![] }]);
        assert_whole(&node, &sample, 0);
        let imported = node.import(&layout(&[(&sample, "")]), Some("r.io/x")).unwrap();
        assert_eq!(imported[0].references, ["r.io/x:latest"]);
        assert_whole(&node, &sample, 1);
    }

    #[test]
    fn a_name_that_cannot_be_is_refused_before_anything_is_done() {
        let (one, two) = (Sample::new(), Sample { env: "A=2", ..Sample::new() });
        let node = Node::new();
        let both = layout(&[(&one, ""), (&two, "")]);
        let digest = format!("app@{}", one.id());
        for (entries, name) in [(&both, "app"), (&layout(&[(&one, "")]), "A"), (&layout(&[(&one, "")]), &digest)] {
            assert_eq!(node.import(entries, Some(name)).unwrap_err().kind(), Kind::InvalidArgument, "{name}");
        }
        assert_eq!(node.fake.calls().len(), 0);
    }

    #[test]
    fn layers_that_are_not_what_they_say_leave_nothing() {
        let sample = Sample::new();
        let mut damaged = layout(&[(&sample, APP)]);
        let layer = digest::of(&sample.layers[1].0);
        let found = damaged.iter_mut().find(|(name, _)| name.ends_with(&layer[7..])).unwrap();
        *found.1.last_mut().unwrap() ^= 1;
        let mut swapped = sample.clone();
        swapped.layers[1].0 = gzip(&super::super::testing::layer("other"));
        let mut truncated = sample.clone();
        truncated.layers[2].0.truncate(40);
        let mut plain = saved(&sample, &[APP]);
        *plain.iter_mut().find(|(name, _)| name == "0/layer.tar").unwrap().1.last_mut().unwrap() ^= 1;
        for (entries, reason) in [
            (damaged, format!("blob {layer}: its content in the archive has digest")),
            (layout(&[(&swapped, APP)]), "it unpacks to".into()),
            (layout(&[(&truncated, APP)]), "decompress".into()),
            (plain, "its content in the archive has digest".into()),
        ] {
            let node = Node::new();
            let e = node.import(&entries, None).unwrap_err();
            assert!(e.to_string().contains(&reason), "{reason}: {e}");
            assert_eq!(node.fake.leftovers(), [""; 0], "{reason}");
            assert!(node.store.list().is_empty());
        }
    }

    /// Fails every call of an import, one after the other, and says how many made it fail.
    fn fail_everywhere(fault: Fault, prepare: impl Fn(&Node), sample: &Sample, check: impl Fn(&Node)) -> usize {
        for n in 1.. {
            let node = Node::new();
            prepare(&node);
            let before = node.fake.leftovers();
            node.fake.fail_at(n, fault);
            let outcome = node.import(&layout(&[(sample, APP)]), None);
            if node.fake.fault_pending() {
                outcome.unwrap();
                return n;
            }
            match outcome {
                Err(e) => {
                    assert_eq!(e.kind(), Kind::Unavailable);
                    assert_eq!(node.fake.leftovers(), before, "{fault:?} at call {n}: {e}");
                    check(&node);
                }
                // Only what comes after the last record may fail unnoticed.
                Ok(_) => assert!(node.fake.image(&Call::undo(), &sample.id()).is_ok(), "{fault:?} at call {n}"),
            }
        }
        unreachable!("the range has no end")
    }

    #[test]
    fn whichever_call_fails_nothing_is_left() {
        for fault in [Fault::Refused, Fault::LostReply] {
            let calls = fail_everywhere(fault, |_| {}, &Sample::new(), |node| assert!(node.store.list().is_empty()));
            assert!(calls > 20, "{calls} calls are too few for an import");
        }
    }

    #[test]
    fn whichever_call_fails_a_moved_name_moves_back() {
        let (old, new) = (Sample::new(), Sample { env: "A=new", ..Sample::new() });
        let prepare = |node: &Node| drop(node.import(&layout(&[(&old, APP)]), None).unwrap());
        for fault in [Fault::Refused, Fault::LostReply] {
            fail_everywhere(fault, prepare, &new, |node| {
                let back = node.fake.image(&Call::undo(), APP).unwrap();
                assert_eq!(back.target.digest, digest::of(&old.manifest()));
            });
        }
    }

    #[test]
    fn a_cancelled_import_leaves_nothing() {
        let node = Node::new();
        let call = Call::unbounded();
        call.cancel();
        let file = node.dir.file("a.tar", &tar(&layout(&[(&Sample::new(), APP)])));
        let e = import(&node.images(), &call, &file, &node.dir.0, None).unwrap_err();
        assert_eq!(e.kind(), Kind::Canceled);
        assert_eq!(node.fake.leftovers(), [""; 0]);
    }
}
