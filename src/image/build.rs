//! Writes a small image as an OCI layout: what `cricket selftest` imports, made of cricket's own binary.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use serde_json::json;
use tar::{EntryType, Header};

use super::document::{OCI_CONFIG, OCI_LAYER, OCI_MANIFEST};
use super::platform;
use crate::digest::{self, Hashing};
use crate::error::{Context, Error, Result};

/// An image of one layer for this node's platform.
#[derive(Clone, Debug, Default)]
pub struct NewImage<'a> {
    /// Its full name; "" for none.
    pub name: &'a str,
    /// Its files; the directories they are in come by themselves.
    pub files: Vec<NewFile<'a>>,
    /// The command line.
    pub entrypoint: Vec<&'a str>,
    /// `NAME=value`.
    pub env: Vec<&'a str>,
    /// Labels.
    pub labels: BTreeMap<&'a str, &'a str>,
}

/// A file of an image, owned by root.
#[derive(Clone, Copy, Debug)]
pub struct NewFile<'a> {
    /// Where, without the first slash.
    pub path: &'a str,
    /// Permissions.
    pub mode: u32,
    /// What is in it.
    pub bytes: Bytes<'a>,
}

/// Where bytes come from.
#[derive(Clone, Copy, Debug)]
pub enum Bytes<'a> {
    /// Here.
    Inline(&'a [u8]),
    /// A file on disk. It is read twice, and must not change in between.
    File(&'a Path),
}

/// What was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// The image's id.
    pub id: String,
    /// The digest of its manifest.
    pub manifest_digest: String,
}

/// Writes the image as a tar file. The same input gives the same bytes. Files from disk are streamed.
///
/// # Errors
/// What `out` and the files say; `FailedPrecondition` if a file changed while it was read.
pub fn write(image: &NewImage<'_>, out: &mut dyn Write) -> Result<Built> {
    // A blob's name is its digest and comes before its bytes: so the layer is written twice, once to nowhere.
    let mut measured = Hashing::new(io::sink());
    write_layer(image, &mut measured)?;
    let (layer_bytes, layer_digest) = (measured.seen_bytes(), measured.digest());

    let config = config(image, &layer_digest).to_string();
    let manifest = manifest(&config, &layer_digest, layer_bytes).to_string();
    let index = index(&manifest, image.name).to_string();
    let built = Built { id: digest::of(config.as_bytes()), manifest_digest: digest::of(manifest.as_bytes()) };

    let mut tar = tar::Builder::new(out);
    append(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    append(&mut tar, "index.json", index.as_bytes())?;
    append(&mut tar, &blob_path(&built.manifest_digest), manifest.as_bytes())?;
    append(&mut tar, &blob_path(&built.id), config.as_bytes())?;
    append_header(&mut tar, &blob_path(&layer_digest), layer_bytes)?;
    let mut layer = Hashing::new(tar.get_mut());
    write_layer(image, &mut layer)?;
    if (layer.seen_bytes(), layer.digest()) != (layer_bytes, layer_digest) {
        return Err(Error::precondition("build an image: a file changed while it was read"));
    }
    pad(tar.get_mut(), layer_bytes)?;
    tar.finish().context("build an image")?;
    Ok(built)
}

fn config(image: &NewImage<'_>, diff_id: &str) -> serde_json::Value {
    let platform = platform::host();
    let mut config = json!({
        "architecture": platform.architecture,
        "os": platform.os,
        "config": { "Entrypoint": image.entrypoint, "Env": image.env, "Labels": image.labels, "WorkingDir": "/" },
        "rootfs": { "type": "layers", "diff_ids": [diff_id] },
    });
    if !platform.variant.is_empty() {
        config["variant"] = platform.variant.into();
    }
    config
}

fn manifest(config: &str, layer_digest: &str, layer_bytes: u64) -> serde_json::Value {
    json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": { "mediaType": OCI_CONFIG, "digest": digest::of(config.as_bytes()), "size": config.len() },
        "layers": [{ "mediaType": OCI_LAYER, "digest": layer_digest, "size": layer_bytes }],
    })
}

fn index(manifest: &str, name: &str) -> serde_json::Value {
    let mut link = json!({
        "mediaType": OCI_MANIFEST,
        "digest": digest::of(manifest.as_bytes()),
        "size": manifest.len(),
    });
    if !name.is_empty() {
        link["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
    }
    json!({ "schemaVersion": 2, "manifests": [link] })
}

fn write_layer(image: &NewImage<'_>, out: &mut dyn Write) -> Result<()> {
    let mut tar = tar::Builder::new(out);
    let above = |path: &'_ str| path.match_indices('/').map(|(n, _)| path[..n].to_owned()).collect::<Vec<_>>();
    let folders: BTreeSet<String> = image.files.iter().flat_map(|f| above(f.path)).collect();
    for folder in folders {
        let mut header = header(EntryType::Directory, 0o755, 0);
        tar.append_data(&mut header, format!("{folder}/"), io::empty()).with_context(|| folder)?;
    }
    for file in &image.files {
        append_file(&mut tar, file).with_context(|| format!("build an image: {}", file.path))?;
    }
    tar.finish().context("build an image")
}

fn append_file(tar: &mut tar::Builder<&mut dyn Write>, file: &NewFile<'_>) -> Result<()> {
    let (bytes, length): (Box<dyn Read>, u64) = match file.bytes {
        Bytes::Inline(bytes) => (Box::new(bytes), bytes.len() as u64),
        Bytes::File(path) => {
            let opened = File::open(path).with_context(|| format!("open {}", path.display()))?;
            let length = opened.metadata()?.len();
            (Box::new(opened.take(length)), length)
        }
    };
    Ok(tar.append_data(&mut header(EntryType::Regular, file.mode, length), file.path, bytes)?)
}

pub(super) fn append<W: Write>(tar: &mut tar::Builder<W>, path: &str, bytes: &[u8]) -> Result<()> {
    let mut header = header(EntryType::Regular, 0o644, bytes.len() as u64);
    tar.append_data(&mut header, path, bytes).context("build an image")
}

/// Only the header: its bytes follow by other means, and [`pad`].
pub(super) fn append_header<W: Write>(tar: &mut tar::Builder<W>, path: &str, length: u64) -> Result<()> {
    let mut header = header(EntryType::Regular, 0o644, length);
    header.set_path(path).and_then(|()| {
        header.set_cksum();
        tar.get_mut().write_all(header.as_bytes())
    })?;
    Ok(())
}

/// The zeros after `length` bytes of an entry.
pub(super) fn pad(out: &mut dyn Write, length: u64) -> Result<()> {
    let short = length.next_multiple_of(512) - length;
    io::copy(&mut io::repeat(0).take(short), out).context("build an image")?;
    Ok(())
}

fn header(kind: EntryType, mode: u32, length: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(length);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

pub(super) fn blob_path(digest: &str) -> String {
    format!("blobs/{}", digest.replacen(':', "/", 1))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Node, TempDir};
    use super::*;
    use crate::call::Call;
    use crate::error::Kind;
    use crate::image::import::import;

    fn image<'a>(binary: &'a Path) -> NewImage<'a> {
        NewImage {
            name: "cricket.local/selftest:1",
            files: vec![
                NewFile { path: "bin/deep/tool", mode: 0o755, bytes: Bytes::File(binary) },
                NewFile { path: "etc/passwd", mode: 0o644, bytes: Bytes::Inline(b"root:x:0:0::/:") },
                NewFile { path: "bin/empty", mode: 0o600, bytes: Bytes::Inline(b"") },
            ],
            entrypoint: vec!["/bin/deep/tool", "pause"],
            env: vec!["A=b"],
            labels: BTreeMap::from([("k", "v")]),
        }
    }

    #[test]
    fn what_is_built_can_be_imported() {
        let node = Node::new();
        let binary = node.dir.file("binary", &[7; 3000]);
        let mut bytes = Vec::new();
        let built = write(&image(&binary), &mut bytes).unwrap();
        let file = node.dir.file("image.tar", &bytes);
        import(&node.images(), &Call::unbounded(), &file, &node.dir.0, None).unwrap();
        let stored = node.store.get("cricket.local/selftest:1").unwrap();
        assert_eq!((&stored.id, &stored.target.digest), (&built.id, &built.manifest_digest));
        assert_eq!(stored.config.entrypoint, ["/bin/deep/tool", "pause"]);
        assert_eq!(stored.config.env, ["A=b"]);
        assert_eq!(stored.config.labels["k"], "v");
        assert!(!stored.chain_id.is_empty());
    }

    #[test]
    fn a_layer_is_a_tar_of_folders_and_files() {
        let dir = TempDir::new();
        let binary = dir.file("binary", &[7; 3000]);
        let mut layer = Vec::new();
        write_layer(&image(&binary), &mut layer).unwrap();
        let mut tar = tar::Archive::new(layer.as_slice());
        let listed = tar.entries().unwrap().map(|entry| {
            let entry = entry.unwrap();
            let (header, path) = (entry.header(), entry.path().unwrap().display().to_string());
            (path, header.mode().unwrap(), header.size().unwrap())
        });
        let expected = [
            ("bin/", 0o755, 0),
            ("bin/deep/", 0o755, 0),
            ("etc/", 0o755, 0),
            ("bin/deep/tool", 0o755, 3000),
            ("etc/passwd", 0o644, 14),
            ("bin/empty", 0o600, 0),
        ];
        assert_eq!(listed.collect::<Vec<_>>(), expected.map(|(p, m, s)| (p.to_owned(), m, s)));
    }

    #[test]
    fn the_same_input_gives_the_same_bytes() {
        let dir = TempDir::new();
        let binary = dir.file("binary", &[7; 3000]);
        let (mut one, mut two) = (Vec::new(), Vec::new());
        assert_eq!(write(&image(&binary), &mut one).unwrap(), write(&image(&binary), &mut two).unwrap());
        assert!(one == two);
    }

    #[test]
    fn a_file_that_is_missing_or_changes_is_an_error() {
        assert!(write(&image(Path::new("/nonexistent/x")), &mut Vec::new())
            .unwrap_err()
            .to_string()
            .contains("/nonexistent/x"));
        let dir = TempDir::new();
        let binary = dir.file("binary", &[7; 3000]);
        struct Changing<'a>(&'a Path);
        impl Write for Changing<'_> {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                std::fs::write(self.0, [8; 3000])?;
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let e = write(&image(&binary), &mut Changing(&binary)).unwrap_err();
        assert_eq!(e.kind(), Kind::FailedPrecondition);
    }
}
