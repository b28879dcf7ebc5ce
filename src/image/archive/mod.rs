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
        if file_type.is_dir() {
            return Ok(Archive { entries: Entries::index(packed(file, spool_dir)?)? });
        }
        if !(file_type.is_file() || file_type.is_fifo() || file_type.is_socket() || file_type.is_char_device()) {
            return Err(Error::invalid(format!("{}: is neither a file nor a folder", file.display())));
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
    let mut spool = unnamed(dir)?;
    match io::copy(&mut from, &mut spool) {
        Ok(_) => Ok(spool),
        Err(e) if is_full(&e) => Err(full(dir, e)),
        Err(e) => Err(Error::invalid(format!("uncompress the archive: {e}"))),
    }
}

/// A folder as the archive that it would be, in a file without a name.
fn packed(folder: &Path, dir: &Path) -> Result<File> {
    let mut tar = tar::Builder::new(unnamed(dir)?);
    tar.follow_symlinks(false);
    let done = tar.append_dir_all("", folder).and_then(|()| tar.into_inner());
    done.map_err(|e| match is_full(&e) {
        true => full(dir, e),
        false => Error::from(e).context(format!("read {}", folder.display())),
    })
}

fn is_full(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn full(dir: &Path, e: io::Error) -> Error {
    Error::caused(crate::error::Kind::ResourceExhausted, format!("spool the archive in {}", dir.display()), e)
}

fn unnamed(dir: &Path) -> Result<File> {
    let path = dir.join(format!("import-{}", random_hex()?));
    let spool = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
    let spool = spool.with_context(|| format!("create {}", path.display()))?;
    std::fs::remove_file(&path).with_context(|| format!("unlink {}", path.display()))?;
    Ok(spool)
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
mod tests {
    use super::*;
    use crate::digest;
    use crate::error::Kind;
    use crate::image::platform::host;
    use crate::image::testing::*;
    use serde_json::json;

    fn images_of(entries: &[(String, Vec<u8>)]) -> Result<Vec<Archived>> {
        let dir = TempDir::new();
        Archive::open(&dir.file("a.tar", &tar(entries)), &dir.0)?.images(&host())
    }

    fn names(image: &Archived) -> Vec<String> {
        image.names.iter().map(Reference::to_string).collect()
    }

    fn refused(entries: &[(String, Vec<u8>)], kind: Kind, reason: &str) {
        let e = images_of(entries).err().expect(reason);
        assert_eq!(e.kind(), kind, "{e}");
        assert!(e.to_string().contains(reason), "{reason}: {e}");
    }

    #[test]
    fn every_shape_gives_the_same_image() {
        let sample = Sample::new();
        let name = "docker.io/library/app:1";
        let mut both = layout(&[(&sample, "")]);
        both.extend(saved(&sample, &["app:1"]));
        for entries in [layout(&[(&sample, "app:1")]), saved(&sample, &["app:1"]), both] {
            let plain = tar(&entries);
            for bytes in [plain.clone(), gzip(&plain), zstd(&plain)] {
                let dir = TempDir::new();
                let archive = Archive::open(&dir.file("a.tar", &bytes), &dir.0).unwrap();
                let images = archive.images(&host()).unwrap();
                assert_eq!(images.len(), 1);
                assert_eq!(images[0].resolved.config.digest, sample.id());
                assert_eq!(names(&images[0]), [name]);
                let stored: Vec<String> = archive
                    .layers(&images[0])
                    .map(|(layer, mut bytes)| {
                        let mut hashing = digest::Hashing::new(io::sink());
                        io::copy(&mut bytes, &mut hashing).unwrap();
                        assert_eq!(layer.descriptor.digest, hashing.digest());
                        layer.descriptor.media_type.rsplit('.').next().unwrap().to_owned()
                    })
                    .collect();
                assert_eq!(stored, ["tar", "tar+gzip", "tar+zstd"]);
                assert_eq!(std::fs::read_dir(&dir.0).unwrap().count(), 1, "the spool has no name");
            }
        }
    }

    #[test]
    fn an_index_is_followed_to_the_platform_of_this_node() {
        let (ours, other) = (Sample::new(), Sample::foreign());
        let nested = index(&[other.link(&json!(null)), ours.link(&json!(null))]);
        let top = index(&[json!({ "digest": digest::of(&nested), "size": nested.len(),
            "annotations": { "org.opencontainers.image.ref.name": "r.io/app:2" } })]);
        let mut entries = ours.blobs();
        entries.extend([blob(&nested), ("index.json".into(), top)]);
        let images = images_of(&entries).unwrap();
        let resolved = &images[0].resolved;
        assert_eq!(resolved.target.digest, digest::of(&nested), "a name points to the index");
        assert_eq!(resolved.target.media_type, "application/vnd.oci.image.index.v1+json");
        assert_eq!(resolved.documents.len(), 2);
        let kept: Vec<_> = resolved.documents[0].labels.iter().collect();
        assert_eq!(kept, [(&"containerd.io/gc.ref.content.m.1".to_owned(), &digest::of(&ours.manifest()))]);
        assert_eq!(names(&images[0]), ["r.io/app:2"]);
    }

    #[test]
    fn of_images_for_several_platforms_ours_is_taken() {
        let images = images_of(&layout(&[(&Sample::foreign(), "app"), (&Sample::new(), "app")])).unwrap();
        assert_eq!(images.len(), 1);
        assert_eq!(images[0].resolved.config.digest, Sample::new().id());
        for entries in [layout(&[(&Sample::foreign(), "app")]), saved(&Sample::foreign(), &[])] {
            refused(&entries, Kind::FailedPrecondition, "linux/s390x");
        }
    }

    #[test]
    fn of_several_with_one_name_the_best_has_it() {
        let host = Platform { os: "linux".into(), architecture: "amd64".into(), variant: String::new() };
        let best = Sample { platform: host.clone(), ..Sample::new() };
        let good = Sample { platform: Platform { architecture: "386".into(), ..host.clone() }, ..Sample::new() };
        for order in
            [[(&best, "app"), (&good, "app"), (&good, "old")], [(&good, "old"), (&good, "app"), (&best, "app")]]
        {
            let dir = TempDir::new();
            let archive = Archive::open(&dir.file("a.tar", &tar(&layout(&order))), &dir.0).unwrap();
            let images = archive.images(&host).unwrap();
            let mut found: Vec<_> = images.iter().map(|i| (i.resolved.config.digest.clone(), names(i))).collect();
            found.sort_by_key(|(id, _)| *id == good.id());
            let named = |name: &str| vec![format!("docker.io/library/{name}:latest")];
            assert_eq!(found, [(best.id(), named("app")), (good.id(), named("old"))]);
        }
        for order in [[(&best, "app"), (&good, "app")], [(&good, "app"), (&best, "app")]] {
            let dir = TempDir::new();
            let archive = Archive::open(&dir.file("a.tar", &tar(&layout(&order))), &dir.0).unwrap();
            let images = archive.images(&host).unwrap();
            assert_eq!(images.len(), 1);
            assert_eq!(images[0].resolved.config.digest, best.id());
        }
    }

    #[test]
    fn a_bare_tag_is_no_name_and_a_broken_name_is_an_error() {
        let sample = Sample::new();
        let named = |key: &str, name: &str| {
            let mut entries = sample.blobs();
            entries.push(("index.json".into(), index(&[sample.link(&json!({ key: name }))])));
            entries
        };
        for tag in ["latest", "not:a:reference"] {
            assert!(images_of(&named("org.opencontainers.image.ref.name", tag)).unwrap()[0].names.is_empty(), "{tag}");
        }
        refused(&named("io.containerd.image.name", "Not A Name"), Kind::InvalidArgument, "Not A Name");
        refused(&saved(&sample, &["a:b:c"]), Kind::InvalidArgument, "a:b:c");
    }

    #[test]
    fn the_same_image_under_two_names_is_one() {
        let sample = Sample::new();
        let images = images_of(&layout(&[(&sample, "b"), (&sample, "a"), (&sample, "a")])).unwrap();
        assert_eq!(images.len(), 1);
        assert_eq!(names(&images[0]), ["docker.io/library/a:latest", "docker.io/library/b:latest"]);
    }

    #[test]
    fn broken_archives_say_what_is_wrong() {
        let sample = Sample::new();
        let without = |gone: &str| {
            let mut entries = layout(&[(&sample, "app")]);
            entries.retain(|(name, _)| !name.ends_with(&digest_path(gone)));
            entries
        };
        fn digest_path(digest: &str) -> String {
            digest.replacen("sha256:", "sha256/", 1)
        }
        let invalid = Kind::InvalidArgument;
        let layer = digest::of(&sample.layers[1].0);
        refused(&without(&layer), invalid, &digest_path(&layer));
        refused(&without(&sample.id()), invalid, &digest_path(&sample.id()));
        refused(&[("README".into(), vec![])], invalid, "neither index.json");
        refused(&[("index.json".into(), b"{".to_vec())], invalid, "index.json");
        refused(&[("index.json".into(), index(&[]))], invalid, "no image");
        refused(&[("manifest.json".into(), b"[]".to_vec())], invalid, "no image");
        refused(&[("index.json".into(), vec![b' '; (8 << 20) + 1])], invalid, "too many for a document");

        let mut swapped = layout(&[(&sample, "app")]);
        let config = swapped.iter_mut().find(|(name, _)| name.ends_with(&digest_path(&sample.id()))).unwrap();
        config.1[0] = b' ';
        refused(&swapped, invalid, "its content has digest");

        let mut short = layout(&[(&sample, "app")]);
        short.iter_mut().find(|(name, _)| name.ends_with(&digest_path(&layer))).unwrap().1.pop();
        refused(&short, invalid, "bytes instead of");

        let mut missing = saved(&sample, &["app"]);
        missing.retain(|(name, _)| name != "1/layer.tar");
        refused(&missing, invalid, "1/layer.tar");

        let mut fewer = saved(&sample, &["app"]);
        fewer[0].1 = br#"{"rootfs":{"diff_ids":[]}}"#.to_vec();
        refused(&fewer, invalid, "3 layers but its configuration 0");
    }

    #[test]
    fn indexes_that_never_end_are_refused() {
        let sample = Sample::new();
        let mut entries = sample.blobs();
        let mut link = sample.link(&json!(null));
        for _ in 0..5 {
            let bytes = index(&[link]);
            link = json!({ "digest": digest::of(&bytes), "size": bytes.len() });
            entries.push(blob(&bytes));
        }
        entries.push(("index.json".into(), index(&[link])));
        refused(&entries, Kind::InvalidArgument, "nested deeper");
    }

    #[test]
    fn what_is_no_archive_is_refused() {
        let dir = TempDir::new();
        let open = |path: &Path| Archive::open(path, &dir.0).err().expect("refused");
        let empty = dir.0.join("empty");
        std::fs::create_dir(&empty).expect("new");
        let nothing = Archive::open(&empty, &dir.0).and_then(|archive| archive.images(&crate::image::platform::host()));
        assert_eq!(nothing.map(|_| ()).map_err(|e| e.kind()), Err(Kind::InvalidArgument), "a folder that is no layout");
        let cut = gzip(&tar(&layout(&[(&Sample::new(), "app")])));
        assert_eq!(open(&dir.file("cut.tgz", &cut[..cut.len() / 2])).kind(), Kind::InvalidArgument);
        assert_eq!(open(&dir.file("bad.zst", ZSTD)).kind(), Kind::InvalidArgument);
        assert_eq!(open(&dir.file("text", &[b'a'; 600])).kind(), Kind::InvalidArgument);
        assert!(open(&dir.0.join("missing")).to_string().contains("missing"));
    }
}
