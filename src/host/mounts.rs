//! Sources of mounts on the host: where they really are, and whether mount events travel there.

use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use cricket_proto::runtime::{Mount, MountPropagation};

use crate::error::{Context, Result};
use crate::oci::facts::{MountSource, Propagation};

/// One line of `mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountPoint {
    /// Where it is mounted.
    pub path: PathBuf,
    /// Whether mount events travel there.
    pub propagation: Propagation,
    /// `ext4`, `cgroup2`.
    pub fs_type: String,
    /// The options of the file system, separated by commas.
    pub super_options: String,
}

/// The source of each of `mounts`, in order, without symbolic links: where its image is mounted, by `images`, or its host
/// path. A host path that does not exist is created as a directory with mode 0755, and stays: pods rely on it. The mount table is read only if a mount propagates.
///
/// # Errors
/// What the file system says.
pub fn resolve(mounts: &[Mount], images: &[Option<PathBuf>]) -> Result<Vec<MountSource>> {
    let propagates = |m: &Mount| m.propagation.enum_value_or_default() != MountPropagation::PROPAGATION_PRIVATE;
    let table = if mounts.iter().any(propagates) {
        parse(&fs::read_to_string("/proc/self/mountinfo").context("read /proc/self/mountinfo")?)
    } else {
        Vec::new()
    };
    let image = |n: usize| images.get(n).cloned().flatten();
    let of_image = |path| MountSource { path, propagation: Propagation::Private };
    mounts.iter().enumerate().map(|(n, m)| image(n).map_or_else(|| source(m, &table), |p| Ok(of_image(p)))).collect()
}

fn source(mount: &Mount, table: &[MountPoint]) -> Result<MountSource> {
    let path = real_path(Path::new(&mount.host_path))
        .with_context(|| format!("mount {}: host path {}", mount.container_path, mount.host_path))?;
    let propagation = propagation(&path, table);
    Ok(MountSource { path, propagation })
}

fn real_path(path: &Path) -> std::io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            DirBuilder::new().recursive(true).mode(0o755).create(path)?;
            fs::canonicalize(path)
        }
        found => found,
    }
}

/// Of the mount point that holds `path`: the deepest, and of several at one place the last, which is on top.
fn propagation(path: &Path, table: &[MountPoint]) -> Propagation {
    let holding = table.iter().filter(|m| path.starts_with(&m.path));
    holding.max_by_key(|m| m.path.components().count()).map(|m| m.propagation).unwrap_or_default()
}

/// The mount points of a `mountinfo`, in its order; a line that is none is left out.
pub fn parse(mountinfo: &str) -> Vec<MountPoint> {
    mountinfo.lines().filter_map(line).collect()
}

/// `36 35 98:0 /root /mount/point options optional… - type source super-options`
fn line(line: &str) -> Option<MountPoint> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut mount = mount.split(' ').skip(4);
    let path = unescape(mount.next()?);
    let optional: Vec<&str> = mount.skip(1).collect();
    let tagged = |tag: &str| optional.iter().any(|o| o.starts_with(tag));
    let propagation = if tagged("shared:") {
        Propagation::Shared
    } else if tagged("master:") {
        Propagation::Slave
    } else {
        Propagation::Private
    };
    let mut file_system = file_system.split(' ');
    let fs_type = file_system.next()?.into();
    let super_options = file_system.nth(1).unwrap_or_default().into();
    Some(MountPoint { path, propagation, fs_type, super_options })
}

/// The kernel writes white space and backslashes as three octal digits.
fn unescape(path: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|d| first == b'\\' && d.iter().all(|b| (b'0'..=b'7').contains(b)));
        match octal {
            Some(digits) => {
                let value = digits.iter().fold(0u32, |value, d| value * 8 + u32::from(d - b'0'));
                bytes.push(value as u8);
                rest = &tail[3..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    std::ffi::OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{symlink, PermissionsExt};

    const TABLE: &str = "\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,errors=remount-ro
30 22 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate
40 22 0:30 / /mnt rw - tmpfs none rw
41 22 0:31 / /mnt/slave\\040dir rw master:7 - tmpfs none rw
42 22 0:32 / /mnt/both rw shared:9 master:7 propagate_from:2 - tmpfs none rw
43 22 0:33 / /stack rw shared:10 - tmpfs none rw
44 43 0:34 / /stack rw - tmpfs none
nonsense
";

    #[test]
    fn the_deepest_mount_point_counts() {
        let table = parse(TABLE);
        assert_eq!(table.len(), 7);
        assert_eq!((table[1].fs_type.as_str(), table[1].super_options.as_str()), ("cgroup2", "rw,nsdelegate"));
        assert_eq!(table[6].super_options, "");
        let cases = [
            ("/", Propagation::Shared),
            ("/data", Propagation::Shared),
            ("/mntx", Propagation::Shared),
            ("/mnt", Propagation::Private),
            ("/mnt/x", Propagation::Private),
            ("/mnt/slave dir/x", Propagation::Slave),
            ("/mnt/both", Propagation::Shared),
            ("/stack/x", Propagation::Private),
        ];
        for (path, expected) in cases {
            assert_eq!(propagation(Path::new(path), &table), expected, "{path}");
        }
        assert_eq!(propagation(Path::new("/x"), &[]), Propagation::Private);
    }

    #[test]
    fn escapes() {
        assert_eq!(unescape("/a\\040b\\134c"), Path::new("/a b\\c"));
        assert_eq!(unescape("/a\\04"), Path::new("/a\\04"));
        assert_eq!(unescape("/a\\9xx"), Path::new("/a\\9xx"));
    }

    #[test]
    fn sources_are_created_and_links_resolved() {
        let dir = std::env::temp_dir().join(format!("cricket-mounts-{}", std::process::id()));
        fs::create_dir_all(dir.join("real")).expect("mkdir");
        symlink(dir.join("real"), dir.join("link")).expect("symlink");
        symlink(dir.join("nowhere"), dir.join("dangling")).expect("symlink");
        let mount = |path: &str, propagation: MountPropagation| Mount {
            host_path: dir.join(path).to_str().expect("UTF-8").into(),
            propagation: propagation.into(),
            ..Default::default()
        };
        let private = MountPropagation::PROPAGATION_PRIVATE;
        let found = resolve(
            &[mount("link", private), mount("new/deep", private), mount("new/image", private)],
            &[None, None, Some("/image".into())],
        );
        let found = found.expect("resolved");
        assert_eq!(found[2].path, Path::new("/image"));
        assert!(!dir.join("new/image").exists());
        let real = fs::canonicalize(&dir).expect("there");
        assert_eq!(found[0].path, real.join("real"));
        assert_eq!(found[1].path, real.join("new/deep"));
        assert!(fs::metadata(&found[1].path).expect("created").permissions().mode() & 0o022 == 0);
        assert!(resolve(&[mount("dangling", private)], &[]).is_err());
        assert!(resolve(&[mount("real", MountPropagation::PROPAGATION_BIDIRECTIONAL)], &[]).is_ok());
        fs::remove_dir_all(&dir).expect("our own directory");
    }
}
