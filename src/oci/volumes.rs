//! VOLUMEs of an image: which of them get a directory of the container's own.

use std::path::{Path, PathBuf};

use cricket_proto::runtime::ContainerConfig;

use super::facts::ImageFacts;
use super::mounts::clean;
use crate::error::{Error, Result};

/// Each is a mount; no image that means well has so many.
const MAX_VOLUMES: usize = 128;

/// Where the runtime's own file systems are: below them there is nothing of an image.
const OF_RUNTIME: [&str; 3] = ["/proc", "/sys", "/dev"];
/// Files of the pod that every container sees.
const OF_SANDBOX: [&str; 3] = ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"];

/// The volumes that `image` declares and nothing else is mounted on, cleaned and each once, in the image's order.
///
/// # Errors
/// `InvalidArgument` for the whole root, and for too many.
pub fn declared(config: &ContainerConfig, image: &ImageFacts) -> Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> = Vec::new();
    for volume in &image.volumes {
        let path = clean(volume);
        if path == Path::new("/") {
            return Err(Error::invalid(format!("the image declares the volume {volume:?}, which is its whole root")));
        }
        if !is_taken(config, &path) && !found.contains(&path) {
            found.push(path);
        }
        if found.len() > MAX_VOLUMES {
            return Err(Error::invalid(format!("the image declares more than {MAX_VOLUMES} volumes")));
        }
    }
    Ok(found)
}

/// Whether something else than a volume of the image is mounted at `path`.
pub fn is_taken(config: &ContainerConfig, path: &Path) -> bool {
    OF_RUNTIME.iter().any(|of_runtime| path.starts_with(of_runtime))
        || OF_SANDBOX.iter().any(|of_sandbox| path == Path::new(of_sandbox))
        || config.mounts.iter().any(|mount| clean(&mount.container_path) == path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use cricket_proto::runtime::Mount;

    fn of(volumes: &[&str], mounts: &[&str]) -> Result<Vec<PathBuf>> {
        let mounts = mounts.iter().map(|path| Mount { container_path: (*path).into(), ..Default::default() }).collect();
        let config = ContainerConfig { mounts, ..Default::default() };
        let volumes = volumes.iter().map(ToString::to_string).collect();
        declared(&config, &ImageFacts { volumes, ..Default::default() })
    }

    #[test]
    fn what_nothing_else_is_mounted_on() {
        let found = of(&["/data/", "/data", "relative", "/a/../b", "/c", "/c/deep"], &["//c/./"]).expect("fine");
        assert_eq!(found, ["/data", "/relative", "/b", "/c/deep"].map(PathBuf::from));
        let of_others = ["/proc", "/sys/fs/cgroup", "/dev/shm", "/etc/hosts", "/etc/resolv.conf"];
        assert_eq!(of(&of_others, &[]).expect("fine"), Vec::<PathBuf>::new());
        assert_eq!(of(&["/etc", "/process"], &[]).expect("fine"), ["/etc", "/process"].map(PathBuf::from));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for path in ["/", "", ".", "/a/.."] {
            assert_eq!(of(&["/data", path], &[]).map_err(|e| e.kind()), Err(Kind::InvalidArgument), "{path:?}");
        }
        let many: Vec<String> = (0..=MAX_VOLUMES).map(|n| format!("/v{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(of(&many, &[]).map_err(|e| e.kind()), Err(Kind::InvalidArgument));
        assert_eq!(of(&many[1..], &["/v0"]).map(|v| v.len()).ok(), Some(MAX_VOLUMES));
    }
}
