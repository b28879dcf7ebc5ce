//! Leases of what is being made: until an image has its records, nothing else keeps its parts.

use std::time::Duration;

use super::Images;
use crate::call::Call;
use crate::error::{Context, Idempotent, Result};
use crate::ids::random_hex;
use crate::rollback::Rollback;

/// After this containerd forgets what work that was killed has left.
const LEASE_TTL: Duration = Duration::from_secs(60 * 60);

/// Runs `work` under a lease of its own. When it fails, the lease goes and the garbage collection with it; when it
/// works, what it made must be referred to by then.
pub(super) fn leased<T>(at: &Images<'_>, call: &Call, work: impl FnOnce(&Call) -> Result<T>) -> Result<T> {
    let lease = format!("cricket-image-{}", &random_hex()?[..16]);
    let mut undo = Rollback::new();
    undo.push("lease", || at.containerd.delete_lease(&Call::undo(), &lease, true).or_gone());
    at.containerd.create_lease(call, &lease, LEASE_TTL).context("create a lease")?;
    let done = work(&call.with_lease(lease.as_str()))?;
    undo.commit();
    if let Err(e) = at.containerd.delete_lease(&Call::undo(), &lease, false).or_gone() {
        log::warn!("lease {lease} stays until it expires: {e}");
    }
    Ok(done)
}
