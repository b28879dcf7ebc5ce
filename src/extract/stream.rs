//! A tar stream, entry by entry, as layers are: nothing of it is held but the buffer that it is read through.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};

use tar::{EntryType, Header};

use super::header::{self, is_extension, number, Extension, Moment, BLOCK, MAX_EXTENSION_BYTES, MOST_SECONDS};
use crate::error::{Context, Error, Result};

/// What an entry makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Make {
    /// A regular file; its bytes follow.
    File,
    /// A directory.
    Directory,
    /// Another name of a file.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A character device of these numbers.
    CharDevice(u32, u32),
    /// A block device of these numbers.
    BlockDevice(u32, u32),
}

/// One entry.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it makes.
    pub make: Make,
    /// Its name as it stands there: no NUL in it, anything else.
    pub path: Vec<u8>,
    /// What a link leads to.
    pub link: Vec<u8>,
    /// Permissions, with those of set-user-id and their like.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// When it was changed.
    pub changed: Moment,
    /// When it was last read, never before that.
    pub read: Moment,
    /// Extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// The entries of a tar stream.
pub struct Stream<R> {
    from: R,
    /// Of the current entry: bytes that have not been read, and those that fill its last block.
    left: u64,
    padding: u64,
}

impl<R: BufRead> Stream<R> {
    /// Reads `from` from its beginning on.
    pub fn new(from: R) -> Self {
        Stream { from, left: 0, padding: 0 }
    }

    /// The next entry; what was left of the last one is passed over. None at the end of the archive.
    ///
    /// # Errors
    /// `InvalidArgument` for what is no tar stream, or has what layers do not have; what reading says.
    pub fn entry(&mut self) -> Result<Option<Entry>> {
        let mut extension = Extension::default();
        while let Some(header) = self.header()? {
            let kind = header.entry_type();
            let numbers = Numbers::of(&header)?;
            let own = u64::try_from(number(&header.as_old().size)?).map_err(|_| Error::invalid("a size below 0"))?;
            if is_extension(kind) {
                self.begin(own)?;
                extension.add(kind, &self.extension()?)?;
                continue;
            }
            let entry = entry(&header, &numbers, extension)?;
            // What else has a size there has no bytes for it, or so everybody reads it.
            self.begin(if entry.0.make == Make::File { entry.1.unwrap_or(own) } else { 0 })?;
            return Ok(Some(entry.0));
        }
        Ok(None)
    }

    /// Writes what the current entry has to `to`, straight from the buffer.
    ///
    /// # Errors
    /// `InvalidArgument` if the stream ends before the entry does.
    pub fn copy(&mut self, to: &mut impl Write) -> Result<()> {
        while self.left > 0 {
            let some = self.from.fill_buf().context("read the layer")?;
            let most = some.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
            if most == 0 {
                return Err(cut_off());
            }
            to.write_all(&some[..most]).context("write")?;
            self.from.consume(most);
            self.left -= most as u64;
        }
        Ok(())
    }

    /// Reads what follows the archive.
    pub fn drain(&mut self) -> Result<()> {
        loop {
            let some = self.from.fill_buf().context("read the layer")?.len();
            if some == 0 {
                return Ok(());
            }
            self.from.consume(some);
        }
    }

    fn begin(&mut self, bytes: u64) -> Result<()> {
        let padded = bytes.checked_next_multiple_of(BLOCK as u64);
        self.padding = padded.ok_or_else(|| Error::invalid("an entry that has no end"))? - bytes;
        self.left = bytes;
        Ok(())
    }

    /// The body of an extended header.
    fn extension(&mut self) -> Result<Vec<u8>> {
        if self.left > MAX_EXTENSION_BYTES {
            return Err(Error::invalid(format!("an extended header of {} bytes", self.left)));
        }
        let mut body = Vec::new();
        self.copy(&mut body)?;
        Ok(body)
    }

    /// The next header; none at the end.
    fn header(&mut self) -> Result<Option<Header>> {
        self.copy(&mut io::sink())?;
        self.left = std::mem::take(&mut self.padding);
        self.copy(&mut io::sink())?;
        let Some(block) = self.block()? else { return Ok(None) };
        let header = header::read(block)?;
        if header.is_none() && self.block()?.is_some_and(|second| second != [0; BLOCK]) {
            return Err(Error::invalid("a block of zeros in the middle of the layer"));
        }
        Ok(header)
    }

    /// The next block; none where the stream ends.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.from.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(cut_off()),
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e).context("read the layer"),
            }
        }
        Ok(Some(block))
    }
}

fn cut_off() -> Error {
    Error::invalid("the layer is cut off")
}

/// The numbers of a header. All are read, whatever it is the header of and whatever else counts: a header that is damaged is
/// none.
struct Numbers {
    mode: u32,
    uid: u32,
    gid: u32,
    changed: Moment,
    device: (u32, u32),
}

impl Numbers {
    fn of(header: &Header) -> Result<Self> {
        let bad = |what: &str| Error::invalid(format!("{what} of {:?}", String::from_utf8_lossy(&header.path_bytes())));
        let small = |what: &str, field: &[u8]| {
            number(field).ok().and_then(|value| u32::try_from(value).ok()).ok_or_else(|| bad(what))
        };
        if !header::is_plain(header) {
            return Err(bad("the kind of header"));
        }
        let old = header.as_old();
        let (major, minor) = match (header.as_ustar(), header.as_gnu()) {
            (Some(ustar), _) => (&ustar.dev_major[..], &ustar.dev_minor[..]),
            (_, Some(gnu)) => (&gnu.dev_major[..], &gnu.dev_minor[..]),
            _ => (&[][..], &[][..]),
        };
        // What is before 1970 is 1970, as everywhere.
        let seconds = number(&old.mtime).ok().map(|seconds| seconds.max(0));
        let seconds = seconds.filter(|seconds| *seconds <= MOST_SECONDS).ok_or_else(|| bad("time"))?;
        Ok(Numbers {
            mode: small("permissions", &old.mode)? & 0o7777,
            uid: small("owner", &old.uid)?,
            gid: small("group", &old.gid)?,
            changed: Moment { seconds, nanoseconds: 0 },
            device: (small("device numbers", major)?, small("device numbers", minor)?),
        })
    }
}

/// What header and extension say together, and the size if the extension has one.
fn entry(header: &Header, numbers: &Numbers, extension: Extension) -> Result<(Entry, Option<u64>)> {
    let path = extension.path().map_or_else(|| header.path_bytes().into_owned(), <[u8]>::to_vec);
    let link = header.link_name_bytes().unwrap_or_default();
    let link = extension.link().map_or_else(|| link.into_owned(), <[u8]>::to_vec);
    let bad = |what: &str| Error::invalid(format!("{what} of {:?}", String::from_utf8_lossy(&path)));
    let (major, minor) = numbers.device;
    let make = match (header.entry_type(), header.as_bytes()[156]) {
        // The first tar had no type for it.
        (EntryType::Regular, 0) if path.ends_with(b"/") => Make::Directory,
        (EntryType::Regular, _) => Make::File,
        (EntryType::Directory, _) => Make::Directory,
        (EntryType::Link, _) => Make::HardLink,
        (EntryType::Symlink, _) => Make::Symlink,
        (EntryType::Fifo, _) => Make::Fifo,
        (EntryType::Char, _) => Make::CharDevice(major, minor),
        (EntryType::Block, _) => Make::BlockDevice(major, minor),
        (EntryType::GNUSparse, _) => return Err(header::sparse()),
        (_, other) => return Err(bad(&format!("type {other:#04x}"))),
    };
    let (read, changed) = extension.times();
    let changed = changed.unwrap_or(numbers.changed);
    let (uid, gid) = extension.owner();
    let bytes = extension.bytes();
    let entry = Entry {
        make,
        mode: numbers.mode,
        uid: uid.unwrap_or(numbers.uid),
        gid: gid.unwrap_or(numbers.gid),
        changed,
        read: read.unwrap_or_default().max(changed),
        xattrs: extension.into_xattrs(),
        link,
        path: path.clone(),
    };
    Ok((entry, bytes))
}
