//! Arguments as a value: pure, and strict, since a flag that is silently ignored is found out much later.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::config::Overrides;
use crate::error::{Error, Result};

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// Serve the CRI.
    Serve(Settings),
    /// Print the configuration.
    Config(Settings),
    /// Load an image archive.
    Import {
        /// The archive.
        file: PathBuf,
        /// The reference for an image that names none.
        name: Option<String>,
        /// Where containerd is, and so on.
        settings: Settings,
    },
    /// Pull an image.
    Pull {
        /// Its reference.
        image: String,
        /// Where credentials are.
        auth_file: Option<PathBuf>,
        /// Where containerd is, and so on.
        settings: Settings,
    },
    /// Write images to an archive.
    Export {
        /// The archive; `-` for stdout.
        file: PathBuf,
        /// Names or ids.
        images: Vec<String>,
        /// Where containerd is, and so on.
        settings: Settings,
    },
    /// List the images.
    Images(Settings),
    /// Look for what is wrong.
    Doctor {
        /// Only what belongs to nothing.
        orphans: bool,
        /// Where everything is.
        settings: Settings,
    },
    /// Try this node.
    Selftest {
        /// The pod uses the host's network.
        host_network: bool,
        /// Where the CRI and containerd are.
        settings: Settings,
    },
    /// What the self-test's container runs.
    Probe(Vec<String>),
    /// Print the version.
    Version,
    /// Print the usage.
    Help,
}

/// The configuration file and what wins over it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    /// `--config`
    pub(super) file: Option<PathBuf>,
    /// All other flags.
    pub(super) flags: Overrides,
}

/// Reads the arguments after the program's name.
///
/// # Errors
/// `InvalidArgument`, naming the argument at fault.
pub(super) fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Command> {
    let mut arguments = arguments
        .map(|a| a.into_string().map_err(|a| Error::invalid(format!("{a:?} is not UTF-8"))))
        .collect::<Result<Vec<String>>>()?
        .into_iter();
    let subcommand = match arguments.as_slice().first() {
        Some(first) if !first.starts_with('-') => arguments.next().unwrap_or_default(),
        _ => "serve".to_owned(),
    };
    if subcommand == "probe" {
        return Ok(Command::Probe(arguments.collect()));
    }
    let mut line = Line::default();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "-h" | "--help" => return Ok(Command::Help),
            "-V" | "--version" => return Ok(Command::Version),
            flag if flag.starts_with('-') && flag != "-" => line.flag(flag, &mut arguments)?,
            _ => line.words.push(argument),
        }
    }
    line.command(&subcommand)
}

/// A command line taken apart.
#[derive(Default)]
struct Line {
    settings: Settings,
    name: Option<String>,
    auth_file: Option<PathBuf>,
    host_network: bool,
    orphans: bool,
    words: Vec<String>,
}

impl Line {
    /// `--flag value` or `--flag=value`.
    fn flag(&mut self, argument: &str, rest: &mut impl Iterator<Item = String>) -> Result<()> {
        let (flag, value) = match argument.split_once('=') {
            Some((flag, value)) => (flag, Some(value.to_owned())),
            None => (argument, None),
        };
        let Settings { file, flags } = &mut self.settings;
        let mut value = || match value.clone().or_else(|| rest.next()) {
            Some(value) if !value.is_empty() => Ok(value),
            _ => Err(Error::invalid(format!("{flag} needs a value"))),
        };
        let again = match flag {
            "--config" => file.replace(value()?.into()).is_some(),
            "--socket" => flags.socket.replace(value()?.into()).is_some(),
            "--root" => flags.root.replace(value()?.into()).is_some(),
            "--state" => flags.state.replace(value()?.into()).is_some(),
            "--containerd" => flags.containerd.replace(value()?.into()).is_some(),
            "--snapshotter" => flags.snapshotter.replace(value()?).is_some(),
            "--cgroup-driver" => flags.cgroup_driver.replace(value()?).is_some(),
            "--log-level" => flags.log_level.replace(value()?).is_some(),
            "--auth-file" => self.auth_file.replace(value()?.into()).is_some(),
            "--name" => self.name.replace(value()?).is_some(),
            "--host-network" if argument == flag => std::mem::replace(&mut self.host_network, true),
            "--orphans" if argument == flag => std::mem::replace(&mut self.orphans, true),
            _ => return Err(Error::invalid(format!("unknown flag {flag}"))),
        };
        match again {
            true => Err(Error::invalid(format!("{flag} is given twice"))),
            false => Ok(()),
        }
    }

    fn command(self, subcommand: &str) -> Result<Command> {
        let Line { settings, name, auth_file, host_network, orphans, mut words } = self;
        if name.is_some() && subcommand != "import" {
            return Err(Error::invalid("--name belongs to cricket import"));
        }
        if auth_file.is_some() && subcommand != "pull" {
            return Err(Error::invalid("--auth-file belongs to cricket pull"));
        }
        if host_network && subcommand != "selftest" {
            return Err(Error::invalid("--host-network belongs to cricket selftest"));
        }
        if orphans && subcommand != "doctor" {
            return Err(Error::invalid("--orphans belongs to cricket doctor"));
        }
        let command = match subcommand {
            "serve" => Command::Serve(settings),
            "config" => Command::Config(settings),
            "doctor" => Command::Doctor { orphans, settings },
            "selftest" => Command::Selftest { host_network, settings },
            "import" if words.is_empty() => return Err(Error::invalid("cricket import needs a file")),
            "import" => Command::Import { file: words.remove(0).into(), name, settings },
            "pull" if words.is_empty() => return Err(Error::invalid("cricket pull needs the name of an image")),
            "pull" => Command::Pull { image: words.remove(0), auth_file, settings },
            "export" if words.len() < 2 => return Err(Error::invalid("cricket export needs a file and images")),
            "export" => {
                let file = words.remove(0).into();
                Command::Export { file, images: std::mem::take(&mut words), settings }
            }
            "images" => Command::Images(settings),
            _ => return Err(Error::invalid(format!("unknown command {subcommand}"))),
        };
        match words.first() {
            Some(word) => Err(Error::invalid(format!("unexpected argument {word}"))),
            None => Ok(command),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn parsed(line: &str) -> Result<Command> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn to_serve_is_what_happens_without_a_command() {
        assert_eq!(parsed("").expect("valid"), Command::Serve(Settings::default()));
        assert_eq!(parsed("--root /r").expect("valid"), parsed("serve --root=/r").expect("valid"));
    }

    #[test]
    fn every_setting_has_its_place() {
        let line = "config --config /c --socket /s --root /r --state /t --containerd /d --snapshotter native \
                    --cgroup-driver systemd --log-level debug";
        let flags = Overrides {
            socket: Some("/s".into()),
            root: Some("/r".into()),
            state: Some("/t".into()),
            containerd: Some("/d".into()),
            snapshotter: Some("native".into()),
            cgroup_driver: Some("systemd".into()),
            log_level: Some("debug".into()),
        };
        let settings = Settings { file: Some("/c".into()), flags };
        assert_eq!(parsed(line).expect("valid"), Command::Config(settings));
    }

    #[test]
    fn import_takes_one_file_wherever_it_stands() {
        let expected = Command::Import {
            file: "a.tar".into(),
            name: Some("x:1".into()),
            settings: Settings { file: Some("/c".into()), ..Settings::default() },
        };
        assert_eq!(parsed("import --config /c a.tar --name=x:1").expect("valid"), expected);
    }

    #[test]
    fn help_and_version_win_and_a_probe_keeps_its_arguments() {
        assert_eq!(parsed("--version").expect("valid"), Command::Version);
        assert_eq!(parsed("import --help").expect("valid"), Command::Help);
        assert_eq!(parsed("probe exit 3").expect("valid"), Command::Probe(vec!["exit".into(), "3".into()]));
        let selftest = Command::Selftest { host_network: true, settings: Settings::default() };
        assert_eq!(parsed("selftest --host-network").expect("valid"), selftest);
        let doctor = Command::Doctor { orphans: true, settings: Settings::default() };
        assert_eq!(parsed("doctor --orphans").expect("valid"), doctor);
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (line, named) in [
            ("serve --orphans", "--orphans belongs to cricket doctor"),
            ("frobnicate", "frobnicate"),
            ("--sokcet /x", "--sokcet"),
            ("-x", "-x"),
            ("serve extra", "extra"),
            ("import", "file"),
            ("import a b", "b"),
            ("serve --name x", "--name"),
            ("serve --host-network", "--host-network"),
            ("selftest --host-network=no", "--host-network"),
            ("--socket", "--socket"),
            ("--socket=", "--socket"),
            ("--root /a --root /b", "--root"),
            ("pause", "pause"),
        ] {
            let e = parsed(line).expect_err(line);
            assert_eq!(e.kind(), Kind::InvalidArgument, "{line}");
            assert!(e.to_string().contains(named), "{line}: {e}");
        }
        use std::os::unix::ffi::OsStringExt;
        let e = parse([OsString::from_vec(vec![0xff])].into_iter()).expect_err("not UTF-8");
        assert!(e.to_string().contains("xFF"), "{e}");
    }
}
