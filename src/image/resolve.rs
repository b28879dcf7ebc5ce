//! From a name's target to the image this node runs: through indexes to the manifest, the configuration, the layers.

use super::document::{self, chain_ids, Config, Document, Link};
use super::labels;
use super::platform::{self, Platform};
use crate::containerd::{Descriptor, Labels};
use crate::digest;
use crate::error::{Context, Error, Kind, Result};
use crate::oci::facts::ImageFacts;
use crate::store::image::Image;

/// Indexes within indexes.
const MAX_DEPTH: usize = 4;
/// No snapshotter stacks more, and each is a request or several.
const MAX_LAYERS: usize = 500;

/// Where documents are read from: containerd's content store, or an archive.
pub trait Blobs {
    /// A whole document; not more than [`document::MAX_BYTES`]. Who asks checks its size and digest.
    fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>>;
}

/// A document and the labels that keep what it refers to.
#[derive(Clone, Debug)]
pub struct Blob {
    pub descriptor: Descriptor,
    pub bytes: Vec<u8>,
    pub labels: Labels,
}

/// A layer as stored, and the digest of what it unpacks to.
#[derive(Clone, Debug)]
pub struct Layer {
    pub descriptor: Descriptor,
    pub diff_id: String,
}

/// An image for this node's platform.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// What its name points to: the manifest, or an index above it.
    pub target: Descriptor,
    /// Target first, manifest last, and the configuration is apart.
    pub documents: Vec<Blob>,
    pub config: Descriptor,
    pub config_bytes: Vec<u8>,
    pub layers: Vec<Layer>,
    pub facts: ImageFacts,
    /// How well it suits this node; 0 is best.
    pub rank: usize,
}

impl Resolved {
    /// The snapshots of its layers, lowest first.
    pub fn chain_ids(&self) -> Vec<String> {
        chain_ids(self.layers.iter().map(|l| l.diff_id.as_str()))
    }

    /// The snapshot of its root filesystem; "" without layers.
    pub fn chain_id(&self) -> String {
        self.chain_ids().pop().unwrap_or_default()
    }

    /// What the store keeps of it.
    pub fn image(&self) -> Image {
        let manifest = self.documents.last().map_or(0, |m| m.descriptor.size_bytes);
        let layers: u64 = self.layers.iter().map(|l| l.descriptor.size_bytes).sum();
        Image {
            id: self.config.digest.clone(),
            size_bytes: manifest + self.config.size_bytes + layers,
            chain_id: self.chain_id(),
            config: self.facts.clone(),
            target: self.target.clone(),
            ..Image::default()
        }
    }
}

/// Follows `target` to the image that suits `host` best.
///
/// # Errors
/// `FailedPrecondition` when there is none for `host`; `InvalidArgument` when a document is wrong; what `blobs` says.
pub fn resolve(blobs: &dyn Blobs, target: &Descriptor, host: &Platform) -> Result<Resolved> {
    Walk { blobs, host, documents: Vec::new() }.down(target).context(format!("image {}", target.digest))
}

struct Walk<'a> {
    blobs: &'a dyn Blobs,
    host: &'a Platform,
    documents: Vec<Blob>,
}

impl Walk<'_> {
    fn down(&mut self, to: &Descriptor) -> Result<Resolved> {
        if self.documents.len() >= MAX_DEPTH {
            return Err(Error::invalid(format!("indexes are nested deeper than {MAX_DEPTH}")));
        }
        let bytes = read(self.blobs, to)?;
        let (document, media_type) = document::parse(&bytes)?;
        let mut to = to.clone();
        if to.media_type.is_empty() {
            // containerd wants one in a target.
            to.media_type = media_type;
        }
        match document {
            Document::Manifest { config, layers } => self.manifest(to, bytes, &config, &layers),
            Document::Index(links) => self.index(&to, &bytes, &links),
        }
    }

    /// The best offer; those that do not say for what they are tell it in their configuration, and are tried last.
    fn index(&mut self, at: &Descriptor, bytes: &[u8], links: &[Link]) -> Result<Resolved> {
        let depth = self.documents.len();
        let known = |link: &Link| link.platform.as_ref().and_then(|p| platform::rank(self.host, p));
        let best = links.iter().enumerate().filter_map(|(n, l)| Some((known(l)?, n))).min();
        let silent = (0..links.len()).filter(|&n| links[n].platform.is_none());
        let tries: Vec<usize> = best.map(|(_, n)| n).into_iter().chain(silent).collect();
        for n in tries {
            let child = links[n].descriptor()?;
            self.documents.truncate(depth);
            let labels = labels::of_index(n, &child.digest);
            self.documents.push(Blob { descriptor: at.clone(), bytes: bytes.to_vec(), labels });
            match self.down(&child) {
                Err(e) if e.kind() == Kind::FailedPrecondition => {}
                outcome => return outcome,
            }
        }
        let offers: Vec<String> = links.iter().filter_map(|l| Some(l.platform.as_ref()?.to_string())).collect();
        Err(Error::precondition(format!("has nothing for {}, only {:?}", self.host, offers.join(", "))))
    }

    fn manifest(&mut self, at: Descriptor, bytes: Vec<u8>, config: &Link, layers: &[Link]) -> Result<Resolved> {
        let config = config.descriptor()?;
        let layers = layers.iter().map(Link::descriptor).collect::<Result<Vec<_>>>()?;
        let config_bytes = read(self.blobs, &config)?;
        let labels = labels::of_manifest(&config.digest, layers.iter().map(|l| l.digest.as_str()));
        self.documents.push(Blob { descriptor: at, bytes, labels });
        assemble(std::mem::take(&mut self.documents), (config, config_bytes), layers, self.host)
    }
}

/// Puts an image together from its manifest (the last document), its configuration and its layers.
pub fn assemble(
    documents: Vec<Blob>,
    (config, config_bytes): (Descriptor, Vec<u8>),
    layers: Vec<Descriptor>,
    host: &Platform,
) -> Result<Resolved> {
    if layers.len() > MAX_LAYERS {
        return Err(Error::invalid(format!("{} layers are more than {MAX_LAYERS}", layers.len())));
    }
    let parsed = Config::parse(&config_bytes)?;
    let rank = match platform::rank(host, &parsed.platform) {
        Some(rank) => rank,
        // Hand-made images often do not say.
        None if parsed.platform == Platform::default() => 0,
        None => return Err(Error::precondition(format!("is for {}, not for {host}", parsed.platform))),
    };
    let (facts, diff_ids) = parsed.into_parts()?;
    if diff_ids.len() != layers.len() {
        return Err(Error::invalid(format!(
            "its manifest has {} layers but its configuration {} diff ids (not a container image?)",
            layers.len(),
            diff_ids.len()
        )));
    }
    let layers = layers.into_iter().zip(diff_ids).map(|(descriptor, diff_id)| Layer { descriptor, diff_id }).collect();
    let target = documents.first().map(|d| d.descriptor.clone()).unwrap_or_default();
    Ok(Resolved { target, documents, config, config_bytes, layers, facts, rank })
}

/// A document with the size and digest that its descriptor promises.
fn read(blobs: &dyn Blobs, descriptor: &Descriptor) -> Result<Vec<u8>> {
    let Descriptor { digest, size_bytes, .. } = descriptor;
    if *size_bytes > document::MAX_BYTES {
        return Err(Error::invalid(format!("blob {digest}: {size_bytes} bytes are too many for a document")));
    }
    let bytes = blobs.document(descriptor)?;
    if bytes.len() as u64 != *size_bytes {
        return Err(Error::invalid(format!("blob {digest}: has {} bytes instead of {size_bytes}", bytes.len())));
    }
    match digest::of(&bytes) {
        found if found == *digest => Ok(bytes),
        found => Err(Error::invalid(format!("blob {digest}: its content has digest {found}"))),
    }
}
