//! A fake node and archives of every shape, for tests.

use std::io::Write;
use std::path::PathBuf;

use serde_json::{json, Value};

use super::import::{import, Imported};
use super::platform::{host, Platform};
use super::Images;
use crate::call::Call;
use crate::containerd::fake::Fake;
use crate::digest;
use crate::error::Result;
use crate::ids::random_hex;
use crate::store::image::ImageStore;

/// A containerd without images and what cricket knows of it.
pub struct Node {
    pub fake: Fake,
    pub store: ImageStore,
    pub dir: TempDir,
}

impl Node {
    pub fn new() -> Self {
        Node { fake: Fake::new(), store: ImageStore::new(), dir: TempDir::new() }
    }

    pub fn images(&self) -> Images<'_> {
        Images { containerd: &self.fake, store: &self.store, snapshotter: "overlayfs" }
    }

    /// Imports an archive of these entries.
    pub fn import(&self, entries: &[(String, Vec<u8>)], name: Option<&str>) -> Result<Vec<Imported>> {
        let file = self.dir.file("archive.tar", &tar(entries));
        import(&self.images(), &Call::unbounded(), &file, &self.dir.0, name)
    }

    /// What containerd has of this kind.
    pub fn left(&self, kind: &str) -> Vec<String> {
        let all = self.fake.leftovers();
        all.iter().filter_map(|l| l.strip_prefix(kind)?.strip_prefix(':')).map(str::to_owned).collect()
    }
}

/// A directory that goes away.
pub struct TempDir(pub PathBuf);

impl TempDir {
    pub fn new() -> Self {
        let path = std::env::temp_dir().join(format!("cricket-test-{}", &random_hex().unwrap()[..12]));
        std::fs::create_dir(&path).unwrap();
        TempDir(path)
    }

    /// A file in it.
    pub fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// Entries of a tar file.
pub type Entries = Vec<(String, Vec<u8>)>;

pub fn tar(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, bytes.as_slice()).unwrap();
    }
    tar.into_inner().unwrap()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

/// One file as a layer.
pub fn layer(name: &str) -> Vec<u8> {
    tar(&[(name.to_owned(), format!("content of {name}").repeat(50).into_bytes())])
}

/// An image whose parts can be bent.
#[derive(Clone)]
pub struct Sample {
    pub platform: Platform,
    /// As stored, the end of the media type, and as a plain tar.
    pub layers: Vec<(Vec<u8>, &'static str, Vec<u8>)>,
    pub env: &'static str,
}

impl Sample {
    /// A plain, a gzip and a zstd layer.
    pub fn new() -> Self {
        let layers = vec![
            (layer("a"), "", layer("a")),
            (gzip(&layer("b")), "+gzip", layer("b")),
            (zstd(&layer("c")), "+zstd", layer("c")),
        ];
        Sample { platform: host(), layers, env: "A=b" }
    }

    pub fn foreign() -> Self {
        let platform = Platform { os: "linux".into(), architecture: "s390x".into(), variant: String::new() };
        Sample { platform, ..Sample::new() }
    }

    pub fn config(&self) -> Vec<u8> {
        let diff_ids: Vec<String> = self.layers.iter().map(|(_, _, plain)| digest::of(plain)).collect();
        let Platform { os, architecture, variant } = &self.platform;
        json!({ "os": os, "architecture": architecture, "variant": variant,
            "config": { "Env": [self.env], "Entrypoint": ["/a"], "User": "7:8" },
            "rootfs": { "type": "layers", "diff_ids": diff_ids } })
        .to_string()
        .into_bytes()
    }

    pub fn id(&self) -> String {
        digest::of(&self.config())
    }

    pub fn manifest(&self) -> Vec<u8> {
        let link = |bytes: &[u8], kind: &str| {
            json!({ "mediaType": format!("application/vnd.oci.image.{kind}"),
            "digest": digest::of(bytes), "size": bytes.len() })
        };
        let layers = self.layers.iter().map(|(stored, end, _)| link(stored, &format!("layer.v1.tar{end}")));
        json!({ "schemaVersion": 2, "config": link(&self.config(), "config.v1+json"), "layers": layers.collect::<Vec<_>>() })
            .to_string()
            .into_bytes()
    }

    /// Its manifest as an index lists it.
    pub fn link(&self, annotations: &Value) -> Value {
        let manifest = self.manifest();
        json!({ "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest::of(&manifest),
            "size": manifest.len(), "annotations": annotations,
            "platform": { "os": self.platform.os, "architecture": self.platform.architecture } })
    }

    pub fn blobs(&self) -> Entries {
        let mut all = vec![self.manifest(), self.config()];
        all.extend(self.layers.iter().map(|(stored, ..)| stored.clone()));
        all.iter().map(|bytes| blob(bytes)).collect()
    }
}

/// A blob as a layout names it.
pub fn blob(bytes: &[u8]) -> (String, Vec<u8>) {
    (format!("blobs/sha256/{}", &digest::of(bytes)[7..]), bytes.to_vec())
}

/// An index over these.
pub fn index(links: &[Value]) -> Vec<u8> {
    json!({ "schemaVersion": 2, "manifests": links }).to_string().into_bytes()
}

/// An OCI layout; the name, if any, is containerd's annotation.
pub fn layout(images: &[(&Sample, &str)]) -> Entries {
    let mut entries = vec![("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())];
    for (image, _) in images {
        entries.extend(image.blobs());
    }
    let link = |(image, name): &(&Sample, &str)| match *name {
        "" => image.link(&Value::Null),
        name => image.link(&json!({ "io.containerd.image.name": name })),
    };
    entries.push(("index.json".to_owned(), index(&images.iter().map(link).collect::<Vec<_>>())));
    entries
}

/// A docker archive; layers are `<n>/layer.tar`.
pub fn saved(image: &Sample, tags: &[&str]) -> Entries {
    let mut entries = vec![("config.json".to_owned(), image.config())];
    let mut paths = Vec::new();
    for (n, (stored, ..)) in image.layers.iter().enumerate() {
        paths.push(format!("{n}/layer.tar"));
        entries.push((format!("{n}/layer.tar"), stored.clone()));
    }
    let manifest = json!([{ "Config": "config.json", "RepoTags": tags, "Layers": paths }]);
    entries.push(("manifest.json".to_owned(), manifest.to_string().into_bytes()));
    entries
}
