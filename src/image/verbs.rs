//! The four image verbs as the server calls them: the runtime handed to what does the work.

use cricket_proto::runtime::{
    ImageFsInfoRequest, ImageFsInfoResponse, ImageStatusRequest, ImageStatusResponse, ListImagesRequest,
    ListImagesResponse, RemoveImageRequest, RemoveImageResponse,
};

use super::{fs_info, list, remove, status, Images};
use crate::call::Call;
use crate::error::Result;
use crate::runtime::Runtime;

/// Images with the default snapshotter.
pub fn at(rt: &Runtime) -> Images<'_> {
    Images { containerd: &*rt.containerd, store: &rt.images, snapshotter: &rt.config.containerd.snapshotter }
}

/// ListImages: from memory.
pub fn list_images(rt: &Runtime, _: &Call, request: ListImagesRequest) -> Result<ListImagesResponse> {
    Ok(list::list(&rt.images, &request))
}

/// ImageStatus: a missing image is an empty answer.
pub fn image_status(rt: &Runtime, call: &Call, request: ImageStatusRequest) -> Result<ImageStatusResponse> {
    status::status(&at(rt), call, &request)
}

/// RemoveImage: with all its names.
pub fn remove_image(rt: &Runtime, call: &Call, request: RemoveImageRequest) -> Result<RemoveImageResponse> {
    remove::remove(&at(rt), call, &request)
}

/// ImageFsInfo: works on an empty node.
pub fn image_fs_info(rt: &Runtime, call: &Call, _: ImageFsInfoRequest) -> Result<ImageFsInfoResponse> {
    fs_info::fs_info(&*rt.containerd, &rt.fs_usage, call, &rt.config.containerd.snapshotter)
}
