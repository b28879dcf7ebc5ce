//! `cricket export`: images into a file, without a running daemon.

use std::fs::OpenOptions;
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::logging;
use crate::call::Call;
use crate::config::Config;
use crate::containerd::Client;
use crate::error::{Context, Result};
use crate::image::{export, load, Images};
use crate::store::image::ImageStore;

/// Writes images to a new file, or to stdout for `-`. A file that could not be written to its end is removed.
pub(super) fn export(config: &Config, file: &Path, images: &[String]) -> Result<()> {
    logging::start(config.log_level);
    let containerd = Client::new(&config.containerd.address.to_string_lossy())?;
    let (store, call) = (ImageStore::new(), Call::unbounded());
    let at = Images { containerd: &containerd, store: &store, snapshotter: &config.containerd.snapshotter };
    load::refresh_all(&at, &call)?;
    let write = |out: &mut dyn Write| {
        let mut out = BufWriter::new(out);
        export::export(&at, &call, images, &mut out)?;
        out.flush().context("write")
    };
    if file == Path::new("-") {
        return write(&mut std::io::stdout());
    }
    let made = OpenOptions::new().write(true).create_new(true).mode(0o644).open(file);
    let mut made = made.with_context(|| format!("create {}", file.display()))?;
    write(&mut made).inspect_err(|_| {
        if let Err(e) = std::fs::remove_file(file) {
            log::warn!("remove {}: {e}", file.display());
        }
    })
}
