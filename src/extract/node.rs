//! One file of a layer: what it is besides its content.

use std::ffi::CString;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{lchown, PermissionsExt};
use std::path::Path;

use super::header::Moment;
use super::stream::{Entry, Make};
use crate::error::{Context, Result};
use crate::sys::{inode, xattr};

/// Makes a device or a pipe.
pub(super) fn special(path: &Path, kind: u32, (major, minor): (u32, u32)) -> Result<()> {
    inode::make_special(path, kind, libc::makedev(major, minor)).context("make it")
}

/// Owner, attributes, permissions and times: a change of owner takes set-user-id and capabilities away.
pub(super) fn describe(path: &Path, entry: &Entry) -> Result<()> {
    lchown(path, Some(entry.uid), Some(entry.gid)).context("give it its owner")?;
    for (name, value) in &entry.xattrs {
        attribute(path, name, value).with_context(|| format!("set attribute {}", String::from_utf8_lossy(name)))?;
    }
    let is_link = match entry.make {
        Make::Symlink => true,
        // It may be another name of one.
        Make::HardLink => path.symlink_metadata().context("look at it")?.is_symlink(),
        _ => false,
    };
    if !is_link {
        fs::set_permissions(path, Permissions::from_mode(entry.mode)).context("set its permissions")?;
    }
    set_times(path, entry.read, entry.changed).context("set its times")
}

/// Sets one attribute that a layer may have, where the file system has it.
fn attribute(path: &Path, name: &[u8], value: &[u8]) -> io::Result<()> {
    // They are of whoever unpacks: an overlay's own, for example.
    if name.starts_with(b"trusted.") {
        return Ok(());
    }
    let text = CString::new(name).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    match xattr::set(path, &text, value) {
        Err(e) if e.raw_os_error() == Some(libc::ENOTSUP) => Ok(()),
        // Only files and directories have those of users.
        Err(e) if e.raw_os_error() == Some(libc::EPERM) && name.starts_with(b"user.") => {
            let kind = path.symlink_metadata()?.file_type();
            if kind.is_file() || kind.is_dir() {
                return Err(e);
            }
            Ok(())
        }
        set => set,
    }
}

/// What cannot be a time is 1970, as everywhere.
pub(super) fn set_times(path: &Path, read: Moment, changed: Moment) -> io::Result<()> {
    const LAST: Moment = Moment { seconds: i64::MAX / 1_000_000_000, nanoseconds: (i64::MAX % 1_000_000_000) as u32 };
    let bounded = |at: Moment| if at > LAST { Moment::default() } else { at };
    let [read, changed] = [read, changed].map(bounded).map(|at| (at.seconds, i64::from(at.nanoseconds)));
    inode::set_times(path, read, changed)
}
