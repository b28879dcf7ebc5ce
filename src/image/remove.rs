//! RemoveImage: all records of an image, by any of its names.

use cricket_proto::runtime::{RemoveImageRequest, RemoveImageResponse};

use super::Images;
use crate::call::Call;
use crate::error::{Context, Idempotent, Kind, Result};

/// Removes an image with all its names; when it returns, no list shows it and containerd has collected what nothing
/// else uses. Containers made from it keep running. Idempotent; what is not there is removed.
///
/// # Errors
/// `InvalidArgument` if several ids begin so; what containerd says, and then what is left can be removed again.
pub fn remove(at: &Images<'_>, call: &Call, request: &RemoveImageRequest) -> Result<RemoveImageResponse> {
    let image = match at.store.get(&request.image.image) {
        Ok(image) => image,
        Err(e) if e.kind() == Kind::NotFound => return Ok(RemoveImageResponse::new()),
        Err(e) => return Err(e),
    };
    // The id record goes last: until then the image can be found and removed again.
    let mut names: Vec<&String> = image.names.iter().collect();
    names.sort_by_key(|name| **name == image.id);
    for (n, name) in names.iter().enumerate() {
        let last = n + 1 == names.len();
        at.containerd.delete_image(call, name, last).or_gone().with_context(|| format!("remove image {name}"))?;
    }
    at.store.remove(&image.id);
    Ok(RemoveImageResponse::new())
}
