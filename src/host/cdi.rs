//! The device specifications of the node: their files, read anew whenever a container names a device.

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use crate::cdi::{self, Edits, Found, Node};
use crate::error::{Context, Error, Result};
use crate::host::devices;
use crate::oci::facts::{DeviceEdits, DeviceFacts, DeviceKind};

/// Larger files are no specifications.
const MAX_BYTES: u64 = 4 << 20;

/// What the devices `names` change, with their nodes looked up. Blocks for the disk; reads nothing without names.
///
/// # Errors
/// `InvalidArgument` for a device that no file of `dirs` has, or whose node is no device.
pub fn resolve(names: &[String], dirs: &[PathBuf]) -> Result<DeviceEdits> {
    if names.is_empty() {
        return Ok(DeviceEdits::default());
    }
    let mut files = Vec::new();
    for (priority, dir) in dirs.iter().enumerate() {
        read_dir(dir, priority, &mut files).with_context(|| format!("read {}", dir.display()))?;
    }
    let mut all = DeviceEdits::default();
    for Edits { env, device_nodes, mounts, hooks, additional_gids, intel_rdt } in cdi::select(names, &files)? {
        for node in &device_nodes {
            let found = facts(node).with_context(|| format!("CDI device node {}", node.path))?;
            all.nodes.push(found);
        }
        all.env.extend(env);
        all.mounts.extend(mounts);
        all.hooks.extend(hooks);
        all.gids.extend(additional_gids);
        all.intel_rdt = intel_rdt.or(all.intel_rdt);
    }
    Ok(all)
}

fn read_dir(dir: &Path, priority: usize, files: &mut Vec<Found>) -> Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        read => read?,
    };
    let mut paths = entries.map(|e| Ok(e?.path())).collect::<Result<Vec<PathBuf>>>()?;
    paths.retain(|path| path.extension().is_some_and(|e| e == "json" || e == "yaml"));
    paths.sort();
    files.extend(paths.into_iter().map(|path| {
        let spec = read(&path).and_then(|text| cdi::parse(&text));
        Found { path, priority, spec }
    }));
    Ok(())
}

fn read(path: &Path) -> Result<String> {
    let mut text = String::new();
    let file = fs::File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(Error::invalid("it is no regular file"));
    }
    file.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    match text.len() as u64 > MAX_BYTES {
        true => Err(Error::invalid(format!("it is larger than {MAX_BYTES} bytes"))),
        false => Ok(text),
    }
}

/// The node, with what its specification leaves out taken from the host.
fn facts(node: &Node) -> Result<DeviceFacts> {
    let kind = match node.r#type.as_str() {
        "" => None,
        "c" | "u" => Some(DeviceKind::Char),
        "b" => Some(DeviceKind::Block),
        "p" => Some(DeviceKind::Fifo),
        other => return Err(Error::invalid(format!("{other:?} is no type of a device"))),
    };
    if !node.path.starts_with('/') || !node.permissions.chars().all(|p| "rwm".contains(p)) {
        return Err(Error::invalid("its path must be absolute, its permissions letters of rwm"));
    }
    let access = if node.permissions.is_empty() { "rwm" } else { &node.permissions };
    let (path, host) = (Path::new(&node.path), if node.host_path.is_empty() { &node.path } else { &node.host_path });
    let known = match (kind, node.major, node.minor) {
        (Some(kind), Some(major), Some(minor)) => {
            DeviceFacts { path: path.into(), kind, major, minor, mode: 0o666, uid: 0, gid: 0, access: access.into() }
        }
        (kind, ..) => {
            let found = devices::look_up(Path::new(host), path, access)?;
            if kind.is_some_and(|kind| kind != found.kind) {
                return Err(Error::invalid(format!("{host} is not of type {}", node.r#type)));
            }
            found
        }
    };
    Ok(DeviceFacts {
        major: node.major.unwrap_or(known.major),
        minor: node.minor.unwrap_or(known.minor),
        mode: node.file_mode.unwrap_or(known.mode) & 0o7777,
        uid: node.uid.unwrap_or(known.uid),
        gid: node.gid.unwrap_or(known.gid),
        ..known
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    struct Dirs(PathBuf);

    impl Dirs {
        fn new(name: &str) -> Dirs {
            let dir = std::env::temp_dir().join(format!("cricket-cdi-{name}-{}", std::process::id()));
            fs::create_dir_all(dir.join("etc")).expect("mkdir");
            Dirs(dir)
        }

        fn resolve(&self, name: &str) -> Result<DeviceEdits> {
            resolve(&[name.to_owned()], &[self.0.join("etc"), self.0.join("absent")])
        }
    }

    impl Drop for Dirs {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).expect("our own directory");
        }
    }

    fn spec(nodes: &str) -> String {
        format!(
            "cdiVersion: 0.6.0\nkind: acme.com/dev\ndevices:\n- name: x\n  containerEdits:\n    deviceNodes: {nodes}\n"
        )
    }

    #[test]
    fn nodes_are_completed_from_the_host() {
        let dirs = Dirs::new("nodes");
        let write = |nodes: &str| fs::write(dirs.0.join("etc/a.yaml"), spec(nodes)).expect("write");
        fs::write(dirs.0.join("etc/ignored.txt"), "nonsense").expect("write");
        write("[{path: /dev/mine, hostPath: /dev/null, permissions: r, uid: 7}, {path: /dev/z, type: b, major: 9, minor: 1, fileMode: 0600}]");
        let found = dirs.resolve("acme.com/dev=x").expect("there").nodes;
        let mine = &found[0];
        assert_eq!((mine.major, mine.minor, mine.mode, mine.uid, mine.access.as_str()), (1, 3, 0o666, 7, "r"));
        assert_eq!(mine.path, Path::new("/dev/mine"));
        let made = &found[1];
        assert_eq!((made.kind, made.major, made.mode, made.access.as_str()), (DeviceKind::Block, 9, 0o600, "rwm"));
        for bad in [
            "[{path: /dev/absent}]",
            "[{path: dev/null}]",
            "[{path: /dev/null, type: b}]",
            "[{path: /dev/null, permissions: x}]",
            "[{path: /dev/null, type: q}]",
        ] {
            write(bad);
            assert_eq!(dirs.resolve("acme.com/dev=x").map_err(|e| e.kind()), Err(Kind::InvalidArgument), "{bad}");
        }
    }

    #[test]
    fn a_broken_file_harms_only_its_own_devices() {
        let dirs = Dirs::new("broken");
        fs::write(dirs.0.join("etc/a.yaml"), spec("[]")).expect("write");
        fs::write(dirs.0.join("etc/b.json"), "{").expect("write");
        assert_eq!(dirs.resolve("acme.com/dev=x").expect("there"), DeviceEdits::default());
        let e = dirs.resolve("acme.com/dev=y").expect_err("missing").to_string();
        assert!(e.contains("b.json"), "{e}");
        assert_eq!(resolve(&[], &["/dev/null/x".into()]).expect("nothing asked"), DeviceEdits::default());
    }
}
