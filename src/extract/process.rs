//! The daemon's end of a process that unpacks.

use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::tree::Onto;
use crate::call::{Call, Watch};
use crate::error::{Context, Error, Kind, Result};
use crate::sync::Mutex;
use crate::sys::process::tail;

/// The subcommand of this very binary that [`run`](super::run)s.
pub const COMMAND: &str = "unpack";
/// This binary, also when another one has taken its place.
pub const SELF: &str = "/proc/self/exe";
/// What it says is held in memory.
const MAX_REPORT_BYTES: u64 = 1 << 20;

/// How a layer is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// As the tar that it is.
    None,
    /// With gzip.
    Gzip,
}

impl Compression {
    const ALL: [(Compression, &'static str); 2] = [(Compression::None, "none"), (Compression::Gzip, "gzip")];

    fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
        }
    }

    pub(super) fn of_name(name: &str) -> Result<Self> {
        let known = Compression::ALL.into_iter().find(|(_, known)| *known == name);
        known.map(|(compression, _)| compression).ok_or_else(|| Error::invalid(format!("compression {name}")))
    }
}

impl Onto {
    pub(super) fn name(self) -> &'static str {
        match self {
            Onto::Nothing => "nothing",
            Onto::Layers => "layers",
        }
    }
}

/// What became of a layer.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unpacked {
    /// The digest of the tar.
    pub diff_id: String,
    /// Directories that the layer has something in and does not speak of, parents first: those of lower layers say what
    /// they are like.
    pub implied: Vec<String>,
}

/// A process that unpacks a layer. Dropping it ends it.
pub struct Unpacker {
    child: Arc<Mutex<Child>>,
    layer: Option<ChildStdin>,
    _watch: Watch,
}

impl Unpacker {
    /// Starts one that fills `directory`, by `program`, which is a cricket. It is killed when `call` is cancelled.
    ///
    /// # Errors
    /// Whatever says that there is no process.
    pub fn start(program: &Path, call: &Call, directory: &Path, onto: Onto, compression: Compression) -> Result<Self> {
        let mut command = Command::new(program);
        command.arg(COMMAND).arg(directory).args([onto.name(), compression.name()]);
        command.env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("start a process that unpacks")?;
        let layer = child.stdin.take();
        let child = Arc::new(Mutex::new(child));
        let watched = Arc::downgrade(&child);
        let watch = call.on_cancel(move || {
            if let Some(child) = watched.upgrade() {
                // One that has ended needs no signal.
                child.lock().kill().ok();
            }
        });
        Ok(Unpacker { child, layer, _watch: watch })
    }

    /// Gives it more of the layer. Blocks while it is busy. Of one that has ended [`Unpacker::finish`] knows why.
    pub fn write(&mut self, bytes: &[u8]) {
        if self.layer.as_mut().is_some_and(|layer| layer.write_all(bytes).is_err()) {
            self.layer = None;
        }
    }

    /// That was all of the layer: waits until it is unpacked. Blocks.
    ///
    /// # Errors
    /// What it said before it ended.
    pub fn finish(mut self) -> Result<Unpacked> {
        drop(self.layer.take());
        let (told, said) = {
            let mut child = self.child.lock();
            (child.stdout.take(), child.stderr.take())
        };
        // One after the other: what it says on stderr fits into a pipe.
        let told = read(told).context("read what became of the layer")?;
        let said = read(said).context("read what it says")?;
        // Both ends are closed, so that it is about to end if it has not.
        let status = self.child.lock().wait().context("wait for the process that unpacks")?;
        if !status.success() {
            return Err(Error::new(Kind::Unknown, format!("{status}: {}", tail(&said))));
        }
        serde_json::from_slice(&told).map_err(|e| Error::internal(format!("what became of the layer: {e}")))
    }
}

impl Drop for Unpacker {
    fn drop(&mut self) {
        let mut child = self.child.lock();
        // One that has ended needs no signal, and one that was waited for has said how.
        child.kill().and_then(|()| child.wait()).ok();
    }
}

fn read(pipe: Option<impl Read>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    pipe.map(|pipe| pipe.take(MAX_REPORT_BYTES).read_to_end(&mut bytes)).transpose()?;
    Ok(bytes)
}
