//! Blobs: read, write with resume, label, unpack.

use std::collections::HashSet;
use std::io::Write;

use cricket_proto::content::{AbortRequest, Info, InfoRequest, ListContentRequest, ReadContentRequest, UpdateRequest};
use cricket_proto::diff::ApplyRequest;
use cricket_proto::methods::{content, diff};
use protobuf::MessageField;

use super::convert::{descriptor_out, labels_out, mask, mount_out, size_in};
use super::ingest::Ingest;
use super::Client;
use crate::call::Call;
use crate::containerd::{Content, Descriptor, Labels, Mount, Source};
use crate::error::{Context, Error, Kind, Result};

pub(super) fn info(client: &Client, call: &Call, digest: &str) -> Result<Content> {
    let request = InfoRequest { digest: digest.to_owned(), ..InfoRequest::default() };
    let info = client.quick(call, &content::INFO, &request)?.info.unwrap_or_default();
    Ok(Content { digest: info.digest, size_bytes: size_in(info.size), labels: info.labels.into_iter().collect() })
}

pub(super) fn known(client: &Client, call: &Call, digests: &[&str]) -> Result<HashSet<String>> {
    let filters: Vec<String> = digests.iter().map(|digest| format!("digest=={digest}")).collect();
    let mut known = HashSet::new();
    // No filter at all would ask for every blob.
    if filters.is_empty() {
        return Ok(known);
    }
    let request = ListContentRequest { filters, ..ListContentRequest::default() };
    client.stream(call, &content::LIST, &request, |message| {
        known.extend(message.info.into_iter().map(|info| info.digest));
        Ok(())
    })?;
    Ok(known)
}

pub(super) fn read(client: &Client, call: &Call, digest: &str, max_bytes: u64) -> Result<Vec<u8>> {
    let request = ReadContentRequest { digest: digest.to_owned(), ..ReadContentRequest::default() };
    let mut blob = Vec::new();
    client.stream(call, &content::READ, &request, |message| {
        if (blob.len() + message.data.len()) as u64 > max_bytes {
            let text = format!("content {digest} is larger than the {max_bytes} bytes allowed here");
            return Err(Error::new(Kind::ResourceExhausted, text));
        }
        blob.extend_from_slice(&message.data);
        Ok(())
    })?;
    Ok(blob)
}

pub(super) fn copy(client: &Client, call: &Call, digest: &str, to: &mut dyn Write) -> Result<u64> {
    let request = ReadContentRequest { digest: digest.to_owned(), ..ReadContentRequest::default() };
    let mut copied = 0;
    // It takes as long as whoever reads it takes.
    client.long_stream(call, &content::READ, &request, |message| {
        call.check()?;
        copied += message.data.len() as u64;
        to.write_all(&message.data).context("write")
    })?;
    Ok(copied)
}

pub(super) fn label(client: &Client, call: &Call, digest: &str, labels: &Labels) -> Result<()> {
    if labels.is_empty() {
        // An empty mask would mean: replace all.
        return info(client, call, digest).map(drop);
    }
    let paths: Vec<String> = labels.keys().map(|key| format!("labels.{key}")).collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let change = Info { digest: digest.to_owned(), labels: labels_out(labels), ..Info::default() };
    let request =
        UpdateRequest { info: MessageField::some(change), update_mask: mask(&paths), ..UpdateRequest::default() };
    client.quick(call, &content::UPDATE, &request).map(drop)
}

pub(super) fn write(
    client: &Client,
    call: &Call,
    reference: &str,
    blob: &Content,
    from: &mut dyn Source,
) -> Result<()> {
    let written = Ingest::open(client, call, reference, blob).and_then(|ingest| ingest.fill(from));
    match written {
        Err(e) if e.kind() == Kind::AlreadyExists => label(client, call, &blob.digest, &blob.labels),
        Err(e) => {
            if e.kind() == Kind::FailedPrecondition {
                // What was written is not this blob. To resume it would fail in the same way for ever.
                let request = AbortRequest { ref_: reference.to_owned(), ..AbortRequest::default() };
                if let Err(abort) = client.quick(&Call::undo(), &content::ABORT, &request) {
                    log::warn!("drop the failed ingest {reference}: {abort}");
                }
            }
            Err(e.context(format_args!("write content {}", blob.digest)))
        }
        Ok(()) => Ok(()),
    }
}

pub(super) fn apply(client: &Client, call: &Call, layer: &Descriptor, mounts: &[Mount]) -> Result<String> {
    let request = ApplyRequest {
        diff: MessageField::some(descriptor_out(layer)?),
        mounts: mounts.iter().map(mount_out).collect(),
        ..ApplyRequest::default()
    };
    let answer = client.slow(call, &diff::APPLY, &request)?;
    Ok(answer.applied.unwrap_or_default().digest)
}
