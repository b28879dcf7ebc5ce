//! The configuration as typed, and what it means: every key is optional, an unknown one is refused.

use core::net::{IpAddr, Ipv4Addr};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::{
    Certificate, CgroupDriver, Cni, Config, Containerd, Handler, Image, ImageVolumes, SandboxProcess, Shim, ShimScope,
    Streaming, UnsetSeccomp, RUNC,
};
use crate::error::{Error, Result};

/// What the command line says; it wins over the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--socket`
    pub socket: Option<PathBuf>,
    /// `--root`
    pub root: Option<PathBuf>,
    /// `--state`
    pub state: Option<PathBuf>,
    /// `--containerd`
    pub containerd: Option<PathBuf>,
    /// `--snapshotter`
    pub snapshotter: Option<String>,
    /// `--cgroup-driver`
    pub cgroup_driver: Option<String>,
    /// `--log-level`
    pub log_level: Option<String>,
}

/// The file, key by key.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Typed {
    socket: Option<PathBuf>,
    root: Option<PathBuf>,
    state: Option<PathBuf>,
    netns_dir: Option<PathBuf>,
    log_level: Option<String>,
    max_calls: Option<usize>,
    shutdown_grace: Option<u64>,
    log_line_bytes: Option<usize>,
    cgroup_driver: Option<String>,
    sandbox_process: Option<String>,
    cdi_dirs: Option<Vec<PathBuf>>,
    device_ownership_from_security_context: bool,
    image_volumes: Option<String>,
    unset_seccomp_profile: Option<String>,
    enable_selinux: Option<bool>,
    unprivileged_ports: Option<bool>,
    unprivileged_ping: Option<bool>,
    shim_scope: Option<String>,
    default_runtime: Option<String>,
    containerd: TypedContainerd,
    cni: TypedCni,
    streaming: TypedStreaming,
    image: TypedImage,
    runtime: BTreeMap<String, TypedHandler>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TypedContainerd {
    address: Option<PathBuf>,
    snapshotter: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TypedCni {
    conf_dir: Option<PathBuf>,
    bin_dirs: Option<Vec<PathBuf>>,
    timeout: Option<u64>,
    cache_dir: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TypedStreaming {
    address: Option<String>,
    port: Option<u16>,
    idle_timeout: Option<u64>,
    max_sessions: Option<usize>,
    end_exec_with_client: Option<bool>,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TypedImage {
    registry_dirs: Option<Vec<PathBuf>>,
    max_downloads: Option<usize>,
    progress_timeout: Option<u64>,
    pinned: Vec<String>,
    discard_unpacked_layers: bool,
    import_dir: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TypedHandler {
    r#type: Option<String>,
    shim: Option<String>,
    binary: PathBuf,
    root: PathBuf,
    systemd_cgroup: Option<bool>,
    snapshotter: String,
    privileged_without_host_devices: bool,
    pod_annotations: Vec<String>,
    container_annotations: Vec<String>,
    base_spec: PathBuf,
    config_path: PathBuf,
}

/// Reads the file's text.
///
/// # Errors
/// `InvalidArgument` with the number and the text of the line at fault.
pub(super) fn read(text: &str) -> Result<Typed> {
    toml::from_str(text).map_err(|e| {
        let problem = e.message().replace('\n', ", ");
        match e.span().and_then(|span| text.get(..span.start)) {
            Some(before) => {
                let number = before.matches('\n').count();
                let line = text.lines().nth(number).unwrap_or_default().trim();
                Error::invalid(format!("configuration line {}, `{line}`: {problem}", number + 1))
            }
            None => Error::invalid(format!("configuration: {problem}")),
        }
    })
}

impl Typed {
    /// Fills in the defaults and lets the command line win. Values are translated, not yet judged.
    pub(super) fn meant(self, flags: Overrides) -> Result<Config> {
        let path = |typed: Option<PathBuf>, default: &str| typed.unwrap_or_else(|| default.into());
        let mut runtimes = BTreeMap::new();
        for (name, typed) in self.runtime {
            let handler = typed.meant(&name)?;
            runtimes.insert(name, handler);
        }
        if !runtimes.contains_key("runc") {
            runtimes.insert("runc".to_owned(), TypedHandler::default().meant("runc")?);
        }
        Ok(Config {
            socket: path(flags.socket.or(self.socket), "/run/cricket/cricket.sock"),
            root: path(flags.root.or(self.root), "/var/lib/cricket"),
            state: path(flags.state.or(self.state), "/run/cricket"),
            netns_dir: path(self.netns_dir, "/run/netns"),
            log_level: log_level(flags.log_level.or(self.log_level).as_deref().unwrap_or("info"))?,
            max_calls: self.max_calls.unwrap_or(128),
            shutdown_grace: Duration::from_secs(self.shutdown_grace.unwrap_or(15)),
            log_line_bytes: self.log_line_bytes.unwrap_or(16384),
            cgroup_driver: cgroup_driver(flags.cgroup_driver.or(self.cgroup_driver).as_deref().unwrap_or("auto"))?,
            sandbox_process: sandbox_process(self.sandbox_process.as_deref().unwrap_or("auto"))?,
            cdi_dirs: self.cdi_dirs.unwrap_or_else(|| vec!["/etc/cdi".into(), "/var/run/cdi".into()]),
            device_ownership_from_security_context: self.device_ownership_from_security_context,
            image_volumes: image_volumes(self.image_volumes.as_deref().unwrap_or("bind"))?,
            unset_seccomp_profile: unset_seccomp(self.unset_seccomp_profile.as_deref().unwrap_or("unconfined"))?,
            enable_selinux: self.enable_selinux.unwrap_or(false),
            unprivileged_ports: self.unprivileged_ports.unwrap_or(true),
            unprivileged_ping: self.unprivileged_ping.unwrap_or(true),
            shim_scope: shim_scope(self.shim_scope.as_deref().unwrap_or("pod"))?,
            containerd: Containerd {
                address: path(flags.containerd.or(self.containerd.address), "/run/containerd/containerd.sock"),
                snapshotter: flags.snapshotter.or(self.containerd.snapshotter).unwrap_or_else(|| "overlayfs".into()),
            },
            cni: Cni {
                conf_dir: path(self.cni.conf_dir, "/etc/cni/net.d"),
                bin_dirs: self.cni.bin_dirs.unwrap_or_else(|| vec!["/opt/cni/bin".into(), "/usr/lib/cni".into()]),
                timeout: Duration::from_secs(self.cni.timeout.unwrap_or(60)),
                cache_dir: path(self.cni.cache_dir, "/var/lib/cni"),
            },
            streaming: self.streaming.meant()?,
            image: self.image.meant(),
            default_runtime: self.default_runtime.unwrap_or_else(|| "runc".into()),
            runtimes,
        })
    }
}

impl TypedStreaming {
    fn meant(self) -> Result<Streaming> {
        let given = |file: Option<PathBuf>| file.filter(|file| !file.as_os_str().is_empty());
        let certificate = match (given(self.tls_cert), given(self.tls_key)) {
            (Some(chain), Some(key)) => Some(Certificate { chain, key }),
            (None, None) => None,
            _ => return Err(Error::invalid("configuration: streaming: tls_cert and tls_key need each other")),
        };
        Ok(Streaming {
            address: self.address.map_or(Ok(Ipv4Addr::LOCALHOST.into()), |text| address(&text))?,
            port: self.port.unwrap_or(0),
            idle_timeout: Duration::from_secs(self.idle_timeout.unwrap_or(4 * 3600)),
            max_sessions: self.max_sessions.unwrap_or(256),
            end_exec_with_client: self.end_exec_with_client.unwrap_or(true),
            certificate,
        })
    }
}

fn address(text: &str) -> Result<IpAddr> {
    text.parse().map_err(|_| Error::invalid(format!("configuration: streaming.address `{text}` is not an IP address")))
}

impl TypedImage {
    fn meant(self) -> Image {
        let usual = || vec!["/etc/containerd/certs.d".into(), "/etc/docker/certs.d".into()];
        let import_dir = self.import_dir.unwrap_or_else(|| "/var/lib/cricket/images".into());
        Image {
            registry_dirs: self.registry_dirs.unwrap_or_else(usual),
            max_downloads: self.max_downloads.unwrap_or(3),
            progress_timeout: Duration::from_secs(self.progress_timeout.unwrap_or(300)),
            pinned: self.pinned,
            discard_unpacked_layers: self.discard_unpacked_layers,
            import_dir: Some(import_dir).filter(|dir| !dir.as_os_str().is_empty()),
        }
    }
}

impl TypedHandler {
    /// An empty string means the same as no key at all.
    fn meant(self, name: &str) -> Result<Handler> {
        let path = |p: PathBuf| (!p.as_os_str().is_empty()).then_some(p);
        Ok(Handler {
            runtime_type: self.r#type.unwrap_or_else(|| RUNC.into()),
            shim: shim(name, self.shim.as_deref().unwrap_or("auto"))?,
            binary: path(self.binary),
            root: path(self.root),
            systemd_cgroup: self.systemd_cgroup,
            snapshotter: Some(self.snapshotter).filter(|s| !s.is_empty()),
            privileged_without_host_devices: self.privileged_without_host_devices,
            pod_annotations: self.pod_annotations,
            container_annotations: self.container_annotations,
            base_spec: path(self.base_spec),
            config_path: path(self.config_path),
        })
    }
}

fn shim(name: &str, word: &str) -> Result<Shim> {
    [Shim::Auto, Shim::Cricket, Shim::RuncV2]
        .into_iter()
        .find(|shim| shim.as_str() == word)
        .ok_or_else(|| Error::invalid(format!("runtime.{name}.shim `{word}`: not one of `auto`, `cricket`, `runc-v2`")))
}

fn log_level(word: &str) -> Result<log::LevelFilter> {
    word.parse().map_err(|_| {
        Error::invalid(format!("log_level `{word}`: not one of `off`, `error`, `warn`, `info`, `debug`, `trace`"))
    })
}

fn cgroup_driver(word: &str) -> Result<CgroupDriver> {
    [CgroupDriver::Auto, CgroupDriver::Cgroupfs, CgroupDriver::Systemd]
        .into_iter()
        .find(|d| d.as_str() == word)
        .ok_or_else(|| Error::invalid(format!("cgroup_driver `{word}`: not one of `auto`, `cgroupfs`, `systemd`")))
}

fn sandbox_process(word: &str) -> Result<SandboxProcess> {
    [SandboxProcess::Auto, SandboxProcess::Always]
        .into_iter()
        .find(|p| p.as_str() == word)
        .ok_or_else(|| Error::invalid(format!("sandbox_process `{word}`: not one of `auto`, `always`")))
}

fn image_volumes(word: &str) -> Result<ImageVolumes> {
    [ImageVolumes::Bind, ImageVolumes::Ignore]
        .into_iter()
        .find(|volumes| volumes.as_str() == word)
        .ok_or_else(|| Error::invalid(format!("image_volumes `{word}`: not one of `bind`, `ignore`")))
}

fn unset_seccomp(word: &str) -> Result<UnsetSeccomp> {
    [UnsetSeccomp::Unconfined, UnsetSeccomp::RuntimeDefault].into_iter().find(|p| p.as_str() == word).ok_or_else(|| {
        Error::invalid(format!("unset_seccomp_profile `{word}`: not one of `unconfined`, `runtime/default`"))
    })
}

fn shim_scope(word: &str) -> Result<ShimScope> {
    [ShimScope::Pod, ShimScope::Node]
        .into_iter()
        .find(|s| s.as_str() == word)
        .ok_or_else(|| Error::invalid(format!("shim_scope `{word}`: not one of `pod`, `node`")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn refused(text: &str) -> String {
        let e = Config::parse(text, Overrides::default()).expect_err(text);
        assert_eq!(e.kind(), Kind::InvalidArgument, "{text}");
        e.to_string()
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let e = refused("\nsokcet = \"/x\"");
        assert!(e.contains("line 2") && e.contains("`sokcet`") && e.contains("`socket`"), "{e}");
        assert!(refused("[cni]\ntimeuot = 1").contains("`timeuot`"));
        assert!(refused("[containerd]\nsock = 1").contains("`sock`"));
        assert!(refused("[runtime.x]\nkind = 1").contains("`kind`"));
    }

    #[test]
    fn a_value_of_the_wrong_type_is_shown_with_its_key() {
        for (text, key) in [
            ("socket = 3", "socket"),
            ("max_calls = \"many\"", "max_calls"),
            ("max_calls = -1", "max_calls"),
            ("[cni]\nbin_dirs = \"/x\"", "bin_dirs"),
            ("[runtime.runc]\nsystemd_cgroup = \"yes\"", "systemd_cgroup"),
        ] {
            let e = refused(text);
            assert!(e.contains(key), "{text}: {e}");
        }
    }

    #[test]
    fn what_is_not_toml_is_refused_with_its_line() {
        assert!(refused("socket = \"/x\"\nroot =").contains("line 2"));
        assert!(refused("root = \"/x\"\nroot = \"/y\"").contains("root"));
    }

    #[test]
    fn unknown_words_are_refused_with_the_known_ones() {
        assert!(refused("log_level = \"loud\"").contains("`debug`"));
        assert!(refused("cgroup_driver = \"openrc\"").contains("`systemd`"));
        assert!(refused("sandbox_process = \"never\"").contains("`always`"));
        assert!(refused("[runtime.x]\nshim = \"go\"").contains("runtime.x.shim `go`: not one of `auto`, `cricket`"));
        assert!(refused("unset_seccomp_profile = \"none\"").contains("`runtime/default`"));
        assert!(refused("image_volumes = \"mkdir\"").contains("`ignore`"));
        assert!(refused("shim_scope = \"qos\"").contains("`node`"));
        let flags = Overrides { log_level: Some("loud".into()), ..Overrides::default() };
        assert_eq!(Config::parse("", flags).map_err(|e| e.kind()), Err(Kind::InvalidArgument));
    }

    #[test]
    fn a_table_for_another_runtime_keeps_runc() {
        let config = Config::parse("[runtime.crun]\nbinary = \"/usr/bin/crun\"", Overrides::default()).expect("valid");
        assert_eq!(config.runtimes.keys().collect::<Vec<_>>(), ["crun", "runc"]);
        assert_eq!(config.runtimes["crun"].runtime_type, "io.containerd.runc.v2");
        assert_eq!(config.runtimes["crun"].root, None);
    }
}
