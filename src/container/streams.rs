//! A container's standard streams: FIFOs between its shim and our hub.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::error::{Context, Idempotent, Result};
use crate::runtime::Runtime;
use crate::stdio::{Attach, Sink, Streams};
use crate::store::Container;
use crate::sys::fifo;

/// Paths of the FIFOs that exist.
#[derive(Clone, Debug, Default)]
pub struct Fifos {
    /// Only for a container that takes input.
    pub stdin: Option<PathBuf>,
    /// Always.
    pub stdout: Option<PathBuf>,
    /// Not with a terminal.
    pub stderr: Option<PathBuf>,
}

impl Fifos {
    /// `<dir>/{stdin,stdout,stderr}`, as far as there are such streams.
    fn of(dir: &Path, stdin: bool, tty: bool) -> Fifos {
        let one = |name: &str, wanted: bool| wanted.then(|| dir.join(name));
        Fifos { stdin: one("stdin", stdin), stdout: one("stdout", true), stderr: one("stderr", !tty) }
    }

    /// Makes them, the directory too, in place of old ones.
    pub fn make(dir: &Path, stdin: bool, tty: bool) -> Result<Fifos> {
        let made = fs::DirBuilder::new().mode(0o700).recursive(true).create(dir);
        made.with_context(|| format!("make {}", dir.display()))?;
        let fifos = Fifos::of(dir, stdin, tty);
        for path in [&fifos.stdin, &fifos.stdout, &fifos.stderr].into_iter().flatten() {
            fresh(path).with_context(|| format!("make FIFO {}", path.display()))?;
        }
        Ok(fifos)
    }

    /// What the hub reads.
    pub fn outputs(&self, sink: Sink) -> Streams {
        Streams { stdout: self.stdout.clone(), stderr: self.stderr.clone(), sink, attach: None }
    }

    /// The same, for a container, with a socket in `dir` for those who attach to it.
    fn of_container(&self, dir: PathBuf, sink: Sink) -> Streams {
        Streams { attach: Some(Attach { dir, stdin: self.stdin.clone() }), ..self.outputs(sink) }
    }
}

/// A new FIFO in place of what a killed daemon left.
fn fresh(path: &Path) -> Result<()> {
    fs::remove_file(path).or_gone()?;
    fifo::make(path)
}

/// A path as containerd takes it; "" for none.
pub fn wire(path: Option<&PathBuf>) -> String {
    path.map(|p| p.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Makes the FIFOs of a container that is about to start and lets the hub read them into its log.
pub fn attach(rt: &Runtime, container: &Container) -> Result<Fifos> {
    let dir = io_dir(rt, container);
    let fifos = Fifos::make(&dir, container.config.stdin, container.config.tty)?;
    rt.hub.open(container.id.as_str(), fifos.of_container(dir, log_sink(container)))?;
    Ok(fifos)
}

/// Lets the hub read the FIFOs of a container that runs already.
pub fn reattach(rt: &Runtime, container: &Container) -> Result<()> {
    let dir = io_dir(rt, container);
    let fifos = Fifos::of(&dir, container.config.stdin, container.config.tty);
    rt.hub.open(container.id.as_str(), fifos.of_container(dir, log_sink(container)))
}

/// The directory of a container's FIFOs and socket.
pub fn io_dir(rt: &Runtime, container: &Container) -> PathBuf {
    rt.layout.container_state(&container.id).join("io")
}

fn log_sink(container: &Container) -> Sink {
    Sink::Log { path: container.log_path.clone() }
}
