//! `cricket pull` and `cricket images`: images from a registry, and what there is, without a running daemon.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use super::logging;
use super::progress::{size, Progress};
use crate::call::Call;
use crate::config::Config;
use crate::containerd::{Client, Containerd};
use crate::error::{Context, Result};
use crate::extract;
use crate::image::pull::Puller;
use crate::image::{load, Images};
use crate::reference::Reference;
use crate::registry::{Credentials, Options};
use crate::store::image::ImageStore;
use crate::store::pulls::Pulls;

/// Pulls an image and prints its id and name. `auth_file` is a Docker configuration file with credentials. A running
/// daemon hears of it by containerd's events.
pub(super) fn pull(config: &Config, image: &str, auth_file: Option<&Path>) -> Result<()> {
    logging::start(config.log_level);
    let reference = Reference::parse(image)?;
    let credentials = match auth_file {
        None => Credentials::default(),
        Some(file) => {
            let read = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
            Credentials::from_docker_file(&read, reference.domain()).with_context(|| file.display().to_string())?
        }
    };
    let containerd: Arc<dyn Containerd> = Arc::new(Client::new(&config.containerd.address.to_string_lossy())?);
    let call = Call::unbounded();
    containerd.ensure_namespace(&call)?;
    let progress = Arc::new(Progress::new());
    let image = &config.image;
    let puller = Puller {
        containerd,
        store: &ImageStore::new(),
        snapshotter: &config.containerd.snapshotter,
        pulls: &Arc::new(Pulls::new(image.max_downloads)),
        options: &Options { dirs: image.registry_dirs.clone(), progress_timeout: image.progress_timeout },
        unpacker: Some(extract::SELF.into()),
        discard_unpacked_layers: image.discard_unpacked_layers,
        sole: false,
        report: Arc::new(move |step| progress.note(step)),
    };
    let id = puller.pull(&call, &reference, &credentials)?;
    writeln!(std::io::stdout(), "{id} {reference}").context("print")
}

/// Prints every image that the daemon would list: id, size, names.
pub(super) fn images(config: &Config) -> Result<()> {
    logging::start(config.log_level);
    let containerd = Client::new(&config.containerd.address.to_string_lossy())?;
    let store = ImageStore::with_pins(&config.image.pinned);
    let at = Images { containerd: &containerd, store: &store, snapshotter: &config.containerd.snapshotter };
    load::refresh_all(&at, &Call::unbounded())?;
    let mut all = store.list();
    all.sort_by(|a, b| (&a.repo_tags, &a.id).cmp(&(&b.repo_tags, &b.id)));
    let mut out = std::io::stdout();
    for image in all {
        let names = if image.repo_tags.is_empty() { &image.repo_digests } else { &image.repo_tags };
        let pinned = if image.pinned { " (pinned)" } else { "" };
        let id = image.id.get(7..19).unwrap_or(&image.id);
        writeln!(out, "{id} {:>9} {}{pinned}", size(image.size_bytes), names.join(" ")).context("print")?;
    }
    Ok(())
}
