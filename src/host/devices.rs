//! Device nodes of the host, looked up for a container.

use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use cricket_proto::runtime::Device;

use crate::error::{Context, Error, Result};
use crate::oci::facts::{DeviceFacts, DeviceKind};

const DEV: &str = "/dev";
const EVERYTHING: &str = "rwm";

/// Directories below `/dev` that are mounts or views of another kind, not places for devices.
const SKIPPED: [&str; 7] = ["pts", "shm", "mqueue", "fd", ".lxc", ".lxd-mounts", ".udev"];

/// The nodes for a container: every device of the host if `all`, then those of `asked`, in order. A symbolic link is
/// followed, a directory stands for every device below it. Blocks only on the file system that holds the nodes.
///
/// # Errors
/// `InvalidArgument` if a path of `asked` does not exist or is no device.
pub fn resolve(asked: &[Device], all: bool) -> Result<Vec<DeviceFacts>> {
    let mut found = Vec::new();
    if all {
        walk(Path::new(DEV), Path::new(DEV), EVERYTHING, &mut found).context("list the devices of the host")?;
    }
    for device in asked {
        let (host, container) = (Path::new(&device.host_path), Path::new(&device.container_path));
        let access = if device.permissions.is_empty() { EVERYTHING } else { &device.permissions };
        if host.is_dir() {
            walk(host, container, access, &mut found).with_context(|| format!("device {}", host.display()))?;
            continue;
        }
        found.push(look_up(host, container, access)?);
    }
    Ok(found)
}

/// The node at `host`, to be seen at `container`. A symbolic link is followed.
///
/// # Errors
/// `InvalidArgument` if there is none.
pub fn look_up(host: &Path, container: &Path, access: &str) -> Result<DeviceFacts> {
    let meta = fs::metadata(host).map_err(|e| Error::invalid(format!("device {}: {e}", host.display())))?;
    let facts = facts(container, &meta, access);
    facts.ok_or_else(|| Error::invalid(format!("device {}: not a device", host.display())))
}

/// Links are not followed: what they lead to is either below as well or none of the container's business.
fn walk(from: &Path, to: &Path, access: &str, found: &mut Vec<DeviceFacts>) -> std::io::Result<()> {
    let mut entries = fs::read_dir(from)?.collect::<std::io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        let meta = match fs::symlink_metadata(&from) {
            Ok(meta) => meta,
            // Devices come and go.
            Err(e) if e.kind() == ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        if meta.is_dir() {
            if !SKIPPED.iter().any(|s| entry.file_name() == *s) {
                walk(&from, &to, access, found)?;
            }
        } else if entry.file_name() != "console" {
            // The console is the runtime's to make.
            found.extend(facts(&to, &meta, access));
        }
    }
    Ok(())
}

/// `None` if it is no device.
fn facts(path: &Path, meta: &Metadata, access: &str) -> Option<DeviceFacts> {
    let typ = meta.file_type();
    let kind = if typ.is_char_device() {
        DeviceKind::Char
    } else if typ.is_block_device() {
        DeviceKind::Block
    } else if typ.is_fifo() {
        DeviceKind::Fifo
    } else {
        return None;
    };
    Some(DeviceFacts {
        path: path.into(),
        kind,
        major: libc::major(meta.rdev()).into(),
        minor: libc::minor(meta.rdev()).into(),
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
        access: access.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::host::testing::Dir;
    use std::os::unix::fs::symlink;
    use std::process::Command;

    fn asked(host: &Path, container: &str, permissions: &str) -> Device {
        Device {
            host_path: host.to_str().expect("UTF-8").into(),
            container_path: container.into(),
            permissions: permissions.into(),
            ..Default::default()
        }
    }

    #[test]
    fn a_node_through_a_link() {
        let dir = Dir::new("devices-link");
        symlink("/dev/null", dir.0.join("nil")).expect("symlink");
        let found = resolve(&[asked(&dir.0.join("nil"), "/dev/mine", "r")], false).expect("there");
        let [null] = &found[..] else { panic!("{found:?}") };
        assert_eq!(
            (null.path.as_path(), null.kind, null.major, null.minor),
            (Path::new("/dev/mine"), DeviceKind::Char, 1, 3)
        );
        assert_eq!((null.mode, null.access.as_str()), (0o666, "r"));
        let found = resolve(&[asked(Path::new("/dev/null"), "/dev/null", "")], false).expect("there");
        assert_eq!(found[0].access, "rwm");
    }

    #[test]
    fn a_directory_is_mapped_with_its_tree() {
        let dir = Dir::new("devices-tree");
        fs::create_dir_all(dir.0.join("sub/pts")).expect("mkdir");
        for name in ["a", "sub/b", "sub/pts/0", "console"] {
            assert!(Command::new("mkfifo").arg(dir.0.join(name)).status().expect("mkfifo").success());
        }
        symlink("/dev/null", dir.0.join("link")).expect("symlink");
        fs::write(dir.0.join("file"), "").expect("write");
        let found = resolve(&[asked(&dir.0, "/dev/tree", "rw")], false).expect("there");
        let paths: Vec<&Path> = found.iter().map(|d| d.path.as_path()).collect();
        assert_eq!(paths, [Path::new("/dev/tree/a"), Path::new("/dev/tree/sub/b")]);
        assert!(found.iter().all(|d| d.kind == DeviceKind::Fifo && d.access == "rw"));
    }

    #[test]
    fn all_of_the_host_come_first() {
        let found = resolve(&[asked(Path::new("/dev/null"), "/dev/extra", "")], true).expect("there");
        assert!(found.iter().any(|d| d.path == Path::new("/dev/null") && d.access == "rwm"));
        assert!(found.iter().all(|d| !d.path.starts_with("/dev/pts") && d.path != Path::new("/dev/console")));
        assert_eq!(found.last().map(|d| d.path.as_path()), Some(Path::new("/dev/extra")));
    }

    #[test]
    fn what_is_no_device_is_refused() {
        let dir = Dir::new("devices-file");
        fs::write(dir.0.join("file"), "").expect("write");
        for path in [dir.0.join("file"), dir.0.join("absent")] {
            let refused = resolve(&[asked(&path, "/dev/x", "")], false).map_err(|e| e.kind());
            assert_eq!(refused, Err(Kind::InvalidArgument), "{path:?}");
        }
    }
}
