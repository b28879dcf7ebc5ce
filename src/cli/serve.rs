//! `cricket serve`: from the configuration to a served socket, and back down at SIGTERM.

use std::sync::Arc;

use super::{logging, VERSION};
use crate::config::Config;
use crate::containerd::Client;
use crate::error::{Context, Result};
use crate::host::{base_spec, Host};
use crate::image::folder::Folder;
use crate::monitor::Monitor;
use crate::runtime::{Parts, Runtime};
use crate::server::{services, Options, Server};
use crate::stdio::{Hub, Limits};
use crate::streaming::Streaming;
use crate::sys::c_core;
use crate::sys::notify::notify;
use crate::sys::signal::{Blocked, SIGINT, SIGTERM};

/// Serves until SIGTERM or SIGINT. Containers are not touched by its end.
pub(super) fn serve(config: &Config) -> Result<()> {
    // Before there is any other thread, which would otherwise die of these signals.
    let stop = Blocked::new(&[SIGTERM, SIGINT]).context("block signals")?;
    logging::start(config.log_level);
    if let Err(e) = c_core::assume_one_processor() {
        log::warn!("restrict the C core's threads: {e}; it may run more of them");
    }
    log::info!("cricket {VERSION}: containerd at {}", config.containerd.address.display());

    let containerd = Arc::new(Client::new(&config.containerd.address.to_string_lossy())?);
    let hub = Hub::start(Limits { line_bytes: config.log_line_bytes })?;
    let base_specs = base_spec::read_all(config)?;
    let parts = Parts { config: config.clone(), host: Host::read()?, containerd, hub, base_specs };
    let runtime = Arc::new(Runtime::new(parts));
    let options = Options { max_calls: config.max_calls };
    let server = Server::start(runtime.clone(), &config.socket, &options, services::cri)?;
    log::info!("serving the CRI on {}", config.socket.display());
    let streaming = Streaming::start(runtime.clone())?;
    // Until containerd answers and everything is recovered, calls are answered `Unavailable`.
    let folder = Folder::start(runtime.clone())?;
    let monitor = Monitor::start(runtime.clone())?;
    tell_systemd("READY=1");

    let signal = stop.wait();
    tell_systemd("STOPPING=1");
    log::info!("signal {signal}: shutting down; containers keep running");
    runtime.events.close();
    server.shutdown(config.shutdown_grace);
    streaming.stop(config.shutdown_grace);
    if let Some(folder) = folder {
        folder.stop();
    }
    monitor.stop();
    Ok(())
}

/// A service manager that cannot be reached is no reason not to serve.
fn tell_systemd(state: &str) {
    if let Err(e) = notify(state) {
        log::warn!("tell systemd {state}: {e}");
    }
}
