//! Pod sysctls: which may be set, and setting them inside the pod's namespaces.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use crate::error::{Context, Error, Result};

/// What a pod gets unless it or the configuration says otherwise, as with other runtimes.
const UNPRIVILEGED_PORTS: (&str, &str) = ("net.ipv4.ip_unprivileged_port_start", "0");
const UNPRIVILEGED_PING: (&str, &str) = ("net.ipv4.ping_group_range", "0 2147483647");

/// Which of the defaults pods get.
#[derive(Clone, Copy, Debug)]
pub struct Defaults {
    /// Ports below 1024 are free for everybody.
    pub ports: bool,
    /// Pings are free for everybody.
    pub ping: bool,
}

/// Which namespaces of the pod are its own.
#[derive(Clone, Copy, Debug)]
pub struct Own {
    /// Network.
    pub net: bool,
    /// IPC.
    pub ipc: bool,
    /// UTS.
    pub uts: bool,
    /// Users.
    pub users: bool,
}

/// The sysctls to set, defaults included, as files under `/proc/sys` with their values.
///
/// # Errors
/// `InvalidArgument` for a sysctl that is not confined to a namespace of the pod's own: it would change the host.
pub fn plan<'a>(
    asked: impl Iterator<Item = (&'a str, &'a str)>,
    own: Own,
    defaults: Defaults,
) -> Result<Vec<(PathBuf, String)>> {
    let mut values: BTreeMap<String, &str> = BTreeMap::new();
    // Who may ping is said in ids of the node, and those of a pod with users of its own are not all there.
    let ping = defaults.ping && !own.users;
    for ((name, value), wanted) in [(UNPRIVILEGED_PORTS, defaults.ports), (UNPRIVILEGED_PING, ping)] {
        if own.net && wanted {
            values.insert(name.to_owned(), value);
        }
    }
    for (name, value) in asked {
        let dotted = dotted(name)?;
        confined(&dotted, own)?;
        values.insert(dotted, value);
    }
    Ok(values.into_iter().map(|(name, value)| (path(&name), value.to_owned())).collect())
}

/// Sets the planned sysctls in the calling thread's namespaces.
pub fn apply(plan: &[(PathBuf, String)]) -> Result<()> {
    for (path, value) in plan {
        match fs::write(path, value) {
            // A kernel without IPv4 ping sockets, say, lacks the file: a default that nobody asked for is let go.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && is_default(path) => {}
            done => done.with_context(|| format!("set sysctl {} to {value:?}", path.display()))?,
        }
    }
    Ok(())
}

fn is_default(at: &std::path::Path) -> bool {
    [UNPRIVILEGED_PORTS, UNPRIVILEGED_PING].iter().any(|(name, _)| path(name) == at)
}

/// `net/ipv4/conf/eth0.100/…` and `net.ipv4.conf.eth0/100.…` → the dotted form: dots and slashes swapped if the first
/// separator is a slash, as sysctl(8) reads them.
fn dotted(name: &str) -> Result<String> {
    let bad = |why| Error::invalid(format!("sysctl {name:?}: {why}"));
    let swapped: String = match name.find(['.', '/']) {
        Some(at) if name.as_bytes()[at] == b'/' => name
            .chars()
            .map(|c| {
                if c == '/' {
                    '.'
                } else if c == '.' {
                    '/'
                } else {
                    c
                }
            })
            .collect(),
        Some(_) => name.to_owned(),
        None => return Err(bad("it has no dot")),
    };
    // In a path, dots separate; a slash stands for a dot within a component. Neither may climb out.
    if swapped.split('.').any(|part| part.is_empty() || part.chars().all(|c| c == '/')) || swapped.contains('\0') {
        return Err(bad("it is not a name under /proc/sys"));
    }
    Ok(swapped)
}

fn path(dotted: &str) -> PathBuf {
    let parts = dotted.split('.').map(|part| part.replace('/', "."));
    std::iter::once("/proc/sys".to_owned()).chain(parts).collect()
}

/// Refuses what is not confined to a namespace of the pod's own.
fn confined(name: &str, own: Own) -> Result<()> {
    let ipc = ["kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax"];
    let more_ipc = ["kernel.shmmni", "kernel.shm_rmid_forced"];
    let (namespace, its_own) = match name {
        _ if name.starts_with("net.") => ("network", own.net),
        _ if ipc.contains(&name) || more_ipc.contains(&name) || name.starts_with("fs.mqueue.") => ("IPC", own.ipc),
        "kernel.domainname" => ("UTS", own.uts),
        "kernel.hostname" => return Err(Error::invalid("sysctl kernel.hostname: set the pod's hostname instead")),
        _ => return Err(Error::invalid(format!("sysctl {name} is not namespaced: it would change the whole node"))),
    };
    match its_own {
        true => Ok(()),
        false => Err(Error::invalid(format!("sysctl {name} needs a {namespace} namespace of the pod's own"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    const POD: Own = Own { net: true, ipc: true, uts: true, users: false };
    const HOST: Own = Own { net: false, ipc: false, uts: false, users: false };
    const BOTH: Defaults = Defaults { ports: true, ping: true };

    fn planned(asked: &[(&str, &str)], own: Own) -> Result<Vec<(String, String)>> {
        let plan = plan(asked.iter().copied(), own, BOTH)?;
        Ok(plan.into_iter().map(|(p, v)| (p.display().to_string(), v)).collect())
    }

    #[test]
    fn the_pods_value_beats_the_default() {
        let plan = planned(&[("net.ipv4.ip_unprivileged_port_start", "1024"), ("kernel.shm_rmid_forced", "1")], POD);
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(
            plan.unwrap(),
            [
                pair("/proc/sys/kernel/shm_rmid_forced", "1"),
                pair("/proc/sys/net/ipv4/ip_unprivileged_port_start", "1024"),
                pair("/proc/sys/net/ipv4/ping_group_range", "0 2147483647"),
            ]
        );
        assert!(planned(&[], HOST).unwrap().is_empty());
        assert_eq!(planned(&[], Own { users: true, ..POD }).unwrap().len(), 1);
    }

    #[test]
    fn the_configuration_can_take_a_default_away() {
        let names = |ports, ping| -> Vec<String> {
            let plan = plan(std::iter::empty(), POD, Defaults { ports, ping }).unwrap();
            plan.into_iter().map(|(path, _)| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
        };
        assert_eq!(names(true, false), ["ip_unprivileged_port_start"]);
        assert_eq!(names(false, true), ["ping_group_range"]);
        assert_eq!(names(false, false), Vec::<String>::new());
    }

    #[test]
    fn both_spellings_of_an_interface_with_a_dot() {
        for name in ["net/ipv4/conf/eth0.100/forwarding", "net.ipv4.conf.eth0/100.forwarding"] {
            let plan = planned(&[(name, "1")], POD).unwrap();
            assert!(plan.iter().any(|(p, _)| p == "/proc/sys/net/ipv4/conf/eth0.100/forwarding"), "{plan:?}");
        }
    }

    #[test]
    fn what_would_change_the_node_is_refused() {
        for name in ["kernel.panic", "vm.swappiness", "fs.file-max", "kernel.hostname", "plain", "net..x", "net.//.x"] {
            assert_eq!(planned(&[(name, "1")], POD).map_err(|e| e.kind()), Err(Kind::InvalidArgument), "{name}");
        }
        for name in ["net.core.somaxconn", "kernel.sem", "kernel.domainname"] {
            assert_eq!(planned(&[(name, "1")], HOST).map_err(|e| e.kind()), Err(Kind::InvalidArgument), "{name}");
        }
    }
}
