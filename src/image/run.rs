//! Short layers in a row: one snapshot for all of them.
//!
//! A snapshot costs containerd five transactions, and every overlay above it a directory: for a short layer, many times what is
//! in it. Whoever has only the lower layers of a run unpacks those again, which is soon done.
//!
//! Where a run ends follows from the layers up to there, so that images which begin alike share what they are made of.

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::fs_info::{files_of, lower_of};
use super::resolve::Layer;
use super::stage::{check, stored, LEAST_BYTES, SNAPSHOTTER};
use super::unpack::on_snapshot;
use super::Images;
use crate::call::Call;
use crate::containerd::Mount;
use crate::error::{Context, Error, Result};
use crate::extract::{adopt, must_be_empty, Onto, Stored, Unpacker};

/// How long all layers of a run may be together: what may have to be unpacked again.
const MOST_BYTES: u64 = 2 << 20;
/// How many there may be: each is an argument of the process that unpacks them.
const MOST_LAYERS: usize = 64;

/// The runs among the layers of an image.
pub(super) struct Runs {
    /// None where nothing shares a snapshot.
    program: Option<PathBuf>,
    /// By layer: the one after the last one of its run.
    ends: Vec<usize>,
}

impl Runs {
    /// Those that `program`, which is a cricket, unpacks for this snapshotter; none where that cannot be done.
    pub(super) fn new(snapshotter: &str, program: Option<&Path>, layers: &[Layer]) -> Self {
        let able = program.filter(|_| snapshotter == SNAPSHOTTER);
        let short = |layer: &Layer| able.and_then(|_| stored(layer)).filter(|stored| stored.size_bytes < LEAST_BYTES);
        let mut ends = Vec::with_capacity(layers.len());
        while ends.len() < layers.len() {
            let (begin, mut bytes) = (ends.len(), 0);
            let in_run = layers.iter().skip(begin).take(MOST_LAYERS).map_while(short).take_while(|stored| {
                bytes += stored.size_bytes;
                bytes <= MOST_BYTES
            });
            let end = begin + in_run.count().max(1);
            ends.resize(end, end);
        }
        Runs { program: able.map(Path::to_owned), ends }
    }

    /// What goes into one snapshot, from this layer on.
    pub(super) fn from(&self, layer: usize) -> Range<usize> {
        layer..self.ends.get(layer).copied().unwrap_or(layer + 1)
    }

    /// Whether a layer shares a snapshot.
    pub(super) fn shares(&self, layer: usize) -> bool {
        let end_of = |layer: usize| self.ends.get(layer);
        let with = |other: Option<usize>| other.is_some_and(|other| end_of(other) == end_of(layer));
        with(layer.checked_sub(1)) || with(layer.checked_add(1).filter(|next| *next < self.ends.len()))
    }

    /// Makes snapshot `name` of `layers` on `parent`. `bytes` waits for the one of this number, and has all of it.
    ///
    /// # Errors
    /// Whatever went wrong: containerd can unpack them one by one.
    pub(super) fn extract(
        &self,
        at: &Images<'_>,
        call: &Call,
        layers: &[Layer],
        (parent, name): (&str, &str),
        bytes: &dyn Fn(usize) -> Result<Vec<u8>>,
    ) -> Result<()> {
        let onto = if parent.is_empty() { Onto::Nothing } else { Onto::Layers };
        on_snapshot(at, call, parent, name, |mounts| self.fill(call, mounts, layers, onto, bytes))
    }

    fn fill(
        &self,
        call: &Call,
        mounts: &[Mount],
        layers: &[Layer],
        onto: Onto,
        bytes: &dyn Fn(usize) -> Result<Vec<u8>>,
    ) -> Result<()> {
        let program = self.program.as_ref().ok_or_else(|| Error::internal("a run without who unpacks it"))?;
        let upper = files_of(mounts).filter(|directory| directory.is_dir());
        let upper = upper.ok_or_else(|| Error::precondition("its directory is not to be seen"))?;
        // containerd may see something else there than we do.
        must_be_empty(&upper)?;
        let all: Vec<Stored> = layers.iter().filter_map(stored).collect();
        let mut unpacker = Unpacker::start(program, call, &upper, onto, &all)?;
        for (number, layer) in layers.iter().enumerate() {
            let bytes = bytes(number)?;
            if bytes.len() as u64 != layer.descriptor.size_bytes {
                return Err(Error::invalid("it is not as long as it should be")).context(&layer.descriptor.digest);
            }
            unpacker.write(&bytes)?;
            if unpacker.is_over() {
                break;
            }
        }
        let unpacked = unpacker.finish()?;
        check(layers, &unpacked)?;
        adopt(&upper, &upper, &lower_of(mounts), &unpacked)
    }
}

#[cfg(test)]
mod tests {
    use super::super::document::OCI_LAYER;
    use super::*;
    use crate::containerd::Descriptor;

    fn ends(sizes: &[u64], snapshotter: &str, program: Option<&Path>) -> Vec<usize> {
        let layer = |size_bytes: &u64| Layer {
            // What containerd alone can uncompress has no size here.
            descriptor: Descriptor {
                media_type: if *size_bytes == 0 { "zstd".into() } else { OCI_LAYER.into() },
                size_bytes: *size_bytes,
                ..Descriptor::default()
            },
            diff_id: String::new(),
        };
        let layers: Vec<Layer> = sizes.iter().map(layer).collect();
        Runs::new(snapshotter, program, &layers).ends
    }

    fn ours(sizes: &[u64]) -> Vec<usize> {
        ends(sizes, SNAPSHOTTER, Some(Path::new("cricket")))
    }

    #[test]
    fn short_layers_in_a_row_are_one() {
        assert_eq!(ours(&[]), [0; 0]);
        assert_eq!(ours(&[1]), [1]);
        assert_eq!(ours(&[1, 2, 3]), [3, 3, 3]);
        assert_eq!(ours(&[LEAST_BYTES, 1, 2, 0, 3, LEAST_BYTES, 4, 5]), [1, 3, 3, 4, 5, 6, 8, 8]);
        assert_eq!(ends(&[1, 2], "native", Some(Path::new("cricket"))), [1, 2]);
        assert_eq!(ends(&[1, 2], SNAPSHOTTER, None), [1, 2]);
    }

    #[test]
    fn a_run_has_an_end_and_what_begins_alike_is_cut_alike() {
        let long = LEAST_BYTES - 1;
        let most = usize::try_from(MOST_BYTES / long).expect("a few");
        let all = ours(&vec![long; 2 * most + 1]);
        assert_eq!(all[..=most], [vec![most; most], vec![2 * most]].concat());
        assert_eq!(all.last(), Some(&(2 * most + 1)));
        assert_eq!(ours(&vec![long; 2 * most])[..], all[..2 * most]);
        assert_eq!(ours(&[1; MOST_LAYERS + 2])[MOST_LAYERS - 1..], [MOST_LAYERS, MOST_LAYERS + 2, MOST_LAYERS + 2]);
    }

    #[test]
    fn who_shares_a_snapshot() {
        let runs = Runs { program: None, ends: ours(&[1, 2, LEAST_BYTES, 3]) };
        assert_eq!([0, 1, 2, 3, 4].map(|n| runs.shares(n)), [true, true, false, false, false]);
        assert_eq!((runs.from(0), runs.from(1), runs.from(2)), (0..2, 1..2, 2..3));
    }
}
