//! The mounts of a snapshot, as its snapshotter describes them, for readers.

use std::path::{Path, PathBuf};

use super::mount::mount;
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

/// Mounts `layers`, each over the one before, read-only, without devices and with `flags`, on the existing directory
/// `at`. The calling thread must have a working directory of its own, which changes.
pub(super) fn mount_all(layers: &[Layer<'_>], at: &Path, flags: libc::c_ulong) -> Result<()> {
    let flags = flags | libc::MS_RDONLY | libc::MS_NODEV;
    for layer in layers {
        mount_one(layer, at, flags).with_context(|| format!("mount {} {}", layer.kind, layer.source))?;
    }
    Ok(())
}

/// What is left of a mount's options for us: whether something is bound, and the file system's own.
#[derive(Debug, Default, PartialEq, Eq)]
struct Options<'a> {
    bind: libc::c_ulong,
    own: Vec<&'a str>,
}

impl<'a> Options<'a> {
    /// # Errors
    /// `FailedPrecondition` for what only mount(8) can do.
    fn parse(options: &'a [String]) -> Result<Self> {
        let mut all = Options::default();
        for option in options {
            match option.as_str() {
                "bind" => all.bind |= libc::MS_BIND,
                "rbind" => all.bind |= libc::MS_BIND | libc::MS_REC,
                "loop" => {
                    let message =
                        "the image's snapshot needs a loop device, which is not made: use snapshotter overlayfs";
                    return Err(Error::precondition(message));
                }
                // Of no importance to a reader.
                "" | "ro" | "rw" | "nosuid" | "nodev" | "noexec" | "relatime" | "noatime" | "nodiratime" | "async"
                | "defaults" | "volatile" => {}
                // containerd's way to ask for an id-mapped mount. A reader does not mind who owns what.
                mapped if mapped.starts_with("uidmap=") || mapped.starts_with("gidmap=") => {}
                own => all.own.push(own),
            }
        }
        Ok(all)
    }
}

fn mount_one(layer: &Layer<'_>, at: &Path, flags: libc::c_ulong) -> Result<()> {
    let options = Options::parse(layer.options)?;
    let source = Path::new(layer.source);
    if options.bind != 0 {
        mount(source, at, "", options.bind, "")?;
        // A bind mount is as writable as its source until it is mounted anew.
        return Ok(mount(Path::new(""), at, "", libc::MS_REMOUNT | libc::MS_BIND | flags, "")?);
    }
    if layer.kind == "overlay" {
        let stack = Stack::of(&options.own)?;
        // The kernel takes one page of options. Paths below a common directory are short.
        std::env::set_current_dir(&stack.below).with_context(|| format!("enter {}", stack.below.display()))?;
        return Ok(mount(source, at, layer.kind, flags, &stack.options.join(","))?);
    }
    Ok(mount(source, at, layer.kind, flags, &options.own.join(","))?)
}

/// An overlay whose layers are all lower ones: the same files, and no claim on the directories of the writable one.
#[derive(Debug, PartialEq, Eq)]
struct Stack {
    /// The directory that the paths of the layers are relative to.
    below: PathBuf,
    options: Vec<String>,
}

impl Stack {
    fn of(own: &[&str]) -> Result<Self> {
        let value = |key: &str| own.iter().find_map(|o| o.strip_prefix(key));
        let upper = value("upperdir=").into_iter();
        let layers: Vec<&Path> =
            upper.chain(value("lowerdir=").into_iter().flat_map(|l| l.split(':'))).map(Path::new).collect();
        let Some(parent) = layers.first().and_then(|l| l.parent()) else {
            return Err(Error::precondition("an overlay without layers"));
        };
        let below = parent.ancestors().find(|a| layers.iter().all(|l| l.starts_with(a)));
        // Layers in quite different places stay as they are.
        let below = below.unwrap_or(Path::new("/"));
        let relative = |layer: &Path| layer.strip_prefix(below).unwrap_or(layer).display().to_string();
        let lower: Vec<String> = layers.iter().map(|l| relative(l)).collect();
        let replaced = ["upperdir=", "lowerdir=", "workdir="];
        let kept = own.iter().filter(|o| !replaced.iter().any(|r| o.starts_with(r))).map(|o| (*o).to_owned());
        let options = std::iter::once(format!("lowerdir={}", lower.join(":"))).chain(kept).collect();
        Ok(Stack { below: below.into(), options })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_is_as_short_as_can_be() {
        let stack =
            Stack::of(&["workdir=/a/s/3/work", "upperdir=/a/s/3/fs", "lowerdir=/a/s/2/fs:/a/s/1/fs", "xino=off"]);
        let expected =
            Stack { below: "/a/s".into(), options: vec!["lowerdir=3/fs:2/fs:1/fs".into(), "xino=off".into()] };
        assert_eq!(stack.unwrap(), expected);
        let one = Stack::of(&["lowerdir=/a/s/1/fs"]).unwrap();
        assert_eq!((one.below, one.options), ("/a/s/1".into(), vec!["lowerdir=fs".into()]));
        assert!(Stack::of(&["index=off"]).is_err());
    }

    #[test]
    fn many_layers_fit_into_a_page() {
        let lower = (0..100).map(|n| format!("/var/lib/containerd/snapshots/{n}/fs")).collect::<Vec<_>>().join(":");
        let stack = Stack::of(&["index=off", &format!("lowerdir={lower}")]).unwrap();
        assert_eq!(stack.below, Path::new("/var/lib/containerd/snapshots"));
        let data = stack.options.join(",");
        assert!(data.starts_with("lowerdir=0/fs:1/fs:") && data.ends_with(",index=off") && data.len() < 1000, "{data}");
    }

    #[test]
    fn options_are_ours_or_the_file_systems() {
        let options = ["rbind", "ro", "uidmap=0:1:1", "index=off"].map(str::to_owned);
        let parsed = Options::parse(&options).unwrap();
        assert_eq!(parsed, Options { bind: libc::MS_BIND | libc::MS_REC, own: vec!["index=off"] });
        assert!(Options::parse(&["loop".to_owned()]).is_err());
    }
}
