//! The record of an attachment on disk, in libcni's format and place: what a DEL needs when everything else changed.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::attachment::Attachment;
use super::base64;
use super::conf::Network;
use crate::error::{Context, Error, Idempotent, Kind, Result};

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
    fn read(path: &Path, container_id: &str, interface: &str) -> Result<Record> {
        let mut bytes = Vec::new();
        File::open(path)?.take(MAX_BYTES).read_to_end(&mut bytes)?;
        let bad = |what: String| Error::new(Kind::Unknown, what);
        let record: Record = serde_json::from_slice(&bytes).map_err(|e| bad(e.to_string()))?;
        if record.kind != KIND {
            return Err(bad(format!("kind is {:?}, not {KIND}", record.kind)));
        }
        if record.container_id != container_id || record.if_name != interface {
            return Err(bad(format!("it is of container {:?}, interface {:?}", record.container_id, record.if_name)));
        }
        Ok(record)
    }
}

/// The records of one attachment: one, unless the directory's network changed its name between two ADDs.
pub(super) fn find(dir: &Path, container_id: &str, interface: &str) -> Result<Vec<Found>> {
    let results = results(dir);
    let entries = match fs::read_dir(&results) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).context(results.display()),
    };
    let suffix = format!("-{container_id}-{interface}");
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.context(results.display())?;
        if entry.file_name().to_str().is_some_and(|name| name.ends_with(&suffix)) {
            let path = entry.path();
            let record = Record::read(&path, container_id, interface)
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
