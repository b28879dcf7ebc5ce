//! What a tar file holds and where: names to offsets, read once, so that blobs can be taken out in any order.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use tar::{EntryType, Header};

use crate::error::{Context, Error, Result};
use crate::extract::header;

const BLOCK: u64 = header::BLOCK as u64;
/// Long names and extended headers are held in memory.
const MAX_EXTENSION_BYTES: u64 = 64 << 10;
/// An image archive has a handful of entries per layer.
const MAX_ENTRIES: usize = 100_000;
/// `docker save` once wrote a repeated layer as a link to the first.
const MAX_LINKS: usize = 8;

/// Where an entry's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    offset: u64,
    /// How many there are.
    pub bytes: u64,
}

/// The regular files of a tar file.
pub struct Entries {
    file: File,
    files: HashMap<String, Extent>,
    /// From a link's name to the name it leads to.
    links: HashMap<String, String>,
}

/// What extension headers say of the entry after them, as far as it matters here.
#[derive(Default)]
struct Extension {
    path: Option<String>,
    link: Option<String>,
    bytes: Option<u64>,
}

impl Entries {
    /// Reads all headers of an uncompressed tar file.
    ///
    /// # Errors
    /// `InvalidArgument`: no tar file, cut off, or with names that lead out of it.
    pub fn index(file: File) -> Result<Self> {
        let length = file.metadata().context("stat the archive")?.len();
        let mut entries = Entries { file, files: HashMap::new(), links: HashMap::new() };
        let mut extension = Extension::default();
        let mut at = 0;
        while let Some(header) = entries.header(at, length)? {
            let own = header.entry_size().map_err(|e| bad(at, format!("size: {e}")))?;
            let is_extension = header::is_extension(header.entry_type());
            let bytes = if is_extension { own } else { extension.bytes.unwrap_or(own) };
            let extent = Extent { offset: at + BLOCK, bytes };
            let next = bytes.checked_next_multiple_of(BLOCK).and_then(|padded| extent.offset.checked_add(padded));
            let fits = extent.offset.checked_add(bytes).is_some_and(|end| end <= length);
            let (true, Some(next)) = (fits, next) else {
                return Err(bad(at, "the archive is cut off within this entry"));
            };
            match is_extension {
                true => entries.extend(&header, extent, &mut extension).map_err(|e| bad(at, e))?,
                false => entries.add(&header, extent, std::mem::take(&mut extension)).map_err(|e| bad(at, e))?,
            }
            at = next;
        }
        Ok(entries)
    }

    /// The header at `at`; none at the end, which is a block of zeros or that of the file.
    fn header(&self, at: u64, length: u64) -> Result<Option<Header>> {
        if at >= length && at > 0 {
            return Ok(None);
        }
        let mut block = [0; header::BLOCK];
        self.file
            .read_exact_at(&mut block, at)
            .map_err(|_| bad(at, "the archive is cut off within this header, or is no tar file"))?;
        header::read(block).map_err(|e| bad(at, e))
    }

    fn extend(&self, header: &Header, extent: Extent, extension: &mut Extension) -> Result<()> {
        if extent.bytes > MAX_EXTENSION_BYTES {
            return Err(Error::invalid(format!("an extended header of {} bytes", extent.bytes)));
        }
        let mut body = Vec::new();
        self.read(extent).read_to_end(&mut body).context("read an extended header")?;
        match header.entry_type() {
            EntryType::GNULongName => extension.path = Some(text(&body)?),
            EntryType::GNULongLink => extension.link = Some(text(&body)?),
            EntryType::XHeader => {
                for record in header::records(&body) {
                    let (key, value) = record?;
                    match key {
                        b"path" => extension.path = Some(text(value)?),
                        b"linkpath" => extension.link = Some(text(value)?),
                        b"size" => {
                            let size = text(value)?.parse();
                            extension.bytes = Some(size.map_err(|e| Error::invalid(format!("extended size: {e}")))?);
                        }
                        key if key.starts_with(b"GNU.sparse.") => return Err(header::sparse()),
                        _ => {}
                    }
                }
            }
            // Defaults for all that follow: times and owners, nothing that we look at.
            _ => {}
        }
        Ok(())
    }

    fn add(&mut self, header: &Header, extent: Extent, extension: Extension) -> Result<()> {
        if self.files.len() + self.links.len() >= MAX_ENTRIES {
            return Err(Error::invalid(format!("more than {MAX_ENTRIES} entries")));
        }
        let typed = extension.path.map_or_else(|| text(&header.path_bytes()), Ok)?;
        let name = inside("", &typed)?;
        let link = || match extension.link {
            Some(link) => Ok(link),
            None => text(&header.link_name_bytes().unwrap_or_default()),
        };
        match header.entry_type() {
            EntryType::Regular | EntryType::Continuous => {
                self.links.remove(&name);
                self.files.insert(name, extent);
            }
            EntryType::Link => {
                self.links.insert(name, inside("", &link()?)?);
            }
            EntryType::Symlink => {
                let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
                let to = inside(folder, &link()?)?;
                self.links.insert(name, to);
            }
            EntryType::GNUSparse => return Err(header::sparse()),
            // Directories, and what else no image archive has.
            _ => {}
        }
        Ok(())
    }

    /// Where the bytes of an entry are; links are followed.
    ///
    /// # Errors
    /// `InvalidArgument` if there is none of this name.
    pub fn find(&self, name: &str) -> Result<Extent> {
        let missing = || Error::invalid(format!("the archive has no {name} (is it complete?)"));
        let mut at = inside("", name)?;
        for _ in 0..MAX_LINKS {
            match self.links.get(&at) {
                Some(to) => at.clone_from(to),
                None => return self.files.get(&at).copied().ok_or_else(missing),
            }
        }
        Err(Error::invalid(format!("{name} in the archive leads in a circle")))
    }

    /// The bytes of an entry. Readers do not disturb each other.
    pub fn read(&self, extent: Extent) -> Section<'_> {
        Section { file: &self.file, extent }
    }
}

/// What is left of an entry.
pub struct Section<'a> {
    file: &'a File,
    extent: Extent,
}

impl Read for Section<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.extent.bytes).unwrap_or(usize::MAX).min(into.len());
        if most == 0 {
            return Ok(0);
        }
        match self.file.read_at(&mut into[..most], self.extent.offset)? {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive became shorter while it was read")),
            n => {
                self.extent.offset += n as u64;
                self.extent.bytes -= n as u64;
                Ok(n)
            }
        }
    }
}

/// `name`, seen from `folder`, as a path from the top of the archive. It must not lead out of it.
fn inside(folder: &str, name: &str) -> Result<String> {
    let escapes = || Error::invalid(format!("entry {name:?} leads out of the archive"));
    if name.starts_with('/') {
        return Err(escapes());
    }
    let mut path: Vec<&str> = folder.split('/').filter(|p| !p.is_empty()).collect();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                path.pop().ok_or_else(escapes)?;
            }
            part => path.push(part),
        }
    }
    Ok(path.join("/"))
}

/// A name, without the zero that may end it.
fn text(bytes: &[u8]) -> Result<String> {
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    String::from_utf8(bytes.to_vec()).map_err(|_| Error::invalid("a name that is not UTF-8"))
}

fn bad(at: u64, what: impl std::fmt::Display) -> Error {
    Error::invalid(format!("archive at byte {at}: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::image::testing::{tar, TempDir};

    fn index(bytes: &[u8]) -> Result<Entries> {
        let dir = TempDir::new();
        Entries::index(File::open(dir.file("a.tar", bytes)).unwrap())
    }

    fn content(entries: &Entries, name: &str) -> String {
        let mut text = String::new();
        entries.read(entries.find(name).expect(name)).read_to_string(&mut text).unwrap();
        text
    }

    fn refused(bytes: &[u8], reason: &str) {
        let e = index(bytes).err().expect(reason);
        assert_eq!(e.kind(), Kind::InvalidArgument, "{e}");
        assert!(e.to_string().contains(reason), "{reason}: {e}");
    }

    /// One entry with a name and link that no honest writer would write.
    fn entry(kind: EntryType, name: &str, link: &str) -> Vec<u8> {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_size(0);
        header.set_cksum();
        header.as_bytes().to_vec()
    }

    #[test]
    fn finds_files_by_name_whatever_header_carries_it() {
        let long = format!("{}/file", "folder".repeat(40));
        let mut bytes = tar(&[("./a/b".into(), b"one".to_vec()), (long.clone(), vec![b'x'; 2000])]);
        bytes.truncate(bytes.len() - 1024);
        let pax = "22 path=from/pax/name\n11 foo=bar\n";
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::XHeader);
        header.set_size(pax.len() as u64);
        header.set_cksum();
        bytes.extend(header.as_bytes());
        bytes.extend(pax.as_bytes());
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes.extend(tar(&[("short".into(), b"two".to_vec())]));
        let entries = index(&bytes).unwrap();
        assert_eq!(content(&entries, "a/b"), "one");
        assert_eq!(content(&entries, &long).len(), 2000);
        assert_eq!(content(&entries, "from/pax/name"), "two");
        for missing in ["short", "a", "", "b"] {
            assert_eq!(entries.find(missing).unwrap_err().kind(), Kind::InvalidArgument, "{missing}");
        }
    }

    #[test]
    fn links_are_followed_inside_the_archive_only() {
        let mut bytes = entry(EntryType::Symlink, "2/layer.tar", "../1/layer.tar");
        bytes.extend(entry(EntryType::Link, "3/layer.tar", "2/layer.tar"));
        bytes.extend(entry(EntryType::Symlink, "loop", "pool"));
        bytes.extend(entry(EntryType::Symlink, "pool", "loop"));
        bytes.extend(tar(&[("1/layer.tar".into(), b"data".to_vec())]));
        let entries = index(&bytes).unwrap();
        assert_eq!(content(&entries, "3/layer.tar"), "data");
        assert!(entries.find("loop").unwrap_err().to_string().contains("circle"));
        refused(&entry(EntryType::Symlink, "a", "../b"), "leads out");
        refused(&entry(EntryType::Symlink, "a", "/etc/passwd"), "leads out");
        refused(&entry(EntryType::Link, "a", "../b"), "leads out");
    }

    #[test]
    fn names_that_lead_out_are_refused() {
        for name in ["../a", "/a", "a/../../b"] {
            refused(&entry(EntryType::Regular, name, ""), "leads out");
        }
        assert!(index(&entry(EntryType::Regular, "a/../b", "")).unwrap().find("b").is_ok());
    }

    #[test]
    fn what_is_cut_off_or_no_tar_is_refused() {
        let whole = tar(&[("a".into(), vec![b'x'; 1000])]);
        refused(&whole[..900], "cut off within this entry");
        refused(&whole[..100], "cut off within this header");
        refused(b"", "cut off");
        refused(&[b'x'; 1024], "no tar header");
        let mut damaged = whole.clone();
        damaged[3] ^= 1;
        refused(&damaged, "no tar header");
        // Without the zeros at the end it is still whole.
        assert!(index(&whole[..1536]).unwrap().find("a").is_ok());
    }

    #[test]
    fn sizes_and_headers_beyond_reason_are_refused() {
        let sized = |kind, size| {
            let mut header = Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(size);
            header.set_cksum();
            let mut bytes = header.as_bytes().to_vec();
            bytes.resize(512 + (128 << 10), b'a');
            bytes
        };
        refused(&sized(EntryType::Regular, u64::MAX), "cut off");
        refused(&sized(EntryType::GNULongName, 65 << 10), "extended header");
        refused(&sized(EntryType::GNUSparse, 0), "sparse");
    }
}
