//! Blobs of the fake, with real digests.

use std::collections::HashSet;
use std::io::Read;

use sha2::{Digest as _, Sha256};

use super::state::{check_labels, Blob, Ingest, State};
use crate::call::Call;
use crate::containerd::{Content, Descriptor, Labels, Mount, Source, MESSAGE_BYTES};
use crate::error::{Error, Kind, Result};
use crate::sync::Mutex;

impl State {
    pub(super) fn content(&self, digest: &str) -> Result<Content> {
        let blob = self.blob(digest)?;
        let size_bytes = blob.data.len() as u64;
        Ok(Content { digest: digest.to_owned(), size_bytes, labels: blob.labels.clone() })
    }

    pub(super) fn contents(&self, digests: &[&str]) -> HashSet<String> {
        digests.iter().filter(|digest| self.blobs.contains_key(**digest)).map(|digest| (*digest).to_owned()).collect()
    }

    pub(super) fn read_content(&self, digest: &str, max_bytes: u64) -> Result<Vec<u8>> {
        let data = &self.blob(digest)?.data;
        if data.len() as u64 > max_bytes {
            return Err(Error::new(Kind::ResourceExhausted, format!("content {digest} is over {max_bytes} bytes")));
        }
        Ok(data.clone())
    }

    pub(super) fn label_content(&mut self, digest: &str, labels: &Labels) -> Result<()> {
        check_labels(labels)?;
        self.blob(digest)?;
        if let Some(blob) = self.blobs.get_mut(digest) {
            blob.labels.extend(labels.clone());
        }
        Ok(())
    }

    pub(super) fn apply_layer(&self, layer: &Descriptor, mounts: &[Mount]) -> Result<String> {
        if !layer.media_type.contains(".layer.") && !layer.media_type.contains(".rootfs.diff.") {
            return Err(Error::new(Kind::Unknown, format!("no processor for media type {:?}", layer.media_type)));
        }
        let data = &self.blob(&layer.digest)?.data;
        if mounts.is_empty() {
            return Err(Error::invalid("nothing to apply the layer to"));
        }
        Ok(digest(&unpacked(data)?))
    }

    fn blob(&self, digest: &str) -> Result<&Blob> {
        check_digest(digest)?;
        self.blobs.get(digest).ok_or_else(|| Error::not_found(format!("content {digest} not found")))
    }

    fn commit_ingest(&mut self, call: &Call, reference: &str, blob: &Content) -> Result<()> {
        let data = self.ingests.remove(reference).unwrap_or_default().data;
        if data.len() as u64 != blob.size_bytes || digest(&data) != blob.digest {
            return Err(Error::precondition(format!("what was written is not {}", blob.digest)));
        }
        self.blobs.insert(blob.digest.clone(), Blob { data, labels: blob.labels.clone() });
        self.lease_blob(call, &blob.digest);
        Ok(())
    }
}

/// Writes a blob as the client does: resumes an ingest, leaves it when the source fails.
pub(super) fn write(
    state: &Mutex<State>,
    call: &Call,
    reference: &str,
    blob: &Content,
    from: &mut dyn Source,
) -> Result<()> {
    let offset = {
        let mut state = state.lock();
        check_digest(&blob.digest)?;
        check_labels(&blob.labels)?;
        state.check_lease(call)?;
        if state.blobs.contains_key(&blob.digest) {
            state.lease_blob(call, &blob.digest);
            return state.label_content(&blob.digest, &blob.labels);
        }
        if reference.is_empty() {
            return Err(Error::invalid("an ingest needs a reference"));
        }
        state.lease_ingest(call, reference);
        let begun = Ingest { leased: call.lease().is_some(), ..Ingest::default() };
        let ingest = state.ingests.entry(reference.to_owned()).or_insert(begun);
        if !from.may_be_there() && blob.size_bytes <= MESSAGE_BYTES as u64 {
            ingest.data.clear();
        }
        ingest.data.len()
    };
    let mut rest = Vec::new();
    let read = from.after(offset as u64).and_then(|source| {
        let wanted = blob.size_bytes.saturating_sub(offset as u64);
        source.take(wanted).read_to_end(&mut rest)
    });
    let mut state = state.lock();
    if let Some(ingest) = state.ingests.get_mut(reference) {
        ingest.data.extend_from_slice(&rest);
    }
    let got = state.ingests.get(reference).map_or(0, |ingest| ingest.data.len()) as u64;
    match read {
        Err(e) => Err(Error::caused(Kind::Unknown, "read the source", e)),
        Ok(_) if got < blob.size_bytes => Err(Error::new(Kind::Unknown, "the source ended too soon")),
        Ok(_) => state.commit_ingest(call, reference, blob),
    }
}

pub(super) fn check_digest(digest: &str) -> Result<()> {
    let hex = digest.strip_prefix("sha256:").unwrap_or_default();
    if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return Err(Error::invalid(format!("{digest:?} is not a digest")));
    }
    Ok(())
}

fn digest(data: &[u8]) -> String {
    let hex: String = Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// The tar inside, by the magic number of its compression.
fn unpacked(data: &[u8]) -> Result<Vec<u8>> {
    let broken = |e| Error::caused(Kind::Unknown, "decompress the layer", e);
    let mut tar = Vec::new();
    if data.starts_with(&[0x1f, 0x8b]) {
        flate2::read::MultiGzDecoder::new(data).read_to_end(&mut tar).map_err(broken)?;
    } else if data.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        let decoder = ruzstd::decoding::StreamingDecoder::new(data);
        let mut decoder = decoder.map_err(|e| Error::new(Kind::Unknown, format!("decompress the layer: {e}")))?;
        decoder.read_to_end(&mut tar).map_err(broken)?;
    } else {
        tar.extend_from_slice(data);
    }
    Ok(tar)
}
