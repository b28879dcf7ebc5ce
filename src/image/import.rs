//! `cricket import`: images from an archive into containerd, without a registry.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use super::archive::{Archive, Archived};
use super::digest::Hashing;
use super::{labels, load, platform, unpack, Images};
use crate::call::Call;
use crate::containerd::{Content, Descriptor, ImageRecord, Labels};
use crate::error::{Context, Error, Idempotent, Kind, Result};
use crate::ids::random_hex;
use crate::reference::Reference;
use crate::rollback::Rollback;

/// After this containerd forgets what an import that was killed has left.
const LEASE_TTL: Duration = Duration::from_secs(60 * 60);

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
    let archive = Archive::open(file, spool_dir)?;
    let mut images = archive.images(&platform::host())?;
    if let Some(name) = name {
        rename(&mut images, name)?;
    }
    let records: Vec<ImageRecord> = images.iter().flat_map(records).collect();
    leased(at, call, |call| {
        for image in &images {
            write(at, call, &archive, image).with_context(|| format!("image {}", image.resolved.config.digest))?;
        }
        for image in &images {
            unpack::unpack(at, call, &image.resolved.layers)
                .with_context(|| format!("unpack image {}", image.resolved.config.digest))?;
        }
        call.check()?;
        publish(at, call, &records)
    })?;
    for record in &records {
        if let Err(e) = load::refresh(at, call, &record.name) {
            log::warn!("imported image {} is not listed yet: {e}", record.name);
        }
    }
    let imported = images.into_iter().map(|image| Imported {
        id: image.resolved.config.digest,
        references: image.names.iter().map(Reference::to_string).collect(),
    });
    Ok(imported.collect())
}

/// Runs `work` under a lease of its own. When it fails, the lease goes and the garbage collection with it; when it
/// works, what it made must be referred to by then.
pub(super) fn leased<T>(at: &Images<'_>, call: &Call, work: impl FnOnce(&Call) -> Result<T>) -> Result<T> {
    let lease = format!("cricket-image-{}", &random_hex()?[..16]);
    let mut undo = Rollback::new();
    undo.push("lease", || at.containerd.delete_lease(&Call::undo(), &lease, true).or_gone());
    at.containerd.create_lease(call, &lease, LEASE_TTL).context("create a lease")?;
    let done = work(&call.with_lease(lease.as_str()))?;
    undo.commit();
    if let Err(e) = at.containerd.delete_lease(&Call::undo(), &lease, false).or_gone() {
        log::warn!("lease {lease} stays until it expires: {e}");
    }
    Ok(done)
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

/// Layers, configuration, manifest, indexes into the content store, with the labels that keep them together.
fn write(at: &Images<'_>, call: &Call, archive: &Archive, image: &Archived) -> Result<()> {
    let resolved = &image.resolved;
    for (layer, mut bytes) in archive.layers(image) {
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

/// The records an image gets: its names, the same repositories at its digest, and its id.
fn records(image: &Archived) -> Vec<ImageRecord> {
    let target = &image.resolved.target;
    let mut names: Vec<String> = image.names.iter().map(Reference::to_string).collect();
    names.extend(image.names.iter().filter_map(|n| n.at_digest(&target.digest).ok()).map(|n| n.to_string()));
    names.push(image.resolved.config.digest.clone());
    names.sort();
    names.dedup();
    let record = |name| ImageRecord {
        name,
        target: Descriptor { annotations: Labels::new(), ..target.clone() },
        ..ImageRecord::default()
    };
    names.into_iter().map(record).collect()
}

/// Puts the records, or none: one that fails takes the others back to what they named before.
fn publish(at: &Images<'_>, call: &Call, records: &[ImageRecord]) -> Result<()> {
    let mut undo = Rollback::new();
    for record in records {
        let before = match at.containerd.image(call, &record.name) {
            Ok(before) => Some(before),
            Err(e) if e.kind() == Kind::NotFound => None,
            Err(e) => return Err(e).with_context(|| format!("image {}", record.name)),
        };
        // A pin stays.
        let mut new = record.clone();
        new.labels = before.as_ref().map(|b| b.labels.clone()).unwrap_or_default();
        new.labels.insert(labels::MANAGED.0.into(), labels::MANAGED.1.into());
        undo.push("image record", move || match before {
            Some(before) => at.containerd.put_image(&Call::undo(), &before),
            None => at.containerd.delete_image(&Call::undo(), &record.name, false).or_gone(),
        });
        at.containerd.put_image(call, &new).with_context(|| format!("image {}", record.name))?;
    }
    undo.commit();
    Ok(())
}
