//! What the snapshots take on disk, as last measured.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Instant;

use crate::containerd::Usage;
use crate::flights::Flights;
use crate::sync::Mutex;

/// What was measured. Committed snapshots never change and are measured once; the others when they are asked for and
/// the last measurement is older than half a minute.
#[derive(Default)]
pub struct FsUsage {
    /// The last measurement.
    pub last: Mutex<Measured>,
    /// One that is under way.
    pub next: Flights<(), (), ()>,
}

/// One state of it.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// Where they are.
    pub mountpoint: Option<String>,
    /// By key.
    pub usage: HashMap<String, Usage>,
    /// Where the files of a writable one are, by key; `None` where only containerd can tell what it takes.
    pub writable: HashMap<String, Option<PathBuf>>,
    /// When the changing ones were measured.
    pub active_at: Option<Instant>,
    /// Of which state of our containers and images it is.
    pub version: u64,
}
