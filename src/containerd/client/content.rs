//! Blobs: read, write with resume, label, unpack.

use std::io::{self, Read, Write};

use cricket_proto::content::{
    AbortRequest, Info, InfoRequest, ReadContentRequest, UpdateRequest, WriteAction, WriteContentRequest,
    WriteContentResponse,
};
use cricket_proto::diff::ApplyRequest;
use cricket_proto::methods::{content, diff};
use futures_executor::block_on;
use futures_util::{SinkExt, StreamExt};
use grpcio::{ClientDuplexReceiver, ClientDuplexSender, WriteFlags};
use protobuf::MessageField;

use super::convert::{descriptor_out, labels_out, mask, mount_out, size_in, size_out};
use super::Client;
use crate::call::Call;
use crate::containerd::{Content, Descriptor, Labels, Mount, Source};
use crate::error::{Context, Error, Kind, Result};

/// What one message carries; far below what containerd takes, and all the memory a write needs.
const CHUNK_BYTES: usize = 256 << 10;

pub(super) fn info(client: &Client, call: &Call, digest: &str) -> Result<Content> {
    let request = InfoRequest { digest: digest.to_owned(), ..InfoRequest::default() };
    let info = client.quick(call, &content::INFO, &request)?.info.unwrap_or_default();
    Ok(Content { digest: info.digest, size_bytes: size_in(info.size), labels: info.labels.into_iter().collect() })
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

/// An open write stream. Dropping it leaves in containerd what has been written, for the next attempt to resume.
struct Ingest<'a> {
    client: &'a Client,
    sender: ClientDuplexSender<WriteContentRequest>,
    receiver: ClientDuplexReceiver<WriteContentResponse>,
    reference: &'a str,
    blob: &'a Content,
    total: i64,
}

impl<'a> Ingest<'a> {
    fn open(client: &'a Client, call: &Call, reference: &'a str, blob: &'a Content) -> Result<Self> {
        let total = size_out(blob.size_bytes)?;
        let options = client.options(call)?;
        let (sender, receiver) =
            client.peer.rpc().duplex_streaming(&content::WRITE, options).map_err(|e| client.error(e))?;
        Ok(Ingest { client, sender, receiver, reference, blob, total })
    }

    /// Writes what is missing of the blob and commits it.
    fn fill(mut self, from: &mut dyn Source) -> Result<()> {
        let mut offset = self.exchange(WriteContentRequest::new())?.offset;
        // FailedPrecondition, so that this ingest is dropped.
        let too_many = || Error::precondition(format!("an earlier attempt left {offset} bytes, which are too many"));
        if offset > self.total {
            return Err(too_many());
        }
        let mut from = match from.after(size_in(offset)) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Err(too_many()),
            from => from.context("read the source")?,
        };
        let mut chunk = vec![0; CHUNK_BYTES];
        while offset < self.total {
            let want = CHUNK_BYTES.min(usize::try_from(self.total - offset).unwrap_or(CHUNK_BYTES));
            let got = read_some(&mut *from, &mut chunk[..want]).context("read the source")?;
            if got == 0 {
                return Err(Error::new(
                    Kind::Unknown,
                    format!("the source ended after {offset} of {} bytes", self.total),
                ));
            }
            offset = self
                .exchange(WriteContentRequest {
                    action: WriteAction::WRITE.into(),
                    offset,
                    data: chunk[..got].to_vec(),
                    ..WriteContentRequest::default()
                })?
                .offset;
        }
        self.exchange(WriteContentRequest {
            action: WriteAction::COMMIT.into(),
            offset,
            labels: labels_out(&self.blob.labels),
            ..WriteContentRequest::default()
        })
        .map(drop)
    }

    /// One message and its answer.
    fn exchange(&mut self, request: WriteContentRequest) -> Result<WriteContentResponse> {
        let request = WriteContentRequest {
            ref_: self.reference.to_owned(),
            total: self.total,
            expected: self.blob.digest.clone(),
            ..request
        };
        let sent = block_on(self.sender.send((request, WriteFlags::default())));
        // When containerd has ended the stream, the reason is what the receiver says, not the failure to send.
        match (block_on(self.receiver.next()), sent) {
            (Some(answer), _) => answer.map_err(|e| self.client.error(e)),
            (None, Err(e)) => Err(self.client.error(e)),
            (None, Ok(())) => Err(self.client.error(grpcio::Error::RemoteStopped)),
        }
    }
}

/// Fills `buffer` as far as the source goes.
fn read_some(from: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
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
