//! The pinned namespaces of a pod: making them, taking them down.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::error::{Context, Result};
use crate::oci::facts::Namespaces;
use crate::oci::users::Users;
use crate::sandbox::sysctl;
use crate::sys::mount;
use crate::sys::namespace::{self, Namespace};
use crate::sys::{net, userns};

/// Which of the namespaces are the pod's own.
pub fn own(pins: &Namespaces) -> sysctl::Own {
    let users = pins.user.is_some();
    sysctl::Own { net: pins.net.is_some(), ipc: pins.ipc.is_some(), uts: pins.uts.is_some(), users }
}

/// Those that are made here: a PID namespace comes with its first process.
fn made(pins: &Namespaces) -> impl Iterator<Item = (Namespace, &Path)> {
    all(pins).filter(|(namespace, _)| *namespace != Namespace::Pid)
}

fn all(pins: &Namespaces) -> impl Iterator<Item = (Namespace, &Path)> {
    let Namespaces { net, ipc, uts, pid, user } = pins;
    let all = [
        (Namespace::User, user),
        (Namespace::Net, net),
        (Namespace::Ipc, ipc),
        (Namespace::Uts, uts),
        (Namespace::Pid, pid),
    ];
    all.into_iter().filter_map(|(namespace, path)| Some((namespace, path.as_deref()?)))
}

/// Makes and pins them: host name set, loopback up, sysctls applied. With `users` they belong to a user namespace.
pub fn create(pins: &Namespaces, users: Option<&Users>, hostname: &str, sysctls: &[(PathBuf, String)]) -> Result<()> {
    if let Some(dir) = pins.net.as_deref().and_then(Path::parent) {
        let made = fs::DirBuilder::new().mode(0o755).recursive(true).create(dir);
        made.with_context(|| format!("make {}", dir.display()))?;
    }
    let wanted: Vec<(Namespace, &Path)> = made(pins).collect();
    let setup = || {
        if pins.uts.is_some() {
            namespace::set_hostname(hostname).with_context(|| format!("set host name {hostname:?}"))?;
        }
        if pins.net.is_some() {
            net::loopback_up().context("bring the pod's loopback up")?;
        }
        sysctl::apply(sysctls)
    };
    match users {
        Some(users) => userns::create(&wanted, (&users.uids.line(), &users.gids.line()), setup),
        None => namespace::create(&wanted, setup),
    }
}

/// Whether all of them are there; not after a reboot.
pub fn stand(pins: &Namespaces) -> bool {
    all(pins).all(|(_, path)| mount::is_namespace(path))
}

/// Takes them down. Idempotent; goes on after a failure and reports the first.
pub fn remove(pins: &Namespaces) -> Result<()> {
    all(pins).map(|(_, path)| namespace::unpin(path)).fold(Ok(()), Result::and)
}
