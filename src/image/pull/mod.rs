//! PullImage: from a registry into containerd, one mechanism for the daemon and for `cricket pull`.
//!
//! ```text
//!                 ┌▶ layers, a few at a time ──┐
//! lease → resolve ┴▶ documents → lowest first: unpack → records → lease gone
//! ```
//!
//! What an attempt that failed on its way here has fetched stays under its lease, and the next one goes on from there.

mod job;
mod lease;
mod origin;
mod stack;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use super::document;
use super::platform;
use super::publish::{publish, records};
use super::resolve::{self, Resolved};
use super::unpack::exists;
use super::{labels, load, Images};
use crate::call::Call;
use crate::containerd::{Containerd, Content, Descriptor, Fresh, Labels, SnapshotRef};
use crate::digest;
use crate::error::{Context, Error, Kind, Result};
use crate::reference::Reference;
use crate::registry::{Credentials, Options, Session};
use crate::store::image::ImageStore;
use crate::store::pulls::Pulls;

use job::Job;
use origin::{surface, FromRegistry, Origin};
use stack::Stack;

/// Larger manifests are refused, as registries do.
const MANIFEST_BYTES: u64 = 4 << 20;

/// How a pull is getting on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// What is to be fetched: digests and sizes of the layers.
    Resolved(Vec<(String, u64)>),
    /// So many bytes of a layer are here.
    Fetching {
        /// Which, from the lowest.
        layer: usize,
        /// Of its size.
        bytes: u64,
    },
    /// A layer is here.
    Fetched {
        /// Which, from the lowest.
        layer: usize,
    },
    /// A layer is unpacked.
    Unpacked {
        /// Which, from the lowest.
        layer: usize,
    },
}

/// Who wants to know. Called from several threads; must not block.
pub type Report = Arc<dyn Fn(Step) + Send + Sync>;

/// What a pull works on.
#[derive(Clone)]
pub struct Puller<'a> {
    /// Where images are kept.
    pub containerd: Arc<dyn Containerd>,
    /// What is known of them.
    pub store: &'a ImageStore,
    /// Where to unpack.
    pub snapshotter: &'a str,
    /// Other pulls of this process.
    pub pulls: &'a Arc<Pulls>,
    /// How to reach registries.
    pub options: &'a Options,
    /// The cricket that unpacks layers while they are fetched; without one containerd does, afterwards.
    pub unpacker: Option<PathBuf>,
    /// containerd may drop layers once they are unpacked.
    pub discard_unpacked_layers: bool,
    /// Go on from earlier attempts at the same image, and leave one to go on from: for the daemon, of which there is one.
    pub sole: bool,
    /// Who wants to know how it is getting on.
    pub report: Report,
}

impl Puller<'_> {
    /// Pulls an image and returns its id. Blocks. Equal pulls at the same time are one; what is here already is not
    /// fetched again.
    ///
    /// # Errors
    /// `NotFound`; `PermissionDenied`; `FailedPrecondition` if there is nothing for this platform; `InvalidArgument` for
    /// content that is not what it should be; `Unknown` with a message that begins with `RegistryUnavailable` when no
    /// registry can be reached, which is what the kubelet wants to read.
    pub fn pull(&self, call: &Call, reference: &Reference, credentials: &Credentials) -> Result<String> {
        let key = (reference.to_string(), self.snapshotter.to_owned(), credentials.clone());
        let pulled = self.pulls.whole.join(call, &key, (), |call, ()| {
            let work = lease::held(self, call, reference, |call| self.fetch(call, reference, credentials));
            work.map_err(|e| surface(e, reference))
        });
        // A client whose time is up hears that, whatever it was that ended so.
        pulled.map_err(|e| call.check().err().unwrap_or(e))
    }

    /// The pull itself. `call` has the lease.
    fn fetch(&self, call: &lease::Leased, reference: &Reference, credentials: &Credentials) -> Result<String> {
        // Of its own, so that the failure of one thread ends the others.
        let (own, _watch) = call.call.branch();
        let session = Arc::new(Session::open(self.options, reference, credentials, &own).for_registry()?);
        let image = self.resolve(&own, reference, &session)?;
        log::debug!("{reference} is image {}, {} layers", image.config.digest, image.layers.len());
        let layers = image.layers.iter().map(|layer| (layer.descriptor.digest.clone(), layer.descriptor.size_bytes));
        (self.report)(Step::Resolved(layers.collect()));
        let source = labels::of_source(reference.domain(), reference.path());
        let known = self.known(&own, &image)?;
        let job = Job::start(self, (own.clone(), session), &image, &source, known, call.wrote.clone());
        // While the first layers are on their way.
        let documents = self.write_documents(&own, &image, &source);
        let done = documents.and_then(|()| self.unpack(&own, &image, &job));
        // Nothing may be written any more when the lease goes.
        let failed = job.end(done.is_ok());
        // What made a thread fail is the reason, not that the others were stopped for it.
        failed.map_or(done, Err)?;
        call.call.check()?;
        let records = records(std::slice::from_ref(reference), &image);
        publish(&self.images(), &call.call, &records)?;
        load::refresh_records(&self.images(), &call.call, &records);
        Ok(image.config.digest)
    }

    fn resolve(&self, call: &Call, reference: &Reference, session: &Session) -> Result<Resolved> {
        let found = session.resolve(reference, MANIFEST_BYTES).for_registry()?;
        let (found_digest, bytes) = match (found.digest, found.bytes) {
            (Some(digest), bytes) => (digest, bytes),
            (None, Some(bytes)) => (digest::of(&bytes), Some(bytes)),
            (None, None) => return Err(Error::internal("the registry was asked for nothing")),
        };
        let target = Descriptor {
            media_type: found.media_type,
            digest: found_digest,
            size_bytes: found.size_bytes.unwrap_or_default(),
            annotations: Labels::new(),
        };
        if target.size_bytes > MANIFEST_BYTES {
            return Err(Error::invalid(format!("its manifest has {} bytes: too many", target.size_bytes)));
        }
        let first = bytes.map(|bytes| (target.digest.clone(), bytes));
        resolve::resolve(&Origin { containerd: &*self.containerd, call, session, first }, &target, &platform::host())
    }

    /// Configuration, manifest and indexes, with the labels that keep what they refer to.
    fn write_documents(&self, call: &Call, image: &Resolved, source: &Labels) -> Result<()> {
        let mut config_labels = labels::of_config(self.snapshotter, &image.chain_id());
        config_labels.extend(source.clone());
        self.write_document(call, &image.config, &image.config_bytes, config_labels)?;
        for document in image.documents.iter().rev() {
            let mut all = document.labels.clone();
            all.extend(source.clone());
            if self.discard_unpacked_layers {
                all.retain(|key, _| !labels::is_of_layer(key));
            }
            self.write_document(call, &document.descriptor, &document.bytes, all)?;
        }
        Ok(())
    }

    fn write_document(&self, call: &Call, to: &Descriptor, bytes: &[u8], labels: Labels) -> Result<()> {
        let content = Content { digest: to.digest.clone(), size_bytes: to.size_bytes, labels };
        let reference = format!("document-{}", to.digest);
        // Two images may share a configuration, and containerd takes one writer of a blob at a time.
        let _turn = self.pulls.blobs.take(call, &to.digest)?;
        origin::write(&*self.containerd, call, &reference, &content, &mut Fresh(bytes))
            .with_context(|| format!("document {}", to.digest))
    }

    /// Asks containerd what it has of an image: two questions in most cases, however many layers there are.
    fn known(&self, call: &Call, image: &Resolved) -> Result<Known> {
        let chain = image.chain_ids();
        if self.has(call, chain.last())? {
            let skipped = if self.discard_unpacked_layers { chain.len() } else { 0 };
            return Ok(Known { chain, whole: true, skipped, blobs: HashSet::new() });
        }
        let mut skipped = 0;
        if self.discard_unpacked_layers {
            skipped = chain.len().saturating_sub(1);
            while skipped > 0 && !self.has(call, chain.get(skipped - 1))? {
                skipped -= 1;
            }
        }
        let digests: Vec<&str> = image.layers.iter().map(|layer| layer.descriptor.digest.as_str()).collect();
        Ok(Known { chain, whole: false, skipped, blobs: self.containerd.contents(call, &digests)? })
    }

    /// Unpacks each layer as soon as it and those below it are here.
    fn unpack(&self, call: &Call, image: &Resolved, job: &Job) -> Result<()> {
        let Known { chain, whole, skipped, .. } = job.known();
        let there = match whole {
            // What was there may have been garbage until the documents were written, which keep it.
            true if self.has(call, chain.last())? => chain.len(),
            true => 0,
            false => *skipped,
        };
        Stack::new(self, call, &image.layers, job).build(there)
    }

    /// Whether there is such a snapshot; of an image without layers there is.
    fn has(&self, call: &Call, name: Option<&String>) -> Result<bool> {
        let at = |key| SnapshotRef { snapshotter: self.snapshotter, key };
        name.map_or(Ok(true), |name| exists(&*self.containerd, call, &at(name)))
    }

    fn images(&self) -> Images<'_> {
        Images { containerd: &*self.containerd, store: self.store, snapshotter: self.snapshotter }
    }
}

/// What is there of an image before it is pulled.
struct Known {
    /// The names of its layers' snapshots.
    chain: Vec<String>,
    /// It is unpacked.
    whole: bool,
    /// How many layers, from the lowest, need not be fetched: they are unpacked, and would be dropped.
    skipped: usize,
    /// Those that are there of its layers; of one that is unpacked, any may be.
    blobs: HashSet<String>,
}

impl Known {
    fn may_have(&self, digest: &str) -> bool {
        self.whole || self.blobs.contains(digest)
    }
}

/// Bytes that a document of this kind may have.
fn most_bytes(is_manifest: bool) -> u64 {
    if is_manifest {
        MANIFEST_BYTES
    } else {
        document::MAX_BYTES
    }
}

/// Whether an attempt that ended so is worth going on from.
fn may_go_on(e: &Error) -> bool {
    matches!(e.kind(), Kind::Canceled | Kind::DeadlineExceeded) || origin::is_unavailable(e)
}
