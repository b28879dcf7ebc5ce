//! The OCI runtime command: how it is called, and what it said when it failed.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::json;
use super::messages::Options;
use super::wire::{self, Message};
use crate::error::{Context, Error, Result};
use crate::sys::process::tail;

/// Where runtimes keep their state unless told otherwise; containerd's own shim has the same.
const ROOT: &str = "/run/containerd/runc";
/// In the bundle: how the runtime was called, for a clean-up by another process.
const NOTE: &str = "cricket-runtime";
/// How much of a log is looked at.
const LOG_TAIL: u64 = 16 << 10;

/// An OCI runtime and what it is told with every call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runc {
    binary: String,
    root: PathBuf,
    systemd_cgroup: bool,
}

impl Runc {
    /// The runtime that the options choose, for containers of `namespace`.
    pub fn new(options: &Options, namespace: &str) -> Runc {
        let binary = if options.binary.is_empty() { "runc" } else { &options.binary };
        let root = if options.root.is_empty() { ROOT } else { &options.root };
        Runc {
            binary: binary.to_owned(),
            root: Path::new(root).join(namespace),
            systemd_cgroup: options.systemd_cgroup,
        }
    }

    /// Leaves a note in the bundle for [`Runc::noted`].
    pub fn note(&self, bundle: &Path) -> Result<()> {
        let root = self.root.to_string_lossy();
        let note = Message::new().bytes(1, &self.binary).bytes(2, root.as_bytes());
        let note = note.number(3, u64::from(self.systemd_cgroup)).done();
        fs::write(bundle.join(NOTE), note).context("note the runtime in the bundle")
    }

    /// The runtime that made the container of this bundle; the default one without a note.
    pub fn noted(bundle: &Path, namespace: &str) -> Runc {
        let mut runc = Runc::new(&Options::default(), namespace);
        let note = fs::read(bundle.join(NOTE)).unwrap_or_default();
        let read = wire::read(&note, |field, value| {
            match field {
                1 => runc.binary = value.text()?,
                2 => runc.root = value.text()?.into(),
                3 => runc.systemd_cgroup = value.number() != 0,
                _ => {}
            }
            Ok(())
        });
        read.map_or_else(|_| Runc::new(&Options::default(), namespace), |()| runc)
    }

    /// Where the runtime keeps what it knows of a container.
    pub fn state(&self, id: &str) -> PathBuf {
        self.root.join(id)
    }

    /// A call with its own log, in a process group of its own, without input and with its output in the log too.
    pub fn command(&self, log: &Path, verb: &str) -> Result<Command> {
        let mut command = Command::new(&self.binary);
        command.arg("--root").arg(&self.root).arg("--log").arg(log).args(["--log-format", "json"]);
        if self.systemd_cgroup {
            command.arg("--systemd-cgroup");
        }
        let words = OpenOptions::new().create(true).append(true).open(log);
        let words = words.with_context(|| format!("make {}", log.display()))?;
        let again = words.try_clone().context("double a descriptor")?;
        command.arg(verb).stdin(Stdio::null()).stdout(words).stderr(again).process_group(0);
        Ok(command)
    }

    /// Starts such a command.
    ///
    /// # Errors
    /// `Unknown`, with what to do if there is no such program.
    pub fn spawn(&self, command: &mut Command) -> Result<u32> {
        match command.spawn() {
            Ok(child) => Ok(child.id()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                Err(Error::from(e).context(format!("start {}: install it or name another runtime", self.binary)))
            }
            Err(e) => Err(Error::from(e).context(format!("start {}", self.binary))),
        }
    }

    /// A failure in the runtime's own words.
    pub fn failure(&self, verb: &str, code: u32, log: &Path) -> Error {
        let words = last_words(log);
        let how = match code {
            128.. => format!("signal {}", code - 128),
            _ => format!("exit code {code}"),
        };
        let said = if words.is_empty() { "it said nothing" } else { &words };
        Error::from(std::io::Error::other(format!("{} {verb} failed with {how}: {said}", self.binary)))
    }
}

/// The last error in a log, else the end of whatever is in there.
fn last_words(log: &Path) -> String {
    let mut bytes = Vec::new();
    let read = File::open(log).and_then(|mut file| {
        let length = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL)))?;
        file.take(LOG_TAIL).read_to_end(&mut bytes)
    });
    if read.is_err() {
        return String::new();
    }
    let text = String::from_utf8_lossy(&bytes);
    let error = |line: &&str| {
        json::text_at(line, &["level"]).is_some_and(|level| matches!(level.as_str(), "error" | "fatal" | "ERROR"))
    };
    let found = text.lines().rev().find(error);
    let found = found.and_then(|line| json::text_at(line, &["msg"]).or_else(|| json::text_at(line, &["message"])));
    tail(found.as_deref().unwrap_or(text.trim()).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("cricket-runc-{}-{name}", std::process::id()));
        fs::remove_dir_all(&dir).ok();
        fs::create_dir(&dir).expect("fresh");
        dir
    }

    #[test]
    fn a_note_is_read_back_and_none_means_the_default() {
        let dir = scratch("note");
        let options = Options { binary: "crun".into(), root: "/r".into(), systemd_cgroup: true, ..Options::default() };
        let runc = Runc::new(&options, "ns");
        assert_eq!(runc.state("x"), Path::new("/r/ns/x"));
        let default = Runc::new(&Options::default(), "ns");
        assert_eq!(Runc::noted(&dir, "ns"), default);
        runc.note(&dir).expect("noted");
        assert_eq!(Runc::noted(&dir, "ns"), runc);
        fs::write(dir.join(NOTE), b"\xff").expect("writable");
        assert_eq!(Runc::noted(&dir, "ns"), default);
        fs::remove_dir_all(&dir).expect("ours");
    }

    #[test]
    fn the_last_error_is_quoted_else_the_end_of_the_rubbish() {
        let dir = scratch("words");
        let log = dir.join("log");
        assert_eq!(last_words(&log), "");
        fs::write(&log, "{\"level\":\"error\",\"msg\":\"one\"}\n{\"level\":\"error\",\"msg\":\"two \\\"x\\\"\"}\n{\"level\":\"info\",\"msg\":\"bye\"}\nthree\n")
            .expect("writable");
        assert_eq!(last_words(&log), "two \"x\"");
        fs::write(&log, "rubbish\nand more\n").expect("writable");
        assert_eq!(last_words(&log), "rubbish and more");
        let runc = Runc::new(&Options::default(), "ns");
        assert_eq!(
            runc.failure("create", 139, &log).to_string(),
            "runc create failed with signal 11: rubbish and more"
        );
        fs::remove_dir_all(&dir).expect("ours");
    }

    #[test]
    fn a_runtime_that_is_not_there_is_named() {
        let dir = scratch("missing");
        let options = Options { binary: "/nonexistent/runc".into(), ..Options::default() };
        let runc = Runc::new(&options, "ns");
        let e = runc.spawn(&mut runc.command(&dir.join("log"), "state").expect("a log")).expect_err("there is none");
        assert!(e.to_string().starts_with("start /nonexistent/runc: install it"), "{e}");
        fs::remove_dir_all(&dir).expect("ours");
    }
}
