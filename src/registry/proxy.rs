//! Which proxy a request goes through: `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, read as Go programs read them.

use std::env;
use std::net::IpAddr;

use super::secret::Secret;

/// The proxies of the environment. `Debug` does not show them: they may hold passwords.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    http: Option<Secret>,
    https: Option<Secret>,
    without: Vec<String>,
}

impl Proxies {
    /// What this process's environment says.
    pub fn from_env() -> Self {
        let of = |name: &str| {
            let lower = name.to_lowercase();
            [name, &lower].iter().find_map(|name| env::var(name).ok().filter(|value| !value.is_empty()))
        };
        Proxies::new(of("HTTP_PROXY"), of("HTTPS_PROXY"), &of("NO_PROXY").unwrap_or_default())
    }

    fn new(http: Option<String>, https: Option<String>, without: &str) -> Self {
        let url = |proxy: String| Secret::new(if proxy.contains("://") { proxy } else { format!("http://{proxy}") });
        let without = without.split(',').map(|entry| entry.trim().to_lowercase()).filter(|entry| !entry.is_empty());
        Proxies { http: http.map(url), https: https.map(url), without: without.collect() }
    }

    /// The proxy on the way to a server, if any. Never one to this machine itself.
    pub fn for_server(&self, https: bool, host: &str, port: u16) -> Option<&Secret> {
        let proxy = if https { self.https.as_ref() } else { self.http.as_ref() };
        proxy.filter(|_| self.is_proxied(&host.to_lowercase(), port))
    }

    fn is_proxied(&self, host: &str, port: u16) -> bool {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let address: Option<IpAddr> = host.parse().ok();
        if host == "localhost" || address.is_some_and(|address| address.is_loopback()) {
            return false;
        }
        !self.without.iter().any(|entry| excepts(entry, host, address, port))
    }
}

/// Whether an entry of NO_PROXY is about this server: `*`, an address, a block of addresses, or a domain with all below
/// it, each but the block with an optional port.
fn excepts(entry: &str, host: &str, address: Option<IpAddr>, port: u16) -> bool {
    if entry == "*" {
        return true;
    }
    if let Some((network, bits)) = entry.split_once('/') {
        let block = network.parse().ok().zip(bits.parse().ok());
        return address.zip(block).is_some_and(|(address, (network, bits))| is_within(address, network, bits));
    }
    let (name, only_port) = match entry.rsplit_once(':') {
        Some((name, digits)) if !name.contains(':') || name.ends_with(']') => match digits.parse::<u16>() {
            Ok(only) => (name, Some(only)),
            Err(_) => (entry, None),
        },
        _ => (entry, None),
    };
    if only_port.is_some_and(|only| only != port) {
        return false;
    }
    let name = name.trim_start_matches('[').trim_end_matches(']');
    if let Ok(listed) = name.parse::<IpAddr>() {
        return address == Some(listed);
    }
    let (domain, below_only) = match name.strip_prefix("*.").or_else(|| name.strip_prefix('.')) {
        Some(domain) => (domain, true),
        None => (name, false),
    };
    let below = host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
    below || (!below_only && host == domain)
}

fn is_within(address: IpAddr, network: IpAddr, bits: u32) -> bool {
    let equal = |a: u128, b: u128, width: u32| bits <= width && (bits == 0 || (a ^ b) >> (width - bits) == 0);
    match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => equal(a.to_bits().into(), b.to_bits().into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => equal(a.to_bits(), b.to_bits(), 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_excepted() {
        let all = "a.io,.b.io,*.c.io,10.0.0.0/8,192.168.1.1,fd00::/8,d.io:5000, E.io ";
        let proxies = Proxies::new(Some("p:1".into()), Some("http://u:pw@p:2".into()), all);
        for (host, port, proxied) in [
            ("a.io", 443, false),
            ("x.a.io", 443, false),
            ("xa.io", 443, true),
            ("b.io", 443, true),
            ("x.b.io", 443, false),
            ("x.c.io", 443, false),
            ("10.1.2.3", 443, false),
            ("11.1.2.3", 443, true),
            ("192.168.1.1", 443, false),
            ("192.168.1.2", 443, true),
            ("[fd12::1]", 443, false),
            ("[fe12::1]", 443, true),
            ("d.io", 5000, false),
            ("d.io", 443, true),
            ("e.IO", 443, false),
            ("localhost", 443, false),
            ("127.8.8.8", 443, false),
            ("[::1]", 443, false),
        ] {
            assert_eq!(proxies.for_server(true, host, port).is_some(), proxied, "{host}:{port}");
        }
        assert_eq!(proxies.for_server(false, "z.io", 80).map(Secret::reveal), Some("http://p:1"));
        assert!(Proxies::new(Some("p".into()), None, "*").for_server(false, "z.io", 80).is_none());
        assert!(Proxies::new(Some("p".into()), None, "").for_server(true, "z.io", 80).is_none());
        let shown = format!("{proxies:?}");
        assert!(!shown.contains("pw"), "{shown}");
    }
}
