//! Image archives: an OCI layout or what `docker save` writes, in a tar file that may be compressed.

mod entries;
mod layout;
mod saved;

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use entries::Entries;
pub use entries::Extent;

use super::document;
use super::platform::Platform;
use super::resolve::{Layer, Resolved};
use crate::error::{Context, Error, Result};
use crate::ids::random_hex;
use crate::reference::Reference;

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// An open archive. Reads no layer until asked to.
pub struct Archive {
    entries: Entries,
}

/// An image that the archive holds.
pub struct Archived {
    /// What it is.
    pub resolved: Resolved,
    /// The names it has there; may be none.
    pub names: Vec<Reference>,
    /// Where its layers are, in their order.
    extents: Vec<Extent>,
}

impl Archive {
    /// Opens `file` and indexes it. One that is compressed or is no regular file is copied, uncompressed, to an unnamed
    /// file in `spool_dir` first: an archive is read out of order.
    ///
    /// # Errors
    /// `InvalidArgument` for what is no archive, is cut off, or has names that lead out of it.
    pub fn open(file: &Path, spool_dir: &Path) -> Result<Self> {
        let opened = File::open(file).with_context(|| format!("open {}", file.display()))?;
        let file_type = opened.metadata().context("stat the archive")?.file_type();
        if !(file_type.is_file() || file_type.is_fifo() || file_type.is_socket() || file_type.is_char_device()) {
            return Err(Error::invalid(format!("{}: is no file (pack the directory with tar)", file.display())));
        }
        let mut stream = BufReader::new(opened);
        let compression = magic(stream.fill_buf().context("read the archive")?);
        let tar = match (compression, file_type.is_file()) {
            (Compression::None, true) => stream.into_inner(),
            _ => spool(decoder(stream, compression)?, spool_dir)?,
        };
        Ok(Archive { entries: Entries::index(tar)? })
    }

    /// The images in it for `host`.
    ///
    /// # Errors
    /// `FailedPrecondition` if it only has images for other platforms; `InvalidArgument` if it is broken.
    pub fn images(&self, host: &Platform) -> Result<Vec<Archived>> {
        if self.entries.find(layout::INDEX).is_ok() {
            layout::images(&self.entries, host)
        } else if self.entries.find(saved::MANIFEST).is_ok() {
            saved::images(&self.entries, host)
        } else {
            Err(Error::invalid(format!(
                "the archive has neither {} (OCI layout) nor {} (docker save)",
                layout::INDEX,
                saved::MANIFEST
            )))
        }
    }

    /// The layers of one of its images, each with a reader of its bytes as stored.
    pub fn layers<'a>(&'a self, image: &'a Archived) -> impl Iterator<Item = (&'a Layer, impl Read + 'a)> {
        image.resolved.layers.iter().zip(image.extents.iter().map(|&e| self.entries.read(e)))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compression {
    None,
    Gzip,
    Zstd,
}

/// How a stream that begins so is compressed.
fn magic(head: &[u8]) -> Compression {
    match head {
        head if head.starts_with(GZIP) => Compression::Gzip,
        head if head.starts_with(ZSTD) => Compression::Zstd,
        _ => Compression::None,
    }
}

fn decoder(stream: BufReader<File>, compression: Compression) -> Result<Box<dyn Read>> {
    Ok(match compression {
        Compression::None => Box::new(stream),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(stream)),
        Compression::Zstd => Box::new(
            ruzstd::decoding::StreamingDecoder::new(stream)
                .map_err(|e| Error::invalid(format!("uncompress the archive: {e}")))?,
        ),
    })
}

/// Copies `from` to a file that has no name any more, so that nothing is left of it however we end.
fn spool(mut from: Box<dyn Read>, dir: &Path) -> Result<File> {
    let path = dir.join(format!("import-{}", random_hex()?));
    let spool = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
    let mut spool = spool.with_context(|| format!("create {}", path.display()))?;
    std::fs::remove_file(&path).with_context(|| format!("unlink {}", path.display()))?;
    match io::copy(&mut from, &mut spool) {
        Ok(_) => Ok(spool),
        Err(e) if matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => Err(Error::caused(
            crate::error::Kind::ResourceExhausted,
            format!("spool the archive in {}", dir.display()),
            e,
        )),
        Err(e) => Err(Error::invalid(format!("uncompress the archive: {e}"))),
    }
}

/// A document of the archive by its name there.
fn document(entries: &Entries, name: &str) -> Result<Vec<u8>> {
    let extent = entries.find(name)?;
    if extent.bytes > document::MAX_BYTES {
        return Err(Error::invalid(format!(
            "{name} in the archive: {} bytes are too many for a document",
            extent.bytes
        )));
    }
    let mut bytes = Vec::new();
    entries.read(extent).read_to_end(&mut bytes).with_context(|| format!("read {name}"))?;
    Ok(bytes)
}

#[cfg(test)]
pub mod testing;
