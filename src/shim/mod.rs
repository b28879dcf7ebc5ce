//! Our own containerd shim: one process a pod that makes its containers with an OCI runtime, and waits for them.
//!
//! A process of its own, with one thread and one loop ([`server`]); containerd runs it as `start` and `delete`
//! ([`bootstrap`], [`cleanup`]) and calls its task service over ttrpc ([`frame`], [`tasks`]). Uses nothing above `stdio`.

mod arguments;
mod bootstrap;
mod cgroup;
mod cleanup;
mod container;
mod exits;
pub mod frame;
mod jobs;
pub mod json;
mod launch;
mod life;
mod memory;
pub mod messages;
mod output;
mod publisher;
mod pump;
mod runc;
mod server;
mod stats;
mod streams;
mod tasks;
pub mod wire;

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use arguments::{Arguments, Verb};
use server::Server;

use crate::error::{Context, Error, Result};
use crate::sys::{reap, thread};

/// What the program is called, as `ps` shows it too.
pub const NAME: &str = "containerd-shim-cricket-v1";
/// Of the protocol between `start`, the shim and the daemon.
const VERSION: u64 = 1;
/// Our own service beside containerd's, and its method that announces a container.
const SHIM: &str = "cricket.shim.v1.Shim";
const JOIN: &str = "Join";
/// What the binary was built from.
const RELEASE: &str = env!("CARGO_PKG_VERSION");
/// How long the runtime may take to clear away what it failed to make.
const UNDO: Duration = Duration::from_secs(60);

/// The program: arguments in, exit code out. What goes wrong is said on standard error, where containerd reads it.
pub fn main(words: impl Iterator<Item = String>) -> ExitCode {
    reap::close_inherited();
    match Arguments::read(words).and_then(|arguments| run(&arguments)) {
        Ok(answer) => match io::stdout().write_all(&answer) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(e) => {
            say(format_args!("{e}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<Vec<u8>> {
    match arguments.verb {
        Verb::Start => bootstrap::start(arguments).map(String::into_bytes),
        Verb::Delete => cleanup::delete(arguments),
        Verb::Info => Ok(cleanup::info()),
        Verb::Version => Ok(format!("{NAME} {RELEASE}\n").into_bytes()),
        Verb::Serve => serve(arguments).map(|()| Vec::new()),
    }
}

fn serve(arguments: &Arguments) -> Result<()> {
    log::set_logger(&Voice).ok();
    log::set_max_level(if arguments.debug { log::LevelFilter::Debug } else { log::LevelFilter::Info });
    thread::set_name(NAME);
    reap::become_subreaper().context("become the parent of orphans")?;
    // Nobody's mount point is to be held by us.
    std::env::set_current_dir("/").context("leave the bundle")?;
    let doing = "take the listening socket from standard input";
    let listener = UnixListener::from(io::stdin().as_fd().try_clone_to_owned().context(doing)?);
    let path = listener.local_addr().context(doing)?;
    let path = path.as_pathname().ok_or_else(|| Error::invalid("it has no path").context(doing))?.to_owned();
    let events = std::env::var_os("TTRPC_ADDRESS").map(PathBuf::from);
    let events = events.unwrap_or_else(|| format!("{}.ttrpc", arguments.address).into());
    Server::new(listener, path, arguments.namespace.clone(), events)?.serve_all()
}

/// Log lines go to standard error: a FIFO of containerd's, which may be full or without a reader.
struct Voice;

impl log::Log for Voice {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        say(format_args!("{}: {}", record.level(), record.args()));
    }

    fn flush(&self) {}
}

fn say(what: std::fmt::Arguments<'_>) {
    // Whom should we tell if nobody listens?
    io::stderr().write_all(format!("{NAME}: {what}\n").as_bytes()).ok();
}
