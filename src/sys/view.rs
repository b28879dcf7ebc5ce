//! The content of a snapshot, mounted read-only for everybody, and paths in it that do not lead out of it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::layer::{self, Layer};
use super::{check, inside, namespace};
use crate::error::{Context, Error, Result};

/// Mounts `layers`, each over the one before, read-only and without devices, on the existing directory `at`. The undo
/// is [`detach`](super::mount::detach). Blocks for the file system.
///
/// # Errors
/// What the kernel says; `FailedPrecondition` for a kind of mount that needs a device made first.
pub fn mount_view(layers: &[Layer<'_>], at: &Path) -> Result<()> {
    // A thread of its own, because it enters a directory.
    namespace::on_thread("view", || {
        // SAFETY: unshare takes flags only; from now on this thread, which ends below, has a working directory of its
        // own.
        check(unsafe { libc::unshare(libc::CLONE_FS) }).context("unshare the working directory")?;
        layer::mount_all(layers, at, 0)
    })
}

/// Where directory `path` of the tree at `root` really is, with symbolic links followed as a process would that had
/// `root` for its root: never out of it. Needs Linux 5.6 (`openat2`).
///
/// # Errors
/// `InvalidArgument` if there is no such directory.
pub fn directory_inside(root: &Path, path: &Path) -> Result<PathBuf> {
    let opened = open(root, path, libc::O_DIRECTORY).map_err(|e| match e.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP) => {
            Error::invalid(format!("there is no directory {}: {e}", path.display()))
        }
        _ => Error::from(e).context(format_args!("open {} (needs Linux 5.6)", path.display())),
    })?;
    let name = format!("/proc/self/fd/{}", opened.as_raw_fd());
    std::fs::read_link(&name).with_context(|| format!("read {name}"))
}

/// Opens what `path` of the tree at `root` is, as a name only (`O_PATH`), with links followed as [`directory_inside`] does.
/// Needs Linux 5.6.
pub fn open_inside(root: &Path, path: &Path) -> io::Result<File> {
    open(root, path, 0)
}

fn open(root: &Path, path: &Path, flags: libc::c_int) -> io::Result<File> {
    let root = File::options().read(true).custom_flags(libc::O_DIRECTORY | libc::O_PATH).open(root)?;
    inside::open(root.as_fd(), path, libc::O_PATH | flags)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::sys::mount::{detach, is_mounted};
    use std::fs;
    use std::os::unix::fs::symlink;

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Dir {
            let dir = std::env::temp_dir().join(format!("cricket-view-{name}-{}", std::process::id()));
            for sub in ["1/fs/etc", "2/fs/data/deep", "at"] {
                fs::create_dir_all(dir.join(sub)).unwrap();
            }
            fs::write(dir.join("1/fs/etc/a"), "a").unwrap();
            Dir(dir)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            detach(&self.0.join("at")).unwrap();
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn both_kinds_are_seen_by_all_and_written_by_nobody() {
        for kind in ["bind", "overlay"] {
            let dir = Dir::new(kind);
            let at = dir.0.join("at");
            let shown = |sub: &str| dir.0.join(sub).display().to_string();
            let (source, options) = match kind {
                "bind" => (shown("1/fs"), vec!["rbind".into(), "ro".into()]),
                _ => (
                    "overlay".into(),
                    vec!["index=off".into(), format!("lowerdir={}:{}", shown("2/fs"), shown("1/fs"))],
                ),
            };
            assert!(!is_mounted(&at).unwrap());
            mount_view(&[Layer { kind, source: &source, options: &options }], &at).unwrap();
            assert!(is_mounted(&at).unwrap());
            assert_eq!(fs::read_to_string(at.join("etc/a")).unwrap(), "a", "{kind}");
            let refused = fs::write(at.join("etc/a"), "b").map_err(|e| e.raw_os_error());
            assert_eq!(refused, Err(Some(libc::EROFS)), "{kind}");
        }
    }

    #[test]
    fn no_path_leads_out() {
        let dir = Dir::new("paths");
        let root = dir.0.join("2/fs");
        symlink("/data", root.join("absolute")).unwrap();
        symlink("../../../../data/deep", root.join("climbing")).unwrap();
        symlink("/proc/self/root", root.join("magic")).unwrap();
        let real = fs::canonicalize(&root).unwrap();
        for (path, expected) in
            [("data", "data"), ("absolute/deep", "data/deep"), ("climbing", "data/deep"), ("../../data", "data")]
        {
            assert_eq!(directory_inside(&root, Path::new(path)).unwrap(), real.join(expected), "{path}");
        }
        fs::write(root.join("file"), "").unwrap();
        for path in ["magic", "absent", "file", "data/deep/x"] {
            let refused = directory_inside(&root, Path::new(path)).map_err(|e| e.kind());
            assert_eq!(refused, Err(Kind::InvalidArgument), "{path}");
        }
    }
}
