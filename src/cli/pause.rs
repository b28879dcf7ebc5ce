//! `cricket pause`: pid 1 of a pod that shares its pid namespace. It buries orphans, ends when told to, and that is all.

use crate::error::{Context, Result};
use crate::sys::reap::reap_ended;
use crate::sys::signal::{Blocked, SIGCHLD, SIGINT, SIGTERM};

/// Blocks until SIGTERM or SIGINT. The kernel drops signals that pid 1 has no handler for, but not blocked ones.
pub(super) fn pause() -> Result<()> {
    let signals = Blocked::new(&[SIGCHLD, SIGINT, SIGTERM]).context("pause: block signals")?;
    // Some may have ended before they could be noticed.
    reap_ended();
    while signals.wait() == SIGCHLD {
        reap_ended();
    }
    Ok(())
}
