//! The OCI image layout: `index.json` and blobs by digest. `docker save` writes it too, beside its own manifest.json.

use super::entries::Entries;
use super::{document, saved, Archived};
use crate::containerd::Descriptor;
use crate::error::{Error, Kind, Result};
use crate::image::document::{json, Link};
use crate::image::platform::Platform;
use crate::image::resolve::{resolve, Blobs};
use crate::reference::Reference;
use serde::Deserialize;

pub const INDEX: &str = "index.json";

/// The full name; containerd and BuildKit write it.
const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// The OCI's own: a full name, or just a tag.
const OCI_NAME: &str = "org.opencontainers.image.ref.name";

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Link>,
}

struct LayoutBlobs<'a>(&'a Entries);

impl Blobs for LayoutBlobs<'_> {
    fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        document(self.0, &path(&descriptor.digest))
    }
}

/// The images of a layout that suit `host`. Of several with the same name the best one counts.
pub fn images(entries: &Entries, host: &Platform) -> Result<Vec<Archived>> {
    let index: Index = json(INDEX, &document(entries, INDEX)?)?;
    let tags = saved::names_by_id(entries)?;
    let mut found: Vec<Archived> = Vec::new();
    let mut unfit = None;
    for link in &index.manifests {
        let resolved = match resolve(&LayoutBlobs(entries), &link.descriptor()?, host) {
            Err(e) if e.kind() == Kind::FailedPrecondition => {
                unfit = Some(e);
                continue;
            }
            resolved => resolved?,
        };
        let mut names: Vec<Reference> = name(link)?.into_iter().collect();
        names.extend(tags.get(&resolved.config.digest).into_iter().flatten().cloned());
        names.sort();
        names.dedup();
        let extents = resolved.layers.iter().map(|layer| {
            let digest = &layer.descriptor.digest;
            match entries.find(&path(digest))? {
                extent if extent.bytes == layer.descriptor.size_bytes => Ok(extent),
                extent => Err(Error::invalid(format!(
                    "blob {digest}: has {} bytes instead of {}",
                    extent.bytes, layer.descriptor.size_bytes
                ))),
            }
        });
        let extents = extents.collect::<Result<Vec<_>>>()?;
        keep_best(&mut found, Archived { resolved, names, extents });
    }
    match (found.is_empty(), unfit) {
        (true, Some(e)) => Err(e.context("the archive has no image for this node")),
        (true, None) => Err(Error::invalid("the archive's index.json lists no image")),
        (false, _) => Ok(found),
    }
}

/// Adds `new`. A name belongs to the best image that has it; an image that loses all its names so is left out.
fn keep_best(found: &mut Vec<Archived>, mut new: Archived) {
    if let Some(same) = found.iter_mut().find(|old| old.resolved.target.digest == new.resolved.target.digest) {
        same.names.append(&mut new.names);
        same.names.sort();
        same.names.dedup();
        return;
    }
    let named = !new.names.is_empty();
    found.retain_mut(|old| {
        if old.resolved.rank <= new.resolved.rank {
            new.names.retain(|name| !old.names.contains(name));
            return true;
        }
        let named = !old.names.is_empty();
        old.names.retain(|name| !new.names.contains(name));
        !named || !old.names.is_empty()
    });
    if !named || !new.names.is_empty() {
        found.push(new);
    }
}

/// The name an entry of index.json has, if it is one and not just a tag.
fn name(link: &Link) -> Result<Option<Reference>> {
    let annotation = |key| link.annotations.as_ref().and_then(|a| a.get(key));
    if let Some(name) = annotation(CONTAINERD_NAME) {
        return Reference::parse(name).map(Some);
    }
    let full = annotation(OCI_NAME).filter(|name| name.contains(['/', ':']));
    // The OCI allows more than references here; what is none is no name.
    Ok(full.and_then(|name| Reference::parse(name).ok()))
}

fn path(digest: &str) -> String {
    format!("blobs/{}", digest.replacen(':', "/", 1))
}
