//! The JSON documents of an image: index, manifest and configuration, of the OCI and of Docker's schema 2.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::platform::Platform;
use crate::containerd::{Descriptor, Labels};
use crate::digest;
use crate::error::{Error, Result};
use crate::oci::facts::ImageFacts;
use crate::reference::is_full_id;

/// Larger documents are refused: they are held in memory.
pub const MAX_BYTES: u64 = 8 << 20;

/// Media types that cricket writes.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// A descriptor as it stands in JSON.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Link {
    #[serde(default)]
    pub media_type: String,
    pub digest: String,
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<Labels>,
    #[serde(default, skip_serializing)]
    pub platform: Option<Platform>,
}

impl Link {
    /// The descriptor, once its digest is one that names a blob.
    pub fn descriptor(&self) -> Result<Descriptor> {
        if !is_full_id(&self.digest) {
            return Err(Error::invalid(format!("digest {:?} is not sha256: and 64 hex digits", self.digest)));
        }
        Ok(Descriptor {
            media_type: self.media_type.clone(),
            digest: self.digest.clone(),
            size_bytes: self.size,
            annotations: self.annotations.clone().unwrap_or_default(),
        })
    }
}

/// An index or a manifest, told apart by what it has, not by what it is called.
#[derive(Debug)]
pub enum Document {
    Index(Vec<Link>),
    Manifest { config: Link, layers: Vec<Link> },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    media_type: Option<String>,
    manifests: Option<Vec<Link>>,
    config: Option<Link>,
    layers: Option<Vec<Link>>,
}

/// Parses an index or a manifest; also says its media type, for descriptors that do not. One that could be either is
/// refused: two readers would see two images.
pub fn parse(bytes: &[u8]) -> Result<(Document, String)> {
    let shape: Shape = json("manifest", bytes)?;
    let (document, usual) = match (shape.manifests, shape.config, shape.layers) {
        (Some(manifests), None, None) => (Document::Index(manifests), OCI_INDEX),
        (None, Some(config), layers) => {
            (Document::Manifest { config, layers: layers.unwrap_or_default() }, OCI_MANIFEST)
        }
        (Some(_), ..) => return Err(Error::invalid("manifest: has both manifests and a config or layers")),
        _ => {
            return Err(Error::invalid("manifest: has neither manifests nor a config (schema 1 is not supported)"));
        }
    };
    Ok((document, shape.media_type.unwrap_or_else(|| usual.to_owned())))
}

/// A manifest of ours.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NewManifest {
    pub schema_version: u32,
    pub media_type: &'static str,
    pub config: Link,
    pub layers: Vec<Link>,
}

/// The part of an image's configuration that cricket looks at.
#[derive(Debug, Deserialize)]
pub struct Config {
    #[serde(flatten)]
    pub platform: Platform,
    config: Option<Run>,
    rootfs: Option<Rootfs>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Run {
    user: Option<String>,
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    volumes: Option<BTreeMap<String, serde::de::IgnoredAny>>,
    working_dir: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    stop_signal: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Rootfs {
    diff_ids: Option<Vec<String>>,
}

impl Config {
    /// Parses an image configuration.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        json("image configuration", bytes)
    }

    /// Splits it into what containers are made from and the digests of the uncompressed layers.
    pub fn into_parts(self) -> Result<(ImageFacts, Vec<String>)> {
        let diff_ids = self.rootfs.and_then(|r| r.diff_ids).unwrap_or_default();
        if let Some(bad) = diff_ids.iter().find(|d| !is_full_id(d)) {
            return Err(Error::invalid(format!(
                "image configuration: diff id {bad:?} is not sha256: and 64 hex digits"
            )));
        }
        let run = self.config.unwrap_or_default();
        let facts = ImageFacts {
            entrypoint: run.entrypoint.unwrap_or_default(),
            cmd: run.cmd.unwrap_or_default(),
            env: run.env.unwrap_or_default(),
            working_dir: run.working_dir.unwrap_or_default(),
            user: run.user.unwrap_or_default(),
            volumes: run.volumes.unwrap_or_default().into_keys().collect(),
            stop_signal: run.stop_signal.unwrap_or_default(),
            labels: run.labels.unwrap_or_default(),
        };
        Ok((facts, diff_ids))
    }
}

/// The names of the snapshots that stack these layers, lowest first. The last one is the image's root filesystem.
pub fn chain_ids<'a>(diff_ids: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut chain: Vec<String> = Vec::new();
    for diff_id in diff_ids {
        chain.push(match chain.last() {
            None => diff_id.to_owned(),
            Some(parent) => digest::of(format!("{parent} {diff_id}").as_bytes()),
        });
    }
    chain
}

/// Parses JSON from outside.
pub fn json<T: serde::de::DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| Error::invalid(format!("{what}: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn told_apart_by_shape() {
        let digest = digest::of(b"");
        let link = format!(r#"{{"mediaType":"x","digest":"{digest}","size":3}}"#);
        let (index, media_type) = parse(format!(r#"{{"manifests":[{link}]}}"#).as_bytes()).unwrap();
        assert_eq!(media_type, OCI_INDEX);
        assert!(matches!(index, Document::Index(m) if m[0].size == 3));
        let text = format!(r#"{{"mediaType":"own","config":{link},"layers":null}}"#);
        let (manifest, media_type) = parse(text.as_bytes()).unwrap();
        assert_eq!(media_type, "own");
        assert!(matches!(manifest, Document::Manifest { layers, .. } if layers.is_empty()));
        for bad in ["", "[]", "{}", r#"{"fsLayers":[]}"#, &format!(r#"{{"manifests":[],"config":{link}}}"#)] {
            assert_eq!(parse(bad.as_bytes()).unwrap_err().kind(), Kind::InvalidArgument, "{bad}");
        }
    }

    #[test]
    fn a_digest_is_no_path() {
        for digest in ["sha256:../../etc", "sha512:00", ""] {
            let link = Link { digest: digest.into(), ..Link::default() };
            assert_eq!(link.descriptor().unwrap_err().kind(), Kind::InvalidArgument);
        }
    }

    #[test]
    fn nulls_of_a_docker_configuration_are_empty() {
        let text = br#"{"architecture":"amd64","os":"linux","config":{"Entrypoint":null,"Cmd":["sh"],"Env":null,
            "Volumes":{"/b":{},"/a":{}},"WorkingDir":"/w","User":"1:2","Labels":null,"StopSignal":"SIGINT"},
            "rootfs":{"type":"layers","diff_ids":null}}"#;
        let config = Config::parse(text).unwrap();
        assert_eq!(config.platform.to_string(), "linux/amd64");
        let (facts, diff_ids) = config.into_parts().unwrap();
        assert!(diff_ids.is_empty());
        let expected = ImageFacts {
            cmd: vec!["sh".into()],
            working_dir: "/w".into(),
            user: "1:2".into(),
            volumes: vec!["/a".into(), "/b".into()],
            stop_signal: "SIGINT".into(),
            ..ImageFacts::default()
        };
        assert_eq!(facts, expected);
    }

    #[test]
    fn a_configuration_with_a_bad_diff_id_is_refused() {
        let config = Config::parse(br#"{"rootfs":{"diff_ids":["md5:1"]}}"#).unwrap();
        assert_eq!(config.into_parts().unwrap_err().kind(), Kind::InvalidArgument);
        assert_eq!(Config::parse(b"{\"os\":1}").unwrap_err().kind(), Kind::InvalidArgument);
    }

    /// The two-layer value was computed with sha256sum.
    #[test]
    fn the_chain_starts_with_the_diff_id_and_hashes_on() {
        let one = digest::of(b"one");
        let two = digest::of(b"two");
        assert!(chain_ids([]).is_empty());
        let chain = chain_ids([one.as_str(), two.as_str()]);
        assert_eq!(chain[0], one);
        assert_eq!(chain[1], "sha256:ee90d7132b9e9a049b7b0a88db345ca31fb5e8a74a5ee57210478a9a2522d499");
    }
}
