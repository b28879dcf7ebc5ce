//! One run of one plugin: where its binary is, the environment of the protocol, and what its failure says.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use super::cache::Record;
use super::left;
use crate::call::Call;
use crate::error::{Error, Kind, Result};
use crate::sys::process::{self, tail, Output};

/// A result is a few hundred bytes; more than this is no result.
const MAX_OUTPUT: usize = 1 << 20;

/// The error structure that a failing plugin prints to stdout.
#[derive(Deserialize)]
struct Failure {
    #[serde(default)]
    code: u64,
    msg: String,
    #[serde(default)]
    details: String,
}

/// The first executable file of this name in `dirs`.
///
/// # Errors
/// `FailedPrecondition`, with the directories.
pub(super) fn find(kind: &str, dirs: &[PathBuf]) -> Result<PathBuf> {
    let executable =
        |path: &PathBuf| fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    dirs.iter().map(|dir| dir.join(kind)).find(executable).ok_or_else(|| {
        let searched: Vec<_> = dirs.iter().map(|dir| dir.display().to_string()).collect();
        Error::precondition(format!(
            "CNI plugin {kind:?} is not installed: no executable of that name in {}",
            searched.join(", ")
        ))
    })
}

/// What all plugins of one ADD or DEL are told alike.
pub(super) struct Operation<'a> {
    pub verb: &'static str,
    pub record: &'a Record,
    pub netns: Option<&'a Path>,
    /// Where plugins find those that they call in turn.
    pub dirs: &'a [PathBuf],
}

impl Operation<'_> {
    /// Runs `binary` with `request` on stdin and returns its standard output. It has our environment besides the
    /// protocol's variables, as under every other runtime: plugins find proxies, `PATH` and credentials there.
    ///
    /// # Errors
    /// `Unknown` if it failed, `DeadlineExceeded`, `Canceled`, `ResourceExhausted`.
    pub fn run(&self, call: &Call, binary: &Path, request: &[u8]) -> Result<Vec<u8>> {
        call.check()?;
        let args: Vec<String> = self.record.cni_args.iter().map(|[key, value]| format!("{key}={value}")).collect();
        let path =
            std::env::join_paths(self.dirs).map_err(|e| Error::precondition(format!("plugin directories: {e}")))?;
        let mut command = Command::new(binary);
        command
            .env("CNI_COMMAND", self.verb)
            .env(left::CONTAINER, &self.record.container_id)
            .env("CNI_NETNS", self.netns.map_or(OsStr::new(""), Path::as_os_str))
            .env("CNI_IFNAME", &self.record.if_name)
            .env("CNI_ARGS", args.join(";"))
            .env("CNI_PATH", path);
        let output = process::run(&mut command, request, call.deadline(), MAX_OUTPUT)?;
        if !output.status.success() {
            return Err(failure(&output));
        }
        if !output.stderr.is_empty() {
            log::debug!("{} {}: {}", self.verb, binary.display(), tail(&output.stderr));
        }
        Ok(output.stdout)
    }
}

/// The plugin's own words, as far as it has any.
fn failure(output: &Output) -> Error {
    let message = match serde_json::from_slice::<Failure>(&output.stdout) {
        Ok(Failure { code, msg, details }) => {
            let details = if details.is_empty() { String::new() } else { format!("; {}", tail(details.as_bytes())) };
            format!("{}{details} (CNI error code {code})", tail(msg.as_bytes()))
        }
        Err(_) => {
            let stderr = tail(&output.stderr);
            let said = if stderr.is_empty() { tail(&output.stdout) } else { stderr };
            let said = if said.is_empty() { "it said nothing".into() } else { said };
            format!("{} without a CNI error: {said}", output.status)
        }
    };
    Error::new(Kind::Unknown, message)
}
