//! The CNI room with the reference plugins in a real network namespace. Needs root, the plugins and iptables.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use cricket::call::Call;
use cricket::cni::{Attachment, Capabilities, Cni, PortMapping, Protocol};

const PLUGINS: [&str; 4] = ["bridge", "host-local", "loopback", "portmap"];

/// A namespace, a bridge, a network and a directory of one test alone, removed at the end whatever happens.
struct Node {
    namespace: String,
    bridge: String,
    dir: PathBuf,
    cni: Cni,
    /// The container.
    id: String,
}

impl Node {
    /// `number` tells the tests of this process apart: it is in every name, in the subnet and in the host port.
    fn new(number: u16) -> Self {
        let bin = ["/opt/cni/bin", "/usr/lib/cni"].map(PathBuf::from);
        for plugin in PLUGINS {
            assert!(bin.iter().any(|dir| dir.join(plugin).is_file()), "apt-get install containernetworking-plugins");
        }
        let pid = std::process::id();
        let dir = std::env::temp_dir().join(format!("cricket-cni-real-{pid}-{number}"));
        let node = Node {
            namespace: format!("cricket-cni-{pid}-{number}"),
            bridge: format!("ckt{pid}-{number}"),
            cni: Cni::new(dir.join("net.d"), bin.to_vec(), dir.join("cache"), Duration::from_secs(60)),
            dir,
            id: format!("{pid:060x}{number:04x}"),
        };
        fs::create_dir_all(node.dir.join("net.d")).expect("make a directory");
        ip(&["netns", "add", &node.namespace]);
        let conf = format!(
            r#"{{"cniVersion": "1.0.0", "name": "cricket-test", "plugins": [
                {{"type": "bridge", "bridge": "{}", "isGateway": true, "ipam":
                    {{"type": "host-local", "dataDir": "{}", "ranges": [[{{"subnet": "10.213.{number}.0/24"}}]]}}}},
                {{"type": "loopback"}},
                {{"type": "portmap", "capabilities": {{"portMappings": true}}}}]}}"#,
            node.bridge,
            node.dir.join("ipam").display(),
        );
        fs::write(node.conf(), conf).expect("write");
        node
    }

    fn conf(&self) -> PathBuf {
        self.dir.join("net.d/10-test.conflist")
    }

    fn attachment<'a>(&'a self, netns: &'a Path, host_port: u16) -> Attachment<'a> {
        let mapping = PortMapping { host_port, container_port: 80, protocol: Protocol::Tcp, host_ip: None };
        Attachment {
            container_id: &self.id,
            netns: Some(netns),
            interface: "eth0",
            args: &[("IgnoreUnknown", "1"), ("K8S_POD_NAME", "web")],
            capabilities: Capabilities { port_mappings: vec![mapping], ..Capabilities::default() },
        }
    }

    fn netns(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.namespace)
    }

    /// The addresses of the interface in the namespace, as `ip` shows them; empty when there is no such interface.
    fn addresses(&self) -> String {
        let output = Command::new("ip").args(["-n", &self.namespace, "addr", "show", "dev", "eth0"]).output();
        String::from_utf8(output.expect("run ip").stdout).expect("text")
    }

    /// The addresses that host-local has given away.
    fn leases(&self) -> Vec<IpAddr> {
        let entries = fs::read_dir(self.dir.join("ipam/cricket-test")).into_iter().flatten();
        entries.filter_map(|e| e.expect("entry").file_name().to_str().and_then(|name| name.parse().ok())).collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for args in [["netns", "del", &self.namespace], ["link", "del", &self.bridge]] {
            // What the test has removed already is not there.
            Command::new("ip").args(args).output().ok();
        }
        fs::remove_dir_all(&self.dir).ok(); // nothing depends on it
    }
}

fn ip(args: &[&str]) {
    assert!(Command::new("ip").args(args).status().expect("apt-get install iproute2").success(), "ip {args:?}");
}

/// The nat rules that mention the container.
fn rules(container: &str) -> usize {
    let output = Command::new("iptables-save").args(["-t", "nat"]).output().expect("apt-get install iptables");
    String::from_utf8_lossy(&output.stdout).lines().filter(|line| line.contains(container)).count()
}

#[test]
fn the_reference_plugins_attach_and_detach_a_namespace() {
    let node = Node::new(77);
    node.cni.ready().expect("ready");
    let netns = node.netns();
    let at = node.attachment(&netns, 31777);
    let call = Call::unbounded();
    let outcome = node.cni.add(&call, &node.cni.network().expect("valid"), &at).expect("add");
    assert_eq!(outcome.ips, node.leases(), "{}", outcome.raw);
    assert_eq!(outcome.ips.len(), 1);
    assert!(node.addresses().contains(&outcome.ips[0].to_string()), "{}", node.addresses());
    assert!(rules(&node.id) > 0, "portmap made rules");

    // DEL undoes it although the configuration has gone, and can be repeated.
    fs::remove_file(node.conf()).expect("remove");
    for _ in 0..2 {
        node.cni.del(&call, &at).expect("del");
        assert_eq!((node.addresses().as_str(), node.leases().len(), rules(&node.id)), ("", 0, 0));
    }
    assert_eq!(fs::read_dir(node.dir.join("cache/results")).expect("read").count(), 0);
}

#[test]
fn the_address_is_given_back_when_the_namespace_has_gone() {
    let node = Node::new(78);
    let netns = node.netns();
    let at = node.attachment(&netns, 31778);
    let call = Call::unbounded();
    node.cni.add(&call, &node.cni.network().expect("valid"), &at).expect("add");
    ip(&["netns", "del", &node.namespace]);
    assert_eq!((node.leases().len(), rules(&node.id) > 0), (1, true), "what a reboot leaves, at worst");
    node.cni.del(&call, &at).expect("del");
    assert_eq!((node.leases().len(), rules(&node.id)), (0, 0));
}

#[test]
fn a_half_made_attachment_is_undone_once_the_configuration_is_repaired() {
    let node = Node::new(79);
    let netns = node.netns();
    let at = node.attachment(&netns, 31779);
    let call = Call::unbounded();
    // The third plugin refuses, when the interface is there and the address is taken.
    let good = fs::read_to_string(node.conf()).expect("read");
    let broken = good.replace(r#""type": "portmap","#, r#""type": "portmap", "markMasqBit": 99,"#);
    assert_ne!(good, broken);
    fs::write(node.conf(), broken).expect("write");
    let e = node.cni.add(&call, &node.cni.network().expect("valid"), &at).expect_err("portmap refuses");
    assert!(e.to_string().contains("CNI plugin portmap: failed to parse config"), "{e}");
    assert!(node.cni.del(&call, &at).is_err(), "portmap refuses this too");
    assert_eq!(node.leases().len(), 1);
    fs::write(node.conf(), good).expect("write");
    node.cni.del(&call, &at).expect("del");
    assert_eq!((node.addresses().as_str(), node.leases().len()), ("", 0));
}
