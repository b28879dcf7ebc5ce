//! What was unpacked by itself takes its place on the layers below.

use std::ffi::CStr;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{chown, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::process::Unpacked;
use crate::error::{Context, Error, Result};
use crate::sys::inode::exchange;
use crate::sys::tree::place;
use crate::sys::view::open_inside;
use crate::sys::xattr;

/// How the kernel's overlay marks a directory that hides those below.
const OPAQUE: &CStr = c"trusted.overlay.opaque";
/// What is made in a directory with this has attributes from it.
const INHERITED: &CStr = c"system.posix_acl_default";

/// Puts the content of directory `from` in the place of `upper` of an overlay with these `lower` directories, the topmost
/// first; they may be the same. Both are on one file system, and nothing else is in `upper`. Directories that the layer does
/// not speak of become what they are in the uppermost layer that has them, as in containerd, but for their times.
///
/// # Errors
/// What the kernel says; `FailedPrecondition` for what containerd would have made otherwise. `from` and `upper` may have
/// changed places then.
pub fn adopt(from: &Path, upper: &Path, lower: &[&Path], unpacked: &Unpacked) -> Result<()> {
    if from != upper {
        must_be_empty(upper)?;
        let facts = fs::metadata(upper).with_context(|| format!("stat {}", upper.display()))?;
        let like = chown(from, Some(facts.uid()), Some(facts.gid()))
            .and_then(|()| fs::set_permissions(from, Permissions::from_mode(facts.mode() & 0o7777)));
        like.with_context(|| format!("make {} like {}", from.display(), upper.display()))?;
        exchange(from, upper).with_context(|| format!("put {} in the place of {}", from.display(), upper.display()))?;
    }
    for path in &unpacked.hiding {
        must_be_below(lower, Path::new(path)).with_context(|| format!("directory {path}"))?;
    }
    for path in &unpacked.implied {
        become_like_lower(upper, lower, Path::new(path)).with_context(|| format!("directory {path}"))?;
    }
    for path in &unpacked.opaque {
        let marked =
            open_inside(upper, Path::new(path)).and_then(|directory| xattr::set(&within(&directory), OPAQUE, b"y"));
        marked.with_context(|| format!("hide what is below {path}"))?;
    }
    Ok(())
}

/// # Errors
/// `FailedPrecondition` if something is in a directory, which is to be unpacked into.
pub fn must_be_empty(directory: &Path) -> Result<()> {
    let mut all = fs::read_dir(directory).with_context(|| format!("read {}", directory.display()))?;
    match all.next() {
        None => Ok(()),
        Some(_) => Err(Error::precondition(format!("{} is not empty", directory.display()))),
    }
}

/// What the uppermost of these layers that has something there has, and which that is.
fn uppermost<'a>(lower: &[&'a Path], path: &Path) -> Result<Option<(&'a Path, File)>> {
    for layer in lower {
        match open_inside(layer, path) {
            Ok(known) => return Ok(Some((layer, known))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(None)
}

fn must_be_below(lower: &[&Path], path: &Path) -> Result<()> {
    match uppermost(lower, path)? {
        Some((_, known)) if known.metadata()?.is_dir() => Ok(()),
        _ => Err(Error::precondition("something is taken away in it, and no lower layer has it")),
    }
}

fn become_like_lower(upper: &Path, lower: &[&Path], path: &Path) -> Result<()> {
    match uppermost(lower, path)? {
        Some((layer, known)) if known.metadata()?.is_dir() => {
            // Links are followed in another way by containerd, where one leads upwards.
            if fs::read_link(place(&known))? != fs::canonicalize(layer)?.join(path) {
                return Err(Error::precondition("it is behind a link in a lower layer"));
            }
            dress(&open_inside(upper, path)?, &known)
        }
        // Nowhere, or replaced or taken away by that layer.
        _ => Ok(()),
    }
}

/// Owner, permissions and attributes, all through descriptors: what lies there is somebody else's.
fn dress(directory: &File, like: &File) -> Result<()> {
    let (to, from) = (within(directory), within(like));
    let facts = like.metadata()?;
    let names = xattr::names(&from)?;
    if facts.mode() & libc::S_ISGID != 0 || names.iter().any(|name| name.as_c_str() == INHERITED) {
        return Err(Error::precondition("what is in it would have got something from it"));
    }
    chown(&to, Some(facts.uid()), Some(facts.gid()))?;
    let known = xattr::names(&to)?;
    for name in names.iter().filter(|name| !known.contains(name) && !name.to_bytes().starts_with(b"trusted.")) {
        match xattr::set(&to, name, &xattr::value(&from, name)?) {
            Err(e) if e.raw_os_error() == Some(libc::ENOTSUP) => {}
            set => set?,
        }
    }
    Ok(fs::set_permissions(&to, Permissions::from_mode(facts.mode() & 0o7777))?)
}

/// The name of an open directory that system calls take which do not follow links: with a part more, those of /proc are.
fn within(directory: &File) -> PathBuf {
    place(directory).join(".")
}
