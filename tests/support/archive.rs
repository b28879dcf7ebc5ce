//! An image made of a directory, as it is: owners, modes, links and attributes of its files with it.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{json, Value};
use sha2::{Digest as _, Sha256};

/// Writes an archive of the OCI's layout with one image of one layer, which is `tree`, by GNU tar. `config` is what its
/// containers are started with, in the words of the OCI.
pub fn write(archive: &Path, name: &str, tree: &Path, config: Value) {
    let work = archive.with_extension("layout");
    let blobs = work.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("make a layout");
    let layer = work.join("layer");
    let tar = |from: &Path, to: &Path| {
        let flags = ["--xattrs", "--xattrs-include=*", "--numeric-owner", "--sparse", "--format=posix", "-cf"];
        let done = Command::new("tar").args(flags).arg(to).arg("-C").arg(from).arg(".").status();
        assert!(done.expect("run tar").success(), "tar {}", from.display());
    };
    tar(tree, &layer);
    let put = |bytes: &[u8]| {
        let digest: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        fs::write(blobs.join(&digest), bytes).expect("write a blob");
        (format!("sha256:{digest}"), bytes.len())
    };
    let link = |media_type: &str, (digest, size): &(String, usize)| json!({"mediaType": format!("application/vnd.oci.image.{media_type}"), "digest": digest, "size": size});
    let layer_bytes = fs::read(&layer).expect("the layer");
    fs::remove_file(&layer).expect("ours");
    let layer = put(&layer_bytes);
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = json!({"architecture": architecture, "os": "linux", "config": config,
        "rootfs": {"type": "layers", "diff_ids": [layer.0]}});
    let config = put(config.to_string().as_bytes());
    let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": link("config.v1+json", &config), "layers": [link("layer.v1.tar", &layer)]});
    let mut manifest = link("manifest.v1+json", &put(manifest.to_string().as_bytes()));
    manifest["annotations"] = json!({"org.opencontainers.image.ref.name": name});
    fs::write(work.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("write");
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    fs::write(work.join("index.json"), index.to_string()).expect("write");
    let done = Command::new("tar").arg("-cf").arg(archive).arg("-C").arg(&work).arg(".").status();
    assert!(done.expect("run tar").success());
    fs::remove_dir_all(&work).expect("ours");
}
