//! The network interfaces of pods, and what went through them.

use std::fs;
use std::path::PathBuf;

use super::network::INTERFACE;
use crate::error::{Context, Result};
use crate::sys::namespace;

/// The interfaces of a network namespace but for the loopback.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interfaces {
    pub all: Vec<Interface>,
    /// The one that carries the default route; without such a route the one that CNI makes first.
    pub default: Option<String>,
}

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub received: Traffic,
    pub sent: Traffic,
}

/// Since the interface exists; what is no number is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    pub bytes: Option<u64>,
    pub packets: Option<u64>,
    pub errors: Option<u64>,
    pub dropped: Option<u64>,
}

/// What is in the pinned network namespaces; `None` for none, and for one that cannot be read. Blocks for a few files a
/// namespace.
pub fn read_all(namespaces: &[Option<PathBuf>]) -> Vec<Option<Interfaces>> {
    let paths: Vec<PathBuf> = namespaces.iter().flatten().cloned().collect();
    let mut read = namespace::within_each(&paths, read).into_iter();
    let mut next = |path: &PathBuf| {
        let interfaces = read.next()?;
        interfaces.inspect_err(|e| log::debug!("interfaces of {}: {e}", path.display())).ok()
    };
    namespaces.iter().map(|path| path.as_ref().and_then(&mut next)).collect()
}

/// Those of the calling thread's network namespace.
fn read() -> Result<Interfaces> {
    let file = |name: &str| {
        let path = format!("/proc/thread-self/net/{name}");
        fs::read_to_string(&path).context(path)
    };
    let all = parse(&file("dev")?);
    // A kernel without IPv6 has no such file.
    let routes = (file("route")?, file("ipv6_route").unwrap_or_default());
    let first = || all.iter().find(|i| i.name == INTERFACE).map(|i| i.name.clone());
    Ok(Interfaces { default: default_v4(&routes.0).or_else(|| default_v6(&routes.1)).or_else(first), all })
}

/// Two lines of heading, then `name: ` and eight numbers received, eight sent: bytes packets errs drop …
fn parse(dev: &str) -> Vec<Interface> {
    let interface = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let numbers: Vec<Option<u64>> = numbers.split_ascii_whitespace().map(|n| n.parse().ok()).collect();
        let at = |n: usize| numbers.get(n).copied().flatten();
        let name = name.trim();
        let traffic = |n| Traffic { bytes: at(n), packets: at(n + 1), errors: at(n + 2), dropped: at(n + 3) };
        let (received, sent) = (traffic(0), traffic(8));
        (name != "lo").then(|| Interface { name: name.to_owned(), received, sent })
    };
    dev.lines().skip(2).filter_map(interface).collect()
}

/// `Iface Destination Gateway Flags RefCnt Use Metric Mask …`, numbers in hex.
fn default_v4(routes: &str) -> Option<String> {
    routes.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let is_default = fields.get(1) == Some(&"00000000") && fields.get(7) == Some(&"00000000");
        is_default.then(|| fields[0].to_owned())
    })
}

/// `destination length source length gateway metric refcnt use flags iface`; `lo` refuses what has no route.
fn default_v6(routes: &str) -> Option<String> {
    routes.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (length, name) = (fields.get(1)?, *fields.last()?);
        (*length == "00" && name != "lo" && fields[0].bytes().all(|b| b == b'0')).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says() {
        let dev = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo: 100 1 0 0 0 0 0 0 100 1 0 0 0 0 0 0
  eth0: 1234 5 6 7 0 0 0 0 789 8 9 10 0 0 0 0
  net1:77 1 0 0 0 0 0 0 many 1 0
";
        let eth0 = Interface {
            name: "eth0".into(),
            received: Traffic { bytes: Some(1234), packets: Some(5), errors: Some(6), dropped: Some(7) },
            sent: Traffic { bytes: Some(789), packets: Some(8), errors: Some(9), dropped: Some(10) },
        };
        let net1 = Interface {
            name: "net1".into(),
            received: Traffic { bytes: Some(77), packets: Some(1), errors: Some(0), dropped: Some(0) },
            sent: Traffic { bytes: None, packets: Some(1), errors: Some(0), dropped: None },
        };
        assert_eq!(parse(dev), [eth0, net1]);
        assert!(parse("").is_empty());
    }

    #[test]
    fn the_default_route() {
        let v4 = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
net1\t000010AC\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
eth0\t00000000\t0100D60A\t0003\t0\t0\t0\t00000000\t0\t0\t0
";
        assert_eq!(default_v4(v4).as_deref(), Some("eth0"));
        assert_eq!(default_v4("Iface\n"), None);
        let zero = "0".repeat(32);
        let v6 = format!(
            "fe800000000000000000000000000000 40 {zero} 00 {zero} 00000100 00000001 00000000 00000001     eth0\n\
             {zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200       lo\n\
             {zero} 00 {zero} 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003     eth1\n"
        );
        assert_eq!(default_v6(&v6).as_deref(), Some("eth1"));
        assert_eq!(default_v6(""), None);
    }

    #[test]
    fn a_namespace_that_is_not_there_has_none() {
        assert_eq!(read_all(&[None, Some("/does/not/exist".into())]), [None, None]);
        assert!(read_all(&[]).is_empty());
    }
}
