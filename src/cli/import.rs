//! `cricket import`: images from a file, without a registry and without a running daemon.

use std::fs::DirBuilder;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use super::logging;
use super::progress::Progress;
use crate::call::Call;
use crate::config::Config;
use crate::containerd::{Client, Containerd};
use crate::error::{Context, Result};
use crate::image::{import, Images};
use crate::store::image::ImageStore;

/// Imports an archive, a folder that is an OCI layout, or what comes on stdin for `-`, into containerd and prints a line an
/// image; how it is getting on is on stderr. A running daemon hears of it by containerd's events.
pub(super) fn import(config: &Config, file: &Path, name: Option<&str>) -> Result<()> {
    logging::start(config.log_level);
    let containerd = Client::new(&config.containerd.address.to_string_lossy())?;
    let call = Call::unbounded();
    containerd.ensure_namespace(&call)?;
    let made = DirBuilder::new().mode(0o711).recursive(true).create(&config.root);
    made.with_context(|| format!("make {}", config.root.display()))?;
    let file = if file == Path::new("-") { Path::new("/dev/stdin") } else { file };
    let store = ImageStore::new();
    let images = Images { containerd: &containerd, store: &store, snapshotter: &config.containerd.snapshotter };
    let progress = Progress::new();
    let imported = import::import_telling(&images, &call, file, &config.root, name, &|step| progress.note(step));
    let mut out = std::io::stdout();
    for image in imported.with_context(|| format!("import {}", file.display()))? {
        let names = match image.references.is_empty() {
            true => "without a name; give it one with --name".to_owned(),
            false => image.references.join(" "),
        };
        writeln!(out, "{} {names}", image.id).context("print")?;
    }
    Ok(())
}
