//! Labels of the containerd record: the request's and the image's, without those that mean something to containerd.

use std::collections::{BTreeMap, HashMap};

/// What kind of record it is: `container` or `sandbox`.
pub const KIND: &str = "io.cri-containerd.kind";

/// A label below one of these would command containerd (hold content, pick a snapshotter) or impersonate us.
const RESERVED: [&str; 2] = ["containerd.io/", "io.cri-containerd"];

/// containerd refuses a record with a longer key and value.
const MAX_BYTES: usize = 4096;

/// The labels of a container's record. The request's beat the image's; reserved and oversized ones are left out:
/// the CRI answers are made from the metadata, not from these.
pub fn of(config: &HashMap<String, String>, image: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut all: BTreeMap<String, String> = image
        .iter()
        .chain(config)
        .filter(|(key, value)| !RESERVED.iter().any(|r| key.starts_with(r)) && key.len() + value.len() <= MAX_BYTES)
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    all.insert(KIND.into(), "container".into());
    all
}

/// The labels of the record of a sandbox's process: cAdvisor looks for the kind.
pub fn of_sandbox(config: &HashMap<String, String>) -> BTreeMap<String, String> {
    let mut all = of(config, &BTreeMap::new());
    all.insert(KIND.into(), "sandbox".into());
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_and_oversized_labels_stay_out() {
        let owned = |all: &[(&str, &str)]| -> Vec<(String, String)> {
            all.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
        };
        let fits = "x".repeat(MAX_BYTES - 1);
        let long = "x".repeat(MAX_BYTES);
        let config = owned(&[("app", "web"), ("both", "config"), ("io.cri-containerd.kind", "sandbox"), ("a", &fits)]);
        let image = owned(&[
            ("both", "image"),
            ("maintainer", "me"),
            ("containerd.io/gc.ref.content.x", "sha256:1"),
            ("io.cri-containerd.image", "managed"),
            ("b", &long),
        ]);
        let found = of(&config.into_iter().collect(), &image.into_iter().collect());
        let expected: BTreeMap<String, String> =
            owned(&[("a", &fits), ("app", "web"), ("both", "config"), ("maintainer", "me"), (KIND, "container")])
                .into_iter()
                .collect();
        assert_eq!(found, expected);
    }
}
