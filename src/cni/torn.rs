//! Addresses that a power cut has torn from their owners.
//!
//! The plugin `host-local` keeps a file for each address that is in use, named by it, with its owner inside, and does not wait
//! until that is on disk. After a power cut the file may be there and be empty, or as long as it should be and nothing but
//! zeroes: a file system may have its length, and its place on the disk, before its bytes. Then no DEL finds it any more, and
//! the pool is one smaller for ever. Whoever writes such a file holds the lock of its directory meanwhile, so that one
//! which says nothing under the lock has no owner.

use std::fs::{self, File};
use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::conf::Network;
use crate::clock::soon;
use crate::error::{Context, Error, Kind, Result};
use crate::sys::lock_file::LockFile;

/// Where it keeps the addresses of a network whose configuration does not say, as that of a plugin which calls it.
const DEFAULT: &str = "/var/lib/cni/networks";
/// More than any owner's name has.
const MOST_BYTES: u64 = 4096;
/// Of the directory, as the plugin takes it.
const LOCK: &str = "lock";
/// It is held for as long as it takes to write a file; we ourselves give back several at once.
const PATIENCE: Duration = Duration::from_millis(500);

/// The torn addresses of a network, as far as can be told without its lock.
pub(super) fn find(network: &Network) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for dir in directories(network) {
        // There is none if nothing was ever attached, or another plugin keeps the addresses.
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        found.extend(entries.map(|entry| entry.path()).filter(|path| is_address(path) && is_torn(path)));
    }
    found
}

/// Gives a torn address back. Idempotent; one that has an owner by now is left alone. Blocks while somebody else works on
/// the directory, up to [`PATIENCE`].
///
/// # Errors
/// `Unavailable` after that.
pub(super) fn remove(path: &Path) -> Result<()> {
    let lock = path.with_file_name(LOCK);
    let held = soon(PATIENCE, || LockFile::try_take(&lock)).with_context(|| format!("lock {}", lock.display()))?;
    if held.is_none() {
        return Err(Error::new(Kind::Unavailable, format!("{} is locked", lock.display())));
    }
    match is_torn(path) {
        true => fs::remove_file(path).with_context(|| format!("remove {}", path.display())),
        false => Ok(()),
    }
}

fn directories(network: &Network) -> Vec<PathBuf> {
    let named = network.plugins().iter().filter_map(|plugin| {
        let ipam = plugin.config.get("ipam")?;
        (ipam.get("type")? == "host-local").then_some(ipam.get("dataDir")?.as_str()?)
    });
    let mut all: Vec<PathBuf> = named.chain([DEFAULT]).map(|dir| Path::new(dir).join(network.name())).collect();
    all.dedup();
    all
}

fn is_address(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.parse::<IpAddr>().is_ok())
}

fn is_torn(path: &Path) -> bool {
    let says = |path: &Path| {
        let mut bytes = Vec::new();
        File::open(path).and_then(|file| file.take(MOST_BYTES).read_to_end(&mut bytes))?;
        Ok::<_, std::io::Error>(bytes.iter().any(|byte| *byte != 0))
    };
    fs::symlink_metadata(path).is_ok_and(|facts| facts.is_file()) && says(path).is_ok_and(|something| !something)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cni::scripted::Dir;

    fn network(dir: &Path) -> Network {
        let text = format!(
            r#"{{"name":"net","plugins":[{{"type":"bridge","ipam":{{"type":"host-local","dataDir":"{}"}}}}]}}"#,
            dir.display()
        );
        Network::from_list(text.into_bytes()).expect("valid")
    }

    #[test]
    fn an_address_without_an_owner_is_given_back_and_no_other() {
        let dir = Dir::new();
        let network = network(dir.path());
        assert_eq!(find(&network), Vec::<PathBuf>::new(), "nothing was ever attached");
        let at = dir.path().join("net");
        fs::create_dir(&at).expect("mkdir");
        for (name, text) in [
            ("10.0.0.2", "c1\neth0"),
            ("10.0.0.3", ""),
            ("10.0.0.4", "\0\0\0\0\0\0\0"),
            ("fd00::7", ""),
            ("last_reserved_ip.0", ""),
        ] {
            fs::write(at.join(name), text).expect("write");
        }
        let mut torn = find(&network);
        torn.sort();
        assert_eq!(torn, [at.join("10.0.0.3"), at.join("10.0.0.4"), at.join("fd00::7")]);

        let held = LockFile::try_take(&at.join(LOCK)).expect("lockable");
        assert_eq!(remove(&torn[0]).map_err(|e| e.kind()), Err(Kind::Unavailable));
        drop(held);
        // Its writer was only about to name the owner.
        fs::write(&torn[2], "c2\neth0").expect("write");
        for path in &torn {
            remove(path).expect("removed");
            remove(path).expect("again");
        }
        assert!(!torn[0].exists() && !torn[1].exists() && torn[2].exists() && at.join("10.0.0.2").exists());
        assert_eq!(find(&network), Vec::<PathBuf>::new());
    }

    #[test]
    fn all_at_once_are_given_back() {
        let dir = Dir::new();
        let network = network(dir.path());
        let at = dir.path().join("net");
        fs::create_dir(&at).expect("mkdir");
        (2..66).for_each(|n| fs::write(at.join(format!("10.0.0.{n}")), "").expect("write"));
        std::thread::scope(|scope| {
            find(&network).chunks(8).for_each(|some| {
                let some = some.to_vec();
                scope.spawn(move || some.iter().for_each(|path| remove(path).expect("removed")));
            });
        });
        assert_eq!(find(&network), Vec::<PathBuf>::new());
    }

    #[test]
    fn where_addresses_are_kept() {
        let dirs = |text: &str| directories(&Network::from_list(text.as_bytes().to_vec()).expect("valid"));
        let default = PathBuf::from("/var/lib/cni/networks/net");
        assert_eq!(dirs(r#"{"name":"net","plugins":[{"type":"flannel"}]}"#), [default.as_path()]);
        let own =
            r#"{"name":"net","plugins":[{"type":"x","ipam":{"type":"host-local","dataDir":"/own"}},{"type":"y"}]}"#;
        assert_eq!(dirs(own), [PathBuf::from("/own/net"), default.clone()]);
        let other = r#"{"name":"net","plugins":[{"type":"x","ipam":{"type":"dhcp","dataDir":"/own"}}]}"#;
        assert_eq!(dirs(other), [default]);
    }
}
