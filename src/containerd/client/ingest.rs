//! A blob on its way into containerd's content store: where an earlier attempt ended, what follows, and the end of it.

use std::io;

use cricket_proto::content::{WriteAction, WriteContentRequest, WriteContentResponse};
use cricket_proto::methods::content;
use futures_executor::block_on;
use futures_util::{SinkExt, StreamExt};
use grpcio::{ClientDuplexReceiver, ClientDuplexSender, GrpcSlice, Marshaller, Method, MethodType, WriteFlags};
use protobuf::rt::WireType;
use protobuf::{CodedOutputStream, Message};

use super::convert::{labels_out, size_in, size_out};
use super::Client;
use crate::call::Call;
use crate::containerd::{Content, Source, MESSAGE_BYTES};
use crate::error::{Context, Error, Kind, Result};
use crate::sync::Mutex;

/// Messages that containerd has not answered when the next one is sent: it writes and hashes one while another is on its
/// way and the next is read.
const AHEAD: usize = 1;
/// The number of `WriteContentRequest.data`.
const DATA: u32 = 6;

/// A message as bytes. gRPC takes them as they are: what was read of a blob is not copied again.
struct Wire(Mutex<Vec<u8>>);

/// An open write stream. Dropping it leaves in containerd what has been written, for the next attempt to resume.
pub(super) struct Ingest<'a> {
    client: &'a Client,
    sender: ClientDuplexSender<Wire>,
    receiver: ClientDuplexReceiver<WriteContentResponse>,
    reference: &'a str,
    blob: &'a Content,
    total: i64,
    /// Messages without an answer.
    unanswered: usize,
}

impl<'a> Ingest<'a> {
    pub(super) fn open(client: &'a Client, call: &Call, reference: &'a str, blob: &'a Content) -> Result<Self> {
        let total = size_out(blob.size_bytes)?;
        let options = client.options(call)?;
        let method = Method {
            ty: MethodType::Duplex,
            name: content::WRITE.name,
            req_mar: Marshaller {
                ser: |wire: &Wire, to: &mut GrpcSlice| {
                    *to = GrpcSlice::from(std::mem::take(&mut *wire.0.lock()));
                    Ok(())
                },
                // A server's half, and this is the client.
                de: |_| Err(grpcio::Error::Codec("a written message is not read again".into())),
            },
            resp_mar: Marshaller { ser: content::WRITE.resp_mar.ser, de: content::WRITE.resp_mar.de },
        };
        let (sender, receiver) = client.peer.rpc().duplex_streaming(&method, options).map_err(|e| client.error(e))?;
        Ok(Ingest { client, sender, receiver, reference, blob, total, unanswered: 0 })
    }

    /// Writes what is missing of the blob and commits it.
    pub(super) fn fill(mut self, from: &mut dyn Source) -> Result<()> {
        // What an earlier attempt has left of a short one is written over.
        let mut offset = match from.may_be_there() || self.blob.size_bytes > MESSAGE_BYTES as u64 {
            true => self.exchange(WriteContentRequest::new())?.offset,
            false => 0,
        };
        // FailedPrecondition, so that this ingest is dropped.
        let too_many = || Error::precondition(format!("an earlier attempt left {offset} bytes, which are too many"));
        if offset > self.total {
            return Err(too_many());
        }
        let mut from = match from.after(size_in(offset)) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Err(too_many()),
            from => from.context("read the source")?,
        };
        loop {
            let room = MESSAGE_BYTES.min(usize::try_from(self.total - offset).unwrap_or(MESSAGE_BYTES));
            let after = offset + size_out(room as u64)?;
            // What ends it comes with its last bytes: most layers are one message.
            let (action, labels) = match after == self.total {
                true => (WriteAction::COMMIT, labels_out(&self.blob.labels)),
                false => (WriteAction::WRITE, Default::default()),
            };
            let request = WriteContentRequest { action: action.into(), offset, labels, ..Default::default() };
            let (mut message, start) = with_room(&self.of_this(request), room)?;
            if let Err(e) = from.read_exact(&mut message[start..]) {
                // What was sent is worth keeping, and it is there for the next attempt once it is answered. If it is not,
                // that attempt begins earlier.
                self.answers(0).ok();
                return Err(match e.kind() {
                    io::ErrorKind::UnexpectedEof => {
                        Error::new(Kind::Unknown, format!("the source ended before its {} bytes", self.total))
                    }
                    _ => Error::from(e).context("read the source"),
                });
            }
            self.answers(AHEAD)?;
            self.send(message)?;
            offset = after;
            if offset == self.total {
                return self.answers(0);
            }
        }
    }

    /// One message and its answer.
    fn exchange(&mut self, request: WriteContentRequest) -> Result<WriteContentResponse> {
        let (message, _) = with_room(&self.of_this(request), 0)?;
        self.send(message)?;
        self.answer()
    }

    fn of_this(&self, request: WriteContentRequest) -> WriteContentRequest {
        WriteContentRequest {
            ref_: self.reference.to_owned(),
            total: self.total,
            expected: self.blob.digest.clone(),
            ..request
        }
    }

    fn send(&mut self, message: Vec<u8>) -> Result<()> {
        self.unanswered += 1;
        let sent = block_on(self.sender.send((Wire(Mutex::new(message)), WriteFlags::default())));
        let Err(e) = sent else { return Ok(()) };
        // When containerd has ended the stream, the reason is what the receiver says, not the failure to send.
        self.answers(0)?;
        Err(self.client.error(e))
    }

    /// Waits until no more than so many messages have no answer.
    fn answers(&mut self, most: usize) -> Result<()> {
        while self.unanswered > most {
            self.answer()?;
        }
        Ok(())
    }

    /// The next answer.
    fn answer(&mut self) -> Result<WriteContentResponse> {
        self.unanswered = self.unanswered.saturating_sub(1);
        match block_on(self.receiver.next()) {
            Some(answer) => answer.map_err(|e| self.client.error(e)),
            None => Err(self.client.error(grpcio::Error::RemoteStopped)),
        }
    }
}

/// A message whose data are to be filled in, and where they begin.
fn with_room(request: &WriteContentRequest, room: usize) -> Result<(Vec<u8>, usize)> {
    let mut head = Vec::new();
    let written = (|| {
        let mut to = CodedOutputStream::vec(&mut head);
        request.write_to(&mut to)?;
        if room > 0 {
            to.write_tag(DATA, WireType::LengthDelimited)?;
            to.write_raw_varint64(room as u64)?;
        }
        to.flush()
    })();
    written.map_err(|e: protobuf::Error| Error::internal(format!("encode a message: {e}")))?;
    let start = head.len();
    let mut message = vec![0; start + room];
    message[..start].copy_from_slice(&head);
    Ok((message, start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_what_protobuf_would_have_made_of_it() {
        let request = WriteContentRequest {
            action: WriteAction::WRITE.into(),
            ref_: "layer".into(),
            total: 1 << 40,
            expected: "sha256:0".into(),
            offset: 7,
            ..Default::default()
        };
        for room in [0, 1, 200, MESSAGE_BYTES] {
            let (mut message, start) = with_room(&request, room).unwrap();
            message[start..].fill(9);
            let read = WriteContentRequest::parse_from_bytes(&message).unwrap();
            assert_eq!(read, WriteContentRequest { data: vec![9; room], ..request.clone() });
            assert_eq!(message.len(), message.capacity(), "gRPC would copy it");
        }
    }
}
