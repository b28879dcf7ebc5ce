//! ImageStatus: from memory; only the verbose form asks containerd.

use cricket_proto::runtime::{ImageStatusRequest, ImageStatusResponse};

use super::document::{json, MAX_BYTES};
use super::{answer, Images};
use crate::call::Call;
use crate::error::{Context, Error, Kind, Result};
use crate::store::image::Image;

/// One image by id, unique beginning of an id, or reference. One that is not there is an answer without image, as the
/// CRI wants it. Verbose adds `info`: JSON with `chainID` and `imageSpec`, the image's configuration.
///
/// # Errors
/// `InvalidArgument` if several ids begin so.
pub fn status(at: &Images<'_>, call: &Call, request: &ImageStatusRequest) -> Result<ImageStatusResponse> {
    let mut response = ImageStatusResponse::new();
    let image = match at.store.get(&request.image.image) {
        Ok(image) => image,
        Err(e) if e.kind() == Kind::NotFound => return Ok(response),
        Err(e) => return Err(e),
    };
    response.image = Some(answer::image(&image)).into();
    if request.verbose {
        response.info.insert("info".into(), info(at, call, &image)?);
    }
    Ok(response)
}

fn info(at: &Images<'_>, call: &Call, image: &Image) -> Result<String> {
    let config = at.containerd.read_content(call, &image.id, MAX_BYTES).context("read the image's configuration")?;
    let spec: serde_json::Value = json("image configuration", &config)?;
    serde_json::to_string(&serde_json::json!({ "chainID": image.chain_id, "imageSpec": spec }))
        .map_err(|e| Error::internal(format!("write image info: {e}")))
}
