//! `cricket selftest`: the product's own proof on this node, over the CRI socket, with nothing but its own binary.
//!
//! It imports an image made of this very executable, runs a pod with one container of it, looks at everything a user
//! would look at, takes it down, and looks for what is left.

mod leftovers;
mod pod;
pub mod probe;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::call::Call;
use crate::config::Config;
use crate::containerd::{Client, Containerd};
use crate::error::{Context, Error, Result};
use crate::image::build::{self, Bytes, NewFile, NewImage};
use crate::image::{import, Images};
use crate::store::image::ImageStore;
use pod::Pod;

/// The image's name; it stays in containerd, so that a second run has nothing to import.
const IMAGE: &str = "localhost/cricket-selftest:1";
/// Where the binary lies in it.
const BINARY: &str = "cricket";

/// What to test.
#[derive(Clone, Debug)]
pub struct Options {
    /// The CRI socket; any runtime's that works on our containerd.
    pub socket: PathBuf,
    /// The pod uses the host's network: for a node without a CNI configuration.
    pub host_network: bool,
}

/// Runs the test; one line a step on `out`. Blocks for some seconds.
///
/// # Errors
/// The first step that failed; what the test made is taken down all the same.
pub fn run(config: &Config, options: &Options, out: &mut dyn std::io::Write) -> Result<()> {
    let mut steps = Steps { out, failed: None, count: 0 };
    let begun = Instant::now();
    let verdict = (|| {
        let containerd = Client::new(&config.containerd.address.to_string_lossy())?;
        let work = WorkDir::make()?;
        steps.step("import an image made of this binary", || import_self(config, &containerd, work.path()))?;
        pod::exercise(&mut steps, Pod::connect(options, &containerd, config, work.path())?)
    })();
    let Steps { out, failed, count } = steps;
    let took = begun.elapsed().as_secs_f64();
    let said = match &failed {
        None => writeln!(out, "selftest: {count} steps passed in {took:.2} s"),
        Some(step) => writeln!(out, "selftest: FAILED at step {count}, {step}"),
    };
    said.context("print")?;
    verdict
}

/// Prints a line a step and remembers the first that failed.
pub struct Steps<'a> {
    out: &'a mut dyn std::io::Write,
    failed: Option<String>,
    count: usize,
}

impl Steps<'_> {
    /// Runs one step; what it returns as text is shown beside it.
    fn step(&mut self, name: &str, work: impl FnOnce() -> Result<String>) -> Result<()> {
        let begun = Instant::now();
        let done = work();
        let took = begun.elapsed().as_secs_f64() * 1000.0;
        self.count += usize::from(self.failed.is_none());
        let line = match &done {
            Ok(detail) => format!("ok    {took:8.1} ms  {name}{}{detail}", if detail.is_empty() { "" } else { ": " }),
            Err(e) => format!("FAIL  {took:8.1} ms  {name}: {e}"),
        };
        writeln!(self.out, "{line}").context("print")?;
        if done.is_err() {
            self.failed.get_or_insert_with(|| name.to_owned());
        }
        done.map(drop)
    }
}

fn import_self(config: &Config, containerd: &dyn Containerd, work: &Path) -> Result<String> {
    let call = Call::within(std::time::Duration::from_secs(60));
    containerd.ensure_namespace(&call)?;
    let binary = std::env::current_exe().context("find my own executable")?;
    let archive = work.join("image.tar");
    let mut file = fs::File::create(&archive).with_context(|| format!("make {}", archive.display()))?;
    let image = NewImage {
        name: IMAGE,
        files: vec![NewFile { path: BINARY, mode: 0o755, bytes: Bytes::File(&binary) }],
        entrypoint: vec!["/cricket", "probe"],
        ..NewImage::default()
    };
    build::write(&image, &mut file)?;
    let store = ImageStore::new();
    let images = Images { containerd, store: &store, snapshotter: &config.containerd.snapshotter };
    let imported = import::import(&images, &call, &archive, work, None)?;
    let id = imported.first().map(|i| i.id.clone()).ok_or_else(|| Error::internal("nothing was imported"))?;
    Ok(id.chars().take(19).collect())
}

/// A directory for the image, the log and nothing else; gone on drop.
struct WorkDir(PathBuf);

impl WorkDir {
    fn make() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("cricket-selftest-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(WorkDir(path))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        if let Err(e) = fs::remove_dir_all(&self.0) {
            log::warn!("remove {}: {e}", self.0.display());
        }
    }
}
