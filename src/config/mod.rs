//! The configuration in three stages: as typed, as meant (defaults filled in), checked. Pure functions of text.
//!
//! The command line reads the file; nothing here touches files, environment or clock.

mod check;
mod show;
mod typed;

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
    /// The containerd that works for us.
    pub containerd: Containerd,
    /// Pod networking.
    pub cni: Cni,
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

/// One runtime handler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handler {
    /// containerd's runtime type, which names the shim: `io.containerd.runc.v2`.
    pub runtime_type: String,
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
}

impl Default for Config {
    fn default() -> Self {
        Config::parse("", Overrides::default()).expect("the defaults pass the checks")
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
    }

    #[test]
    fn what_is_shown_parses_to_the_same() {
        let text = r#"
            socket = "/tmp/a \"b\".sock"
            log_level = "debug"
            cgroup_driver = "systemd"
            sandbox_process = "always"
            default_runtime = "kata"
            [cni]
            bin_dirs = ["/a", "/b"]
            timeout = 7
            [runtime.runc]
            systemd_cgroup = false
            [runtime.kata]
            type = "io.containerd.kata.v2"
            binary = "/usr/bin/kata"
            snapshotter = "devmapper"
            privileged_without_host_devices = true
        "#;
        let config = Config::parse(text, Overrides::default()).expect("valid");
        assert_eq!(config.runtimes["kata"].snapshotter.as_deref(), Some("devmapper"));
        assert_eq!(config.snapshotter(&config.runtimes["runc"]), "overlayfs");
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
