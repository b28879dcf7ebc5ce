//! Leases: what is written under one is safe from containerd's garbage collection.

use std::collections::HashMap;
use std::time::Duration;

use cricket_proto::leases::{CreateRequest, DeleteRequest, ListRequest};
use cricket_proto::methods::leases;

use super::Client;
use crate::call::Call;
use crate::containerd::time;
use crate::error::Result;

pub(super) fn create(client: &Client, call: &Call, id: &str, ttl: Duration) -> Result<()> {
    let ttl = i64::try_from(ttl.as_nanos()).unwrap_or(i64::MAX);
    let expires = time::rfc3339(time::now().saturating_add(ttl));
    let request = CreateRequest {
        id: id.to_owned(),
        labels: HashMap::from([("containerd.io/gc.expire".to_owned(), expires)]),
        ..CreateRequest::default()
    };
    client.quick(call, &leases::CREATE, &request).map(drop)
}

pub(super) fn delete(client: &Client, call: &Call, id: &str, sync: bool) -> Result<()> {
    let request = DeleteRequest { id: id.to_owned(), sync, ..DeleteRequest::default() };
    // A collection deletes layers from disk: as long as that takes.
    client.slow(call, &leases::DELETE, &request).map(drop)
}

pub(super) fn list(client: &Client, call: &Call) -> Result<Vec<String>> {
    let answer = client.quick(call, &leases::LIST, &ListRequest::new())?;
    Ok(answer.leases.into_iter().map(|lease| lease.id).collect())
}
