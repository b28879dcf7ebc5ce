//! What the caller says about one container's place in a network: names, arguments and capability arguments.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// One container, one interface: what an ADD makes and a DEL takes away. `container_id` and `interface` identify it.
#[derive(Clone, Debug)]
pub struct Attachment<'a> {
    /// The sandbox id.
    pub container_id: &'a str,
    /// The network namespace. `None` or a path that is not there any more (DEL after a reboot): `CNI_NETNS` is empty.
    pub netns: Option<&'a Path>,
    /// The interface to make in the namespace: `eth0`.
    pub interface: &'a str,
    /// `CNI_ARGS`, in order: `K8S_POD_NAMESPACE` and its kin, `IgnoreUnknown`.
    pub args: &'a [(&'a str, &'a str)],
    /// What plugins that declare the capability are given in `runtimeConfig`.
    pub capabilities: Capabilities,
}

/// Capability arguments, by the names of CNI's CONVENTIONS.md. Empty ones are not sent.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Capabilities {
    /// Host ports; those without a host port do not belong here.
    #[serde(rename = "portMappings", skip_serializing_if = "Vec::is_empty")]
    pub port_mappings: Vec<PortMapping>,
    /// Traffic limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Bandwidth>,
    /// The pod's resolver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<Dns>,
    /// The pod's cgroup.
    #[serde(rename = "cgroupPath", skip_serializing_if = "Option::is_none")]
    pub cgroup_path: Option<String>,
    /// The pod's annotations.
    #[serde(rename = "io.kubernetes.cri.pod-annotations", skip_serializing_if = "BTreeMap::is_empty")]
    pub pod_annotations: BTreeMap<String, String>,
}

/// One host port.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    /// On the node; not 0.
    pub host_port: u16,
    /// In the pod.
    pub container_port: u16,
    /// What is forwarded.
    pub protocol: Protocol,
    /// The node's address to listen on; `None` is all of them.
    #[serde(rename = "hostIP", skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// Traffic limits; rates in bits per second, bursts in bits, 0 is no limit.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Bandwidth {
    /// Into the pod.
    pub ingress_rate: u64,
    /// Into the pod, at once.
    pub ingress_burst: u64,
    /// Out of the pod.
    pub egress_rate: u64,
    /// Out of the pod, at once.
    pub egress_burst: u64,
}

/// What is in the pod's resolv.conf.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Dns {
    /// Name servers.
    pub servers: Vec<String>,
    /// Search domains.
    pub searches: Vec<String>,
    /// Options.
    pub options: Vec<String>,
}

impl Capabilities {
    /// As `runtimeConfig` has them, before the choice by a plugin's own `capabilities`.
    pub(super) fn to_json(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(map)) => map,
            other => unreachable!("capabilities are a plain struct with string keys: {other:?}"),
        }
    }
}

impl Attachment<'_> {
    /// Refuses what would not survive the way through environment variables and file names.
    pub(super) fn check_names(&self) -> Result<()> {
        if !is_name(self.container_id) {
            return Err(Error::invalid(format!("container id {:?} is not a CNI name", self.container_id)));
        }
        let taken = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
        if self.interface.is_empty()
            || self.interface.len() > 15
            || matches!(self.interface, "." | "..")
            || self.interface.contains(taken)
        {
            return Err(Error::invalid(format!("{:?} cannot name a network interface", self.interface)));
        }
        Ok(())
    }

    /// As [`Attachment::check_names`], and the arguments, which a DEL takes from the record.
    pub(super) fn check(&self) -> Result<()> {
        self.check_names()?;
        for (key, value) in self.args {
            if key.is_empty() || key.contains(['=', ';', '\0']) || value.contains([';', '\0']) {
                return Err(Error::invalid(format!("CNI argument {key:?}={value:?} has no form in CNI_ARGS")));
            }
        }
        Ok(())
    }
}

/// The rule for network names and container ids (SPEC, section 1): no separators, no leading dot.
pub(super) fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use serde_json::json;

    #[test]
    fn capabilities_have_the_keys_of_the_conventions() {
        let capabilities = Capabilities {
            port_mappings: vec![
                PortMapping { host_port: 80, container_port: 8080, protocol: Protocol::Tcp, host_ip: None },
                PortMapping {
                    host_port: 53,
                    container_port: 53,
                    protocol: Protocol::Udp,
                    host_ip: Some([127, 0, 0, 1].into()),
                },
            ],
            bandwidth: Some(Bandwidth { ingress_rate: 1, ingress_burst: 2, egress_rate: 3, egress_burst: 4 }),
            dns: Some(Dns { servers: vec!["10.0.0.10".into()], ..Dns::default() }),
            cgroup_path: Some("/kubepods/x".into()),
            pod_annotations: [("a".into(), "b".into())].into(),
        };
        assert_eq!(
            Value::Object(capabilities.to_json()),
            json!({
                "portMappings": [
                    {"hostPort": 80, "containerPort": 8080, "protocol": "tcp"},
                    {"hostPort": 53, "containerPort": 53, "protocol": "udp", "hostIP": "127.0.0.1"},
                ],
                "bandwidth": {"ingressRate": 1, "ingressBurst": 2, "egressRate": 3, "egressBurst": 4},
                "dns": {"servers": ["10.0.0.10"], "searches": [], "options": []},
                "cgroupPath": "/kubepods/x",
                "io.kubernetes.cri.pod-annotations": {"a": "b"},
            })
        );
        assert_eq!(Value::Object(Capabilities::default().to_json()), json!({}));
    }

    #[test]
    fn what_does_not_fit_is_invalid() {
        let good = Attachment {
            container_id: "0a",
            netns: None,
            interface: "eth0",
            args: &[("K8S_POD_NAME", "a=b")],
            capabilities: Capabilities::default(),
        };
        assert!(good.check().is_ok());
        let with = |f: &dyn Fn(&mut Attachment<'static>)| {
            let mut at = good.clone();
            f(&mut at);
            at.check().map_err(|e| e.kind())
        };
        for id in ["", "../x", "a/b", "-a", ".a", "a b", "a\0"] {
            assert_eq!(with(&|at| at.container_id = id), Err(Kind::InvalidArgument), "{id:?}");
        }
        for name in ["", ".", "..", "a/b", "a:b", "a b", "sixteen-letters-"] {
            assert_eq!(with(&|at| at.interface = name), Err(Kind::InvalidArgument), "{name:?}");
        }
        for args in [&[("a", "b;c=d")], &[("a;b", "c")], &[("a=b", "c")], &[("", "c")], &[("a", "\0")]] {
            assert_eq!(with(&|at| at.args = args), Err(Kind::InvalidArgument), "{args:?}");
        }
    }
}
