//! The configuration in three stages: as typed, as meant (defaults filled in), checked. Pure functions of text.
//!
//! The command line reads the file; nothing here touches files, environment or clock.

mod check;
pub mod glob;
mod show;
mod typed;

use core::net::IpAddr;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::Result;

pub use typed::Overrides;

/// Everything an operator can choose, checked: a value of this type came through [`Config::parse`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The unix socket of the CRI.
    pub socket: PathBuf,
    /// Durable records.
    pub root: PathBuf,
    /// What may vanish at boot.
    pub state: PathBuf,
    /// Where network namespaces are pinned.
    pub netns_dir: PathBuf,
    /// How much is logged.
    pub log_level: log::LevelFilter,
    /// Bound on calls served at the same time, and so on worker threads.
    pub max_calls: usize,
    /// How long a shutdown waits for calls in flight.
    pub shutdown_grace: Duration,
    /// Longest line of a container log; longer ones are split with the partial tag `P`.
    pub log_line_bytes: usize,
    /// Who manages cgroups.
    pub cgroup_driver: CgroupDriver,
    /// Which sandboxes have a process.
    pub sandbox_process: SandboxProcess,
    /// Folders of CDI specifications; the devices of a later one hide those of an earlier one.
    pub cdi_dirs: Vec<PathBuf>,
    /// Devices belong to the user and group that the container runs as.
    pub device_ownership_from_security_context: bool,
    /// What becomes of the volumes that images declare.
    pub image_volumes: ImageVolumes,
    /// What filters the system calls of a container that names no profile.
    pub unset_seccomp_profile: UnsetSeccomp,
    /// Containers get SELinux labels where SELinux is on.
    pub enable_selinux: bool,
    /// Ports below 1024 are free for everybody in pods with a network of their own.
    pub unprivileged_ports: bool,
    /// Pings are free for everybody in pods with a network of their own.
    pub unprivileged_ping: bool,
    /// Which containers share a shim of the runc family.
    pub shim_scope: ShimScope,
    /// The containerd that works for us.
    pub containerd: Containerd,
    /// Pod networking.
    pub cni: Cni,
    /// Exec, attach and port-forward.
    pub streaming: Streaming,
    /// Images and the registries they come from.
    pub image: Image,
    /// The handler of a pod that names none; always a key of `runtimes`.
    pub default_runtime: String,
    /// Runtime handlers by name (`runtimeHandler` of a `RuntimeClass`).
    pub runtimes: BTreeMap<String, Handler>,
}

/// Where containerd answers and which snapshotter it uses for us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Containerd {
    /// Path of containerd's unix socket.
    pub address: PathBuf,
    /// Snapshotter for handlers that name none.
    pub snapshotter: String,
}

/// Where CNI finds its configuration and plugins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cni {
    /// Folder of `.conf`, `.conflist` and `.json` files; the first by name wins.
    pub conf_dir: PathBuf,
    /// Folders searched for plugins, in this order. Never empty.
    pub bin_dirs: Vec<PathBuf>,
    /// Bound on one ADD or DEL, all plugins together.
    pub timeout: Duration,
    /// Where results are kept for the DEL that follows.
    pub cache_dir: PathBuf,
}

/// The type that a handler has unless it names another, and the one for which we have a shim.
pub const RUNC: &str = "io.containerd.runc.v2";

/// How clients of exec, attach and port-forward are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Streaming {
    /// Where: a loopback address, for the kubelet relays; any other only with a certificate.
    pub address: IpAddr,
    /// Its port; 0 is any.
    pub port: u16,
    /// How long a session may be silent.
    pub idle_timeout: Duration,
    /// Bound on sessions at the same time.
    pub max_sessions: usize,
    /// A command ends when its client goes away.
    pub end_exec_with_client: bool,
    /// Sessions are encrypted, if there is one.
    pub certificate: Option<Certificate>,
}

/// Who a TLS server is. The files are read when they are needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Its certificate and those between it and one that clients trust, in PEM.
    pub chain: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
}

/// Which images there are and how they come here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Folders with a folder for each registry, in which `hosts.toml` says where to pull from.
    pub registry_dirs: Vec<PathBuf>,
    /// Layers fetched at the same time, all pulls together.
    pub max_downloads: usize,
    /// A download without a byte for so long is given up; zero is for ever.
    pub progress_timeout: Duration,
    /// Patterns of names; `*` is any text. Images that have such a name are not collected by the kubelet.
    pub pinned: Vec<String>,
    /// containerd may drop layers once they are unpacked.
    pub discard_unpacked_layers: bool,
    /// Archives in this folder are imported; nowhere if none.
    pub import_dir: Option<PathBuf>,
}

/// One runtime handler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handler {
    /// containerd's runtime type: `io.containerd.runc.v2` for OCI runtimes like runc.
    pub runtime_type: String,
    /// Which shim looks after containers of that type.
    pub shim: Shim,
    /// The OCI runtime binary; the shim's own default if none.
    pub binary: Option<PathBuf>,
    /// The OCI runtime's state folder; the shim's own default if none.
    pub root: Option<PathBuf>,
    /// Whether the OCI runtime asks systemd for cgroups; follows [`Config::cgroup_driver`] if none.
    pub systemd_cgroup: Option<bool>,
    /// Snapshotter of this handler's pods; [`Containerd::snapshotter`] if none.
    pub snapshotter: Option<String>,
    /// Privileged containers do not get the host's devices.
    pub privileged_without_host_devices: bool,
    /// Annotations of pods that go into the spec, as patterns of [`glob`].
    pub pod_annotations: Vec<String>,
    /// Annotations of containers that go into the spec.
    pub container_annotations: Vec<String>,
    /// A runtime spec, as JSON, for what a configuration of the CRI cannot say.
    pub base_spec: Option<PathBuf>,
    /// A configuration file for a shim that is not of the runc family.
    pub config_path: Option<PathBuf>,
}

/// What a container gets that names no seccomp profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnsetSeccomp {
    /// No filter, which is what the CRI's clients expect.
    Unconfined,
    /// The filter of RuntimeDefault.
    RuntimeDefault,
}

/// What a container gets for a VOLUME of its image that nothing is mounted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageVolumes {
    /// A directory of its own with the image's content.
    Bind,
    /// Nothing: what it writes there goes to its writable layer.
    Ignore,
}

impl ImageVolumes {
    /// The word in the configuration file.
    pub fn as_str(self) -> &'static str {
        match self {
            ImageVolumes::Bind => "bind",
            ImageVolumes::Ignore => "ignore",
        }
    }
}

/// Whose shim looks after the containers of an OCI runtime like runc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shim {
    /// Ours where containerd can run it, else containerd's.
    Auto,
    /// Ours, or no container.
    Cricket,
    /// containerd's, `containerd-shim-runc-v2`.
    RuncV2,
}

impl Shim {
    /// The word in the configuration file.
    pub fn as_str(self) -> &'static str {
        match self {
            Shim::Auto => "auto",
            Shim::Cricket => "cricket",
            Shim::RuncV2 => "runc-v2",
        }
    }
}

/// Who manages cgroups, to agree with the kubelet's `cgroupDriver`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupDriver {
    /// systemd where it runs as pid 1 on cgroup v2, cgroupfs elsewhere.
    Auto,
    /// We write below `/sys/fs/cgroup` ourselves.
    Cgroupfs,
    /// Slices and scopes of systemd.
    Systemd,
}

/// Which containers share a shim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShimScope {
    /// Those of a pod.
    Pod,
    /// All of the node.
    Node,
}

/// Which sandboxes have a process of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SandboxProcess {
    /// Those whose containers share a PID namespace: something must be its first process.
    Auto,
    /// All: cAdvisor counts the network traffic of a pod only where there is one.
    Always,
}

impl Config {
    /// The configuration that `text` (TOML) and, over it, `flags` mean.
    ///
    /// # Errors
    /// `InvalidArgument`, naming the key and where possible the line.
    pub fn parse(text: &str, flags: Overrides) -> Result<Config> {
        check::checked(typed::read(text)?.meant(flags)?)
    }

    /// This configuration as commented TOML. Parsing it again gives the same configuration.
    pub fn to_toml(&self) -> String {
        show::toml(self)
    }

    /// The snapshotter of the pods of `handler`.
    pub fn snapshotter<'a>(&'a self, handler: &'a Handler) -> &'a str {
        handler.snapshotter.as_deref().unwrap_or(&self.containerd.snapshotter)
    }

    /// Every snapshotter that images and containers may be in: that of the handlers that name none, then the others.
    pub fn snapshotters(&self) -> Vec<&str> {
        let mut all = vec![self.containerd.snapshotter.as_str()];
        for handler in self.runtimes.values() {
            let own = self.snapshotter(handler);
            if !all.contains(&own) {
                all.push(own);
            }
        }
        all
    }
}

impl Default for Config {
    fn default() -> Self {
        Config::parse("", Overrides::default()).expect("the defaults pass the checks")
    }
}

impl Handler {
    /// Whether its shim is of the runc family, whose options and annotations we know.
    pub fn is_runc(&self) -> bool {
        self.runtime_type.contains(".runc.")
    }
}

impl ShimScope {
    /// The word in the configuration file.
    pub fn as_str(self) -> &'static str {
        match self {
            ShimScope::Pod => "pod",
            ShimScope::Node => "node",
        }
    }
}

impl CgroupDriver {
    /// The word in the configuration file.
    pub fn as_str(self) -> &'static str {
        match self {
            CgroupDriver::Auto => "auto",
            CgroupDriver::Cgroupfs => "cgroupfs",
            CgroupDriver::Systemd => "systemd",
        }
    }
}

impl SandboxProcess {
    /// The word in the configuration file.
    pub fn as_str(self) -> &'static str {
        match self {
            SandboxProcess::Auto => "auto",
            SandboxProcess::Always => "always",
        }
    }
}

impl UnsetSeccomp {
    /// The word in the configuration file.
    pub fn as_str(self) -> &'static str {
        match self {
            UnsetSeccomp::Unconfined => "unconfined",
            UnsetSeccomp::RuntimeDefault => "runtime/default",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_typed_means_the_defaults() {
        let config = Config::default();
        assert_eq!(config.socket, PathBuf::from("/run/cricket/cricket.sock"));
        assert_eq!(config.runtimes["runc"].runtime_type, "io.containerd.runc.v2");
        assert_eq!(config.default_runtime, "runc");
        assert_eq!(config.log_line_bytes, 16384);
        assert_eq!(config.cgroup_driver, CgroupDriver::Auto);
        assert_eq!(config.shim_scope, ShimScope::Pod);
    }

    #[test]
    fn what_is_shown_parses_to_the_same() {
        let text = r#"
            socket = "/tmp/a \"b\".sock"
            log_level = "debug"
            cgroup_driver = "systemd"
            sandbox_process = "always"
            image_volumes = "ignore"
            unset_seccomp_profile = "runtime/default"
            enable_selinux = true
            unprivileged_ports = false
            unprivileged_ping = false
            shim_scope = "node"
            default_runtime = "kata"
            [cni]
            bin_dirs = ["/a", "/b"]
            timeout = 7
            [runtime.runc]
            systemd_cgroup = false
            shim = "cricket"
            [runtime.kata]
            type = "io.containerd.kata.v2"
            binary = "/usr/bin/kata"
            snapshotter = "devmapper"
            privileged_without_host_devices = true
            pod_annotations = ["io.katacontainers.*", "a\\*\"b"]
            container_annotations = ["*"]
            base_spec = "/etc/cricket/base.json"
            config_path = "/etc/kata/config.toml"
        "#;
        let config = Config::parse(text, Overrides::default()).expect("valid");
        assert_eq!(config.runtimes["kata"].snapshotter.as_deref(), Some("devmapper"));
        assert_eq!(config.snapshotter(&config.runtimes["runc"]), "overlayfs");
        assert_eq!(
            (config.snapshotters(), Config::default().snapshotters()),
            (vec!["overlayfs", "devmapper"], vec!["overlayfs"])
        );
        assert_eq!(config.runtimes["kata"].pod_annotations, ["io.katacontainers.*", "a\\*\"b"]);
        for config in [config, Config::default()] {
            assert_eq!(Config::parse(&config.to_toml(), Overrides::default()).expect("shown"), config);
        }
    }

    #[test]
    fn flags_win_over_the_file() {
        let flags = Overrides { socket: Some("/tmp/flag.sock".into()), ..Overrides::default() };
        let config = Config::parse("socket = \"/tmp/file.sock\"\nroot = \"/srv/c\"", flags).expect("valid");
        assert_eq!(config.socket, PathBuf::from("/tmp/flag.sock"));
        assert_eq!(config.root, PathBuf::from("/srv/c"));
    }
}
