//! `delete`: what a shim that is gone has left of a container is taken away. containerd runs this after every container,
//! so mostly there is nothing left.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::arguments::Arguments;
use super::bootstrap::{is_socket_name, LOCK};
use super::container::{unmount_root, Exit};
use super::runc::Runc;
use super::wire::Message;
use crate::error::{Context, Result};
use crate::sys::lock_file::LockFile;
use crate::sys::process;
use crate::sys::socket::{self, Listener};

/// How long the runtime may take to remove a container.
const PATIENCE: Duration = Duration::from_secs(60);
/// What is read of its output.
const OUTPUT: usize = 16 << 10;

/// Takes it away and returns the answer for standard output. Idempotent.
pub fn delete(arguments: &Arguments) -> Result<Vec<u8>> {
    let here = || std::env::current_dir().context("find the bundle");
    let bundle = arguments.bundle.clone().map_or_else(here, Ok)?;
    let runc = Runc::noted(&bundle, &arguments.namespace);
    let pid = fs::read_to_string(bundle.join("init.pid")).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    if runc.state(&arguments.id).exists() {
        let log = bundle.join("runtime-delete.log");
        let mut command = runc.command(&log, "delete")?;
        command.args(["--force", &arguments.id]);
        let ended = process::run(&mut command, &[], Some(Instant::now() + PATIENCE), OUTPUT)?;
        // Its own clean-up goes on with the rest, so a failure is told at the end.
        if !ended.status.success() && runc.state(&arguments.id).exists() {
            let code = ended.status.code().unwrap_or(128);
            log::warn!("{}", runc.failure("delete", u32::try_from(code).unwrap_or(0), &log));
        }
    }
    unmount_root(&bundle);
    remove_stale_sockets(&bundle).unwrap_or_else(|e| log::warn!("{e}"));
    Ok(Exit::now(137).deleted(pid).done())
}

/// The sockets of shims that were killed: that of this container, and any whose containerd never came to call us.
fn remove_stale_sockets(bundle: &Path) -> Result<()> {
    let Ok(address) = fs::read_to_string(bundle.join("address")) else { return Ok(()) };
    let path = PathBuf::from(address.trim().trim_start_matches("unix://"));
    let Some(dir) = path.parent() else { return Ok(()) };
    // Nobody is between binding and listening now.
    let _lock = LockFile::take(&dir.join(LOCK)).context("lock the sockets")?;
    // Those that live are not to be woken for this. One that is missing here may live in another network namespace.
    let bound = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    for path in fs::read_dir(dir).context("read the sockets")?.flatten().map(|entry| entry.path()) {
        let ours = path.file_name().is_some_and(|name| is_socket_name(&name.to_string_lossy()));
        let known = || bound.lines().any(|line| line.ends_with(&*path.to_string_lossy()));
        if ours && !known() && matches!(socket::probe(&path), Ok(Listener::Stale)) {
            fs::remove_file(&path).unwrap_or_else(|e| log::warn!("remove {}: {e}", path.display()));
        }
    }
    Ok(())
}

/// What `-info` answers: a name and a version.
pub fn info() -> Vec<u8> {
    let version = Message::new().bytes(1, super::RELEASE);
    Message::new().bytes(1, super::NAME).message(2, version).done()
}
