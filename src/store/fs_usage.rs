//! What the snapshots take on disk, as last measured.

use std::collections::HashMap;
use std::time::Instant;

use crate::containerd::Usage;
use crate::sync::Mutex;

/// What was measured. Committed snapshots never change and are measured once; the others when they are asked for and
/// the last measurement is older than half a minute.
#[derive(Debug, Default)]
pub struct FsUsage(pub Mutex<Measured>);

/// One state of it.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// Where they are.
    pub mountpoint: Option<String>,
    /// By key.
    pub usage: HashMap<String, Usage>,
    /// When the changing ones were measured.
    pub active_at: Option<Instant>,
}
