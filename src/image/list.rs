//! ListImages: from memory.

use cricket_proto::runtime::{ListImagesRequest, ListImagesResponse};

use super::answer;
use crate::store::image::ImageStore;

/// All images, or the one the filter refers to by id or by name. Does not block.
pub fn list(images: &ImageStore, request: &ListImagesRequest) -> ListImagesResponse {
    let found = match request.filter.image.image.as_str() {
        "" => images.list(),
        // What refers to nothing, or to more than one image, lists nothing.
        reference => images.get(reference).into_iter().collect(),
    };
    ListImagesResponse { images: found.iter().map(|i| answer::image(i)).collect(), ..Default::default() }
}
