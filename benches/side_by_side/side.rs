//! One of the two sides as the experiments see it: a client, a control group, pods.

use std::path::{Path, PathBuf};
use std::time::Instant;

use cricket::containerd::Client;
use cricket::error::{Context, Result};
use cricket_proto::runtime::{ContainerConfig, PodSandboxConfig};

use crate::containerd::Flavour;
use crate::cri::{container, pod_config_in, Cri};
use crate::group::Group;
use crate::interrupt;
use crate::node::{Node, Tuning};
use crate::peer::Peer;
use crate::process;
use crate::setting::Setting;
use crate::shell;

/// A container that ends when it is asked to, and does nothing until then.
const POLITE: &str = "trap 'exit 0' TERM; sleep 100000 & wait";

/// What a user of cricket gives containerd to read.
const DIST: &str = include_str!("../../dist/containerd.toml");

/// How often containerd looks for garbage, as that file says. The peer's does as containerd itself thinks best.
fn as_installed(_: &Flavour, _: &Path) -> String {
    let begin = DIST.find("[plugins.").expect("it has one table");
    DIST[begin..].to_owned()
}

/// A node under measurement.
pub struct Side {
    /// `cricket` or `peer`.
    pub name: &'static str,
    machinery: Machinery,
    /// All its processes.
    pub group: Group,
}

enum Machinery {
    Cricket(Node),
    Peer(Peer),
}

/// A pod and its container.
pub struct Pod {
    pub config: PodSandboxConfig,
    pub id: String,
    pub container: String,
}

impl Side {
    /// cricket on a containerd of its own, as docs/operations.md has both installed; `top` is what its configuration says
    /// besides where things are.
    pub fn cricket(setting: &Setting, top: &str) -> Result<Side> {
        let containerd = Flavour { tables: Some(as_installed), ..setting.flavour() };
        let tuning = Tuning { log_level: "info", top: top.to_owned(), runc: setting.handler(), containerd };
        let group = Group::new("cricket")?;
        let node = Node::start_as(tuning);
        group.adopt(node.containerd.pid())?;
        group.adopt(node.daemon_pid())?;
        Ok(Side { name: "cricket", machinery: Machinery::Cricket(node), group })
    }

    /// containerd's own CRI plugin.
    pub fn peer(setting: &Setting) -> Result<Side> {
        let group = Group::new("peer")?;
        let peer = Peer::start(setting.flavour());
        group.adopt(peer.containerd.pid())?;
        let archive = peer.containerd.dir().join("shell.tar");
        shell::write(&archive, &[]);
        peer.import(&archive, shell::IMAGE);
        Ok(Side { name: "peer", machinery: Machinery::Peer(peer), group })
    }

    /// Both.
    pub fn both(setting: &Setting) -> Result<[Side; 2]> {
        Ok([Side::cricket(setting, "")?, Side::peer(setting)?])
    }

    /// Its CRI.
    pub fn cri(&self) -> &Cri {
        match &self.machinery {
            Machinery::Cricket(node) => &node.cri,
            Machinery::Peer(peer) => &peer.cri,
        }
    }

    /// A client of its containerd.
    pub fn containerd_client(&self) -> Client {
        match &self.machinery {
            Machinery::Cricket(node) => node.containerd_client(),
            Machinery::Peer(peer) => Client::new(&peer.containerd.socket()).expect("a path"),
        }
    }

    /// Where everything of it lies.
    pub fn dir(&self) -> &Path {
        match &self.machinery {
            Machinery::Cricket(node) => node.dir(),
            Machinery::Peer(peer) => peer.containerd.dir(),
        }
    }

    /// The process that serves the CRI.
    pub fn daemon_pid(&self) -> u32 {
        match &self.machinery {
            Machinery::Cricket(node) => node.daemon_pid(),
            Machinery::Peer(peer) => peer.containerd.pid(),
        }
    }

    /// Kills the process that serves the CRI and starts it again; when that was. What runs goes on.
    pub fn restart(&mut self) -> Result<Instant> {
        let begun = match &mut self.machinery {
            Machinery::Cricket(node) => {
                node.end_daemon("KILL");
                node.spawn_daemon()
            }
            Machinery::Peer(peer) => {
                peer.containerd.kill();
                let begun = Instant::now();
                peer.containerd.start_again();
                begun
            }
        };
        self.group.adopt(self.daemon_pid())?;
        Ok(begun)
    }

    /// Imports an archive that holds the image `name`.
    pub fn import(&self, archive: &Path, name: &str) {
        match &self.machinery {
            Machinery::Cricket(node) => node.import(archive, name),
            Machinery::Peer(peer) => peer.import(archive, name),
        }
    }

    /// The configuration of a pod, as the kubelet would have it.
    pub fn pod_config(&self, name: &str) -> PodSandboxConfig {
        let mut config = pod_config_in(&self.dir().join("logs"), name);
        config.linux.mut_or_insert_default().cgroup_parent = self.group.pods();
        config.labels.extend(labels(name));
        config
    }

    /// Makes an idle pod of one container.
    pub fn run(&self, name: &str) -> Result<Pod> {
        interrupt::check()?;
        let config = self.pod_config(name);
        let id = self.cri().run_pod(&config).with_context(|| format!("{}: RunPodSandbox", self.name))?;
        let container =
            self.cri().create(&id, &config, polite("c")).with_context(|| format!("{}: Create", self.name))?;
        self.cri().start(&container).with_context(|| format!("{}: StartContainer", self.name))?;
        Ok(Pod { config, id, container })
    }

    /// Stops and removes a pod.
    pub fn remove(&self, pod: &Pod) -> Result<()> {
        self.cri().stop_pod(&pod.id).with_context(|| format!("{}: StopPodSandbox", self.name))?;
        self.cri().remove_pod(&pod.id).with_context(|| format!("{}: RemovePodSandbox", self.name))
    }

    /// Memory of containerd, daemon, shims and pause processes; not of the containers.
    pub fn pss_bytes(&self) -> Result<u64> {
        let pauses = self.group.pod_pids()?.into_iter().filter(|pid| process::name(*pid) == "pause");
        let all: Vec<u32> = self.group.system_pids()?.into_iter().chain(pauses).collect();
        Ok(process::pss_bytes(&all))
    }

    /// Where the log of a pod's container lies.
    pub fn log(&self, config: &PodSandboxConfig, container: &str) -> PathBuf {
        Path::new(&config.log_directory).join(format!("{container}.log"))
    }
}

/// An idle container that is asked for as the kubelet asks.
pub fn polite(name: &str) -> ContainerConfig {
    let mut config = container(name, POLITE);
    config.labels.extend(labels(name));
    config.annotations.insert("io.kubernetes.container.restartCount".into(), "0".into());
    config.annotations.insert("io.kubernetes.container.terminationMessagePath".into(), "/dev/termination-log".into());
    config
}

fn labels(name: &str) -> [(String, String); 3] {
    ["name", "namespace", "uid"].map(|key| (format!("io.kubernetes.pod.{key}"), format!("{name}-{key}")))
}
