//! The pod's place in the CNI network.

use std::net::IpAddr;
use std::path::Path;

use cricket_proto::runtime::{self, PodSandboxConfig};

use crate::call::Call;
use crate::cni::{Attachment, Bandwidth, Capabilities, Dns, PortMapping, Protocol};
use crate::error::{Error, Result};
use crate::ids::SandboxId;
use crate::runtime::Runtime;
use crate::sandbox::quantity;
use crate::sys::mount;

/// The interface that Kubernetes expects in a pod.
pub(super) const INTERFACE: &str = "eth0";
/// Bits at once where only a rate was asked for, as Kubernetes' own network plugin has it.
const BURST: u64 = u32::MAX as u64;

/// Attaches the pod; returns its addresses, IPv4 first.
pub fn attach(
    rt: &Runtime,
    call: &Call,
    id: &SandboxId,
    config: &PodSandboxConfig,
    netns: &Path,
) -> Result<Vec<IpAddr>> {
    let network = rt.cni.network()?;
    let capabilities = capabilities(config)?;
    let mut outcome = with_attachment(id, config, Some(netns), capabilities, |at| rt.cni.add(call, &network, at))?;
    if outcome.ips.is_empty() {
        let message = format!("network {} gave the pod no address: check its ipam section", network.name());
        return Err(Error::precondition(message));
    }
    outcome.ips.sort_by_key(IpAddr::is_ipv6);
    Ok(outcome.ips)
}

/// Gives the pod's place back. Idempotent.
pub fn detach(rt: &Runtime, call: &Call, id: &SandboxId, config: &PodSandboxConfig, netns: &Path) -> Result<()> {
    // What ADD was given is on record; without one these are as good as any.
    let capabilities = capabilities(config).unwrap_or_default();
    // A daemon that was killed between making the file and pinning the namespace on it leaves a file that is none, and
    // plugins refuse it for ever.
    let netns = Some(netns).filter(|netns| mount::is_namespace(netns));
    with_attachment(id, config, netns, capabilities, |at| rt.cni.del(call, at))
}

/// Checks what [`attach`] will need, before anything is made.
///
/// # Errors
/// `InvalidArgument`, also for names that would not survive CNI_ARGS, where `;` separates.
pub fn check(config: &PodSandboxConfig) -> Result<()> {
    let metadata = &config.metadata;
    for (field, value) in [("name", &metadata.name), ("namespace", &metadata.namespace), ("uid", &metadata.uid)] {
        if value.contains(|c: char| c == ';' || c.is_control()) {
            return Err(Error::invalid(format!(
                "pod sandbox {field} {value:?} holds a semicolon or a control character"
            )));
        }
    }
    capabilities(config).map(drop)
}

fn with_attachment<T>(
    id: &SandboxId,
    config: &PodSandboxConfig,
    netns: Option<&Path>,
    capabilities: Capabilities,
    act: impl FnOnce(&Attachment<'_>) -> Result<T>,
) -> Result<T> {
    let args = [
        ("IgnoreUnknown", "1"),
        ("K8S_POD_NAMESPACE", &config.metadata.namespace),
        ("K8S_POD_NAME", &config.metadata.name),
        ("K8S_POD_INFRA_CONTAINER_ID", id.as_str()),
        ("K8S_POD_UID", &config.metadata.uid),
    ];
    act(&Attachment { container_id: id.as_str(), netns, interface: INTERFACE, args: &args, capabilities })
}

fn capabilities(config: &PodSandboxConfig) -> Result<Capabilities> {
    let dns = config.dns_config.as_ref().map(|dns| Dns {
        servers: dns.servers.clone(),
        searches: dns.searches.clone(),
        options: dns.options.clone(),
    });
    Ok(Capabilities {
        port_mappings: port_mappings(&config.port_mappings)?,
        bandwidth: bandwidth(config)?,
        dns,
        cgroup_path: Some(config.linux.cgroup_parent.clone()).filter(|p| !p.is_empty()),
        pod_annotations: config.annotations.clone().into_iter().collect(),
    })
}

/// The host ports; a mapping without one is only information.
fn port_mappings(asked: &[runtime::PortMapping]) -> Result<Vec<PortMapping>> {
    let port = |number: i32, what: &str| {
        let port = u16::try_from(number).ok().filter(|p| *p > 0);
        port.ok_or_else(|| Error::invalid(format!("{what} {number} is not a port")))
    };
    let mapped = asked.iter().filter(|mapping| mapping.host_port > 0);
    mapped
        .map(|mapping| {
            let host_ip = match mapping.host_ip.as_str() {
                "" => None,
                ip => Some(ip.parse().map_err(|_| Error::invalid(format!("host ip {ip:?} is not an address")))?),
            };
            let protocol = match mapping.protocol.enum_value() {
                Ok(runtime::Protocol::TCP) => Protocol::Tcp,
                Ok(runtime::Protocol::UDP) => Protocol::Udp,
                Ok(runtime::Protocol::SCTP) => Protocol::Sctp,
                Err(number) => return Err(Error::invalid(format!("protocol {number} of a port mapping is unknown"))),
            };
            Ok(PortMapping {
                host_port: port(mapping.host_port, "host port")?,
                container_port: port(mapping.container_port, "container port")?,
                protocol,
                host_ip,
            })
        })
        .collect()
}

/// The traffic limits that the pod's annotations ask for.
fn bandwidth(config: &PodSandboxConfig) -> Result<Option<Bandwidth>> {
    let rate = |direction: &str| {
        let key = format!("kubernetes.io/{direction}-bandwidth");
        config.annotations.get(&key).map(|text| quantity::bits_per_second(text)).transpose()
    };
    let (ingress, egress) = (rate("ingress")?, rate("egress")?);
    let burst = |rate: Option<u64>| if rate.is_some() { BURST } else { 0 };
    Ok((ingress.is_some() || egress.is_some()).then(|| Bandwidth {
        ingress_rate: ingress.unwrap_or(0),
        ingress_burst: burst(ingress),
        egress_rate: egress.unwrap_or(0),
        egress_burst: burst(egress),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn mapping(host_port: i32, container_port: i32, host_ip: &str) -> runtime::PortMapping {
        runtime::PortMapping { host_port, container_port, host_ip: host_ip.into(), ..Default::default() }
    }

    #[test]
    fn only_host_ports_are_mapped() {
        let made = port_mappings(&[mapping(0, 80, ""), mapping(8080, 80, "127.0.0.1")]).unwrap();
        assert_eq!(made.len(), 1);
        assert_eq!((made[0].host_port, made[0].container_port), (8080, 80));
        assert_eq!(made[0].host_ip, Some([127, 0, 0, 1].into()));
    }

    #[test]
    fn ports_and_addresses_that_are_none_are_refused() {
        for bad in [mapping(70000, 80, ""), mapping(80, 0, ""), mapping(80, 70000, ""), mapping(80, 80, "here")] {
            assert_eq!(port_mappings(&[bad]).map_err(|e| e.kind()).err(), Some(Kind::InvalidArgument));
        }
    }

    #[test]
    fn one_limit_leaves_the_other_direction_free() {
        let mut config = PodSandboxConfig::default();
        assert!(bandwidth(&config).unwrap().is_none());
        config.annotations.insert("kubernetes.io/egress-bandwidth".into(), "10M".into());
        let made = bandwidth(&config).unwrap().unwrap();
        assert_eq!((made.ingress_rate, made.ingress_burst), (0, 0));
        assert_eq!((made.egress_rate, made.egress_burst), (10_000_000, BURST));
    }
}
