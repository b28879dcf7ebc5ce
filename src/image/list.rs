//! ListImages and StreamImages: from memory.

use std::sync::Arc;

use cricket_proto::runtime::{ListImagesRequest, ListImagesResponse, StreamImagesRequest, StreamImagesResponse};

use super::answer;
use crate::error::Result;
use crate::store::image::{Image, ImageStore};

/// Images in one message of a stream; far below what one may hold, whatever their names.
const BATCH: usize = 500;

/// All images, or the one the filter refers to by id or by name. Does not block.
pub fn list(images: &ImageStore, request: &ListImagesRequest) -> ListImagesResponse {
    let found = found(images, &request.filter.image.image);
    ListImagesResponse { images: found.iter().map(|i| answer::image(i)).collect(), ..Default::default() }
}

/// The same, some at a time. Blocks as long as `send` does.
///
/// # Errors
/// Those of `send`.
pub fn stream(
    images: &ImageStore,
    request: StreamImagesRequest,
    send: &mut dyn FnMut(StreamImagesResponse) -> Result<()>,
) -> Result<()> {
    for batch in found(images, &request.filter.image.image).chunks(BATCH) {
        let images = batch.iter().map(|i| answer::image(i)).collect();
        send(StreamImagesResponse { images, ..Default::default() })?;
    }
    Ok(())
}

fn found(images: &ImageStore, reference: &str) -> Vec<Arc<Image>> {
    match reference {
        "" => images.list(),
        // What refers to nothing, or to more than one image, lists nothing.
        reference => images.get(reference).into_iter().collect(),
    }
}
