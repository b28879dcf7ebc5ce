//! Image records.

use cricket_proto::images::{
    CreateImageRequest, DeleteImageRequest, GetImageRequest, Image, ListImagesRequest, UpdateImageRequest,
};
use cricket_proto::methods::images;
use protobuf::MessageField;

use super::convert::{descriptor_in, descriptor_out, labels_out, mask};
use super::Client;
use crate::call::Call;
use crate::containerd::{time, ImageRecord};
use crate::error::{Kind, Result};

pub(super) fn list(client: &Client, call: &Call) -> Result<Vec<ImageRecord>> {
    let answer = client.quick(call, &images::LIST, &ListImagesRequest::new())?;
    Ok(answer.images.into_iter().map(ours).collect())
}

pub(super) fn get(client: &Client, call: &Call, name: &str) -> Result<ImageRecord> {
    let request = GetImageRequest { name: name.to_owned(), ..GetImageRequest::default() };
    let answer = client.quick(call, &images::GET, &request)?;
    Ok(ours(answer.image.unwrap_or_default()))
}

pub(super) fn put(client: &Client, call: &Call, image: &ImageRecord) -> Result<()> {
    let wire = Image {
        name: image.name.clone(),
        labels: labels_out(&image.labels),
        target: MessageField::some(descriptor_out(&image.target)?),
        ..Image::default()
    };
    let create = CreateImageRequest { image: MessageField::some(wire.clone()), ..CreateImageRequest::default() };
    match client.quick(call, &images::CREATE, &create) {
        Err(e) if e.kind() == Kind::AlreadyExists => {}
        answer => return answer.map(drop),
    }
    let update = UpdateImageRequest {
        image: MessageField::some(wire),
        update_mask: mask(&["target", "labels"]),
        ..UpdateImageRequest::default()
    };
    client.quick(call, &images::UPDATE, &update).map(drop)
}

pub(super) fn delete(client: &Client, call: &Call, name: &str, sync: bool) -> Result<()> {
    let request = DeleteImageRequest { name: name.to_owned(), sync, ..DeleteImageRequest::default() };
    // A collection deletes layers from disk: as long as that takes.
    client.slow(call, &images::DELETE, &request).map(drop)
}

fn ours(image: Image) -> ImageRecord {
    ImageRecord {
        created_at: time::nanos(&image.created_at),
        name: image.name,
        target: descriptor_in(image.target.unwrap_or_default()),
        labels: image.labels.into_iter().collect(),
    }
}
