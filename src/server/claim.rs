//! Our right to a socket path: taken by one process at a time, and given up without harm to the next.
//!
//! ```text
//! take      lock <socket>.lock; refuse if somebody answers at <socket>
//! bind      at <socket>.new/s, in a folder that only root may enter
//! publish   chmod 0660, rename onto <socket>: there is no moment without an answer or with a wrong mode
//! withdraw  remove <socket> if it is still the one we put there
//! ```
//!
//! The C core removes whatever is at the path it binds, when it binds and again when it closes. Binding elsewhere and
//! renaming leaves it nothing to remove.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock::soon;
use crate::error::{Context, Error, Idempotent, Result};
use crate::sys::lock_file::LockFile;
use crate::sys::socket::{probe, Listener};

/// A daemon that is killed while it starts a program leaves a child that has all its files until it becomes that program:
/// our lock, and the socket that listens. How long it may take for that.
const CHILD: Duration = Duration::from_secs(1);

/// The claim to one socket path; the lock behind it ends when this is dropped.
pub(super) struct Claim {
    socket: PathBuf,
    binding: PathBuf,
    /// Device and inode of the socket we published.
    ours: Option<(u64, u64)>,
    _lock: LockFile,
}

impl Claim {
    /// Claims `socket` and makes its folder.
    ///
    /// # Errors
    /// `FailedPrecondition` if another process has it.
    pub(super) fn take(socket: &Path) -> Result<Claim> {
        let shown = socket.display();
        let folder = socket.parent().ok_or_else(|| Error::invalid(format!("socket {shown}: needs a folder")))?;
        make_folder(folder, 0o711).with_context(|| format!("make {}", folder.display()))?;
        let taken = |who| Error::precondition(format!("socket {shown}: {who}; stop it or choose another socket"));
        let file = beside(socket, ".lock");
        let lock = soon(CHILD, || LockFile::try_take(&file)).with_context(|| format!("lock socket {shown}"))?;
        let lock = lock.ok_or_else(|| taken("another cricket serves it"))?;
        let free = soon(CHILD, || Ok((!matches!(probe(socket)?, Listener::Live)).then_some(())));
        let foreign = |e| Error::precondition(format!("socket {shown}: what is there is no socket of ours: {e}"));
        free.map_err(foreign)?.ok_or_else(|| taken("another process answers there"))?;
        let private = beside(socket, ".new");
        // Left behind if a start was cut short.
        fs::remove_dir_all(&private).or_gone().with_context(|| format!("remove {}", private.display()))?;
        make_folder(&private, 0o700).with_context(|| format!("make {}", private.display()))?;
        Ok(Claim { socket: socket.to_owned(), binding: private.join("s"), ours: None, _lock: lock })
    }

    /// Where to bind.
    pub(super) fn binding(&self) -> &Path {
        &self.binding
    }

    /// Puts the bound socket in its place, replacing a stale one. From here on clients can connect.
    pub(super) fn publish(&mut self) -> Result<()> {
        self.rename().with_context(|| format!("publish socket {}", self.socket.display()))
    }

    fn rename(&mut self) -> io::Result<()> {
        fs::set_permissions(&self.binding, Permissions::from_mode(0o660))?;
        self.ours = identity(&self.binding);
        fs::rename(&self.binding, &self.socket)?;
        fs::remove_dir(beside(&self.socket, ".new"))
    }

    /// Removes the socket, unless somebody has put another one there. Those who are connected stay so.
    pub(super) fn withdraw(&self) {
        if self.ours.is_some() && self.ours == identity(&self.socket) {
            if let Err(e) = fs::remove_file(&self.socket).or_gone() {
                log::warn!("remove socket {}: {e}", self.socket.display());
            }
        }
    }
}

/// A folder with exactly this mode if it is new; one that exists stays as it is.
fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(mode).create(path)?;
    // The umask may have taken something away.
    fs::set_permissions(path, Permissions::from_mode(mode))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn what_a_killed_daemon_was_just_starting_holds_nothing_for_long() {
        let dir = std::env::temp_dir().join(format!("cricket-claim-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let socket = dir.join("s.sock");
        let lock = LockFile::try_take(&beside(&socket, ".lock")).unwrap().unwrap();
        let listener = UnixListener::bind(&socket).unwrap();
        std::thread::scope(|scope| {
            let claiming = scope.spawn(|| Claim::take(&socket).map(drop));
            // Sooner or later than the first look: it is well both times.
            std::thread::sleep(Duration::from_millis(20));
            drop(lock);
            std::thread::sleep(Duration::from_millis(20));
            drop(listener);
            claiming.join().unwrap().unwrap();
        });
        let _held = Claim::take(&socket).unwrap();
        let refused = Claim::take(&socket).map(drop).unwrap_err();
        assert!(refused.message().contains("another cricket serves it"), "{refused}");
        fs::remove_dir_all(&dir).unwrap();
    }
}
