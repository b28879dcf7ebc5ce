//! An image's records in containerd: from when they are there, it is.

use super::resolve::Resolved;
use super::{labels, Images};
use crate::call::Call;
use crate::containerd::{Descriptor, ImageRecord, Labels};
use crate::error::{Context, Idempotent, Kind, Result};
use crate::reference::Reference;
use crate::rollback::Rollback;

/// The records an image gets: its names, the same repositories at its digest, and its id.
pub(super) fn records(references: &[Reference], image: &Resolved) -> Vec<ImageRecord> {
    let target = &image.target;
    let mut names: Vec<String> = references.iter().map(Reference::to_string).collect();
    names.extend(references.iter().filter_map(|n| n.at_digest(&target.digest).ok()).map(|n| n.to_string()));
    names.push(image.config.digest.clone());
    names.sort();
    names.dedup();
    let record = |name| ImageRecord {
        name,
        target: Descriptor { annotations: Labels::new(), ..target.clone() },
        ..ImageRecord::default()
    };
    names.into_iter().map(record).collect()
}

/// Puts the records, or none: one that fails takes the others back to what they named before.
pub(super) fn publish(at: &Images<'_>, call: &Call, records: &[ImageRecord]) -> Result<()> {
    let mut undo = Rollback::new();
    for record in records {
        let before = match at.containerd.image(call, &record.name) {
            Ok(before) => Some(before),
            Err(e) if e.kind() == Kind::NotFound => None,
            Err(e) => return Err(e).with_context(|| format!("image {}", record.name)),
        };
        // A pin stays.
        let mut new = record.clone();
        new.labels = before.as_ref().map(|b| b.labels.clone()).unwrap_or_default();
        new.labels.insert(labels::MANAGED.0.into(), labels::MANAGED.1.into());
        undo.push("image record", move || match before {
            Some(before) => at.containerd.put_image(&Call::undo(), &before),
            None => at.containerd.delete_image(&Call::undo(), &record.name, false).or_gone(),
        });
        at.containerd.put_image(call, &new).with_context(|| format!("image {}", record.name))?;
    }
    undo.commit();
    Ok(())
}
