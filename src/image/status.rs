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

#[cfg(test)]
mod tests {
    use cricket_proto::runtime::{ImageFilter, ImageSpec, ListImagesRequest};

    use super::super::list::list;
    use super::super::testing::*;
    use super::*;

    fn node() -> (Node, Sample) {
        let (node, sample) = (Node::new(), Sample::new());
        node.import(&layout(&[(&sample, "app:1")]), None).unwrap();
        (node, sample)
    }

    fn spec(image: &str) -> protobuf::MessageField<ImageSpec> {
        Some(ImageSpec { image: image.into(), ..Default::default() }).into()
    }

    fn ask(node: &Node, image: &str, verbose: bool) -> ImageStatusResponse {
        let request = ImageStatusRequest { image: spec(image), verbose, ..Default::default() };
        status(&node.images(), &Call::unbounded(), &request).unwrap()
    }

    #[test]
    fn an_image_that_is_missing_is_no_error() {
        let (node, _) = node();
        for missing in ["app:2", "", "ffff0000ffff", "Not A Name"] {
            assert_eq!(ask(&node, missing, true), ImageStatusResponse::new(), "{missing}");
        }
    }

    #[test]
    fn answered_from_memory_with_all_the_kubelet_checks() {
        let (node, sample) = node();
        let calls = node.fake.calls().len();
        let answer = ask(&node, "app:1", false);
        assert_eq!(node.fake.calls().len(), calls);
        let image = answer.image.unwrap();
        assert_eq!(image.id, sample.id());
        assert_eq!(image.repo_tags, ["docker.io/library/app:1"]);
        assert_eq!(image.repo_digests.len(), 1);
        assert!(image.size > 0);
        assert_eq!(image.uid.value, 7);
        assert!(answer.info.is_empty());
    }

    #[test]
    fn verbose_shows_the_chain_and_the_configuration() {
        let (node, sample) = node();
        let answer = ask(&node, &sample.id(), true);
        let info: serde_json::Value = serde_json::from_str(&answer.info["info"]).unwrap();
        assert_eq!(info["chainID"], node.store.get("app:1").unwrap().chain_id.as_str());
        assert_eq!(info["imageSpec"]["config"]["Entrypoint"][0], "/a");
    }

    #[test]
    fn a_list_honours_its_filter() {
        let (node, _) = node();
        node.import(&layout(&[(&Sample { env: "A=2", ..Sample::new() }, "other")]), None).unwrap();
        let listed = |image: &str| {
            let filter = ImageFilter { image: spec(image), ..Default::default() };
            let request = ListImagesRequest { filter: Some(filter).into(), ..Default::default() };
            list(&node.store, &request).images.len()
        };
        assert_eq!(list(&node.store, &ListImagesRequest::new()).images.len(), 2);
        assert_eq!((listed(""), listed("app:1"), listed("app"), listed("nothing")), (2, 1, 0, 0));
    }
}
