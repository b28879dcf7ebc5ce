//! The files every container of a pod shares: hostname, hosts, resolv.conf, and /dev/shm.

use std::fs;
use std::os::unix::fs::{chown, PermissionsExt};
use std::path::Path;

use cricket_proto::runtime::DNSConfig;

use crate::error::{Context, Idempotent, Result};
use crate::ids::SandboxId;
use crate::oci::facts::SandboxFiles;
use crate::oci::users::Users;
use crate::runtime::Runtime;
use crate::sys::mount;

/// Size of a pod's /dev/shm, as every runtime has it.
const SHM_BYTES: u64 = 64 << 20;

/// Writes hostname, hosts and resolv.conf. The directory must exist.
pub fn write(files: &SandboxFiles, hostname: &str, dns: Option<&DNSConfig>, users: Option<&Users>) -> Result<()> {
    let resolv = match dns {
        Some(dns) => resolv_conf(dns),
        None => host_file("/etc/resolv.conf")?,
    };
    put(&files.hostname, &format!("{hostname}\n"))?;
    put(&files.hosts, &host_file("/etc/hosts")?)?;
    put(&files.resolv_conf, &resolv)?;
    for path in [&files.hostname, &files.hosts, &files.resolv_conf] {
        give(path, users)?;
    }
    Ok(())
}

/// Makes root of the pod the owner, if that is not the node's.
fn give(path: &Path, users: Option<&Users>) -> Result<()> {
    let Some(users) = users else { return Ok(()) };
    let given = chown(path, Some(users.uids.host), Some(users.gids.host));
    given.with_context(|| format!("change the owner of {}", path.display()))
}

/// Mounts the pod's own /dev/shm.
pub fn mount_shm(rt: &Runtime, id: &SandboxId, users: Option<&Users>) -> Result<()> {
    let path = rt.layout.shm(id);
    fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
    mount::shm(&path, SHM_BYTES).with_context(|| format!("mount {}", path.display()))?;
    give(&path, users)
}

/// Takes the pod's /dev/shm down. Idempotent.
pub fn unmount_shm(rt: &Runtime, id: &SandboxId) -> Result<()> {
    let path = rt.layout.shm(id);
    mount::detach(&path).with_context(|| format!("unmount {}", path.display()))?;
    fs::remove_dir(&path).or_gone().with_context(|| format!("remove {}", path.display()))
}

/// A file of the host, empty where the host has none.
fn host_file(path: &str) -> Result<String> {
    match fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(e) => Err(e).with_context(|| format!("read {path}")),
    }
}

fn put(path: &Path, text: &str) -> Result<()> {
    // Every user of a container reads them, whatever umask we run under.
    let readable = fs::Permissions::from_mode(0o644);
    let written = fs::write(path, text).and_then(|()| fs::set_permissions(path, readable));
    written.with_context(|| format!("write {}", path.display()))
}

/// `resolv.conf` of a DNS configuration: `search`, a `nameserver` a line, `options`.
fn resolv_conf(dns: &DNSConfig) -> String {
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text += &format!("search {}\n", dns.searches.join(" "));
    }
    for server in &dns.servers {
        text += &format!("nameserver {server}\n");
    }
    if !dns.options.is_empty() {
        text += &format!("options {}\n", dns.options.join(" "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_has_the_kubelets_order() {
        let dns = DNSConfig {
            servers: vec!["10.0.0.10".into(), "fd00::a".into()],
            searches: vec!["default.svc".into(), "svc".into()],
            options: vec!["ndots:5".into()],
            ..Default::default()
        };
        let text = "search default.svc svc\nnameserver 10.0.0.10\nnameserver fd00::a\noptions ndots:5\n";
        assert_eq!(resolv_conf(&dns), text);
        assert_eq!(resolv_conf(&DNSConfig::default()), "");
    }
}
