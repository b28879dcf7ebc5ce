//! What an OCI runtime and this kernel can do together, as the runtime's `features` command tells it.

use std::env;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::error::{Context, Error, Result};
use crate::sys::process;

/// How long the runtime may take to answer. It is asked once, often while a small node boots and everything starts at the
/// same time: what it can do must not be lost to that. One that hangs could run no container either.
const BUDGET: Duration = Duration::from_secs(60);
/// More than any answer.
const MAX_BYTES: usize = 256 << 10;
/// Where the shim finds `runc` although our own PATH may be shorter.
const MORE_PATHS: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The first kernel that can make a mount read-only with everything below it: `mount_setattr`.
const MOUNT_SETATTR: (u32, u32) = (5, 12);

/// What containers of a runtime can ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// A mount that is read-only with everything below it.
    pub recursive_read_only: bool,
    /// Mounts whose owners are mapped.
    pub idmap_mounts: bool,
    /// User namespaces.
    pub user_namespaces: bool,
}

/// The part of the answer that we read.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Answer {
    mount_options: Vec<String>,
    linux: Linux,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Linux {
    namespaces: Vec<String>,
    mount_extensions: MountExtensions,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct MountExtensions {
    idmap: Extension,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Extension {
    enabled: bool,
}

/// Asks `binary`, or `runc` of the path. Blocks while that runs.
///
/// # Errors
/// When it cannot be run or does not know the question, as those before runc 1.1.
pub fn ask(binary: Option<&Path>, kernel: &str) -> Result<Features> {
    let binary = binary.unwrap_or(Path::new("runc"));
    let path = match env::var("PATH") {
        Ok(own) => format!("{own}:{MORE_PATHS}"),
        Err(_) => MORE_PATHS.to_owned(),
    };
    let mut command = Command::new(binary);
    command.arg("features").env("PATH", path);
    let done = process::run(&mut command, &[], Some(Instant::now() + BUDGET), MAX_BYTES);
    let output = done.with_context(|| format!("{} features", binary.display()))?;
    if !output.status.success() {
        let said = process::tail(&output.stderr);
        return Err(Error::precondition(format!("{} features: {}: {said}", binary.display(), output.status)));
    }
    read(&output.stdout, kernel).with_context(|| format!("{} features", binary.display()))
}

fn read(answer: &[u8], kernel: &str) -> Result<Features> {
    let answer: Answer = serde_json::from_slice(answer).map_err(|e| Error::invalid(e.to_string()))?;
    let mount_setattr = version(kernel) >= MOUNT_SETATTR;
    Ok(Features {
        recursive_read_only: mount_setattr && answer.mount_options.iter().any(|o| o == "rro"),
        idmap_mounts: mount_setattr && answer.linux.mount_extensions.idmap.enabled,
        user_namespaces: answer.linux.namespaces.iter().any(|n| n == "user"),
    })
}

/// `6.1.0-18-amd64` → (6, 1); what cannot be read is older than everything.
fn version(kernel: &str) -> (u32, u32) {
    let mut numbers = kernel.split(|c: char| !c.is_ascii_digit()).map_while(|n| n.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    const OLD: &str = r#"{"mountOptions": ["ro", "rro"], "linux": {"namespaces": ["pid", "user"], "cgroup": {}}}"#;
    const NEW: &str = r#"{"mountOptions": ["rro"], "linux": {"namespaces": ["user"],
        "mountExtensions": {"idmap": {"enabled": true}}}, "more": 1}"#;

    #[test]
    fn runtime_and_kernel_must_both_be_able() {
        let all = Features { recursive_read_only: true, idmap_mounts: true, user_namespaces: true };
        assert_eq!(read(NEW.as_bytes(), "6.1.0-18-amd64").expect("valid"), all);
        assert_eq!(read(OLD.as_bytes(), "5.12").expect("valid"), Features { idmap_mounts: false, ..all });
        let users = Features { user_namespaces: true, ..Features::default() };
        assert_eq!(read(NEW.as_bytes(), "5.10.1").expect("valid"), users);
        assert_eq!(read(b"{}", "6.1").expect("valid"), Features::default());
        assert!(read(b"nonsense", "6.1").is_err());
    }

    #[test]
    fn kernels() {
        for (release, expected) in [("6.18.44-x", (6, 18)), ("5.9", (5, 9)), ("6", (6, 0)), ("", (0, 0)), ("x", (0, 0))]
        {
            assert_eq!(version(release), expected, "{release}");
        }
    }

    #[test]
    fn a_runtime_that_does_not_know_the_question() {
        let refused = ask(Some(Path::new("/bin/false")), "6.1").map_err(|e| e.kind());
        assert_eq!(refused, Err(Kind::FailedPrecondition));
        assert!(ask(Some(Path::new("/does/not/exist")), "6.1").is_err());
    }
}
