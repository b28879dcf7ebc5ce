//! Shims as files: which ones containerd may start, and whether they are still the same.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::Metadata;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// Where containerd looks, whatever we were started with.
const PLACES: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The group of all containers of this node that a shim of this runtime type may serve together.
///
/// Another binary is another group: after an upgrade the old shim serves whom it has until they end, and new containers
/// get a new one. Which file containerd takes is its secret, so all of that name count.
pub fn group(runtime_type: &str) -> String {
    let path = std::env::var_os("PATH").unwrap_or_default();
    group_of(runtime_type, candidates(runtime_type, &path))
}

fn group_of(runtime_type: &str, files: impl IntoIterator<Item = PathBuf>) -> String {
    // Not a cryptographic matter: nobody gains by a collision.
    let mut hasher = DefaultHasher::new();
    runtime_type.hash(&mut hasher);
    let found = files.into_iter().filter_map(|file| Some((file.metadata().ok()?, file)));
    found.for_each(|(data, file)| (file, identity(&data)).hash(&mut hasher));
    format!("cricket-node-{:016x}", hasher.finish())
}

fn identity(data: &Metadata) -> [i64; 5] {
    [data.dev() as i64, data.ino() as i64, data.size() as i64, data.mtime(), data.mtime_nsec()]
}

/// `io.containerd.runc.v2` → `containerd-shim-runc-v2` in every folder; a path is itself.
fn candidates(runtime_type: &str, path: &OsStr) -> BTreeSet<PathBuf> {
    if runtime_type.starts_with('/') {
        return BTreeSet::from([runtime_type.into()]);
    }
    let mut parts = runtime_type.rsplit('.');
    let (version, name) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let folders = std::env::split_paths(path).chain(std::env::split_paths(PLACES));
    folders.map(|folder| folder.join(format!("containerd-shim-{name}-{version}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_binary_is_found_by_the_type() {
        let all = candidates("io.containerd.runc.v2", OsStr::new("/opt/bin:/usr/bin"));
        assert_eq!(all.first(), Some(&PathBuf::from("/bin/containerd-shim-runc-v2")));
        assert!(all.contains(&PathBuf::from("/opt/bin/containerd-shim-runc-v2")));
        assert_eq!(all.len(), 7, "no folder twice");
        assert_eq!(candidates("/opt/shim", OsStr::new("/x")), BTreeSet::from(["/opt/shim".into()]));
    }

    #[test]
    fn another_binary_is_another_group() {
        let file = std::env::temp_dir().join(format!("cricket-shim-{}", std::process::id()));
        let group = || group_of("io.containerd.runc.v2", [file.clone()]);
        let none = group();
        std::fs::write(&file, "old").expect("write");
        let old = group();
        assert_eq!(old, group());
        std::fs::write(&file, "newer").expect("write");
        let new = group();
        assert!(none != old && old != new, "{none} {old} {new}");
        assert_ne!(new, group_of("io.containerd.runc.v1", [file.clone()]));
        std::fs::remove_file(&file).expect("remove");
    }
}
