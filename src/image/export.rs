//! `cricket export`: images as an OCI layout in a tar, which `cricket import` and others read.

use std::collections::BTreeSet;
use std::io::Write;

use serde_json::json;

use super::build::{append, append_header, blob_path, pad};
use super::{load, Images};
use crate::call::Call;
use crate::containerd::Descriptor;
use crate::error::{Context, Error, Result};

const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// Writes the images of these names, as far as they are for this node's platform. Layers are streamed. Blocks.
///
/// # Errors
/// `NotFound` for a name that is not here; `FailedPrecondition` if layers were discarded; what `out` says.
pub fn export(at: &Images<'_>, call: &Call, names: &[String], out: &mut dyn Write) -> Result<()> {
    let (mut entries, mut blobs) = (Vec::new(), Vec::new());
    for name in names {
        let image = at.store.get(name)?;
        let resolved = load::resolve(at.containerd, call, &image.target)?;
        let manifest = resolved.documents.last().ok_or_else(|| Error::internal("an image without a manifest"))?;
        let Descriptor { media_type, digest, size_bytes, .. } = &manifest.descriptor;
        let mut entry = json!({ "mediaType": media_type, "digest": digest, "size": size_bytes });
        // Asked for by id it has no name there.
        if !image.id.contains(name.as_str()) {
            let reference = crate::reference::Reference::parse(name)?;
            if reference.tag().is_some() {
                entry["annotations"] = json!({ CONTAINERD_NAME: reference.to_string() });
            }
        }
        entries.push(entry);
        blobs.extend([manifest.descriptor.clone(), resolved.config.clone()]);
        blobs.extend(resolved.layers.iter().map(|layer| layer.descriptor.clone()));
    }
    // Before the first byte is written.
    for blob in &blobs {
        at.containerd.content(call, &blob.digest).map_err(|e| {
            Error::precondition(format!("blob {} is not here any more, pull the image again: {e}", blob.digest))
        })?;
    }
    let index = json!({ "schemaVersion": 2, "manifests": entries }).to_string();
    let mut tar = tar::Builder::new(out);
    append(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    append(&mut tar, "index.json", index.as_bytes())?;
    let mut written = BTreeSet::new();
    for blob in blobs.iter().filter(|blob| written.insert(&blob.digest)) {
        call.check()?;
        append_header(&mut tar, &blob_path(&blob.digest), blob.size_bytes)?;
        let copied = at.containerd.copy_content(call, &blob.digest, tar.get_mut());
        let copied = copied.with_context(|| format!("export blob {}", blob.digest))?;
        if copied != blob.size_bytes {
            return Err(Error::internal(format!("blob {} has {copied} bytes", blob.digest)));
        }
        pad(tar.get_mut(), copied)?;
    }
    tar.finish().context("export")
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::containerd::Containerd;
    use crate::error::Kind;

    const APP: &str = "docker.io/library/app:1";

    #[test]
    fn what_is_exported_can_be_imported() {
        let (node, sample, call) = (Node::new(), Sample::new(), Call::unbounded());
        let other = Sample { env: "A=2", ..Sample::new() };
        node.import(&layout(&[(&sample, APP), (&other, "other")]), None).unwrap();
        let mut tar = Vec::new();
        export(&node.images(), &call, &["app:1".into(), other.id()], &mut tar).unwrap();
        let second = Node::new();
        let file = second.dir.file("a.tar", &tar);
        let imported = super::super::import::import(&second.images(), &call, &file, &second.dir.0, None).unwrap();
        let names: Vec<_> = imported.iter().map(|i| (i.id.clone(), i.references.clone())).collect();
        assert_eq!(names, [(sample.id(), vec![APP.to_owned()]), (other.id(), vec![])]);
        assert_eq!(second.left("content"), node.left("content"), "layers that both have are there once");
    }

    #[test]
    fn what_is_not_here_cannot_be_exported() {
        let (node, call) = (Node::new(), Call::unbounded());
        let of = |name: &str| export(&node.images(), &call, &[name.to_owned()], &mut Vec::new()).map_err(|e| e.kind());
        assert_eq!(of("nothing"), Err(Kind::NotFound));
        node.import(&layout(&[(&Sample::new(), APP)]), None).unwrap();
        assert_eq!(of(APP), Ok(()));
        for name in node.left("image") {
            node.fake.delete_image(&call, &name, true).unwrap();
        }
        assert_eq!(of(APP), Err(Kind::NotFound), "its manifest is gone");
    }
}
