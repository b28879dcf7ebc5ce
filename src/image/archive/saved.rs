//! What `docker save` writes: manifest.json with names, a configuration and layers by path, and no OCI manifest.

use std::collections::HashMap;
use std::io::{self, Read};

use serde::Deserialize;

use super::entries::{Entries, Extent};
use super::{document, magic, Archived, Compression};
use crate::containerd::Descriptor;
use crate::digest::{self, Hashing};
use crate::error::{Context, Error, Kind, Result};
use crate::image::document::{json, Config, Link, NewManifest, OCI_CONFIG, OCI_LAYER, OCI_MANIFEST};
use crate::image::labels;
use crate::image::platform::Platform;
use crate::image::resolve::{assemble, Blob};
use crate::reference::Reference;

pub const MANIFEST: &str = "manifest.json";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

impl Saved {
    fn names(&self) -> Result<Vec<Reference>> {
        self.repo_tags.iter().flatten().map(|tag| Reference::parse(tag)).collect()
    }
}

/// The images of a docker archive that suit `host`.
pub fn images(entries: &Entries, host: &Platform) -> Result<Vec<Archived>> {
    let mut found = Vec::new();
    let mut unfit = None;
    for saved in read(entries)? {
        match image(entries, &saved, host) {
            Ok(image) => found.push(image),
            Err(e) if e.kind() == Kind::FailedPrecondition => unfit = Some(e),
            Err(e) => return Err(e),
        }
    }
    match (found.is_empty(), unfit) {
        (true, Some(e)) => Err(e.context("the archive has no image for this node")),
        (true, None) => Err(Error::invalid("the archive's manifest.json lists no image")),
        (false, _) => Ok(found),
    }
}

/// The names in manifest.json by image id; empty when there is none.
pub fn names_by_id(entries: &Entries) -> Result<HashMap<String, Vec<Reference>>> {
    let mut names: HashMap<String, Vec<Reference>> = HashMap::new();
    if entries.find(MANIFEST).is_err() {
        return Ok(names);
    }
    // Beside a layout it may list images of other platforms that were left out.
    for saved in read(entries)?.into_iter().filter(|saved| entries.find(&saved.config).is_ok()) {
        let id = digest::of(&document(entries, &saved.config)?);
        names.entry(id).or_default().extend(saved.names()?);
    }
    Ok(names)
}

fn read(entries: &Entries) -> Result<Vec<Saved>> {
    json(MANIFEST, &document(entries, MANIFEST)?)
}

fn image(entries: &Entries, saved: &Saved, host: &Platform) -> Result<Archived> {
    let config_bytes = document(entries, &saved.config)?;
    let config = Descriptor {
        media_type: OCI_CONFIG.into(),
        digest: digest::of(&config_bytes),
        size_bytes: config_bytes.len() as u64,
        ..Descriptor::default()
    };
    let (_, diff_ids) = Config::parse(&config_bytes)?.into_parts().with_context(|| saved.config.clone())?;
    let paths = saved.layers.as_deref().unwrap_or_default();
    let extents = paths.iter().map(|path| entries.find(path)).collect::<Result<Vec<_>>>()?;
    let layers = extents.iter().zip(&diff_ids).map(|(&extent, diff_id)| layer(entries, extent, diff_id));
    let mut layers = layers.collect::<Result<Vec<_>>>()?;
    // Too few diff ids are for `assemble` to refuse.
    layers.resize_with(extents.len(), Descriptor::default);
    let manifest = manifest(&config, &layers)?;
    let resolved =
        assemble(vec![manifest], (config, config_bytes), layers, host).with_context(|| saved.config.clone())?;
    Ok(Archived { resolved, names: saved.names()?, extents })
}

/// A layer as it is stored. A plain tar is its own diff id, which is checked when it is read; anything else is hashed.
fn layer(entries: &Entries, extent: Extent, diff_id: &str) -> Result<Descriptor> {
    let mut head = Vec::new();
    entries.read(extent).take(4).read_to_end(&mut head).context("read a layer")?;
    let (suffix, digest) = match magic(&head) {
        Compression::None => ("", diff_id.to_owned()),
        Compression::Gzip => ("+gzip", hash(entries, extent)?),
        Compression::Zstd => ("+zstd", hash(entries, extent)?),
    };
    let media_type = format!("{OCI_LAYER}{suffix}");
    Ok(Descriptor { media_type, digest, size_bytes: extent.bytes, ..Descriptor::default() })
}

fn hash(entries: &Entries, extent: Extent) -> Result<String> {
    let mut hashing = Hashing::new(entries.read(extent));
    io::copy(&mut hashing, &mut io::sink()).context("read a layer")?;
    Ok(hashing.digest())
}

/// The OCI manifest that the archive lacks.
fn manifest(config: &Descriptor, layers: &[Descriptor]) -> Result<Blob> {
    let link = |d: &Descriptor| Link {
        media_type: d.media_type.clone(),
        digest: d.digest.clone(),
        size: d.size_bytes,
        ..Link::default()
    };
    let manifest = NewManifest {
        schema_version: 2,
        media_type: OCI_MANIFEST,
        config: link(config),
        layers: layers.iter().map(link).collect(),
    };
    let bytes = serde_json::to_vec(&manifest).map_err(|e| Error::internal(format!("write a manifest: {e}")))?;
    Ok(Blob {
        descriptor: Descriptor {
            media_type: OCI_MANIFEST.into(),
            digest: digest::of(&bytes),
            size_bytes: bytes.len() as u64,
            ..Descriptor::default()
        },
        labels: labels::of_manifest(&config.digest, layers.iter().map(|l| l.digest.as_str())),
        bytes,
    })
}
