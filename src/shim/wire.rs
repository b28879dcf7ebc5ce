//! The protocol buffers wire format by hand: the few small messages of a shim are not worth a library.
//!
//! Pure. Reading never panics and never allocates; unknown fields are skipped, as the format wants it.

use crate::error::{Error, Result};

/// A field's value, as far as the wire tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// An integer, a boolean, an enumeration.
    Number(u64),
    /// Text, bytes, a message, or packed numbers.
    Bytes(&'a [u8]),
    /// 4 or 8 fixed bytes, which no message of ours has.
    Fixed,
}

impl<'a> Value<'a> {
    /// The number; 0 if it is none.
    pub fn number(self) -> u64 {
        match self {
            Value::Number(n) => n,
            _ => 0,
        }
    }

    /// The bytes; empty if it has none.
    pub fn bytes(self) -> &'a [u8] {
        match self {
            Value::Bytes(bytes) => bytes,
            _ => &[],
        }
    }

    /// The text.
    ///
    /// # Errors
    /// `InvalidArgument` unless it is UTF-8 without NUL, which no path, name or argument may contain.
    pub fn text(self) -> Result<String> {
        let text = std::str::from_utf8(self.bytes()).map_err(|_| Error::invalid("a text is not UTF-8"))?;
        if text.contains('\0') {
            return Err(Error::invalid("a text contains a NUL"));
        }
        Ok(text.to_owned())
    }
}

/// Calls `field` with number and value of every field of a message, in the order of the wire.
///
/// # Errors
/// `InvalidArgument` for bytes that are no message, and what `field` returns.
pub fn read<'a>(mut rest: &'a [u8], mut field: impl FnMut(u32, Value<'a>) -> Result<()>) -> Result<()> {
    let broken = || Error::invalid("a message is cut off or malformed");
    while !rest.is_empty() {
        let tag = varint(&mut rest).ok_or_else(broken)?;
        let number = u32::try_from(tag >> 3).ok().filter(|n| *n > 0).ok_or_else(broken)?;
        let value = match tag & 7 {
            0 => varint(&mut rest).map(Value::Number),
            1 => take(&mut rest, 8).map(|_| Value::Fixed),
            2 => varint(&mut rest).and_then(|n| take(&mut rest, usize::try_from(n).ok()?)).map(Value::Bytes),
            5 => take(&mut rest, 4).map(|_| Value::Fixed),
            // Groups have been gone for twenty years.
            _ => None,
        };
        field(number, value.ok_or_else(broken)?)?;
    }
    Ok(())
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(rest, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(taken)
}

/// A message under construction. Fields that have the value of an absent one are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message(Vec<u8>);

impl Message {
    /// An empty message.
    pub fn new() -> Message {
        Message::default()
    }

    /// Appends an integer.
    #[must_use]
    pub fn number(mut self, field: u32, value: u64) -> Message {
        if value != 0 {
            self.varint(u64::from(field) << 3);
            self.varint(value);
        }
        self
    }

    /// Appends text or bytes.
    #[must_use]
    pub fn bytes(self, field: u32, value: impl AsRef<[u8]>) -> Message {
        match value.as_ref() {
            [] => self,
            bytes => self.delimited(field, bytes),
        }
    }

    /// Appends a message, also an empty one: it differs from an absent one.
    #[must_use]
    pub fn message(self, field: u32, value: Message) -> Message {
        self.delimited(field, &value.0)
    }

    /// Appends a number with a point.
    #[must_use]
    pub fn double(mut self, field: u32, value: f64) -> Message {
        if value != 0.0 {
            self.varint(u64::from(field) << 3 | 1);
            self.0.extend_from_slice(&value.to_le_bytes());
        }
        self
    }

    /// The bytes of the wire.
    pub fn done(self) -> Vec<u8> {
        self.0
    }

    fn delimited(mut self, field: u32, value: &[u8]) -> Message {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(bytes: &[u8]) -> Result<Vec<(u32, Value<'_>)>> {
        let mut found = Vec::new();
        read(bytes, |number, value| {
            found.push((number, value));
            Ok(())
        })?;
        Ok(found)
    }

    #[test]
    fn what_is_written_is_read() {
        let inner = Message::new().number(1, 300).bytes(2, "");
        let bytes = Message::new()
            .number(1, u64::MAX)
            .number(2, 0)
            .bytes(3, "text")
            .message(4, inner)
            .message(5, Message::new());
        let bytes = bytes.double(7, 0.5).done();
        let found = fields(&bytes).expect("whole");
        let expected = [
            (1, Value::Number(u64::MAX)),
            (3, Value::Bytes(b"text")),
            (4, Value::Bytes(&[8, 0xac, 2])),
            (5, Value::Bytes(b"")),
            (7, Value::Fixed),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    #[cfg(not(cricket_shim))]
    fn the_library_agrees() {
        let owner = (0, 4_000_000_000);
        let options = crate::containerd::RuncOptions { binary: "crun", root: "/run/crun", systemd_cgroup: true, owner };
        let ours = Message::new().number(5, 4_000_000_000).bytes(6, "crun").bytes(7, "/run/crun").number(9, 1).done();
        assert_eq!(ours, options.encode().expect("in memory").value);
    }

    #[test]
    fn what_is_cut_off_is_refused_at_every_place() {
        let whole = Message::new().number(1, 1 << 40).bytes(2, "abc").done();
        let good: Vec<usize> = (0..=whole.len()).filter(|n| fields(&whole[..*n]).is_ok()).collect();
        assert_eq!(good, [0, 7, whole.len()]);
    }

    #[test]
    fn nonsense_is_refused() {
        for bytes in
            [&[0x00u8, 0][..], &[0x0b], &[0x0e], &[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]]
        {
            assert!(fields(bytes).is_err(), "{bytes:?}");
        }
        assert!(
            fields(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0]).is_err(),
            "a length beyond all"
        );
        assert_eq!(fields(&[0x0d, 1, 2, 3, 4]).expect("known"), [(1, Value::Fixed)]);
        assert!(Value::Bytes(b"\xff").text().is_err());
        assert!(Value::Bytes(b"a\0b").text().is_err());
    }
}
