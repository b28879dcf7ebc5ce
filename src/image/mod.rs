//! The image verbs, and what they know of manifests, archives and containerd's image records.
//!
//! An image is its configuration; its id is the digest of that. In containerd it is one record per name, one per
//! `name@digest`, and the id record `sha256:<config digest>` that keeps it alive when a tag moves on.

mod answer;
mod archive;
pub mod build;
mod document;
pub mod export;
pub mod folder;
pub mod fs_info;
pub mod import;
mod labels;
mod lease;
pub mod list;
pub mod load;
mod platform;
mod publish;
pub mod pull;
pub mod remove;
mod resolve;
mod run;
mod stage;
pub mod status;
#[cfg(test)]
mod testing;
pub mod unpack;
mod verbs;

use crate::containerd::Containerd;
use crate::store::image::ImageStore;

pub use fs_info::usage_of;
pub use verbs::{at, image_fs_info, image_status, list_images, pull_image, remove_image, stream_images};

/// What the image verbs work on.
#[derive(Clone, Copy)]
pub struct Images<'a> {
    /// Where images are kept.
    pub containerd: &'a dyn Containerd,
    /// What is known of them.
    pub store: &'a ImageStore,
    /// Where they are unpacked.
    pub snapshotter: &'a str,
}
