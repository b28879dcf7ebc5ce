//! Garbage collection of the fake, by containerd's rules: what no image, container or lease reaches is deleted.

use std::collections::BTreeSet;

use super::state::{SnapshotKey, State};
use crate::containerd::{time, Labels};

/// Labels by which one object keeps others.
const ROOT: &str = "containerd.io/gc.root";
const CONTENT: &str = "containerd.io/gc.ref.content";
const SNAPSHOT: &str = "containerd.io/gc.ref.snapshot.";

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Node {
    Blob(String),
    Snapshot(SnapshotKey),
}

impl State {
    pub(super) fn collect_garbage(&mut self) {
        let now = time::now();
        self.leases.retain(|_, lease| lease.expires_at > now);
        let mut found = self.roots();
        let mut kept = BTreeSet::new();
        while let Some(node) = found.pop() {
            if !kept.contains(&node) {
                found.extend(self.references(&node));
                kept.insert(node);
            }
        }
        self.blobs.retain(|digest, _| kept.contains(&Node::Blob(digest.clone())));
        self.snapshots.retain(|key, _| kept.contains(&Node::Snapshot(key.clone())));
        let leases = &self.leases;
        let held = |reference: &str| leases.values().any(|lease| lease.ingests.contains(reference));
        self.ingests.retain(|reference, ingest| !ingest.leased || held(reference));
    }

    fn roots(&self) -> Vec<Node> {
        let mut roots = Vec::new();
        for image in self.images.values() {
            roots.push(Node::Blob(image.target.digest.clone()));
            roots.extend(labelled(&image.labels));
        }
        for container in self.containers.values() {
            roots.push(Node::Snapshot((container.snapshotter.clone(), container.snapshot_key.clone())));
            roots.extend(labelled(&container.labels));
        }
        for lease in self.leases.values() {
            roots.extend(lease.blobs.iter().cloned().map(Node::Blob));
            roots.extend(lease.snapshots.iter().cloned().map(Node::Snapshot));
        }
        let marked = |labels: &Labels| labels.contains_key(ROOT);
        roots.extend(self.blobs.iter().filter(|(_, b)| marked(&b.labels)).map(|(d, _)| Node::Blob(d.clone())));
        roots.extend(self.snapshots.iter().filter(|(_, s)| marked(&s.labels)).map(|(k, _)| Node::Snapshot(k.clone())));
        roots
    }

    fn references(&self, node: &Node) -> Vec<Node> {
        match node {
            Node::Blob(digest) => self.blobs.get(digest).map(|blob| labelled(&blob.labels)).unwrap_or_default(),
            Node::Snapshot(key) => match self.snapshots.get(key) {
                None => Vec::new(),
                Some(snapshot) => {
                    let mut all = labelled(&snapshot.labels);
                    all.push(Node::Snapshot((key.0.clone(), snapshot.parent.clone())));
                    all
                }
            },
        }
    }
}

/// What an object keeps by its labels; a suffix (`….content.config`, `….snapshot.overlayfs/1`) only makes keys unique.
fn labelled(labels: &Labels) -> Vec<Node> {
    let node = |(key, value): (&String, &String)| match key.strip_prefix(SNAPSHOT) {
        Some(rest) => {
            let snapshotter = rest.split_once('/').map_or(rest, |(snapshotter, _)| snapshotter);
            Some(Node::Snapshot((snapshotter.to_owned(), value.clone())))
        }
        None => key.starts_with(CONTENT).then(|| Node::Blob(value.clone())),
    };
    labels.iter().filter_map(node).collect()
}
