//! The daemon's end of a process that unpacks.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::tree::Onto;
use crate::call::{Call, Watch};
use crate::error::{Error, Kind, Result};
use crate::sys::piped::Piped;
use crate::sys::process::tail;

/// The subcommand of this very binary that [`run`](super::run)s.
pub const COMMAND: &str = "unpack";
/// This binary, also when another one has taken its place.
pub const SELF: &str = "/proc/self/exe";
/// What it says is held in memory.
const MAX_REPORT_BYTES: usize = 8 << 20;
/// How long it may take for what it is given at once, and for the end.
const PATIENCE: Duration = Duration::from_secs(300);

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
    call: Call,
    _watch: Watch,
}

impl Unpacker {
    /// Starts one that fills `directory`, by `program`, which is a cricket. Nobody waits for it any more when `call` is
    /// over.
    ///
    /// # Errors
    /// Whatever says that there is no process.
    pub fn start(program: &Path, call: &Call, directory: &Path, onto: Onto, compression: Compression) -> Result<Self> {
        let mut command = Command::new(program);
        command.arg(COMMAND).arg(directory).args([onto.name(), compression.name()]).env_clear().stdin(Stdio::piped());
        let mut process = Piped::start(&mut command, MAX_REPORT_BYTES)?;
        let stop = process.stop()?;
        let watch = call.on_cancel(move || stop.signal());
        Ok(Unpacker { process, call: call.clone(), _watch: watch })
    }

    /// Gives it more of the layer. Blocks while it is busy. Of one that has ended [`Unpacker::finish`] knows why.
    ///
    /// # Errors
    /// `DeadlineExceeded` if it takes minutes; `Canceled` if the call is over; what the kernel says. It should be dropped
    /// then.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let until = self.until();
        self.process.write(bytes, until).map_err(|e| or_over(&self.call, e))
    }

    /// That was all of the layer. Does not block.
    pub fn end(&mut self) {
        self.process.end_input();
    }

    /// Waits until all is unpacked. Blocks.
    ///
    /// # Errors
    /// What it said before it ended, or those of [`Unpacker::write`].
    pub fn finish(self) -> Result<Unpacked> {
        let until = self.until();
        let output = self.process.finish(until).map_err(|e| or_over(&self.call, e))?;
        if !output.status.success() {
            return Err(Error::new(Kind::Unknown, format!("{}: {}", output.status, tail(&output.stderr))));
        }
        serde_json::from_slice(&output.stdout).map_err(|e| Error::internal(format!("what became of the layer: {e}")))
    }

    /// Until when it must have done what it is asked now.
    fn until(&self) -> Option<Instant> {
        self.call.at_most(PATIENCE).deadline()
    }
}

/// An error, unless it is that nobody waits any more.
fn or_over(call: &Call, e: Error) -> Error {
    call.check().err().map_or(e, |over| Error::new(Kind::Canceled, over.to_string()))
}
