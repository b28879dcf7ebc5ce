//! The labels that tell containerd's garbage collector what belongs to what, and whose images these are.

use crate::containerd::Labels;

/// On every image record that the CRI shows.
pub const MANAGED: (&str, &str) = ("io.cri-containerd.image", "managed");
/// On the records of an image that the kubelet must not collect.
pub const PINNED: (&str, &str) = ("io.cri-containerd.pinned", "pinned");

const GC_CONTENT: &str = "containerd.io/gc.ref.content";
const GC_SNAPSHOT: &str = "containerd.io/gc.ref.snapshot";

/// An index keeps the manifest at this position of its list.
pub fn of_index(position: usize, manifest: &str) -> Labels {
    one(format!("{GC_CONTENT}.m.{position}"), manifest)
}

/// A manifest keeps its configuration and its layers.
pub fn of_manifest<'a>(config: &str, layers: impl IntoIterator<Item = &'a str>) -> Labels {
    let mut labels = one(format!("{GC_CONTENT}.config"), config);
    labels.extend(layers.into_iter().enumerate().map(|(n, layer)| (format!("{GC_CONTENT}.l.{n}"), layer.to_owned())));
    labels
}

/// A configuration keeps the snapshot of the image's root filesystem, if it has layers.
pub fn of_config(snapshotter: &str, chain_id: &str) -> Labels {
    match chain_id {
        "" => Labels::new(),
        chain_id => one(format!("{GC_SNAPSHOT}.{snapshotter}"), chain_id),
    }
}

/// Where content came from: other tools need not send it there again.
pub fn of_source(registry: &str, repository: &str) -> Labels {
    one(format!("containerd.io/distribution.source.{registry}"), repository)
}

/// A snapshot in the making says what it will be; snapshotters that fetch by themselves look at it.
pub fn of_snapshot(chain_id: &str) -> Labels {
    one("containerd.io/snapshot.ref".into(), chain_id)
}

/// Whether a manifest keeps a layer by this label.
pub fn is_of_layer(key: &str) -> bool {
    key.strip_prefix(GC_CONTENT).is_some_and(|rest| rest.starts_with(".l."))
}

/// Whether the label is there with that value.
pub fn has(labels: &Labels, (key, value): (&str, &str)) -> bool {
    labels.get(key).is_some_and(|v| v == value)
}

fn one(key: String, value: &str) -> Labels {
    Labels::from([(key, value.to_owned())])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_keeps_all_it_lists() {
        let labels = of_manifest("c", ["a", "b", "a"]);
        let expected = ["config", "l.0", "l.1", "l.2"].map(|end| format!("containerd.io/gc.ref.content.{end}"));
        assert!(labels.keys().eq(expected.iter()));
        assert!(labels.values().eq(["c", "a", "b", "a"]));
    }

    #[test]
    fn an_image_without_layers_keeps_no_snapshot() {
        assert!(of_config("overlayfs", "").is_empty());
        assert_eq!(of_config("overlayfs", "x").keys().next().unwrap(), "containerd.io/gc.ref.snapshot.overlayfs");
    }
}
