//! The image verbs as the server calls them: the runtime handed to what does the work.

use std::sync::Arc;

use cricket_proto::runtime::{
    ImageFsInfoRequest, ImageFsInfoResponse, ImageStatusRequest, ImageStatusResponse, ListImagesRequest,
    ListImagesResponse, PullImageRequest, PullImageResponse, RemoveImageRequest, RemoveImageResponse,
    StreamImagesRequest, StreamImagesResponse,
};

use super::pull::Puller;
use super::{fs_info, list, remove, status, Images};
use crate::call::Call;
use crate::error::Result;
use crate::extract;
use crate::reference::Reference;
use crate::registry::{Credentials, Options};
use crate::runtime::Runtime;

/// Images with the default snapshotter.
pub fn at(rt: &Runtime) -> Images<'_> {
    Images { containerd: &*rt.containerd, store: &rt.images, snapshotter: &rt.config.containerd.snapshotter }
}

/// ListImages: from memory.
pub fn list_images(rt: &Runtime, _: &Call, request: ListImagesRequest) -> Result<ListImagesResponse> {
    Ok(list::list(&rt.images, &request))
}

/// StreamImages: the same in several messages, each given to `send`.
pub fn stream_images(
    rt: &Runtime,
    request: StreamImagesRequest,
    send: &mut dyn FnMut(StreamImagesResponse) -> Result<()>,
) -> Result<()> {
    list::stream(&rt.images, request, send)
}

/// ImageStatus: a missing image is an empty answer.
pub fn image_status(rt: &Runtime, call: &Call, request: ImageStatusRequest) -> Result<ImageStatusResponse> {
    status::status(&at(rt), call, &request)
}

/// PullImage: onto the snapshotter of the request's runtime handler. Equal pulls at the same time are one.
pub fn pull_image(rt: &Runtime, call: &Call, request: PullImageRequest) -> Result<PullImageResponse> {
    call.check()?;
    let reference = Reference::parse(&request.image.image)?;
    let credentials = match request.auth.as_ref() {
        Some(auth) => Credentials::from_request(auth)?,
        None => Credentials::default(),
    };
    let handler = rt.handler(&request.image.runtime_handler)?;
    let config = &rt.config.image;
    let options = Options { dirs: config.registry_dirs.clone(), progress_timeout: config.progress_timeout };
    let puller = Puller {
        containerd: rt.containerd.clone(),
        store: &rt.images,
        snapshotter: rt.config.snapshotter(handler),
        pulls: &rt.pulls,
        options: &options,
        unpacker: Some(extract::SELF.into()),
        discard_unpacked_layers: config.discard_unpacked_layers,
        sole: true,
        report: Arc::new(|_| ()),
    };
    let image_ref = puller.pull(call, &reference, &credentials)?;
    Ok(PullImageResponse { image_ref, ..PullImageResponse::default() })
}

/// RemoveImage: with all its names.
pub fn remove_image(rt: &Runtime, call: &Call, request: RemoveImageRequest) -> Result<RemoveImageResponse> {
    remove::remove(&at(rt), call, &request)
}

/// ImageFsInfo: works on an empty node.
pub fn image_fs_info(rt: &Runtime, call: &Call, _: ImageFsInfoRequest) -> Result<ImageFsInfoResponse> {
    fs_info::fs_info(&fs_info::Place::all_now(rt), call)
}
