//! `cricket serve`: from the configuration to a served socket, and back down at SIGTERM.

use std::sync::Arc;

use super::{logging, VERSION};
use crate::config::Config;
use crate::error::{Context, Result};
use crate::server::{services, Options, Server, State};
use crate::sys::notify::notify;
use crate::sys::signal::{Blocked, SIGINT, SIGTERM};

/// Serves until SIGTERM or SIGINT. Containers are not touched by its end.
pub(super) fn serve(config: &Config) -> Result<()> {
    // Before there is any other thread, which would otherwise die of these signals.
    let stop = Blocked::new(&[SIGTERM, SIGINT]).context("block signals")?;
    logging::start(config.log_level);
    log::info!("cricket {VERSION}: containerd at {}", config.containerd.address.display());

    // >>> The runtime is built here and takes the place of `Nothing`.
    let runtime = Arc::new(Nothing);

    let options = Options { max_calls: config.max_calls };
    let server = Server::start(runtime, &config.socket, &options, services::cri)?;
    log::info!("serving the CRI on {}", config.socket.display());
    tell_systemd("READY=1");

    let signal = stop.wait();
    tell_systemd("STOPPING=1");
    log::info!("signal {signal}: shutting down; containers keep running");
    server.shutdown(config.shutdown_grace);
    Ok(())
}

/// A service manager that cannot be reached is no reason not to serve.
fn tell_systemd(state: &str) {
    if let Err(e) = notify(state) {
        log::warn!("tell systemd {state}: {e}");
    }
}

/// Stands in for the runtime.
struct Nothing;

impl State for Nothing {
    fn not_ready(&self) -> Option<String> {
        None
    }
}
