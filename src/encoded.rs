//! Answers put together from parts that were encoded once.
//!
//! The kubelet lists everything every second, and hardly anything of it ever changes.

use std::fmt;
use std::marker::PhantomData;

use protobuf::rt::WireType;
use protobuf::{CodedOutputStream, Message};

use crate::error::{Error, Kind, Result};

/// An `R` as it goes over the wire.
pub struct Encoded<R> {
    bytes: Vec<u8>,
    of: PhantomData<fn() -> R>,
}

/// A field that changes: its number, and the value of its enum.
pub type Changing = (u32, i32);

impl<R> Encoded<R> {
    /// Adds an element to the repeated message `field`: `constant`, which is all of it that never changes, and the rest.
    ///
    /// # Errors
    /// `Internal` if it cannot be written.
    pub fn push(&mut self, field: u32, constant: &[u8], changing: Changing) -> Result<()> {
        let mut rest = Vec::new();
        // As every encoder of proto3 does: zero is what an absent field means.
        if changing.1 != 0 {
            write(&mut rest, |out| out.write_enum(changing.0, changing.1))?;
        }
        let length = u32::try_from(constant.len() + rest.len());
        let length = length.map_err(|e| Error::caused(Kind::Internal, "encode a list", e))?;
        self.bytes.reserve(constant.len() + rest.len() + 2 * size_of::<u64>());
        write(&mut self.bytes, |out| {
            out.write_tag(field, WireType::LengthDelimited)?;
            out.write_raw_varint32(length)?;
            out.write_raw_bytes(constant)?;
            out.write_raw_bytes(&rest)
        })
    }

    /// Adds an element to the repeated message `field`, all of it.
    pub fn add(&mut self, field: u32, element: &[u8]) {
        put_bytes(&mut self.bytes, field, element);
    }

    /// What goes over the wire.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl<R: Message> Encoded<R> {
    /// The message itself.
    ///
    /// # Errors
    /// `Internal` if the bytes are none.
    pub fn decode(&self) -> Result<R> {
        R::parse_from_bytes(&self.bytes).map_err(broken)
    }
}

impl<R> Default for Encoded<R> {
    /// A message without any field.
    fn default() -> Self {
        Encoded { bytes: Vec::new(), of: PhantomData }
    }
}

impl<R> fmt::Debug for Encoded<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} encoded bytes", self.bytes.len())
    }
}

/// A message in its wire form; empty if it has none, which our own messages all have.
pub fn encode(message: &impl Message) -> Box<[u8]> {
    message.write_to_bytes().unwrap_or_default().into_boxed_slice()
}

/// Adds a field that has a length, a string or a message, to a message in its wire form.
pub fn put_bytes(message: &mut Vec<u8>, field: u32, value: &[u8]) {
    put_varint(message, u64::from(field) << 3 | WireType::LengthDelimited as u64);
    put_varint(message, value.len() as u64);
    message.extend_from_slice(value);
}

/// Adds a field that is a number. Zero is what an absent field means.
pub fn put_number(message: &mut Vec<u8>, field: u32, value: u64) {
    if value != 0 {
        put_varint(message, u64::from(field) << 3 | WireType::Varint as u64);
        put_varint(message, value);
    }
}

fn put_varint(message: &mut Vec<u8>, mut value: u64) {
    while value > 0x7f {
        message.push(value as u8 | 0x80);
        value >>= 7;
    }
    message.push(value as u8);
}

fn write(bytes: &mut Vec<u8>, write: impl FnOnce(&mut CodedOutputStream<'_>) -> protobuf::Result<()>) -> Result<()> {
    let mut out = CodedOutputStream::vec(bytes);
    write(&mut out).and_then(|()| out.flush()).map_err(broken)
}

fn broken(e: protobuf::Error) -> Error {
    Error::caused(Kind::Internal, "encode a list", e)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cricket_proto::runtime::{Container, ContainerState, ListContainersResponse, Metric, UInt64Value};
    use protobuf::MessageField;

    #[test]
    fn the_parts_are_the_message() {
        let mut list = Encoded::<ListContainersResponse>::default();
        assert_eq!(list.decode().expect("empty"), ListContainersResponse::default());
        let mut expected = ListContainersResponse::default();
        for (n, state) in [ContainerState::CONTAINER_CREATED, ContainerState::CONTAINER_UNKNOWN].into_iter().enumerate()
        {
            // Long enough for a length of two bytes.
            let item = Container { id: "x".repeat(n * 200), image_ref: "i".into(), ..Default::default() };
            list.push(1, &encode(&item), (6, state as i32)).expect("written");
            expected.containers.push(Container { state: state.into(), ..item });
        }
        assert_eq!(list.decode().expect("whole"), expected);
        assert_eq!(list.bytes().len() as u64, expected.compute_size(), "nothing twice");
    }

    #[test]
    fn fields_one_by_one_are_the_message() {
        for value in [0, 1, 0x7f, 0x80, u64::from(u32::MAX), u64::MAX] {
            let metric = Metric {
                name: "x".repeat(usize::try_from(value & 0xff).expect("small")),
                timestamp: i64::from_ne_bytes(value.to_ne_bytes()),
                label_values: vec!["a".into(), String::new()],
                value: MessageField::some(UInt64Value { value, ..Default::default() }),
                ..Default::default()
            };
            let (mut bytes, mut number) = (Vec::new(), Vec::new());
            // As every encoder of proto3 does.
            if !metric.name.is_empty() {
                put_bytes(&mut bytes, 1, metric.name.as_bytes());
            }
            put_number(&mut bytes, 2, value);
            metric.label_values.iter().for_each(|label| put_bytes(&mut bytes, 4, label.as_bytes()));
            put_number(&mut number, 1, value);
            put_bytes(&mut bytes, 5, &number);
            assert_eq!(bytes, metric.write_to_bytes().expect("encoded"));
        }
    }

    #[test]
    fn what_is_no_message_is_an_error() {
        let mut list = Encoded::<ListContainersResponse>::default();
        list.push(1, &[0xff], (6, 0)).expect("written");
        assert!(list.decode().is_err());
    }
}
