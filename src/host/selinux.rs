//! SELinux on this machine: what its policy says of containers, and giving files their labels.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use cricket_proto::runtime::Mount;

use crate::error::{Context, Error, Result};
use crate::oci::facts::{MountSource, SandboxFiles};
use crate::oci::selinux::Policy;
use crate::sys::xattr;

const ROOT: &str = "/etc/selinux";

/// Directories that belong to the node: labelled for a container, they would lock everybody else out.
const NODES: [&str; 22] = [
    "/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/media", "/mnt", "/opt", "/proc", "/root",
    "/run", "/sbin", "/srv", "/sys", "/tmp", "/usr", "/var", "/var/lib", "/var/log",
];

/// The labels that the node's policy has for containers.
///
/// # Errors
/// `FailedPrecondition` if there are none: the package `container-selinux` brings them.
pub fn policy() -> Result<Policy> {
    policy_below(Path::new(ROOT)).context("SELinux is enabled in the configuration")
}

fn policy_below(root: &Path) -> Result<Policy> {
    let missing = |path: &Path, what: &str| Error::precondition(format!("{}: {what}", path.display()));
    let config = root.join("config");
    let text = fs::read_to_string(&config).map_err(|e| missing(&config, &e.to_string()))?;
    let name = text.lines().find_map(|line| line.trim().strip_prefix("SELINUXTYPE="));
    let name = name.map(str::trim).filter(|n| !n.is_empty() && !n.contains('/'));
    let name = name.ok_or_else(|| missing(&config, "no SELINUXTYPE"))?;
    let contexts = root.join(name).join("contexts/lxc_contexts");
    let text = fs::read_to_string(&contexts)
        .map_err(|e| missing(&contexts, &format!("{e}: is container-selinux installed?")))?;
    Policy::parse(&text).ok_or_else(|| missing(&contexts, "it has no labels for process and file"))
}

/// Labels the volumes that are to have the container's label; `sources` are where they are.
///
/// # Errors
/// As [`relabel`], with the mount.
pub fn label_volumes(mounts: &[Mount], sources: &[MountSource], label: &str) -> Result<()> {
    for (mount, source) in mounts.iter().zip(sources).filter(|(mount, _)| mount.selinux_relabel) {
        relabel(&source.path, label).with_context(|| format!("mount {}", mount.container_path))?;
    }
    Ok(())
}

/// Labels the files of a pod that all its containers see, its `/dev/shm` if that is not the node's.
pub fn label_files(files: &SandboxFiles, own_shm: bool, label: &str) -> Result<()> {
    let shm = Some(&files.shm).filter(|_| own_shm);
    for file in [&files.hostname, &files.hosts, &files.resolv_conf].into_iter().chain(shm) {
        label_one(file, label).with_context(|| format!("label {} for SELinux", file.display()))?;
    }
    Ok(())
}

/// Labels `path` and everything below it; symbolic links themselves. What a file system cannot label is left as it is.
///
/// # Errors
/// `InvalidArgument` for a directory of the node.
pub fn relabel(path: &Path, label: &str) -> Result<()> {
    if NODES.iter().any(|node| path == Path::new(node)) {
        let shown = path.display();
        return Err(Error::invalid(format!("{shown} belongs to the node and cannot be labelled for a container")));
    }
    walk(path, label).with_context(|| format!("label {} for SELinux", path.display()))
}

fn walk(path: &Path, label: &str) -> std::io::Result<()> {
    let kind = match fs::symlink_metadata(path) {
        Ok(meta) => meta.file_type(),
        // Volumes are in use: files come and go.
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    label_one(path, label)?;
    if kind.is_dir() {
        for entry in fs::read_dir(path)? {
            walk(&entry?.path(), label)?;
        }
    }
    Ok(())
}

/// Labels one file, which need not be there and need not have labels.
fn label_one(path: &Path, label: &str) -> std::io::Result<()> {
    // A write for each file of a large volume would be felt.
    if xattr::label(path).is_ok_and(|own| own.as_deref() == Some(label)) {
        return Ok(());
    }
    match xattr::set_label(path, label) {
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOTSUP | libc::ENOENT | libc::EROFS)) => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::host::testing::Dir;
    use std::os::unix::fs::symlink;

    #[test]
    fn the_nodes_policy() {
        let dir = Dir::new("selinux-policy");
        let kind = |dir: &Dir| policy_below(&dir.0).map(drop).map_err(|e| e.kind());
        assert_eq!(kind(&dir), Err(Kind::FailedPrecondition));
        fs::write(dir.0.join("config"), "# SELINUXTYPE= x\nSELINUX=enforcing\nSELINUXTYPE=targeted\n").expect("write");
        assert_eq!(kind(&dir), Err(Kind::FailedPrecondition));
        let contexts = dir.0.join("targeted/contexts");
        fs::create_dir_all(&contexts).expect("mkdir");
        fs::write(contexts.join("lxc_contexts"), "process = \"a:b:c:s0\"\n").expect("write");
        assert_eq!(kind(&dir), Err(Kind::FailedPrecondition));
        fs::write(contexts.join("lxc_contexts"), "process = \"a:b:c:s0\"\nfile = \"a:b:d:s0\"\n").expect("write");
        assert_eq!(kind(&dir), Ok(()));
    }

    #[test]
    fn a_directory_of_the_node_is_not_relabelled() {
        for path in ["/", "/etc", "/var/lib", "/usr/"] {
            assert_eq!(relabel(Path::new(path), "l").map_err(|e| e.kind()), Err(Kind::InvalidArgument), "{path}");
        }
    }

    #[test]
    fn everything_below_is_labelled_and_nothing_beside() {
        let dir = Dir::new("selinux-relabel");
        fs::create_dir_all(dir.0.join("volume/sub")).expect("mkdir");
        fs::write(dir.0.join("volume/sub/file"), "").expect("write");
        fs::write(dir.0.join("beside"), "").expect("write");
        symlink(dir.0.join("beside"), dir.0.join("volume/link")).expect("symlink");
        relabel(&dir.0.join("volume"), "u:r:t:s0").expect("labelled");
        let label = |path: &str| xattr::label(&dir.0.join(path)).expect("readable");
        for path in ["volume", "volume/sub", "volume/sub/file"] {
            assert_eq!(label(path).as_deref(), Some("u:r:t:s0"), "{path}");
        }
        assert_ne!(label("beside").as_deref(), Some("u:r:t:s0"), "a link is not followed");
    }
}
