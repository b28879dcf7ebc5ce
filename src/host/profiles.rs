//! The security profiles of a container, fetched from where they are: files of the node, and the kernel.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use super::selinux;
use crate::call::Call;
use crate::error::{Context, Error, Kind, Result};
use crate::flights::Flights;
use crate::ids::SandboxId;
use crate::oci::facts::{Arch, HostFacts, Profiles};
use crate::oci::security::{self, Profile};
use crate::oci::selinux::labels;
use crate::oci::{apparmor, seccomp, Request};
use crate::sys::process::{self, tail};

/// A larger file is no seccomp profile.
const MAX_SECCOMP_BYTES: u64 = 1 << 20;
/// The profiles that the kernel has.
const LOADED: &str = "/sys/kernel/security/apparmor/profiles";
/// Where profiles and what they include are.
const APPARMOR_DIR: &str = "/etc/apparmor.d";
/// Where distributions put the parser.
const PARSERS: [&str; 4] =
    ["/usr/sbin/apparmor_parser", "/sbin/apparmor_parser", "/usr/bin/apparmor_parser", "/bin/apparmor_parser"];
/// It compiles one profile.
const PARSER_TIME: Duration = Duration::from_secs(30);
const PARSER_OUTPUT_BYTES: usize = 64 << 10;
/// The compiler takes a second of a small processor, and the first containers of a node often start together.
static LOADING: LazyLock<Flights<(), (), ()>> = LazyLock::new(Flights::default);

/// The profiles that a request comes down to. Loads the default AppArmor profile if the kernel does not have it; blocks
/// for that.
///
/// # Errors
/// As [`security::seccomp`], [`security::apparmor`] and [`selinux::policy`]; `InvalidArgument` for a profile that is not
/// there or is none.
pub fn resolve(request: &Request<'_>, sandbox: &SandboxId) -> Result<Profiles> {
    let seccomp = match security::seccomp(request)? {
        Profile::Localhost(path) => {
            Some(seccomp_file(Path::new(path), request.host.arch).with_context(|| format!("seccomp profile {path}"))?)
        }
        Profile::Unset | Profile::Unconfined | Profile::RuntimeDefault => None,
    };
    let apparmor = match security::apparmor(request)? {
        Profile::Unconfined => None,
        Profile::Localhost(name) => Some(loaded(name)?),
        Profile::RuntimeDefault => Some(ensure_default().context("AppArmor profile RuntimeDefault")?),
        Profile::Unset => match ensure_default() {
            Ok(name) => Some(name),
            // Nobody asked for it, and a node without the parser is no reason not to run anything.
            Err(e) if e.kind() == Kind::FailedPrecondition => {
                log::debug!("no AppArmor profile for a container that names none: {e}");
                None
            }
            Err(e) => return Err(e),
        },
    };
    let labelled = request.host.selinux && request.handler.selinux;
    let selinux = match labelled {
        true => Some(labels(request, &selinux::policy()?, sandbox)),
        false => None,
    };
    Ok(Profiles { seccomp, apparmor, selinux })
}

fn seccomp_file(path: &Path, arch: Arch) -> Result<seccomp::Profile> {
    // Without O_NONBLOCK a pipe would block us until somebody wrote to it.
    let opened = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let opened = opened.map_err(|e| Error::invalid(e.to_string()))?;
    if !opened.metadata().context("stat")?.is_file() {
        return Err(Error::invalid("not a regular file"));
    }
    let mut json = Vec::new();
    opened.take(MAX_SECCOMP_BYTES + 1).read_to_end(&mut json).context("read")?;
    if json.len() as u64 > MAX_SECCOMP_BYTES {
        return Err(Error::invalid(format!("larger than {MAX_SECCOMP_BYTES} bytes")));
    }
    seccomp::Profile::parse(&json, arch)
}

fn loaded(name: &str) -> Result<String> {
    match apparmor::is_loaded(&list()?, name) {
        true => Ok(name.to_owned()),
        false => Err(Error::invalid(format!("AppArmor profile {name:?} is not loaded on this node"))),
    }
}

fn list() -> Result<String> {
    fs::read_to_string(LOADED).map_err(|e| {
        Error::precondition(format!("read {LOADED}: {e}: AppArmor is on, but securityfs must be mounted to use it"))
    })
}

/// Has the kernel know the default AppArmor profile before the first container waits for it. Blocks until it is compiled, where
/// that is to be done.
pub fn load_ahead(facts: &HostFacts) {
    if !facts.apparmor {
        return;
    }
    if let Err(e) = ensure_default() {
        // Who needs it tries again, and is told.
        log::debug!("the AppArmor profile {}: {e}", apparmor::DEFAULT);
    }
}

/// Has the kernel know the default profile. One that somebody else loaded under that name is theirs to choose.
fn ensure_default() -> Result<String> {
    if !apparmor::is_loaded(&list()?, apparmor::DEFAULT) {
        LOADING.join(&Call::unbounded(), &(), (), |_, ()| load_default())?;
    }
    Ok(apparmor::DEFAULT.to_owned())
}

fn load_default() -> Result<()> {
    let parser = PARSERS.iter().find(|path| Path::new(path).exists());
    let parser = parser.ok_or_else(|| Error::precondition("apparmor_parser is not installed"))?;
    let has = |path: &str| Path::new(APPARMOR_DIR).join(path).exists();
    let includes =
        apparmor::Includes { abi: has("abi/3.0"), tunables: has("tunables/global"), base: has("abstractions/base") };
    let text = apparmor::default_profile(includes);
    let deadline = Instant::now().checked_add(PARSER_TIME);
    // Replace, because it may have been loaded since we looked; no cache, which would be a file that nobody removes.
    let mut command = Command::new(parser);
    command.args(["--replace", "--skip-cache"]);
    let output =
        process::run(&mut command, text.as_bytes(), deadline, PARSER_OUTPUT_BYTES).context("apparmor_parser")?;
    if !output.status.success() {
        let said = tail(&output.stderr);
        return Err(Error::new(Kind::Unknown, format!("apparmor_parser: {}: {said}", output.status)));
    }
    log::info!("loaded the AppArmor profile {}", apparmor::DEFAULT);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seccomp_file_is_read_whole_or_refused() {
        let dir = std::env::temp_dir().join(format!("cricket-seccomp-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("mkdir");
        let read = |name: &str| seccomp_file(&dir.join(name), Arch::X86_64).map(drop).map_err(|e| e.kind());
        fs::write(dir.join("good"), r#"{"defaultAction": "SCMP_ACT_ALLOW"}"#).expect("write");
        fs::write(dir.join("bad"), "defaultAction").expect("write");
        fs::write(dir.join("large"), vec![b' '; 1 << 20 | 1]).expect("write");
        assert_eq!(read("good"), Ok(()));
        for name in ["bad", "large", "absent", "."] {
            assert_eq!(read(name), Err(Kind::InvalidArgument), "{name}");
        }
        fs::remove_dir_all(&dir).expect("our own directory");
    }
}
