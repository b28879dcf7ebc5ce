//! The users and groups of an image, read from its root file system.

use std::path::Path;

use crate::error::{Context, Result};
use crate::oci::accounts::Accounts;
use crate::sys::layer::Layer;
use crate::sys::rootfs::look_into;

/// Larger files are no lists of users.
const MAX_BYTES: u64 = 4 << 20;

/// Reads `/etc/passwd` and `/etc/group` of the root file system that `layers` make, mounted on the existing directory
/// `at` for nobody but us. What the files say is confined: no link of the image leads out of it. Blocks for the disk.
///
/// # Errors
/// `InvalidArgument` if one of them is no regular file or too large; otherwise what the file system says.
pub fn read(layers: &[Layer<'_>], at: &Path) -> Result<Accounts> {
    let files =
        look_into(layers, at, |root| Ok((root.read("etc/passwd", MAX_BYTES)?, root.read("etc/group", MAX_BYTES)?)));
    let (passwd, group) = files.context("look up the user in the image")?;
    Ok(Accounts::parse(&passwd.unwrap_or_default(), &group.unwrap_or_default()))
}
