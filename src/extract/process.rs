//! The daemon's end of a process that unpacks.

use std::fmt::{self, Display, Formatter};
use std::path::Path;
use std::process::{Command, Stdio};
use std::str::FromStr;
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

    fn of_name(name: &str) -> Result<Self> {
        let known = Compression::ALL.into_iter().find(|known| known.name() == name);
        known.ok_or_else(|| Error::invalid(format!("compression {name}")))
    }
}

/// A layer as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// How.
    pub compression: Compression,
    /// In how many bytes.
    pub size_bytes: u64,
}

impl Display for Stored {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.compression.name(), self.size_bytes)
    }
}

impl FromStr for Stored {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let odd = || Error::invalid(format!("layer {text}"));
        let (compression, size_bytes) = text.split_once(':').ok_or_else(odd)?;
        let size_bytes = size_bytes.parse().map_err(|_| odd())?;
        Ok(Stored { compression: Compression::of_name(compression)?, size_bytes })
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

/// What became of layers in one directory.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unpacked {
    /// The digest of each one's tar, the lowest first.
    pub diff_ids: Vec<String>,
    /// Directories that they have something in and do not speak of, parents first: those of lower layers say what they are
    /// like.
    pub implied: Vec<String>,
    /// Directories that hide what lower layers have in them.
    pub opaque: Vec<String>,
    /// Of several layers: directories that lower layers must have, because something is taken away in them. An overlay
    /// lists that where it has nothing to merge.
    pub hiding: Vec<String>,
}

/// A process that unpacks. Dropping it ends it.
pub struct Unpacker {
    process: Piped,
    call: Call,
    _watch: Watch,
}

impl Unpacker {
    /// Starts one that fills `directory` with `layers`, the lowest first, by `program`, which is a cricket. Nobody waits for
    /// it any more when `call` is over.
    ///
    /// # Errors
    /// Whatever says that there is no process.
    pub fn start(program: &Path, call: &Call, directory: &Path, onto: Onto, layers: &[Stored]) -> Result<Self> {
        let mut command = Command::new(program);
        command.arg(COMMAND).arg(directory).arg(onto.name()).args(layers.iter().map(Stored::to_string));
        command.env_clear().stdin(Stdio::piped());
        let mut process = Piped::start(&mut command, MAX_REPORT_BYTES)?;
        let stop = process.stop()?;
        let watch = call.on_cancel(move || stop.signal());
        Ok(Unpacker { process, call: call.clone(), _watch: watch })
    }

    /// Gives it more of the layers, one after the other. Blocks while it is busy. Of one that has ended [`Unpacker::finish`] knows why.
    ///
    /// # Errors
    /// `DeadlineExceeded` if it takes minutes; `Canceled` if the call is over; what the kernel says. It should be dropped
    /// then.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let until = self.until();
        self.process.write(bytes, until).map_err(|e| or_over(&self.call, e))
    }

    /// Whether nothing is read any more of what it is given: [`Unpacker::finish`] knows why.
    pub fn is_over(&self) -> bool {
        !self.process.takes_input()
    }

    /// That was all. Does not block.
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
        serde_json::from_slice(&output.stdout).map_err(|e| Error::internal(format!("what became of it: {e}")))
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
