//! The process that unpacks: layers on stdin, one after the other, what became of them on stdout, in JSON.

use std::ffi::OsString;
use std::io::{self, BufReader, Read, Write};
use std::path::PathBuf;

use flate2::bufread::MultiGzDecoder;

use super::process::{Compression, Stored, Unpacked};
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

/// Unpacks the layers on stdin, as `arguments` say: the directory, what will be below it, how each layer is stored, the
/// lowest first. Blocks until all have come.
///
/// # Errors
/// `InvalidArgument` for wrong arguments and for layers that containerd must unpack; what the kernel says. Short ones.
pub fn run(arguments: impl Iterator<Item = OsString>) -> Result<()> {
    work(arguments).map_err(|e| Error::new(e.kind(), e.to_string().chars().take(MAX_SAID).collect::<String>()))
}

fn work(arguments: impl Iterator<Item = OsString>) -> Result<()> {
    let arguments: Vec<OsString> = arguments.collect();
    let [directory, onto, layers @ ..] = arguments.as_slice() else {
        return Err(Error::invalid("not to be called by hand: it unpacks layers for the daemon"));
    };
    let onto = if onto == Onto::Nothing.name() { Onto::Nothing } else { Onto::Layers };
    let layers = layers.iter().map(|layer| layer.to_string_lossy().parse()).collect::<Result<Vec<Stored>>>()?;
    confine::enter(&PathBuf::from(directory), MEMORY_BYTES).context("give up what unpacking does not take")?;
    let unpacked = unpack(io::stdin().lock(), onto, &layers)?;
    let told = serde_json::to_string(&unpacked).map_err(|e| Error::internal(format!("encode the result: {e}")))?;
    io::stdout().write_all(told.as_bytes()).context("write the result")
}

/// Unpacks onto the root directory.
fn unpack(input: impl Read, onto: Onto, layers: &[Stored]) -> Result<Unpacked> {
    let mut input = BufReader::with_capacity(READ_BYTES, input);
    let mut tree = Tree::new(onto);
    let mut diff_ids = Vec::new();
    for layer in layers {
        if !diff_ids.is_empty() {
            tree.next_layer()?;
        }
        let stored = (&mut input).take(layer.size_bytes);
        diff_ids.push(match layer.compression {
            Compression::None => entries(stored, &mut tree),
            Compression::Gzip => entries(MultiGzDecoder::new(stored), &mut tree),
        }?);
    }
    let left = tree.finish()?;
    let text = |path: PathBuf| {
        let text = path.into_os_string().into_string();
        text.map_err(|path| Error::invalid(format!("directory {path:?} is no text")))
    };
    let texts = |paths: Vec<PathBuf>| paths.into_iter().map(text).collect::<Result<Vec<String>>>();
    let (implied, opaque, hiding) = (texts(left.implied)?, texts(left.opaque)?, texts(left.hiding)?);
    Ok(Unpacked { diff_ids, implied, opaque, hiding })
}

/// The entries of one layer; returns its diff id.
fn entries(plain: impl Read, tree: &mut Tree) -> Result<String> {
    let mut plain = Hashing::new(plain);
    {
        let mut stream = Stream::new(BufReader::with_capacity(PLAIN_BYTES, &mut plain));
        while let Some(entry) = stream.entry()? {
            tree.add(&entry, &mut stream)?;
        }
        // Part of what the diff id is of.
        stream.drain()?;
    }
    Ok(plain.digest())
}
