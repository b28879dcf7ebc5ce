//! The content of a snapshot, mounted read-only for everybody, and paths in it that do not lead out of it.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::mount::mount;
use super::{c_path, check, namespace};
use crate::error::{Context, Error, Result};

/// One mount of a snapshot, as a snapshotter describes it.
#[derive(Clone, Copy, Debug)]
pub struct Layer<'a> {
    /// `overlay`, `bind`, `ext4`.
    pub kind: &'a str,
    /// What is mounted.
    pub source: &'a str,
    /// Options as in fstab.
    pub options: &'a [String],
}

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
        for layer in layers {
            mount_layer(layer, at).with_context(|| format!("mount {} {}", layer.kind, layer.source))?;
        }
        Ok(())
    })
}

fn mount_layer(layer: &Layer<'_>, at: &Path) -> Result<()> {
    const FLAGS: libc::c_ulong = libc::MS_RDONLY | libc::MS_NODEV;
    let mut bind = 0;
    let mut own: Vec<&str> = Vec::new();
    for option in layer.options {
        match option.as_str() {
            "bind" => bind |= libc::MS_BIND,
            "rbind" => bind |= libc::MS_BIND | libc::MS_REC,
            "loop" => {
                let message = "the image's snapshot needs a loop device, which is not made: use snapshotter overlayfs";
                return Err(Error::precondition(message));
            }
            "" | "ro" | "rw" | "relatime" | "noatime" | "defaults" => {}
            option => own.push(option),
        }
    }
    let source = Path::new(layer.source);
    if bind != 0 {
        mount(source, at, "", bind, "")?;
        // A bind mount is as writable as its source until it is mounted anew.
        return Ok(mount(Path::new(""), at, "", libc::MS_REMOUNT | libc::MS_BIND | FLAGS, "")?);
    }
    if layer.kind == "overlay" {
        let (below, data) = short(&own);
        // The kernel takes one page of options: paths below a common directory are short.
        std::env::set_current_dir(&below).with_context(|| format!("enter {}", below.display()))?;
        return Ok(mount(source, at, layer.kind, FLAGS, &data)?);
    }
    Ok(mount(source, at, layer.kind, FLAGS, &own.join(","))?)
}

/// The options of an overlay with its lower directories relative to the directory that all are below.
fn short(options: &[&str]) -> (PathBuf, String) {
    const LOWER: &str = "lowerdir=";
    let lower = options.iter().find_map(|o| o.strip_prefix(LOWER)).unwrap_or_default();
    let layers: Vec<&Path> = lower.split(':').map(Path::new).collect();
    let parent = layers.first().and_then(|l| l.parent()).unwrap_or(Path::new("/"));
    let below = parent.ancestors().find(|a| layers.iter().all(|l| l.starts_with(a))).unwrap_or(Path::new("/"));
    let relative: Vec<String> =
        layers.iter().map(|l| l.strip_prefix(below).unwrap_or(l).display().to_string()).collect();
    let lower = format!("{LOWER}{}", relative.join(":"));
    let others = options.iter().filter(|o| !o.starts_with(LOWER)).map(|o| (*o).to_owned());
    (below.into(), others.chain([lower]).collect::<Vec<_>>().join(","))
}

/// Where directory `path` of the tree at `root` really is, with symbolic links followed as a process would that had
/// `root` for its root: never out of it. Needs Linux 5.6 (`openat2`).
///
/// # Errors
/// `InvalidArgument` if there is no such directory.
pub fn directory_inside(root: &Path, path: &Path) -> Result<PathBuf> {
    let opened = open_inside(root, path).map_err(|e| match e.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP) => {
            Error::invalid(format!("there is no directory {}: {e}", path.display()))
        }
        _ => Error::from(e).context(format_args!("open {} (needs Linux 5.6)", path.display())),
    })?;
    let name = format!("/proc/self/fd/{}", opened.as_raw_fd());
    std::fs::read_link(&name).with_context(|| format!("read {name}"))
}

fn open_inside(root: &Path, path: &Path) -> io::Result<File> {
    let root = File::options().read(true).custom_flags(libc::O_DIRECTORY | libc::O_PATH).open(root)?;
    let path = c_path(path)?;
    // SAFETY: open_how is plain data for which all zeroes is a value.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC) as u64;
    how.resolve = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;
    let size = std::mem::size_of::<libc::open_how>();
    // SAFETY: the descriptor is open, the path NUL-terminated, and pointer and size describe `how`.
    let opened = unsafe { libc::syscall(libc::SYS_openat2, root.as_raw_fd(), path.as_ptr(), &raw const how, size) };
    if opened < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just returned this descriptor and nobody else owns it.
    Ok(unsafe { File::from_raw_fd(opened as RawFd) })
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
    fn many_layers_fit_into_a_page() {
        let lower = (0..100).map(|n| format!("/var/lib/containerd/snapshots/{n}/fs")).collect::<Vec<_>>().join(":");
        let (below, data) = short(&["index=off", &format!("lowerdir={lower}")]);
        assert_eq!(below, Path::new("/var/lib/containerd/snapshots"));
        assert!(data.starts_with("index=off,lowerdir=0/fs:1/fs:") && data.len() < 1000, "{data}");
        assert_eq!(short(&["lowerdir=/a/1/fs:/b/2/fs"]), ("/".into(), "lowerdir=a/1/fs:b/2/fs".into()));
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
