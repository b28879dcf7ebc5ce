//! The record of an attachment on disk, in libcni's format and place: what a DEL needs when everything else changed.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::attachment::Attachment;
use super::conf::Network;
use crate::base64;
use crate::error::{Context, Error, Idempotent, Kind, Result};
use crate::sys::tree;

const KIND: &str = "cniCacheV1";
/// A configuration, a result and the pod's annotations; each is bounded already.
const MAX_BYTES: u64 = 8 << 20;

/// An attachment as ADD is told to make it, and once it is made, its result.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    kind: String,
    pub container_id: String,
    /// The configuration list, so that DEL undoes what ADD did whatever the directory says by then.
    #[serde(with = "base64")]
    pub config: Vec<u8>,
    pub if_name: String,
    network_name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    netns: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cni_args: Vec<[String; 2]>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub capability_args: Map<String, Value>,
    /// Of the last plugin whose ADD succeeded; none while the ADD runs, and if it was broken off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// The ADD has not succeeded. Ours alone: libcni does not look at it, and has no record of such an attachment.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub incomplete: bool,
}

/// A record found on disk, or why the file is none.
pub(super) struct Found {
    pub path: PathBuf,
    pub record: Result<Record>,
}

impl Record {
    pub fn new(network: &Network, at: &Attachment<'_>) -> Self {
        Record {
            kind: KIND.into(),
            container_id: at.container_id.into(),
            config: network.config().into(),
            if_name: at.interface.into(),
            network_name: network.name().into(),
            netns: at.netns.map(Path::to_path_buf),
            cni_args: at.args.iter().map(|&(key, value)| [key.into(), value.into()]).collect(),
            capability_args: at.capabilities.to_json(),
            result: None,
            incomplete: true,
        }
    }

    /// Writes the record under `dir`, in place of an older one of the same attachment. Whole or not at all: a reader
    /// after a crash, even of the machine, finds the old one or the new one.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let name = self.file_name();
        let bytes = serde_json::to_vec(self).map_err(|e| Error::internal(format!("write a CNI record: {e}")))?;
        let results = results(dir);
        DirBuilder::new().recursive(true).mode(0o700).create(&results).context(results.display())?;
        // Not beside its target: every file there counts as a record for libcni.
        let new = dir.join(format!(".{name}.new"));
        let written =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new).and_then(|mut file| {
                file.write_all(&bytes)?;
                file.sync_all()?;
                fs::rename(&new, results.join(&name))
            });
        if written.is_err() {
            // The first error is the one to report; this file has no meaning to anybody.
            fs::remove_file(&new).ok();
        }
        written.with_context(|| format!("write the CNI record {}", results.join(name).display()))
    }

    fn file_name(&self) -> String {
        format!("{}-{}-{}", self.network_name, self.container_id, self.if_name)
    }

    /// Reads a record that must be of this container and interface.
    fn read_of(path: &Path, container_id: &str, interface: &str) -> Result<Record> {
        let record = Record::read(path)?;
        if record.container_id != container_id || record.if_name != interface {
            let message = format!("it is of container {:?}, interface {:?}", record.container_id, record.if_name);
            return Err(Error::new(Kind::Unknown, message));
        }
        Ok(record)
    }

    fn read(path: &Path) -> Result<Record> {
        let mut bytes = Vec::new();
        File::open(path)?.take(MAX_BYTES).read_to_end(&mut bytes)?;
        let bad = |what: String| Error::new(Kind::Unknown, what);
        let record: Record = serde_json::from_slice(&bytes).map_err(|e| bad(e.to_string()))?;
        if record.kind != KIND {
            return Err(bad(format!("kind is {:?}, not {KIND}", record.kind)));
        }
        Ok(record)
    }
}

/// Every attachment on record whose namespace is known: its container, and the namespace.
pub(super) fn all(dir: &Path) -> Result<Vec<(String, PathBuf)>> {
    let records = entries(&results(dir))?.into_iter().filter_map(|path| Record::read(&path).ok());
    Ok(records.filter_map(|record| Some((record.container_id, record.netns?))).collect())
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    tree::entries(dir).context(dir.display())
}

/// The records of one attachment: one, unless the directory's network changed its name between two ADDs.
pub(super) fn find(dir: &Path, container_id: &str, interface: &str) -> Result<Vec<Found>> {
    let suffix = format!("-{container_id}-{interface}");
    let mut found = Vec::new();
    for path in entries(&results(dir))? {
        if path.to_str().is_some_and(|path| path.ends_with(&suffix)) {
            let record = Record::read_of(&path, container_id, interface)
                .with_context(|| format!("read the CNI record {}", path.display()));
            found.push(Found { path, record });
        }
    }
    Ok(found)
}

/// Forgets a record. Idempotent.
pub(super) fn remove(path: &Path) -> Result<()> {
    fs::remove_file(path).or_gone().with_context(|| format!("remove the CNI record {}", path.display()))
}

fn results(dir: &Path) -> PathBuf {
    dir.join("results")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cni::scripted::{attachment, Dir};
    use serde_json::json;
    use std::os::unix::fs::PermissionsExt;

    fn network() -> Network {
        Network::from_list(br#"{"name":"net","plugins":[{"type":"bridge"}]}"#.to_vec()).expect("valid")
    }

    #[test]
    fn the_file_is_where_and_what_libcni_expects() {
        let dir = Dir::new();
        let cache = dir.path().join("deep/cache");
        let mut record = Record::new(&network(), &attachment("c1", Path::new("/run/netns/x")));
        record.capability_args.insert("cgroupPath".into(), "/pod".into());
        record.write(&cache).expect("write");
        assert!(find(&cache, "c1", "eth0").expect("find")[0].record.as_ref().expect("valid").incomplete);
        record.result = Some(json!({"cniVersion": "1.0.0"}));
        record.incomplete = false;
        record.write(&cache).expect("write again");
        let file = cache.join("results/net-c1-eth0");
        let written: Value = serde_json::from_slice(&fs::read(&file).expect("read")).expect("JSON");
        assert_eq!(
            written,
            json!({
                "kind": "cniCacheV1",
                "containerId": "c1",
                "config": "eyJuYW1lIjoibmV0IiwicGx1Z2lucyI6W3sidHlwZSI6ImJyaWRnZSJ9XX0=",
                "ifName": "eth0",
                "networkName": "net",
                "netns": "/run/netns/x",
                "cniArgs": [["IgnoreUnknown", "1"], ["K8S_POD_NAME", "web"]],
                "capabilityArgs": {"cgroupPath": "/pod"},
                "result": {"cniVersion": "1.0.0"},
            })
        );
        let mode = |path: &Path| fs::metadata(path).expect("stat").permissions().mode() & 0o777;
        assert_eq!((mode(&cache), mode(&file)), (0o700, 0o600));
        let left: Vec<_> = fs::read_dir(&cache).expect("read").map(|e| e.expect("entry").file_name()).collect();
        assert_eq!(left, ["results"], "no temporary file is left");
    }

    #[test]
    fn a_record_of_libcni_is_read() {
        let dir = Dir::new();
        fs::create_dir(dir.path().join("results")).expect("mkdir");
        // As Go writes it: without what is empty; older libcni has no netns, a newer one may have more.
        let text =
            r#"{"kind":"cniCacheV1","containerId":"c1","config":"e30=","ifName":"eth0","networkName":"a-b","more":1}"#;
        fs::write(dir.path().join("results/a-b-c1-eth0"), text).expect("write");
        let mut found = find(dir.path(), "c1", "eth0").expect("find");
        let record = found.pop().expect("one").record.expect("valid");
        assert_eq!((&record.config[..], &record.result, record.cni_args.len()), (&b"{}"[..], &None, 0));
        assert!(!record.incomplete);
        assert!(find(dir.path(), "1", "eth0").expect("find").is_empty());
        assert!(find(dir.path(), "c1", "eth1").expect("find").is_empty());
    }

    #[test]
    fn a_file_that_is_no_record_is_found_with_its_fault() {
        let bodies = [
            ("", "EOF"),
            ("{}", "missing field"),
            (r#"{"kind":"v2","containerId":"c1","config":"","ifName":"eth0","networkName":"net"}"#, "kind is"),
            (r#"{"kind":"cniCacheV1","containerId":"c2","config":"","ifName":"eth0","networkName":"net"}"#, "c2"),
            (r#"{"kind":"cniCacheV1","containerId":"c1","config":"?","ifName":"eth0","networkName":"net"}"#, "base64"),
        ];
        for (body, fault) in bodies {
            let dir = Dir::new();
            fs::create_dir(dir.path().join("results")).expect("mkdir");
            let path = dir.path().join("results/net-c1-eth0");
            fs::write(&path, body).expect("write");
            let found = find(dir.path(), "c1", "eth0").expect("find");
            let e = found[0].record.as_ref().expect_err(body);
            assert_eq!(e.kind(), Kind::Unknown);
            assert!(e.to_string().contains(fault), "{body}: {e}");
            remove(&found[0].path).expect("remove");
            remove(&path).expect("idempotent");
            assert!(find(dir.path(), "c1", "eth0").expect("find").is_empty());
        }
    }

    #[test]
    fn what_cannot_be_written_fails_and_leaves_nothing() {
        let dir = Dir::new();
        let at = attachment("c1", Path::new("/x"));
        let long = Network::from_list(
            json!({"name": "n".repeat(300), "plugins": [{"type": "bridge"}]}).to_string().into_bytes(),
        );
        let e = Record::new(&long.expect("valid"), &at).write(dir.path()).expect_err("the name is too long");
        assert_eq!(e.kind(), Kind::Unknown);
        let blocked = dir.path().join("results/net-c1-eth0");
        fs::create_dir_all(&blocked).expect("mkdir");
        assert!(Record::new(&network(), &at).write(dir.path()).is_err());
        assert_eq!(fs::read_dir(dir.path()).expect("read").count(), 1, "only results");
    }
}
