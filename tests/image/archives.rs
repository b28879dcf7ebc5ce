//! An image of three layers, stored plain, as gzip and as zstd, in the archives that others write.

use std::io::Write;

use serde_json::json;

use crate::registry::{architecture, digest};

/// Entries of a tar file.
type Entries = Vec<(String, Vec<u8>)>;

/// An OCI layout whose name points to an index.
pub fn layout(name: &str) -> Vec<u8> {
    let layers = layers();
    let config = config(&layers);
    let link = |bytes: &[u8], kind: &str| {
        let media_type = format!("application/vnd.oci.image.{kind}");
        json!({ "mediaType": media_type, "digest": digest(bytes), "size": bytes.len() })
    };
    let stored: Vec<_> = layers.iter().map(|(end, bytes, _)| link(bytes, &format!("layer.v1.tar{end}"))).collect();
    let manifest = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": link(&config, "config.v1+json"), "layers": stored })
    .to_string()
    .into_bytes();
    let mut ours = link(&manifest, "manifest.v1+json");
    ours["platform"] = json!({ "os": "linux", "architecture": architecture() });
    let mut foreign = link(b"not in the archive", "manifest.v1+json");
    foreign["platform"] = json!({ "os": "linux", "architecture": "s390x" });
    let inner = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [foreign, ours] })
    .to_string()
    .into_bytes();
    let mut named = link(&inner, "index.v1+json");
    named["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
    let index = json!({ "schemaVersion": 2, "manifests": [named] }).to_string().into_bytes();
    let mut entries: Entries = vec![("index.json".into(), index)];
    let blobs = [config, manifest, inner].into_iter().chain(layers.into_iter().map(|(_, bytes, _)| bytes));
    entries.extend(blobs.map(|bytes| (format!("blobs/sha256/{}", &digest(&bytes)[7..]), bytes)));
    tar(&entries)
}

/// As `docker save` wrote it for years.
pub fn saved(name: &str) -> Vec<u8> {
    let layers = layers();
    let paths: Vec<String> = (0..layers.len()).map(|n| format!("{n}/layer.tar")).collect();
    let manifest = json!([{ "Config": "config.json", "RepoTags": [name], "Layers": paths }]).to_string().into_bytes();
    let mut entries: Entries = vec![("manifest.json".into(), manifest), ("config.json".into(), config(&layers))];
    entries.extend(paths.into_iter().zip(layers).map(|(path, (_, _, plain))| (path, plain)));
    tar(&entries)
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).expect("in memory");
    out.finish().expect("in memory")
}

/// The end of the media type, the layer as stored, the layer as a tar.
fn layers() -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
    let plain = |name: &str| tar(&[(name.to_owned(), name.repeat(500).into_bytes())]);
    let zstd = |bytes: &[u8]| ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest);
    let (a, b, c) = (plain("a"), plain("b"), plain("c"));
    vec![("", a.clone(), a), ("+gzip", gzip(&b), b), ("+zstd", zstd(&c), c)]
}

fn config(layers: &[(&str, Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let diff_ids: Vec<String> = layers.iter().map(|(_, _, plain)| digest(plain)).collect();
    json!({ "os": "linux", "architecture": architecture(), "config": { "Cmd": ["/a"] },
        "rootfs": { "type": "layers", "diff_ids": diff_ids } })
    .to_string()
    .into_bytes()
}

fn tar(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, bytes.as_slice()).expect("in memory");
    }
    tar.into_inner().expect("in memory")
}
