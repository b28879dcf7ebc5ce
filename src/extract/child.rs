//! The process that unpacks: a layer on stdin, what became of it on stdout, in JSON.

use std::ffi::OsString;
use std::io::{self, BufReader, Read, Write};
use std::path::PathBuf;

use flate2::bufread::MultiGzDecoder;

use super::process::{Compression, Unpacked};
use super::stream::Stream;
use super::tree::{Onto, Tree};
use crate::digest::Hashing;
use crate::error::{Context, Error, Result};
use crate::sys::confine;

/// What is read at once of a layer, and of what it was before it was compressed.
const READ_BYTES: usize = 64 << 10;
const PLAIN_BYTES: usize = 128 << 10;
/// All that it may map, program and stack included: many times what it needs for any layer.
const MEMORY_BYTES: u64 = 256 << 20;

/// What is said of a failure: names in a layer may be long.
const MAX_SAID: usize = 1000;

/// Unpacks the layer on stdin, as `arguments` say: the directory, what will be below it, how the layer is compressed.
/// Blocks until stdin ends.
///
/// # Errors
/// `InvalidArgument` for wrong arguments and for layers that containerd must unpack; what the kernel says. Short ones.
pub fn run(arguments: impl Iterator<Item = OsString>) -> Result<()> {
    work(arguments).map_err(|e| Error::new(e.kind(), e.to_string().chars().take(MAX_SAID).collect::<String>()))
}

fn work(arguments: impl Iterator<Item = OsString>) -> Result<()> {
    let arguments: Vec<OsString> = arguments.collect();
    let [directory, onto, compression] = arguments.as_slice() else {
        return Err(Error::invalid("not to be called by hand: it unpacks a layer for the daemon"));
    };
    let onto = if onto == Onto::Nothing.name() { Onto::Nothing } else { Onto::Layers };
    let compression = Compression::of_name(&compression.to_string_lossy())?;
    confine::enter(&PathBuf::from(directory), MEMORY_BYTES).context("give up what unpacking does not take")?;
    let unpacked = unpack(io::stdin().lock(), onto, compression)?;
    let told = serde_json::to_string(&unpacked).map_err(|e| Error::internal(format!("encode the result: {e}")))?;
    io::stdout().write_all(told.as_bytes()).context("write the result")
}

/// Unpacks onto the root directory.
fn unpack(layer: impl Read, onto: Onto, compression: Compression) -> Result<Unpacked> {
    let stored = BufReader::with_capacity(READ_BYTES, layer);
    match compression {
        Compression::None => entries(stored, onto),
        Compression::Gzip => entries(MultiGzDecoder::new(stored), onto),
    }
}

fn entries(plain: impl Read, onto: Onto) -> Result<Unpacked> {
    let mut plain = Hashing::new(plain);
    let (implied, opaque) = {
        let (mut stream, mut tree) = (Stream::new(BufReader::with_capacity(PLAIN_BYTES, &mut plain)), Tree::new(onto));
        while let Some(entry) = stream.entry()? {
            tree.add(&entry, &mut stream)?;
        }
        // Part of what the diff id is of.
        stream.drain()?;
        tree.finish()?
    };
    let text = |path: PathBuf| {
        let text = path.into_os_string().into_string();
        text.map_err(|path| Error::invalid(format!("directory {path:?} is no text")))
    };
    let texts = |paths: Vec<PathBuf>| paths.into_iter().map(text).collect::<Result<Vec<String>>>();
    Ok(Unpacked { diff_id: plain.digest(), implied: texts(implied)?, opaque: texts(opaque)? })
}
