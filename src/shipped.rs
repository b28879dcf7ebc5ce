//! The shim that this binary carries inside: put in place, never overwritten there, and whether containerd can run it.
//!
//! A user copies one file. It cannot be the shim itself: gRPC's C core alone would cost every pod more memory than the
//! whole shim does.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use flate2::read::GzDecoder;
use sha2::{Digest, Sha256};

use crate::call::Call;
use crate::config::{Handler, Shim, RUNC};
use crate::error::{Context, Error, Idempotent, Result};
use crate::flights::Flights;
use crate::shim::NAME;
use crate::sys::{process, socket};

/// Built by the build script, in the form that is small, and packed.
static PACKED: &[u8] = include_bytes!(env!("CRICKET_SHIM_PACKED"));
/// How long it may take to say its version.
const PATIENCE: Duration = Duration::from_secs(10);

fn unpacked() -> io::Result<Vec<u8>> {
    let mut shim = Vec::new();
    GzDecoder::new(PACKED).read_to_end(&mut shim)?;
    Ok(shim)
}

/// Whether a container's runtime is a shim of ours, of whatever version.
pub fn is_ours(runtime_type: &str) -> bool {
    Path::new(runtime_type).file_name().is_some_and(|name| name == NAME)
}

/// Where the shim is put, and what is known of it.
pub struct Shipped {
    dir: PathBuf,
    containerd: PathBuf,
    placed: OnceLock<PathBuf>,
    /// The first pods of a node often start together.
    placing: Flights<(), (), ()>,
    noted: AtomicBool,
}

impl Shipped {
    /// Nothing is touched yet. Each version gets a directory of its own below `dir`; `containerd` is its socket.
    pub fn new(dir: PathBuf, containerd: PathBuf) -> Shipped {
        Shipped { dir, containerd, placed: OnceLock::new(), placing: Flights::default(), noted: AtomicBool::new(false) }
    }

    /// containerd's name for the shim of a handler's containers: the path of ours, or the handler's type. Puts ours in
    /// place when it is first wanted.
    ///
    /// # Errors
    /// `FailedPrecondition` if ours is demanded and containerd cannot run it.
    pub fn runtime_type(&self, handler: &Handler) -> Result<String> {
        if handler.runtime_type != RUNC || handler.shim == Shim::RuncV2 {
            return Ok(handler.runtime_type.clone());
        }
        let e = match self.placed() {
            Ok(path) => return Ok(path.to_string_lossy().into_owned()),
            Err(e) => e,
        };
        if handler.shim == Shim::Cricket {
            return Err(Error::precondition(format!("containerd cannot run cricket's shim: {e}")));
        }
        if !self.noted.swap(true, Ordering::AcqRel) {
            log::warn!("containerd's own shim is used, which costs some megabytes a pod: {e} (said once)");
        }
        Ok(RUNC.to_owned())
    }

    fn placed(&self) -> Result<&Path> {
        if let Some(path) = self.placed.get() {
            return Ok(path);
        }
        let path = self.version_dir().join(NAME);
        self.placing.join(&Call::unbounded(), &(), (), |_, ()| {
            self.place(&path)?;
            self.must_run(&path)
        })?;
        Ok(self.placed.get_or_init(|| path))
    }

    fn version_dir(&self) -> PathBuf {
        let digest = Sha256::digest(PACKED);
        let name: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        self.dir.join(name)
    }

    fn place(&self, path: &Path) -> Result<()> {
        let dir = self.version_dir();
        let doing = || format!("put the shim at {}", path.display());
        let shim = unpacked().with_context(doing)?;
        if fs::read(path).is_ok_and(|bytes| bytes == shim) {
            return Ok(());
        }
        DirBuilder::new().recursive(true).mode(0o755).create(&dir).with_context(doing)?;
        let new = dir.join(format!("new-{}", std::process::id()));
        let written = File::create(&new).and_then(|mut file| {
            file.write_all(&shim)?;
            file.set_permissions(fs::Permissions::from_mode(0o755))?;
            file.sync_all()?;
            fs::rename(&new, path)
        });
        written.inspect_err(|_| drop(fs::remove_file(&new))).with_context(doing)?;
        log::info!("the shim is {}", path.display());
        Ok(())
    }

    /// Whether containerd sees the same file, and whether it runs here.
    fn must_run(&self, path: &Path) -> Result<()> {
        let pid = socket::peer_pid(&self.containerd).context("ask who containerd is")?;
        let theirs = format!("/proc/{pid}/root{}", path.display());
        let ours = fs::metadata(path).with_context(|| format!("look at {}", path.display()))?;
        let same = fs::metadata(&theirs).is_ok_and(|theirs| (theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino()));
        if !same {
            return Err(Error::precondition(format!("containerd does not see {}", path.display())));
        }
        let ran = process::run(Command::new(path).arg("-v"), &[], Some(Instant::now() + PATIENCE), 1024)?;
        match ran.status.success() {
            true => Ok(()),
            false => Err(io::Error::other(format!("{} does not run: {}", path.display(), ran.status)).into()),
        }
    }

    /// Removes versions that no container was made with: containerd runs the one of a container until its end.
    pub fn sweep<'a>(&self, in_use: impl Iterator<Item = &'a str>) -> Result<()> {
        let mut kept: HashSet<PathBuf> =
            in_use.filter_map(|path| Path::new(path).parent().map(Path::to_owned)).collect();
        kept.insert(self.version_dir());
        let entries = match fs::read_dir(&self.dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            read => read.with_context(|| format!("read {}", self.dir.display()))?,
        };
        for dir in entries.flatten().map(|entry| entry.path()).filter(|dir| !kept.contains(dir)) {
            fs::remove_dir_all(&dir).or_gone().with_context(|| format!("remove {}", dir.display()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use std::os::unix::net::UnixListener;
    use std::sync::Barrier;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("cricket-shipped-{}-{name}", std::process::id()));
        fs::remove_dir_all(&dir).ok();
        fs::create_dir(&dir).expect("fresh");
        dir
    }

    fn handler(shim: Shim, runtime_type: &str) -> Handler {
        let config = crate::config::Config::default();
        Handler { shim, runtime_type: runtime_type.into(), ..config.runtimes["runc"].clone() }
    }

    #[test]
    fn it_is_put_in_place_once_and_mended_there() {
        let dir = scratch("place");
        // We are containerd.
        let socket = dir.join("sock");
        let _listener = UnixListener::bind(&socket).expect("free");
        let shipped = || Shipped::new(dir.join("shim"), socket.clone());
        let path = shipped().runtime_type(&handler(Shim::Cricket, RUNC)).expect("runs");
        assert!(is_ours(&path) && !is_ours(RUNC) && fs::read(&path).expect("there") == unpacked().expect("whole"));
        let inode = fs::metadata(&path).expect("there").ino();
        assert_eq!(shipped().runtime_type(&handler(Shim::Auto, RUNC)).expect("runs"), path);
        assert_eq!(fs::metadata(&path).expect("there").ino(), inode, "not written again");
        fs::write(&path, "torn").expect("ours");
        shipped().runtime_type(&handler(Shim::Auto, RUNC)).expect("runs");
        assert!(fs::read(&path).expect("there") == unpacked().expect("whole"));
        assert_eq!(shipped().runtime_type(&handler(Shim::RuncV2, RUNC)).expect("theirs"), RUNC);
        assert_eq!(shipped().runtime_type(&handler(Shim::Auto, "io.x.y.v1")).expect("theirs"), "io.x.y.v1");
        fs::remove_dir_all(&dir).expect("ours");
    }

    #[test]
    fn all_who_want_it_first_and_at_once_get_it() {
        let dir = scratch("race");
        let socket = dir.join("sock");
        let _listener = UnixListener::bind(&socket).expect("free");
        for round in 0..5 {
            let (shipped, start) = (Shipped::new(dir.join(round.to_string()), socket.clone()), Barrier::new(8));
            std::thread::scope(|scope| {
                let first = || {
                    start.wait();
                    shipped.runtime_type(&handler(Shim::Cricket, RUNC))
                };
                for thread in [(); 8].map(|()| scope.spawn(first)) {
                    assert!(is_ours(&thread.join().expect("no panic").expect("runs")));
                }
            });
        }
        fs::remove_dir_all(&dir).expect("ours");
    }

    #[test]
    fn without_containerd_it_is_theirs_or_an_error() {
        let dir = scratch("absent");
        let shipped = Shipped::new(dir.join("shim"), dir.join("sock"));
        assert_eq!(shipped.runtime_type(&handler(Shim::Auto, RUNC)).expect("theirs"), RUNC);
        let e = shipped.runtime_type(&handler(Shim::Cricket, RUNC)).expect_err("demanded");
        assert_eq!(e.kind(), Kind::FailedPrecondition);
        fs::remove_dir_all(&dir).expect("ours");
    }

    #[test]
    fn versions_that_are_in_use_stay() {
        let dir = scratch("sweep");
        let shipped = Shipped::new(dir.join("shim"), dir.join("sock"));
        shipped.sweep([].into_iter()).expect("nothing there");
        let own = shipped.version_dir().join(NAME);
        shipped.place(&own).expect("placed");
        for version in ["old", "older"] {
            fs::create_dir(dir.join("shim").join(version)).expect("fresh");
        }
        let used = dir.join("shim/old").join(NAME);
        shipped.sweep([used.to_str().expect("ascii"), RUNC].into_iter()).expect("swept");
        assert!(own.exists() && dir.join("shim/old").exists() && !dir.join("shim/older").exists());
        fs::remove_dir_all(&dir).expect("ours");
    }
}
