//! Volumes that an image declares: directories of the container's own, with what the image has there, gone with it.

use std::fs::{DirBuilder, File, Permissions};
use std::os::unix::fs::{chown, DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use cricket_proto::runtime::ContainerConfig;

use crate::call::Call;
use crate::config::ImageVolumes;
use crate::error::{Context, Error, Result};
use crate::oci;
use crate::oci::facts::OwnVolume;
use crate::oci::users::{Range, Users};
use crate::runtime::Runtime;
use crate::store::image::Image;
use crate::sys::copy::{Copier, Owners, Shift};
use crate::sys::layer::Layer;
use crate::sys::rootfs::{look_into, Root};

/// Where the directories come.
pub struct Place<'a> {
    /// The container's own directory.
    pub root: &'a Path,
    /// Their parent, which is made in it if there are any.
    pub volumes: &'a Path,
    /// The users of the pod, if they are not the node's.
    pub users: Option<Users>,
}

/// The paths of the volumes that a container of `image` gets.
///
/// # Errors
/// `InvalidArgument` for an image that declares what cannot be a volume.
pub fn wanted(rt: &Runtime, config: &ContainerConfig, image: &Image) -> Result<Vec<PathBuf>> {
    match rt.config.image_volumes {
        ImageVolumes::Bind => oci::volumes::declared(config, &image.config),
        ImageVolumes::Ignore => Ok(Vec::new()),
    }
}

/// Makes the directories for `wanted`, each with a copy of what `layers` have there. What is a link in the image counts
/// as what it leads to. Blocks for the disk; the call's end ends it. On failure what was made stays.
///
/// # Errors
/// `InvalidArgument` with the path for what is no directory in the image, cannot be read or is beyond all bounds.
pub fn make(
    call: &Call,
    config: &ContainerConfig,
    wanted: &[PathBuf],
    layers: &[Layer<'_>],
    place: &Place<'_>,
) -> Result<Vec<OwnVolume>> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let parent = place.volumes;
    let shift = |range: Range| Shift { first: range.host, length: range.length };
    let owners = Owners(place.users.map(|users| (shift(users.uids), shift(users.gids))));
    // Programs of the image with other rights than those who run them: nobody on the node may come by.
    let made = DirBuilder::new().mode(0o700).create(parent);
    made.with_context(|| format!("make {}", parent.display()))?;
    let (_, root_group) = owners.of(0, 0);
    let opened = chown(parent, None, Some(root_group))
        .and_then(|()| std::fs::set_permissions(parent, Permissions::from_mode(0o710)))
        .and_then(|()| File::open(parent));
    // Open before the image is mounted above it.
    let into = opened.with_context(|| format!("open {}", parent.display()))?;
    look_into(layers, place.root, |image| {
        let found = find(image, config, wanted)?;
        let go_on = || call.check();
        let mut copier = Copier::new(&into, owners, &go_on);
        found.iter().filter_map(|(_, from)| from.as_ref()).try_for_each(|from| copier.keep_apart(from))?;
        let volumes = found.into_iter().enumerate().map(|(number, (destination, from))| {
            let source = parent.join(number.to_string());
            let made = match &from {
                Some(from) => copier.directory(from, &number.to_string()),
                None => copier.empty(&number.to_string()),
            };
            made.with_context(|| format!("volume {} of the image", destination.display()))?;
            Ok(OwnVolume { destination, source })
        });
        volumes.collect()
    })
}

/// Where the volumes really are, and what is there in the image. Two that are one, or that a mount of the request hides
/// under another name, are left out.
fn find(root: &Root, config: &ContainerConfig, wanted: &[PathBuf]) -> Result<Vec<(PathBuf, Option<File>)>> {
    let mut found: Vec<(PathBuf, Option<File>)> = Vec::new();
    for path in wanted {
        let (path, directory) = match root.directory(path).context("volume of the image")? {
            Some((_, real)) if real == Path::new("/") => {
                return Err(Error::invalid(format!("volume {} of the image is its whole root", path.display())));
            }
            Some((directory, real)) => (real, Some(directory)),
            None => (path.clone(), None),
        };
        if !oci::volumes::is_taken(config, &path) && !found.iter().any(|(other, _)| *other == path) {
            found.push((path, directory));
        }
    }
    Ok(found)
}
