//! A control group that a runtime has left. runc gives up on it when a process of it, though killed, is still not gone after a
//! third of a second, which is little on a node that has much to do; and nobody comes back for it.

use std::fs;
use std::io;
use std::path::Path;

use super::MOUNT;
use crate::error::{Context, Idempotent, Result};

/// Removes the group at `path`, and the groups in it, below every hierarchy. One that is gone is as good.
///
/// # Errors
/// The first; of a group with a process in it. The others are removed all the same.
pub fn remove(path: &Path) -> Result<()> {
    let path = path.strip_prefix("/").unwrap_or(path);
    let hierarchies = fs::read_dir(MOUNT).into_iter().flatten().flatten().map(|entry| entry.path());
    let own = hierarchies.chain([MOUNT.into()]).map(|hierarchy| hierarchy.join(path));
    let first = |all: Result<()>, next: Result<()>| all.and(next);
    own.map(|group| remove_all(&group)).fold(Ok(()), first)
}

/// Only directories: the files are the kernel's, and go with theirs.
fn remove_all(group: &Path) -> Result<()> {
    match fs::remove_dir(group) {
        // Groups in it make it as busy as processes do.
        Err(e) if e.kind() == io::ErrorKind::ResourceBusy => {}
        removed => return removed.or_gone(),
    }
    let inner = fs::read_dir(group).into_iter().flatten().flatten().map(|entry| entry.path());
    inner.filter(|path| path.is_dir()).try_for_each(|group| remove_all(&group))?;
    fs::remove_dir(group).or_gone().with_context(|| format!("remove {}", group.display()))
}
