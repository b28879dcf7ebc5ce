//! Container records.

use cricket_proto::containers::{
    container, Container, CreateContainerRequest, DeleteContainerRequest, GetContainerRequest, ListContainersRequest,
    UpdateContainerRequest,
};
use cricket_proto::methods::containers;
use protobuf::MessageField;

use super::convert::{any_in, any_out, labels_out, mask};
use super::Client;
use crate::call::Call;
use crate::containerd::{time, Record};
use crate::error::Result;

/// How containerd's tools know an OCI spec; `ctr` and nerdctl read it by this name.
const SPEC: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";

pub(super) fn create(client: &Client, call: &Call, record: &Record) -> Result<()> {
    let request = CreateContainerRequest { container: wire(record), ..CreateContainerRequest::default() };
    client.quick(call, &containers::CREATE, &request).map(drop)
}

pub(super) fn get(client: &Client, call: &Call, id: &str) -> Result<Record> {
    let request = GetContainerRequest { id: id.to_owned(), ..GetContainerRequest::default() };
    let answer = client.quick(call, &containers::GET, &request)?;
    Ok(ours(answer.container.unwrap_or_default()))
}

/// As a stream, for a few hundred records with their specs are more than one message may hold.
pub(super) fn list(client: &Client, call: &Call, filters: &[String]) -> Result<Vec<Record>> {
    let request = ListContainersRequest { filters: filters.to_vec(), ..ListContainersRequest::default() };
    let mut records = Vec::new();
    client.stream(call, &containers::LIST_STREAM, &request, |message| {
        records.push(ours(message.container.unwrap_or_default()));
        Ok(())
    })?;
    Ok(records)
}

pub(super) fn update(client: &Client, call: &Call, record: &Record) -> Result<()> {
    let request = UpdateContainerRequest {
        container: wire(record),
        update_mask: mask(&["spec", "labels"]),
        ..UpdateContainerRequest::default()
    };
    client.quick(call, &containers::UPDATE, &request).map(drop)
}

pub(super) fn delete(client: &Client, call: &Call, id: &str) -> Result<()> {
    let request = DeleteContainerRequest { id: id.to_owned(), ..DeleteContainerRequest::default() };
    client.quick(call, &containers::DELETE, &request).map(drop)
}

fn wire(record: &Record) -> MessageField<Container> {
    let options = record.runtime_options.as_ref().map(|o| any_out(&o.type_url, &o.value)).unwrap_or_default();
    let runtime = container::Runtime { name: record.runtime.clone(), options, ..container::Runtime::default() };
    let extensions = record.extensions.iter().map(|(name, any)| {
        let any = any_out(&any.type_url, &any.value).unwrap_or_default();
        (name.clone(), any)
    });
    MessageField::some(Container {
        id: record.id.clone(),
        labels: labels_out(&record.labels),
        image: record.image.clone(),
        runtime: MessageField::some(runtime),
        spec: any_out(SPEC, &record.spec),
        snapshotter: record.snapshotter.clone(),
        snapshot_key: record.snapshot_key.clone(),
        extensions: extensions.collect(),
        ..Container::default()
    })
}

fn ours(container: Container) -> Record {
    let runtime = container.runtime.unwrap_or_default();
    Record {
        created_at: time::nanos(&container.created_at),
        id: container.id,
        labels: container.labels.into_iter().collect(),
        image: container.image,
        runtime: runtime.name,
        runtime_options: runtime.options.into_option().map(any_in),
        spec: container.spec.unwrap_or_default().value,
        snapshotter: container.snapshotter,
        snapshot_key: container.snapshot_key,
        extensions: container.extensions.into_iter().map(|(name, any)| (name, any_in(any))).collect(),
    }
}
