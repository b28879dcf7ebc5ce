//! containerd's messages of several services, from and to our own types.

use std::collections::HashMap;

use cricket_proto::types;
use protobuf::well_known_types::any::Any as WireAny;
use protobuf::well_known_types::field_mask::FieldMask;
use protobuf::MessageField;

use crate::containerd::{Any, Descriptor, Labels, Mount};
use crate::error::{Error, Result};

pub(super) fn labels_out(labels: &Labels) -> HashMap<String, String> {
    labels.iter().map(|(k, v)| (k.clone(), v.clone())).collect()
}

pub(super) fn any_out(type_url: &str, value: &[u8]) -> MessageField<WireAny> {
    MessageField::some(WireAny { type_url: type_url.to_owned(), value: value.to_vec(), ..WireAny::default() })
}

pub(super) fn any_in(any: WireAny) -> Any {
    Any { type_url: any.type_url, value: any.value }
}

pub(super) fn mask(paths: &[&str]) -> MessageField<FieldMask> {
    let paths = paths.iter().map(|&p| p.to_owned()).collect();
    MessageField::some(FieldMask { paths, ..FieldMask::default() })
}

pub(super) fn mount_out(mount: &Mount) -> types::Mount {
    types::Mount {
        type_: mount.kind.clone(),
        source: mount.source.clone(),
        options: mount.options.clone(),
        ..types::Mount::default()
    }
}

pub(super) fn mount_in(mount: types::Mount) -> Mount {
    Mount { kind: mount.type_, source: mount.source, options: mount.options }
}

pub(super) fn descriptor_out(descriptor: &Descriptor) -> Result<types::Descriptor> {
    Ok(types::Descriptor {
        media_type: descriptor.media_type.clone(),
        digest: descriptor.digest.clone(),
        size: size_out(descriptor.size_bytes)?,
        annotations: labels_out(&descriptor.annotations),
        ..types::Descriptor::default()
    })
}

pub(super) fn descriptor_in(descriptor: types::Descriptor) -> Descriptor {
    Descriptor {
        media_type: descriptor.media_type,
        digest: descriptor.digest,
        size_bytes: size_in(descriptor.size),
        annotations: descriptor.annotations.into_iter().collect(),
    }
}

/// The wire counts bytes signed.
pub(super) fn size_out(bytes: u64) -> Result<i64> {
    i64::try_from(bytes).map_err(|_| Error::invalid(format!("a size of {bytes} bytes does not exist")))
}

/// A negative size is one that containerd does not know.
pub(super) fn size_in(bytes: i64) -> u64 {
    u64::try_from(bytes).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn a_descriptor_survives_the_wire() {
        let ours = Descriptor {
            media_type: "m".into(),
            digest: "sha256:0".into(),
            size_bytes: 7,
            annotations: Labels::from([("a".into(), "b".into())]),
        };
        assert_eq!(descriptor_in(descriptor_out(&ours).expect("small")), ours);
        let huge = Descriptor { size_bytes: u64::MAX, ..ours };
        assert_eq!(descriptor_out(&huge).map_err(|e| e.kind()), Err(Kind::InvalidArgument));
        assert_eq!(size_in(-1), 0);
    }
}
