//! The command line: arguments → subcommand → exit code.

mod arguments;
mod doctor;
mod export;
mod import;
mod logging;
mod pause;
mod progress;
mod pull;
mod selftest;
mod serve;

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use crate::config::Config;
use crate::error::{Context, Error, Result};
use crate::extract;
use crate::sys::reap;
use arguments::{Command, Settings};

/// The crate's version and, if known, the git revision.
pub const VERSION: &str = env!("CRICKET_VERSION");
/// Read if it exists and no other file is named.
const CONFIG_FILE: &str = "/etc/cricket/config.toml";

const HELP: &str = "\
cricket: a CRI runtime between the kubelet and containerd

usage: cricket [serve] [settings]          serve the CRI until SIGTERM
       cricket config [settings]           print the configuration in effect, with comments
       cricket import FILE|FOLDER|- [--name REF] [settings]
                                           load images from an archive (docker save, OCI layout)
       cricket export FILE|- REF... [settings]
                                           write images to an archive (OCI layout)
       cricket pull REF [--auth-file FILE] [settings]
                                           pull an image; the file is a Docker config.json with credentials
       cricket images [settings]           list the images
       cricket doctor [--orphans] [settings]
                                           tell what is wrong on this node, or only what belongs to nothing
       cricket selftest [--host-network] [settings]
                                           run a pod of this very binary on this node and look at everything
       cricket pause                       the process of a pod that shares its pid namespace
       cricket --version | --help

settings, which win over the file:
  --config FILE          configuration file [/etc/cricket/config.toml, if it exists]
  --socket PATH          the CRI socket [/run/cricket/cricket.sock]
  --root DIR             durable records [/var/lib/cricket]
  --state DIR            what may vanish at boot [/run/cricket]
  --containerd PATH      containerd's socket [/run/containerd/containerd.sock]
  --snapshotter NAME     containerd snapshotter [overlayfs]
  --cgroup-driver NAME   auto, cgroupfs or systemd [auto]
  --log-level LEVEL      off, error, warn, info, debug or trace [info]

exit codes: 0 done, 1 failed, 2 wrong usage
";

/// Runs what `arguments` (without the program's name) ask for. Blocks until it is over.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let mut arguments = arguments.peekable();
    // As pid 1 of a pod it should be as little of a process as possible: before anything else is set up.
    if arguments.peek().is_some_and(|first| first == "pause") {
        return exit(pause::pause().map(|()| ExitCode::SUCCESS), 1);
    }
    // Its parent is a daemon, and it gives up almost all that it has: nothing may be open or running yet.
    if arguments.next_if(|first| first == extract::COMMAND).is_some() {
        return exit(extract::run(arguments).map(|()| ExitCode::SUCCESS), 1);
    }
    match arguments::parse(arguments) {
        Ok(command) => exit(run(command), 1),
        Err(usage) => exit(Err(Error::invalid(format!("{usage}; see cricket --help"))), 2),
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Serve(settings) => {
            // It lives long, and so would what is left open by who starts it.
            reap::close_inherited();
            serve::serve(&load(settings)?)
        }
        Command::Config(settings) => print(&load(settings)?.to_toml()),
        Command::Import { file, name, settings } => import::import(&load(settings)?, &file, name.as_deref()),
        Command::Pull { image, auth_file, settings } => pull::pull(&load(settings)?, &image, auth_file.as_deref()),
        Command::Export { file, images, settings } => export::export(&load(settings)?, &file, &images),
        Command::Images(settings) => pull::images(&load(settings)?),
        Command::Doctor { orphans, settings } => return doctor::doctor(&load(settings)?, orphans, &mut io::stdout()),
        Command::Selftest { host_network, settings } => {
            let config = load(settings)?;
            logging::start(config.log_level);
            let options = selftest::Options { socket: config.socket.clone(), host_network };
            selftest::run(&config, &options, &mut io::stdout())
        }
        Command::Probe(arguments) => {
            let code = selftest::probe::run(&arguments, &mut io::stdout(), &mut io::stderr())?;
            return Ok(ExitCode::from(code));
        }
        Command::Version => print(&format!("cricket {VERSION}\n")),
        Command::Help => print(HELP),
    }?;
    Ok(ExitCode::SUCCESS)
}

/// The configuration in effect.
fn load(settings: Settings) -> Result<Config> {
    let path = settings.file.as_deref().unwrap_or(Path::new(CONFIG_FILE));
    let text = match fs::read_to_string(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound && settings.file.is_none() => String::new(),
        text => text.with_context(|| format!("read {}", path.display()))?,
    };
    Config::parse(&text, settings.flags).with_context(|| path.display().to_string())
}

fn print(text: &str) -> Result<()> {
    io::stdout().write_all(text.as_bytes()).context("write to stdout")
}

fn exit(result: Result<ExitCode>, code: u8) -> ExitCode {
    match result {
        Ok(code) => code,
        Err(e) => {
            // If stderr is gone there is nobody left to tell.
            writeln!(io::stderr(), "cricket: {e}").ok();
            ExitCode::from(code)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Overrides;

    #[test]
    fn a_named_file_must_exist_and_errors_name_it() {
        let settings = Settings { file: Some("/nonexistent/c.toml".into()), flags: Overrides::default() };
        assert!(load(settings).expect_err("missing").to_string().contains("/nonexistent/c.toml"));
        let path = std::env::temp_dir().join(format!("cricket-config-{}.toml", std::process::id()));
        fs::write(&path, "rot = 1").expect("writable");
        let settings = Settings { file: Some(path.clone()), flags: Overrides::default() };
        let e = load(settings).expect_err("a typo").to_string();
        assert!(e.contains("`rot`") && e.contains(".toml"), "{e}");
        fs::remove_file(&path).expect("ours");
    }

    #[test]
    fn the_example_in_dist_is_the_default_configuration() {
        let example = include_str!("../../dist/config.toml");
        assert_eq!(example, Config::default().to_toml(), "write it again with: cricket config > dist/config.toml");
    }

    #[test]
    fn the_help_tells_the_defaults() {
        let config = Config::default();
        for path in [&config.socket, &config.root, &config.state, &config.containerd.address] {
            assert!(HELP.contains(&format!("[{}]", path.display())), "{}", path.display());
        }
        assert!(HELP.contains(CONFIG_FILE));
    }
}
