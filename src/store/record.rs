//! Records on disk: a protobuf message in a file that is replaced whole.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use cricket_proto::records::{Container, ContainerResources, ContainerStatus, Sandbox};
use protobuf::Message;

use crate::error::{Context, Error, Idempotent, Kind, Result};

/// Whether a record must survive a power cut, or only our own end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// On disk when the call returns.
    Disk,
    /// In the page cache: survives SIGKILL. For what a reboot undoes anyway.
    Memory,
}

/// A message that says which format it is of.
pub trait Record: Message {
    /// Its number; the first one is 0.
    fn format(&self) -> u32;
}

macro_rules! records {
    ($($name:ident),*) => {
        $(impl Record for $name {
            fn format(&self) -> u32 {
                self.format
            }
        })*
    };
}

records!(Sandbox, Container, ContainerResources, ContainerStatus);

/// The newest format that we know.
const FORMAT: u32 = 0;

/// Replaces the record at `path` in one step: a reader sees the old one or the new one, whole. Only root may read it:
/// annotations of a pod are nobody else's business.
pub fn write(path: &Path, record: &impl Message, durability: Durability) -> Result<()> {
    let bytes = record.write_to_bytes().map_err(|e| Error::caused(Kind::Internal, "encode record", e))?;
    replace(path, &bytes, durability).with_context(|| format!("write record {}", path.display()))
}

fn replace(path: &Path, bytes: &[u8], durability: Durability) -> std::io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    match durability {
        Durability::Memory => fs::rename(&temporary, path),
        Durability::Disk => {
            file.sync_data()?;
            rename(&temporary, path)
        }
    }
}

/// Gives a file another name in its directory, on disk when the call returns. Takes no space where a name takes none.
pub fn rename(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::rename(from, to)?;
    sync_name(to)
}

/// Removes a directory with the records in it, on disk when the call returns: no power cut brings them back. Idempotent.
pub fn remove_dir(dir: &Path) -> Result<()> {
    fs::remove_dir_all(dir).or_gone()?;
    sync_name(dir).or_gone()
}

/// What is called so, or that nothing is, lies in the directory above.
fn sync_name(path: &Path) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), sync_dir)
}

/// What is in a directory, and what is not any more, is so on disk when the call returns.
pub fn sync_dir(dir: &Path) -> std::io::Result<()> {
    File::open(dir)?.sync_all()
}

/// The record at `path`; `None` if there is none.
///
/// # Errors
/// `Internal` for one that does not parse, `Unimplemented` for one of a newer cricket.
pub fn read<M: Record>(path: &Path) -> Result<Option<M>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::from(e).context(format_args!("read record {}", path.display()))),
    };
    parse(&bytes).map(Some).with_context(|| format!("record {}", path.display()))
}

/// The record that these bytes are.
///
/// # Errors
/// As [`read`].
pub fn parse<M: Record>(bytes: &[u8]) -> Result<M> {
    let record = M::parse_from_bytes(bytes).map_err(|e| Error::caused(Kind::Internal, "it is damaged", e))?;
    if record.format() > FORMAT {
        let message =
            format!("it is of format {}, from a newer cricket: install that again, or drain the node", record.format());
        return Err(Error::new(Kind::Unimplemented, message));
    }
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_is_written_is_read_and_damage_is_told() {
        let dir = std::env::temp_dir().join(format!("cricket-record-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("status");
        assert!(read::<ContainerStatus>(&path).unwrap().is_none());
        let status = ContainerStatus { exit_code: 7, reason: "Error".into(), ..Default::default() };
        for durability in [Durability::Disk, Durability::Memory] {
            write(&path, &status, durability).unwrap();
            assert_eq!(read::<ContainerStatus>(&path).unwrap(), Some(status.clone()));
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        fs::write(&path, [0xff, 0xff, 0xff]).unwrap();
        assert_eq!(read::<ContainerStatus>(&path).map_err(|e| e.kind()), Err(Kind::Internal));
        let newer = ContainerStatus { format: FORMAT + 1, ..status };
        write(&path, &newer, Durability::Memory).unwrap();
        let e = read::<ContainerStatus>(&path).unwrap_err();
        assert_eq!(e.kind(), Kind::Unimplemented);
        assert!(e.to_string().contains("newer cricket: install that"), "{e}");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "no temporary is left");
        fs::remove_dir_all(&dir).unwrap();
    }
}
