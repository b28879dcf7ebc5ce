//! Headers of a tar stream, and what extended headers say of the entry after them.

use std::collections::BTreeMap;

use tar::{EntryType, Header};

use crate::error::{Error, Result};

/// A tar stream is made of these.
pub const BLOCK: usize = 512;
/// Long names and extended headers are held in memory. The limit of Go's reader, which is containerd's.
pub const MAX_EXTENSION_BYTES: u64 = 1 << 20;
/// A record has a length, a space, a key, an equals sign and a line feed.
const LEAST_RECORD: usize = 5;
/// Later than this is no time.
pub const MOST_SECONDS: i64 = 1 << 40;
/// Attributes stand under their names behind this.
const XATTR: &[u8] = b"SCHILY.xattr.";

/// The header in a block; none if the block is one of zeros, which ends an archive.
///
/// # Errors
/// `InvalidArgument` if it is no header.
pub fn read(block: [u8; BLOCK]) -> Result<Option<Header>> {
    if block.iter().all(|&b| b == 0) {
        return Ok(None);
    }
    let sum: u32 = block[..148].iter().chain(&block[156..]).map(|&b| u32::from(b)).sum::<u32>() + 8 * 32;
    let mut header = Header::new_old();
    *header.as_mut_bytes() = block;
    match number(&block[148..156]) {
        Ok(expected) if expected == i64::from(sum) => Ok(Some(header)),
        _ => Err(Error::invalid("no tar header (not a tar file, or a damaged one)")),
    }
}

/// Whether all readers find the same in a header. The fields behind the first ones depend on who wrote it, and some wrote
/// what they did not say.
pub fn is_plain(header: &Header) -> bool {
    let block = header.as_bytes();
    match &block[257..265] {
        // The other trailer is of a tar that had a shorter prefix.
        b"ustar\x0000" => &block[508..] != b"tar\0",
        // Here times may stand, or a prefix.
        b"ustar  \0" => block[345] == 0 && block[357] == 0,
        magic => !magic.starts_with(b"ustar"),
    }
}

/// Whether an entry of this type says something of the one after it.
pub fn is_extension(kind: EntryType) -> bool {
    matches!(kind, EntryType::GNULongName | EntryType::GNULongLink | EntryType::XHeader | EntryType::XGlobalHeader)
}

/// The number in a field, which is empty for 0: octal digits, or what does not fit in them as two's complement behind a bit.
///
/// # Errors
/// `InvalidArgument` for what is no number, or one of more than 63 bits.
pub fn number(field: &[u8]) -> Result<i64> {
    let bad = || Error::invalid(format!("no number: {:?}", String::from_utf8_lossy(field)));
    if let Some(first) = field.first().filter(|first| **first & 0x80 != 0) {
        // The bit itself is none of the number.
        let first = ((*first << 1) as i8) >> 1;
        let mut value = i64::from(first);
        for byte in &field[1..] {
            value = value.checked_mul(256).ok_or_else(bad)? | i64::from(*byte);
        }
        return Ok(value);
    }
    let is_filler = |b: &u8| matches!(b, b' ' | 0);
    let begin = field.iter().position(|b| !is_filler(b)).unwrap_or(field.len());
    let mut value = 0_i64;
    let digits = field[begin..].iter().take_while(|b| !is_filler(b));
    for digit in digits.clone() {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 8).ok_or_else(bad)?;
        value = value.checked_mul(8).ok_or_else(bad)? | i64::from(digit);
    }
    match field[begin + digits.count()..].iter().all(is_filler) {
        true => Ok(value),
        false => Err(bad()),
    }
}

/// A moment, in seconds and nanoseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// Whole seconds.
    pub seconds: i64,
    /// The rest.
    pub nanoseconds: u32,
}

/// What extended headers say of the entry after them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Extension {
    /// GNU's long name and long target, which count for more than others.
    names: [Option<Vec<u8>>; 2],
    /// The last header of records.
    records: Records,
}

/// What a header of records says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Records {
    names: [Option<Vec<u8>>; 2],
    bytes: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    changed: Option<Moment>,
    read: Option<Moment>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Extension {
    /// Takes in the body of an extended header.
    ///
    /// # Errors
    /// `InvalidArgument` for one that cannot be read, for sparse files, and for what is said of all that follows: readers do
    /// not agree on that.
    pub fn add(&mut self, kind: EntryType, body: &[u8]) -> Result<()> {
        match kind {
            EntryType::GNULongName => self.names[0] = Some(until_nul(body).to_vec()),
            EntryType::GNULongLink => self.names[1] = Some(until_nul(body).to_vec()),
            EntryType::XHeader => {
                self.records = Records::default();
                for record in records(body) {
                    let (key, value) = record?;
                    self.records.take(key, value)?;
                }
            }
            _ => return Err(Error::invalid("an extended header for all that follows")),
        }
        Ok(())
    }

    /// The entry's name, if it is said.
    pub fn path(&self) -> Option<&[u8]> {
        self.name(0)
    }

    /// What it leads to.
    pub fn link(&self) -> Option<&[u8]> {
        self.name(1)
    }

    fn name(&self, n: usize) -> Option<&[u8]> {
        let long = self.names[n].as_deref().filter(|name| !name.is_empty());
        long.or(self.records.names[n].as_deref())
    }

    /// How many bytes it has.
    pub fn bytes(&self) -> Option<u64> {
        self.records.bytes
    }

    /// Its owner and its group.
    pub fn owner(&self) -> (Option<u32>, Option<u32>) {
        (self.records.uid, self.records.gid)
    }

    /// When it was last read, and when it was changed.
    pub fn times(&self) -> (Option<Moment>, Option<Moment>) {
        (self.records.read, self.records.changed)
    }

    /// Its extended attributes.
    pub fn into_xattrs(self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        self.records.xattrs
    }
}

impl Records {
    /// One record, of which the last one counts. One without a value says nothing, except of an attribute.
    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let some = !value.is_empty();
        let bad = || {
            let value = String::from_utf8_lossy(value);
            Error::invalid(format!("extended header: {} {value:?}", String::from_utf8_lossy(key)))
        };
        let number = || some.then(|| decimal(value).ok_or_else(bad)).transpose();
        let id = || number()?.map(|n| u32::try_from(n).map_err(|_| bad())).transpose();
        let moment = || some.then(|| moment(value).ok_or_else(bad)).transpose();
        match key {
            b"path" | b"linkpath" | b"uname" | b"gname" if value.contains(&0) => return Err(bad()),
            b"path" => self.names[0] = some.then(|| value.to_vec()),
            b"linkpath" => self.names[1] = some.then(|| value.to_vec()),
            b"size" => self.bytes = number()?.map(|n| i64::try_from(n).map(|_| n).map_err(|_| bad())).transpose()?,
            b"uid" => self.uid = id()?,
            b"gid" => self.gid = id()?,
            b"mtime" => self.changed = moment()?,
            b"atime" => self.read = moment()?,
            b"ctime" => drop(moment()?),
            key if key.is_empty() || key.contains(&0) => return Err(bad()),
            key if key.starts_with(b"GNU.sparse.") => return Err(sparse()),
            key => {
                if let Some(name) = key.strip_prefix(XATTR) {
                    self.xattrs.insert(name.to_vec(), value.to_vec());
                }
            }
        }
        Ok(())
    }
}

/// The records of an extended header: key and value.
pub fn records(body: &[u8]) -> impl Iterator<Item = Result<(&[u8], &[u8])>> {
    let mut rest = body;
    std::iter::from_fn(move || {
        let record = record(&mut rest).transpose();
        // Behind a damaged one nothing can be found.
        if record.as_ref().is_some_and(Result::is_err) {
            rest = &[];
        }
        record
    })
}

/// Files with holes, of which GNU has four formats.
pub fn sparse() -> Error {
    Error::invalid("sparse entries are not supported (pack it without --sparse)")
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|&b| b == 0).next().unwrap_or_default()
}

/// Takes a record off the front: its length in all, a space, key, `=`, value, a line feed. The value may be anything.
fn record<'a>(rest: &mut &'a [u8]) -> Result<Option<(&'a [u8], &'a [u8])>> {
    if rest.is_empty() {
        return Ok(None);
    }
    let parts = || {
        let space = rest.iter().position(|&b| b == b' ')?;
        let length = usize::try_from(decimal(&rest[..space])?).ok().filter(|length| *length >= LEAST_RECORD)?;
        let (whole, after) = rest.split_at_checked(length)?;
        let line = whole.get(space + 1..)?.strip_suffix(b"\n")?;
        let equals = line.iter().position(|&b| b == b'=')?;
        Some((&line[..equals], &line[equals + 1..], after))
    };
    let (key, value, after) = parts().ok_or_else(|| Error::invalid("extended header: a damaged record"))?;
    *rest = after;
    Ok(Some((key, value)))
}

/// Digits only: `parse` would take a sign as well.
fn decimal(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| digits)?.parse().ok()
}

/// `123.45`. What is before 1970 is 1970.
fn moment(text: &[u8]) -> Option<Moment> {
    let (whole, rest) = match text.iter().position(|&b| b == b'.') {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => (text, &text[..0]),
    };
    let (is_before, whole) = whole.strip_prefix(b"-").map_or((false, whole), |whole| (true, whole));
    let seconds = i64::try_from(decimal(whole)?).ok().filter(|seconds| *seconds <= MOST_SECONDS)?;
    if !rest.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = rest.iter().chain(std::iter::repeat(&b'0')).take(9);
    let nanoseconds = digits.fold(0, |all, digit| all * 10 + u32::from(digit - b'0'));
    match is_before {
        true => Some(Moment::default()),
        false => Some(Moment { seconds, nanoseconds }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
        let mut all = Vec::new();
        for (key, value) in records {
            let bytes = key.len() + value.len() + 3;
            let length = (bytes..).find(|n| n - bytes == n.to_string().len()).unwrap();
            all.extend_from_slice(format!("{length} {key}=").as_bytes());
            all.extend_from_slice(value);
            all.push(b'\n');
        }
        all
    }

    fn said(records: &[(&str, &[u8])]) -> Result<Extension> {
        let mut extension = Extension::default();
        extension.add(EntryType::XHeader, &pax(records)).map(|()| extension)
    }

    #[test]
    fn an_extended_header_says_what_the_entry_has_no_room_for() {
        let found = said(&[
            ("path", "a/ü".as_bytes()),
            ("linkpath", b"b"),
            ("size", b"8589934592"),
            ("uid", b"4000000000"),
            ("gid", b"7"),
            ("mtime", b"12.5"),
            ("atime", b"13"),
            ("SCHILY.xattr.security.capability", b"\x01\n\x00="),
            ("SCHILY.xattr.user.a=b", b"1"),
            ("comment", b"of no interest"),
        ])
        .unwrap();
        assert_eq!((found.path(), found.link()), (Some("a/ü".as_bytes()), Some(&b"b"[..])));
        assert_eq!((found.bytes(), found.owner()), (Some(8 << 30), (Some(4_000_000_000), Some(7))));
        let changed = Moment { seconds: 12, nanoseconds: 500_000_000 };
        assert_eq!(found.times(), (Some(Moment { seconds: 13, nanoseconds: 0 }), Some(changed)));
        let xattrs: Vec<_> = found.into_xattrs().into_iter().collect();
        let expected = [(&b"security.capability"[..], &b"\x01\n\x00="[..]), (b"user.a", b"b=1")];
        assert_eq!(xattrs, expected.map(|(name, value)| (name.to_vec(), value.to_vec())));
    }

    #[test]
    fn the_last_word_counts_and_an_empty_one_takes_back() {
        let found = said(&[("uid", b"1"), ("uid", b"2"), ("gid", b"1"), ("gid", b""), ("path", b"x"), ("path", b"")]);
        let mut found = found.unwrap();
        assert_eq!((found.owner(), found.path()), ((Some(2), None), None));
        // Also of an attribute, where it is a value; and a second header says all anew.
        found.add(EntryType::XHeader, &pax(&[("SCHILY.xattr.user.a", b"1"), ("SCHILY.xattr.user.a", b"")])).unwrap();
        assert_eq!(found.owner(), (None, None));
        assert_eq!(found.into_xattrs().into_iter().collect::<Vec<_>>(), [(b"user.a".to_vec(), Vec::new())]);
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for (key, value) in [
            ("uid", "-1"),
            ("uid", "4294967296"),
            ("size", "+1"),
            ("size", "9223372036854775808"),
            ("size", "99999999999999999999"),
            ("mtime", "1.x"),
            ("mtime", "1.1234567890x"),
            ("mtime", "-1.x"),
            ("mtime", "one"),
            ("ctime", "one"),
            ("uname", "a\0b"),
            ("a\0b", "x"),
            ("", "x"),
            ("path", "a\0b"),
            ("GNU.sparse.major", "1"),
        ] {
            let refused = said(&[(key, value.as_bytes())]).map_err(|e| e.kind());
            assert_eq!(refused, Err(crate::error::Kind::InvalidArgument), "{key}={value}");
        }
        for body in [&b"5 a=b\n"[..], b"6 a=b", b"x a=b\n", b"7 ab=c\n\0", b"3 \n", b" a=b\n", b"0 a=b\n", b"4 =\n"] {
            assert!(Extension::default().add(EntryType::XHeader, body).is_err(), "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn numbers() {
        for (field, expected) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"  644 \0", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"77777777777\0", Some(0o77_777_777_777)),
            (b"\x80\0\0\0\xee\x6b\x28\0", Some(4_000_000_000)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfb", Some(-5)),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", Some(i64::MAX)),
            (b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"0000648\0", None),
            (b"12 3\0", None),
            (b"-1\0", None),
        ] {
            assert_eq!(number(field).ok(), expected, "{field:?}");
        }
    }

    #[test]
    fn moments() {
        let at = |seconds, nanoseconds| Some(Moment { seconds, nanoseconds });
        for (text, expected) in [
            ("0", at(0, 0)),
            ("1.000000001", at(1, 1)),
            ("1.9999999999", at(1, 999_999_999)),
            ("-5.5", at(0, 0)),
            ("1099511627776", at(1 << 40, 0)),
            ("1099511627777", None),
            ("", None),
            ("-", None),
        ] {
            assert_eq!(moment(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn long_names_end_at_a_nul() {
        let mut extension = Extension::default();
        extension.add(EntryType::GNULongName, b"name\0\0").unwrap();
        extension.add(EntryType::GNULongLink, b"link").unwrap();
        // Whatever else is said.
        extension.add(EntryType::XHeader, &pax(&[("path", b"other"), ("linkpath", b"other")])).unwrap();
        assert_eq!((extension.path(), extension.link()), (Some(&b"name"[..]), Some(&b"link"[..])));
        extension.add(EntryType::GNULongName, b"\0").unwrap();
        assert_eq!(extension.path(), Some(&b"other"[..]), "an empty one says nothing");
        assert!(extension.add(EntryType::XGlobalHeader, &pax(&[("path", b"x")])).is_err());
    }

    #[test]
    fn headers_that_are_read_in_two_ways() {
        assert!([Header::new_old(), Header::new_ustar(), Header::new_gnu()].iter().all(is_plain));
        let odd = |mut header: Header, at: usize, byte| {
            header.as_mut_bytes()[at] = byte;
            !is_plain(&header)
        };
        assert!(odd(Header::new_gnu(), 345, b'p') && odd(Header::new_gnu(), 357, b'0'));
        assert!(odd(Header::new_ustar(), 263, b' ') && !odd(Header::new_old(), 257, b'u'));
        let mut star = Header::new_ustar();
        star.as_mut_bytes()[508..].copy_from_slice(b"tar\0");
        assert!(!is_plain(&star));
    }

    #[test]
    fn a_block_is_a_header_if_its_sum_says_so() {
        assert!(read([0; BLOCK]).unwrap().is_none());
        let mut header = Header::new_gnu();
        header.set_path("a").unwrap();
        header.set_cksum();
        assert_eq!(&*read(*header.as_bytes()).unwrap().unwrap().path_bytes(), b"a");
        let mut damaged = *header.as_bytes();
        damaged[0] ^= 1;
        assert!(read(damaged).is_err());
    }
}
