//! `cricket pause`: pid 1 of a pod that shares its pid namespace. It buries orphans, ends when told to, and that is all.

use crate::error::{Context, Result};
use crate::sys::reap::reap_ended;
use crate::sys::signal::{Blocked, SIGCHLD, SIGINT, SIGTERM};

/// Blocks until SIGTERM or SIGINT. The kernel drops signals that pid 1 has no handler for, but not blocked ones: from
/// inside a pod, where any container of root's may send them, they are of no account.
pub(super) fn pause() -> Result<()> {
    let signals = Blocked::new(&[SIGCHLD, SIGINT, SIGTERM]).context("pause: block signals")?;
    // Some may have ended before they could be noticed.
    reap_ended();
    let first = std::process::id() == 1;
    loop {
        match signals.wait_from() {
            (SIGCHLD, _) => reap_ended(),
            (_, sender) if first && sender != 0 => {}
            _ => return Ok(()),
        }
    }
}
