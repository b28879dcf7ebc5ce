//! Leases of the fake.

use std::collections::BTreeSet;
use std::time::Duration;

use super::state::{SnapshotKey, State};
use crate::call::Call;
use crate::containerd::{time, UnixNanos};
use crate::error::{Error, Kind, Result};

#[derive(Default)]
pub(super) struct Lease {
    pub(super) expires_at: UnixNanos,
    pub(super) snapshots: BTreeSet<SnapshotKey>,
    pub(super) blobs: BTreeSet<String>,
    pub(super) ingests: BTreeSet<String>,
}

impl State {
    pub(super) fn create_lease(&mut self, id: &str, ttl: Duration) -> Result<()> {
        if id.is_empty() {
            return Err(Error::invalid("a lease needs an id"));
        }
        if self.leases.contains_key(id) {
            return Err(Error::new(Kind::AlreadyExists, format!("lease {id:?} already exists")));
        }
        let ttl = i64::try_from(ttl.as_nanos()).unwrap_or(i64::MAX);
        self.leases.insert(id.to_owned(), Lease { expires_at: time::now().saturating_add(ttl), ..Lease::default() });
        Ok(())
    }

    pub(super) fn delete_lease(&mut self, id: &str, sync: bool) -> Result<()> {
        self.leases.remove(id).ok_or_else(|| Error::not_found(format!("lease {id:?} not found")))?;
        if sync {
            self.collect_garbage();
        }
        Ok(())
    }

    /// A call that creates something needs its lease to exist.
    pub(super) fn check_lease(&self, call: &Call) -> Result<()> {
        match call.lease() {
            Some(id) if !self.leases.contains_key(id) => Err(Error::not_found(format!("lease {id:?} not found"))),
            _ => Ok(()),
        }
    }

    pub(super) fn lease_snapshot(&mut self, call: &Call, key: SnapshotKey) {
        if let Some(lease) = call.lease().and_then(|id| self.leases.get_mut(id)) {
            lease.snapshots.insert(key);
        }
    }

    pub(super) fn lease_blob(&mut self, call: &Call, digest: &str) {
        if let Some(lease) = call.lease().and_then(|id| self.leases.get_mut(id)) {
            lease.blobs.insert(digest.to_owned());
        }
    }

    pub(super) fn lease_ingest(&mut self, call: &Call, reference: &str) {
        if let Some(lease) = call.lease().and_then(|id| self.leases.get_mut(id)) {
            lease.ingests.insert(reference.to_owned());
        }
    }
}
