//! What was unpacked by itself takes its place on the layers below.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{chown, MetadataExt, PermissionsExt};
use std::path::Path;

use crate::error::{Context, Result};
use crate::sys::durable::exchange;
use crate::sys::tree::place;
use crate::sys::view::open_inside;
use crate::sys::xattr;

/// Puts the content of directory `from` in the place of `upper`, which is empty, of an overlay with these `lower`
/// directories, the topmost first. `implied` are directories that the layer does not speak of: they become what they are
/// in the uppermost layer that has them, as in containerd. Both must be on one file system.
///
/// # Errors
/// What the kernel says; `from` and `upper` may have changed places then.
pub fn adopt(from: &Path, upper: &Path, lower: &[&Path], implied: &[String]) -> Result<()> {
    if from != upper {
        let facts = fs::metadata(upper).with_context(|| format!("stat {}", upper.display()))?;
        let like = chown(from, Some(facts.uid()), Some(facts.gid()))
            .and_then(|()| fs::set_permissions(from, Permissions::from_mode(facts.mode() & 0o7777)));
        like.with_context(|| format!("make {} like {}", from.display(), upper.display()))?;
        exchange(from, upper).with_context(|| format!("put {} in the place of {}", from.display(), upper.display()))?;
    }
    for path in implied.iter().map(Path::new) {
        become_like_lower(upper, lower, path).with_context(|| format!("directory {}", path.display()))?;
    }
    Ok(())
}

fn become_like_lower(upper: &Path, lower: &[&Path], path: &Path) -> io::Result<()> {
    for layer in lower {
        match open_inside(layer, path) {
            Ok(known) if known.metadata()?.is_dir() => return dress(&open_inside(upper, path)?, &known),
            // Replaced or taken away by this layer.
            Ok(_) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Owner, permissions and attributes, all through descriptors: what lies there is somebody else's.
fn dress(directory: &File, like: &File) -> io::Result<()> {
    // With a part more, the links of /proc are followed.
    let (to, from) = (place(directory).join("."), place(like).join("."));
    let facts = like.metadata()?;
    chown(&to, Some(facts.uid()), Some(facts.gid()))?;
    for name in xattr::names(&from)? {
        if !name.to_bytes().starts_with(b"trusted.") {
            xattr::set(&to, &name, &xattr::value(&from, &name)?)?;
        }
    }
    fs::set_permissions(&to, Permissions::from_mode(facts.mode() & 0o7777))
}
