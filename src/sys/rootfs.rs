//! A look into a root file system that is mounted for nobody but one thread, which ends right after.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::layer::{self, Layer};
use super::{check, inside, mount, namespace};
use crate::error::{Context, Error, Result};

/// A mounted root file system, open for reading.
#[derive(Debug)]
pub struct Root(OwnedFd);

/// Mounts `layers`, read-only and each over the one before, on the existing directory `at`, and runs `look`.
///
/// All in a mount namespace of a thread of its own, so that nobody else ever sees the mount and the kernel takes it
/// down whatever happens, SIGKILL included. Blocks for the file system.
///
/// # Errors
/// Those of `look`; what the kernel says to a mount; `FailedPrecondition` for a kind of mount that needs a device made
/// first.
pub fn look_into<T: Send>(layers: &[Layer<'_>], at: &Path, look: impl FnOnce(&Root) -> Result<T> + Send) -> Result<T> {
    namespace::on_thread("rootfs", || {
        // SAFETY: unshare takes flags only; it affects this thread, which nothing else uses and which ends below. A
        // mount namespace of its own gives the thread a working directory of its own as well.
        check(unsafe { libc::unshare(libc::CLONE_NEWNS) }).context("unshare the mount namespace")?;
        mount::make_private().context("make the mounts of a thread private")?;
        layer::mount_all(layers, at, libc::MS_NOSUID | libc::MS_NOEXEC)?;
        let looked = Root::open(at).and_then(|root| look(&root));
        // The namespace goes with the thread, but later than others can see its end.
        mount::detach(at).with_context(|| format!("unmount {}", at.display()))?;
        looked
    })
}

impl Root {
    fn open(at: &Path) -> Result<Self> {
        let opened = File::options().read(true).custom_flags(libc::O_DIRECTORY | libc::O_PATH).open(at);
        opened.map(|dir| Root(dir.into())).with_context(|| format!("open {}", at.display()))
    }

    /// The bytes of a regular file in it; `None` if there is no such file. Symbolic links are followed as a process
    /// that had it as its root would, and never lead out of it. Needs Linux 5.6 (`openat2`).
    ///
    /// # Errors
    /// `InvalidArgument` for what is no regular file or larger than `max_bytes`.
    pub fn read(&self, path: &str, max_bytes: u64) -> Result<Option<Vec<u8>>> {
        // Without O_NONBLOCK a pipe in the place of the file would block us until somebody wrote to it.
        let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY;
        let mut file = match inside::open(self.0.as_fd(), Path::new(path), flags) {
            Ok(file) => file,
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => return Ok(None),
            Err(e) if e.raw_os_error() == Some(libc::ELOOP) => {
                return Err(Error::invalid(format!("{path} in the image: too many symbolic links")));
            }
            Err(e) => return Err(e).with_context(|| format!("open {path} in the image (needs Linux 5.6)")),
        };
        let facts = file.metadata().with_context(|| format!("stat {path} in the image"))?;
        if !facts.is_file() {
            return Err(Error::invalid(format!("{path} in the image is no regular file")));
        }
        let mut bytes = Vec::new();
        let within = (&mut file).take(max_bytes + 1).read_to_end(&mut bytes);
        within.with_context(|| format!("read {path} in the image"))?;
        if bytes.len() as u64 > max_bytes {
            return Err(Error::invalid(format!("{path} in the image is larger than {max_bytes} bytes")));
        }
        Ok(Some(bytes))
    }

    /// A directory in it, open as a place (`O_PATH`), and where it really is, from the root on; `None` if nothing is at
    /// `path`. Links are followed as [`Root::read`] follows them.
    ///
    /// # Errors
    /// `InvalidArgument` for what is no directory, or cannot be opened.
    pub fn directory(&self, path: &Path) -> Result<Option<(File, PathBuf)>> {
        let opened = match inside::open(self.0.as_fd(), path, libc::O_PATH | libc::O_DIRECTORY) {
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
            Err(e) => {
                return Err(Error::invalid(format!("{} in the image is no directory to use: {e}", path.display())))
            }
            Ok(opened) => opened,
        };
        let place = |fd: libc::c_int| {
            let name = format!("/proc/self/fd/{fd}");
            std::fs::read_link(&name).with_context(|| format!("read {name}"))
        };
        let (root, found) = (place(self.0.as_raw_fd())?, place(opened.as_raw_fd())?);
        let below = found.strip_prefix(&root).map_err(|_| Error::internal("a path led out of an image"))?;
        Ok(Some((opened, Path::new("/").join(below))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;
    use std::process::Command;

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Dir {
            let dir = std::env::temp_dir().join(format!("cricket-rootfs-{name}-{}", std::process::id()));
            for sub in ["fs/etc", "at"] {
                fs::create_dir_all(dir.join(sub)).unwrap();
            }
            Dir(dir)
        }

        fn path(&self, sub: &str) -> String {
            self.0.join(sub).display().to_string()
        }

        /// Reads a file of the bound directory `fs`.
        fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
            let options = ["rbind".to_owned(), "rw".to_owned()];
            let layer = Layer { kind: "bind", source: &self.path("fs"), options: &options };
            look_into(&[layer], &self.0.join("at"), |root| root.read(path, 16))
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn links_stay_inside() {
        let dir = Dir::new("links");
        fs::write(dir.0.join("fs/etc/passwd"), "inside").unwrap();
        symlink("/etc/passwd", dir.0.join("fs/absolute")).unwrap();
        symlink("../../../../../../etc/passwd", dir.0.join("fs/climbing")).unwrap();
        symlink("/proc/self/root/etc/passwd", dir.0.join("fs/magic")).unwrap();
        symlink("loop", dir.0.join("fs/loop")).unwrap();
        for path in ["etc/passwd", "/etc/passwd", "absolute", "climbing", "../../etc/passwd"] {
            assert_eq!(dir.read(path).unwrap().as_deref(), Some(&b"inside"[..]), "{path}");
        }
        for path in ["magic", "absent", "etc/passwd/below"] {
            assert_eq!(dir.read(path).unwrap(), None, "{path}");
        }
        assert_eq!(dir.read("loop").map_err(|e| e.kind()), Err(Kind::InvalidArgument));
    }

    #[test]
    fn what_is_no_small_regular_file_is_refused() {
        let dir = Dir::new("kinds");
        fs::write(dir.0.join("fs/large"), [b'x'; 17]).unwrap();
        fs::write(dir.0.join("fs/fits"), [b'x'; 16]).unwrap();
        assert!(Command::new("mkfifo").arg(dir.0.join("fs/pipe")).status().unwrap().success());
        for path in ["large", "pipe", "etc"] {
            assert_eq!(dir.read(path).map_err(|e| e.kind()), Err(Kind::InvalidArgument), "{path}");
        }
        assert_eq!(dir.read("fits").unwrap().map(|b| b.len()), Some(16));
    }

    #[test]
    fn an_overlay_shows_its_layers_and_nothing_stays() {
        let dir = Dir::new("overlay");
        for sub in ["snapshots/1/fs/etc", "snapshots/2/fs/etc", "snapshots/3/fs", "snapshots/3/work"] {
            fs::create_dir_all(dir.0.join(sub)).unwrap();
        }
        fs::write(dir.0.join("snapshots/1/fs/etc/passwd"), "lowest").unwrap();
        fs::write(dir.0.join("snapshots/1/fs/etc/group"), "group").unwrap();
        fs::write(dir.0.join("snapshots/2/fs/etc/passwd"), "upper").unwrap();
        let s = |n: &str| dir.path(&format!("snapshots/{n}"));
        let options = [
            "index=off".to_owned(),
            "volatile".to_owned(),
            format!("workdir={}", s("3/work")),
            format!("upperdir={}", s("3/fs")),
            format!("lowerdir={}:{}", s("2/fs"), s("1/fs")),
        ];
        let layer = Layer { kind: "overlay", source: "overlay", options: &options };
        let at = dir.0.join("at");
        let seen = look_into(&[layer], &at, |root| {
            let mounts = fs::read_to_string("/proc/thread-self/mountinfo").context("read the mounts")?;
            assert!(mounts.contains(at.to_str().unwrap()), "the thread sees its mount");
            Ok((root.read("etc/passwd", 16)?, root.read("etc/group", 16)?))
        });
        assert_eq!(seen.unwrap(), (Some(b"upper".to_vec()), Some(b"group".to_vec())));
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(at.to_str().unwrap()), "nobody else does");
        assert!(!dir.0.join("snapshots/3/work/work").exists(), "the writable layer is not claimed");
    }

    #[test]
    fn a_mount_that_fails_is_named() {
        let dir = Dir::new("fails");
        let at = dir.0.join("at");
        let look = |layer: Layer<'_>| look_into(&[layer], &at, |_| Ok(())).expect_err("refused");
        let e = look(Layer { kind: "nosuchfs", source: "x", options: &[] });
        assert!(e.to_string().starts_with("mount nosuchfs x: "), "{e}");
        let e = look(Layer { kind: "ext4", source: "/x.img", options: &["loop".into()] });
        assert_eq!(e.kind(), Kind::FailedPrecondition);
    }
}
