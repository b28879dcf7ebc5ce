//! What the containers of a pod share, and what a pod gets from its configuration.

use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

use cricket_proto::runtime::{DNSConfig, NamespaceMode, PodSandboxState, PortMapping};
use protobuf::MessageField;

use crate::census::{self, Census};
use crate::cri::{container, namespaces, pod_config, Pod, POLITE};
use crate::node::{until, Node};

fn namespace(pid: impl std::fmt::Display, kind: &str) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("it lives")
}

/// What a server at this address says.
fn heard(address: &str) -> Option<String> {
    let address = address.parse().expect("an address");
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

#[test]
fn two_containers_of_a_pod_share_its_namespaces_files_and_shim_and_nothing_stays() {
    let node = Node::start();
    let empty = Census::take(&node);
    let host_port = 20_000 + (std::process::id() % 10_000) as i32;
    let mut config = pod_config(&node, "web-0");
    config.dns_config = MessageField::some(DNSConfig {
        servers: vec!["192.0.2.53".into(), "192.0.2.54".into()],
        searches: vec!["default.svc.cluster.test".into()],
        options: vec!["ndots:5".into()],
        ..Default::default()
    });
    let mapping = PortMapping { container_port: 8080, host_port, ..Default::default() };
    config.port_mappings = vec![mapping];
    let sysctls = &mut config.linux.as_mut().expect("set").sysctls;
    sysctls.insert("net.ipv4.ip_local_port_range".into(), "20000 30000".into());
    sysctls.insert("kernel.shm_rmid_forced".into(), "1".into());
    let pod = Pod::run_as(&node, config);
    let cri = &node.cri;

    let status = cri.pod_status(&pod.id).expect("PodSandboxStatus");
    assert_eq!(status.state, PodSandboxState::SANDBOX_READY.into());
    let ip = status.network.ip.clone();
    assert!(ip.starts_with(node.gateway.trim_end_matches('1')), "{ip} is of the pod network");

    let one = pod.start(container("one", POLITE));
    let two = pod.start(container("two", "exec nc -ll -p 8080 -e echo hello"));

    let (first, second) = (cri.pid(&one), cri.pid(&two));
    for kind in ["net", "ipc", "uts"] {
        assert_eq!(namespace(first, kind), namespace(second, kind), "{kind} is shared");
        assert_ne!(namespace(first, kind), namespace("self", kind), "{kind} is the pod's own");
    }
    for kind in ["pid", "mnt"] {
        assert_ne!(namespace(first, kind), namespace(second, kind), "{kind} is a container's own");
    }

    let shims = census::shims(&node);
    assert_eq!(shims.len(), 1, "one shim serves the pod: {shims:?}");

    let hosts = fs::read_to_string("/etc/hosts").expect("the host's");
    for id in [&one, &two] {
        assert_eq!(cri.sh(id, "hostname; cat /etc/hostname"), "web-0\nweb-0");
        assert_eq!(cri.sh(id, "cat /etc/hosts"), hosts.trim_end());
        let resolv = "search default.svc.cluster.test\nnameserver 192.0.2.53\nnameserver 192.0.2.54\noptions ndots:5";
        assert_eq!(cri.sh(id, "cat /etc/resolv.conf"), resolv);
        assert_eq!(cri.sh(id, "cat /proc/sys/net/ipv4/ip_local_port_range"), "20000\t30000");
        assert_eq!(cri.sh(id, "cat /proc/sys/kernel/shm_rmid_forced"), "1");
        assert_eq!(cri.sh(id, "cat /proc/sys/net/ipv4/ip_unprivileged_port_start"), "0");
    }

    cri.sh(&one, "echo from one > /dev/shm/note");
    assert_eq!(cri.sh(&two, "cat /dev/shm/note"), "from one");
    assert!(cri.sh(&two, "grep ' /dev/shm ' /proc/mounts").contains("size=65536k"));
    assert!(!std::path::Path::new("/dev/shm/note").exists(), "it is not the host's");

    until("the server is reached at the pod's address", || heard(&format!("{ip}:8080")).is_some());
    assert_eq!(heard(&format!("{ip}:8080")).as_deref(), Some("hello\n"));
    assert_eq!(cri.sh(&one, "nc 127.0.0.1 8080 < /dev/null"), "hello", "its neighbour reaches it on loopback");
    assert_eq!(heard(&format!("{}:{host_port}", node.gateway)).as_deref(), Some("hello\n"), "and by the host port");

    pod.remove();
    let left = Census::take(&node).new_since(&empty);
    assert!(left.is_empty(), "{left:#?}");
}

#[test]
fn a_pod_in_the_hosts_network_has_the_hosts_namespaces_and_no_address() {
    let node = Node::shared();
    let mut config = pod_config(&node, "host-net");
    config.hostname = String::new();
    let security = config.linux.mut_or_insert_default().security_context.mut_or_insert_default();
    security.namespace_options = MessageField::some(namespaces(NamespaceMode::NODE));
    let pod = Pod::run_as(&node, config);
    let mut config = container("c", POLITE);
    let security = config.linux.mut_or_insert_default().security_context.mut_or_insert_default();
    security.namespace_options = MessageField::some(namespaces(NamespaceMode::NODE));
    let id = pod.start(config);

    let pid = node.cri.pid(&id);
    for kind in ["net", "uts"] {
        assert_eq!(namespace(pid, kind), namespace("self", kind), "{kind} is the host's");
    }
    assert_ne!(namespace(pid, "ipc"), namespace("self", "ipc"));
    let name = fs::read_to_string("/proc/sys/kernel/hostname").expect("the host's");
    assert_eq!(node.cri.sh(&id, "hostname"), name.trim_end());
    let status = node.cri.pod_status(&pod.id).expect("PodSandboxStatus");
    assert_eq!(status.network.ip, "");
    assert_eq!(status.linux.namespaces.options.network, NamespaceMode::NODE.into());
    pod.remove();
}

#[test]
fn a_stopped_pod_is_not_ready_without_address_and_takes_no_container() {
    let node = Node::shared();
    let pod = Pod::run(&node, "stopped");
    let id = pod.start(container("c", POLITE));
    for _ in 0..2 {
        node.cri.stop_pod(&pod.id).expect("StopPodSandbox, twice");
    }
    assert_eq!(node.cri.ended(&id).exit_code, 137, "its containers are killed with it");
    let status = node.cri.pod_status(&pod.id).expect("PodSandboxStatus");
    assert_eq!((status.state, &*status.network.ip), (PodSandboxState::SANDBOX_NOTREADY.into(), ""));
    let e = node.cri.create(&pod.id, &pod.config, container("d", POLITE)).expect_err("not ready");
    assert_eq!(e.kind(), cricket::error::Kind::FailedPrecondition, "{e}");
    for _ in 0..2 {
        node.cri.remove_pod(&pod.id).expect("RemovePodSandbox, twice");
    }
    assert_eq!(node.cri.pod_status(&pod.id).map_err(|e| e.kind()).err(), Some(cricket::error::Kind::NotFound));
}
