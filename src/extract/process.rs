//! The daemon's end of a process that unpacks.

use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{ChildStderr, ChildStdin, ChildStdout, Command};

use serde::{Deserialize, Serialize};

use super::tree::Onto;
use crate::call::{Call, Watch};
use crate::error::{Context, Error, Kind, Result};
use crate::sys::process::{tail, Piped};

/// The subcommand of this very binary that [`run`](super::run)s.
pub const COMMAND: &str = "unpack";
/// This binary, also when another one has taken its place.
pub const SELF: &str = "/proc/self/exe";
/// What it says is held in memory.
const MAX_REPORT_BYTES: u64 = 8 << 20;

/// How a layer is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// As the tar that it is.
    None,
    /// With gzip.
    Gzip,
}

impl Compression {
    const ALL: [Compression; 2] = [Compression::None, Compression::Gzip];

    fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
        }
    }

    pub(super) fn of_name(name: &str) -> Result<Self> {
        let known = Compression::ALL.into_iter().find(|known| known.name() == name);
        known.ok_or_else(|| Error::invalid(format!("compression {name}")))
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
    /// Directories that hide what lower layers have in them.
    pub opaque: Vec<String>,
}

/// A process that unpacks a layer. Dropping it ends it.
pub struct Unpacker {
    process: Piped,
    layer: Option<ChildStdin>,
    told: Option<ChildStdout>,
    said: Option<ChildStderr>,
    _watch: Watch,
}

impl Unpacker {
    /// Starts one that fills `directory`, by `program`, which is a cricket. It is killed when `call` is cancelled.
    ///
    /// # Errors
    /// Whatever says that there is no process.
    pub fn start(program: &Path, call: &Call, directory: &Path, onto: Onto, compression: Compression) -> Result<Self> {
        let mut command = Command::new(program);
        command.arg(COMMAND).arg(directory).args([onto.name(), compression.name()]).env_clear();
        let mut process = Piped::start(&mut command)?;
        let (layer, told, said) = process.pipes();
        let killer = process.killer();
        let watch = call.on_cancel(move || killer.kill());
        Ok(Unpacker { process, layer, told, said, _watch: watch })
    }

    /// Gives it more of the layer. Blocks while it is busy. Of one that has ended [`Unpacker::finish`] knows why.
    pub fn write(&mut self, bytes: &[u8]) {
        if self.layer.as_mut().is_some_and(|layer| layer.write_all(bytes).is_err()) {
            self.layer = None;
        }
    }

    /// That was all of the layer. Does not block.
    pub fn end(&mut self) {
        self.layer = None;
    }

    /// Waits until all is unpacked. Blocks.
    ///
    /// # Errors
    /// What it said before it ended.
    pub fn finish(mut self) -> Result<Unpacked> {
        self.end();
        // One after the other: what it says on stderr fits into a pipe.
        let told = read(self.told.take()).context("read what became of the layer")?;
        let said = read(self.said.take()).context("read what it says")?;
        let status = self.process.wait()?;
        if !status.success() {
            return Err(Error::new(Kind::Unknown, format!("{status}: {}", tail(&said))));
        }
        serde_json::from_slice(&told).map_err(|e| Error::internal(format!("what became of the layer: {e}")))
    }
}

fn read(pipe: Option<impl Read>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    pipe.map(|pipe| pipe.take(MAX_REPORT_BYTES).read_to_end(&mut bytes)).transpose()?;
    Ok(bytes)
}
