//! The lease of a pull: gone when the pull has worked or can never work, kept when the next attempt may go on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

use super::{may_go_on, Puller};
use crate::call::Call;
use crate::clock;
use crate::containerd::Containerd;
use crate::digest;
use crate::error::{Context, Idempotent, Kind, Result};
use crate::ids::random_hex;
use crate::reference::Reference;
use crate::store::pulls::Pulls;

/// After this containerd forgets what an attempt has left that nobody repeats.
const TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// A lease is used again for so long: then it still has as long again to live.
const WINDOW: Duration = Duration::from_secs(12 * 60 * 60);

/// A call under the lease of a pull.
pub(super) struct Leased {
    pub(super) call: Call,
    /// Bytes of a layer have come.
    pub(super) wrote: Arc<AtomicBool>,
}

/// Does `work` under a lease.
pub(super) fn held<T>(
    puller: &Puller<'_>,
    call: &Call,
    reference: &Reference,
    work: impl FnOnce(&Leased) -> Result<T>,
) -> Result<T> {
    let containerd = &*puller.containerd;
    let (listed, before) = Listed::new(puller, reference)?;
    let created = match containerd.create_lease(call, &listed.id, TTL) {
        // An earlier attempt has left it.
        Err(e) if e.kind() == Kind::AlreadyExists => Ok(()),
        created => created.context("create a lease"),
    };
    let leased = Leased { call: call.with_lease(listed.id.as_str()), wrote: Arc::default() };
    let done = created.and_then(|()| work(&leased));
    if let Err(e) = &done {
        if puller.sole && may_go_on(e) && leased.wrote.load(Ordering::Acquire) {
            return done;
        }
    }
    // The collection that comes with it is worth waiting for only if there may be something to collect.
    drop_lease(containerd, &listed.id, done.is_err());
    if let Some(before) = before.filter(|_| done.is_ok()) {
        drop_lease(containerd, &before, false);
    }
    done
}

fn drop_lease(containerd: &dyn Containerd, id: &str, sync: bool) {
    if let Err(e) = containerd.delete_lease(&Call::undo(), id, sync).or_gone() {
        log::warn!("lease {id} stays until it expires: {e}");
    }
}

/// An entry in the list of leases that are in use.
struct Listed<'a> {
    pulls: &'a Pulls,
    id: String,
}

impl<'a> Listed<'a> {
    /// A lease for a pull, and the one that earlier attempts at it may have left. The daemon's have names that follow
    /// from what is pulled and from the time, so that the next attempt finds them.
    fn new(puller: &Puller<'a>, reference: &Reference) -> Result<(Self, Option<String>)> {
        let pulls = &**puller.pulls;
        let image = &digest::of(reference.to_string().as_bytes())[7..23];
        let window = clock::now() / i64::try_from(WINDOW.as_nanos()).unwrap_or(i64::MAX);
        let named = |window: i64| format!("cricket-pull-{image}-{window}");
        let alone = format!("cricket-pull-{image}-{}", &random_hex()?[..16]);
        let mut leases = pulls.leases.lock();
        let (id, before) = match puller.sole && !leases.contains(&named(window)) {
            true => (named(window), Some(named(window - 1)).filter(|before| !leases.contains(before))),
            false => (alone, None),
        };
        leases.insert(id.clone());
        Ok((Listed { pulls, id }, before))
    }
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        let mut leases = self.pulls.leases.lock();
        leases.remove(&self.id);
        if leases.is_empty() {
            // Whoever comes now asks containerd.
            self.pulls.written.lock().clear();
        }
    }
}
