//! A container's standard streams: read by its shim if that is ours, else FIFOs between its shim and our hub.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::error::{Context, Idempotent, Kind, Result};
use crate::runtime::Runtime;
use crate::shipped;
use crate::stdio::{self, Attach, Sink, Streams};
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
        make_dir(dir)?;
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

fn make_dir(dir: &Path) -> Result<()> {
    let made = fs::DirBuilder::new().mode(0o700).recursive(true).create(dir);
    made.with_context(|| format!("make {}", dir.display()))
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

/// The streams of a task as containerd takes them; "" for none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wires {
    pub stdin: String,
    pub stdout: String,
    pub stderr: String,
}

/// Makes ready what a container that is about to start is read by: its shim if that is ours, else our hub.
pub fn attach(rt: &Runtime, container: &Container, runtime_type: &str) -> Result<Wires> {
    let (dir, config) = (io_dir(rt, container), &container.config);
    if shipped::is_ours(runtime_type) {
        make_dir(&dir)?;
        let here = hosted(&dir, container.log_path.as_deref(), rt.config.log_line_bytes);
        let one = |wanted: bool| if wanted { here.clone() } else { String::new() };
        return Ok(Wires { stdin: one(config.stdin), stderr: one(!config.tty), stdout: here });
    }
    let fifos = Fifos::make(&dir, config.stdin, config.tty)?;
    rt.hub.open(container.id.as_str(), fifos.of_container(dir, log_sink(container)))?;
    let [stdin, stdout, stderr] = [&fifos.stdin, &fifos.stdout, &fifos.stderr].map(|path| wire(path.as_ref()));
    Ok(Wires { stdin, stdout, stderr })
}

/// What asks our shim to write the log and to serve the socket in `dir` itself.
fn hosted(dir: &Path, log: Option<&Path>, line_bytes: usize) -> String {
    let log = log.map(|path| format!("&log={}", encoded(path))).unwrap_or_default();
    format!("cricket://{}?v=1&line={line_bytes}{log}", encoded(dir))
}

/// Percent-encoded, but for what a path mostly is made of.
fn encoded(path: &Path) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-".contains(byte);
    let one = |byte: &u8| if plain(byte) { char::from(*byte).to_string() } else { format!("%{byte:02X}") };
    path.as_os_str().as_bytes().iter().map(one).collect()
}

/// Opens a container's log anew.
pub fn reopen_log(rt: &Runtime, container: &Container) -> Result<()> {
    match rt.hub.reopen_log(container.id.as_str()) {
        // Its shim writes it.
        Err(e) if e.kind() == Kind::NotFound => stdio::reopen_log(&io_dir(rt, container)),
        done => done,
    }
}

/// Lets the hub read the FIFOs of a container that runs already, unless its shim does without.
pub fn reattach(rt: &Runtime, container: &Container, runtime_type: &str) -> Result<()> {
    let dir = io_dir(rt, container);
    if shipped::is_ours(runtime_type) {
        return Ok(());
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_our_shim_is_asked_for_says_everything() {
        let asked = hosted(Path::new("/run/c/io"), Some(Path::new("/var/log/a b&c/0.log")), 16384);
        assert_eq!(asked, "cricket:///run/c/io?v=1&line=16384&log=/var/log/a%20b%26c/0.log");
        assert_eq!(hosted(Path::new("/i%o"), None, 256), "cricket:///i%25o?v=1&line=256");
    }
}
