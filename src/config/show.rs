//! The configuration as commented TOML: what `cricket config` prints, and with defaults the example in `dist/`.

use std::fmt::{Display, Write as _};
use std::path::Path;

use super::{Certificate, Config, Handler, Image, Streaming};

/// Text of a configuration file under construction.
struct Page(String);

/// `config` with every key written out and explained.
pub(super) fn toml(config: &Config) -> String {
    let mut page = Page(String::new());
    page.note("Configuration of cricket. Every key is optional; a key that is not known is an error.");
    page.note("Flags of the command line win over this file. Durations are in seconds.");
    page.gap();
    page.note("The CRI socket: the kubelet's --container-runtime-endpoint is unix:// and this path.");
    page.key("socket", path(&config.socket));
    page.note("Durable records. They belong to the containers of this node: keep them across reboots.");
    page.key("root", path(&config.root));
    page.note("What may vanish at boot; best on a tmpfs.");
    page.key("state", path(&config.state));
    page.note("Where the network namespaces of pods are pinned.");
    page.key("netns_dir", path(&config.netns_dir));
    page.note("off, error, warn, info, debug or trace.");
    page.key("log_level", text(config.log_level.as_str().to_lowercase()));
    page.note("Calls served at the same time; as many again wait, and one more is refused. From 8 to 4096.");
    page.key("max_calls", config.max_calls);
    page.note("How long a shutdown waits for calls in flight. Containers keep running in any case.");
    page.key("shutdown_grace", config.shutdown_grace.as_secs());
    page.note("Longest line of a container log in bytes; a longer one is split.");
    page.key("log_line_bytes", config.log_line_bytes);
    page.note("auto, cgroupfs or systemd. The kubelet takes ours from 1.31 on; an older one must be told the same.");
    page.key("cgroup_driver", text(config.cgroup_driver.as_str()));
    page.note(
        "Which sandboxes have a process: auto (those with a shared PID namespace) or always (for cAdvisor's counters",
    );
    page.note("of pod networks).");
    page.key("sandbox_process", text(config.sandbox_process.as_str()));
    page.note("Folders of CDI specifications, of which a later one wins; none: no CDI devices.");
    page.key("cdi_dirs", list(config.cdi_dirs.iter().map(|dir| path(dir))));
    page.note("Devices of a container belong to its runAsUser and runAsGroup instead of the owners on the node.");
    page.key("device_ownership_from_security_context", config.device_ownership_from_security_context);
    page.note("Volumes that images declare: bind (a directory of the container's own) or ignore (the writable layer).");
    page.key("image_volumes", text(config.image_volumes.as_str()));
    page.note("What filters the system calls of a container that names no profile: unconfined or runtime/default.");
    page.key("unset_seccomp_profile", text(config.unset_seccomp_profile.as_str()));
    page.note("Whether containers get SELinux labels, where SELinux is on.");
    page.key("enable_selinux", config.enable_selinux);
    page.note("Whether ports below 1024, and pings, are free for everybody in pods with a network of their own.");
    page.key("unprivileged_ports", config.unprivileged_ports);
    page.key("unprivileged_ping", config.unprivileged_ping);
    page.note(
        "Which containers share a shim: those of a pod, or all of the node. docs/config.md has the risk of `node`.",
    );
    page.key("shim_scope", text(config.shim_scope.as_str()));
    page.note("The handler of pods without a RuntimeClass: one of the tables [runtime.<name>] below.");
    page.key("default_runtime", text(&config.default_runtime));

    page.table("containerd");
    page.note("containerd's socket. Its own CRI plugin must be disabled.");
    page.key("address", path(&config.containerd.address));
    page.key("snapshotter", text(&config.containerd.snapshotter));

    page.table("cni");
    page.note("The first network configuration by name in this folder is the pod network.");
    page.key("conf_dir", path(&config.cni.conf_dir));
    page.note("Folders with plugins, searched in this order.");
    page.key("bin_dirs", list(config.cni.bin_dirs.iter().map(|dir| path(dir))));
    page.note("Bound on adding a pod to its network, or removing it: all plugins together.");
    page.key("timeout", config.cni.timeout.as_secs());
    page.note("Where results are kept for the removal of a pod.");
    page.key("cache_dir", path(&config.cni.cache_dir));

    page.streaming(&config.streaming);
    page.image(&config.image);

    for (name, handler) in &config.runtimes {
        page.handler(name, handler);
    }
    page.0
}

impl Page {
    fn streaming(&mut self, streaming: &Streaming) {
        self.table("streaming");
        self.note(
            "Exec, attach and port-forward. The kubelet relays them: a loopback address, any port (0) or a fixed one.",
        );
        self.key("address", text(streaming.address.to_string()));
        self.key("port", streaming.port);
        self.note("A session is ended after so long without a byte.");
        self.key("idle_timeout", streaming.idle_timeout.as_secs());
        self.note("Sessions at the same time; one more is refused. From 1 to 4096.");
        self.key("max_sessions", streaming.max_sessions);
        self.note("Kill the command of an exec whose client has gone away.");
        self.key("end_exec_with_client", streaming.end_exec_with_client);
        self.note("TLS: a certificate chain and its key, in PEM. Without them sessions are not encrypted.");
        let file =
            |of: fn(&Certificate) -> &Path| streaming.certificate.as_ref().map_or_else(|| text(""), |it| path(of(it)));
        self.key("tls_cert", file(|it| &it.chain));
        self.key("tls_key", file(|it| &it.key));
    }

    fn note(&mut self, comment: &str) {
        self.line(format_args!("# {comment}"));
    }

    fn gap(&mut self) {
        self.0.push('\n');
    }

    fn key(&mut self, key: &str, value: impl Display) {
        self.line(format_args!("{key} = {value}"));
    }

    fn table(&mut self, name: &str) {
        self.gap();
        self.line(format_args!("[{name}]"));
    }

    fn line(&mut self, line: impl Display) {
        writeln!(self.0, "{line}").expect("writing to a string cannot fail");
    }

    fn image(&mut self, image: &Image) {
        self.table("image");
        self.note("Folders with a folder for each registry, in which hosts.toml has mirrors and certificates. As containerd's.");
        self.key("registry_dirs", list(image.registry_dirs.iter().map(|dir| path(dir))));
        self.note("Layers fetched at the same time, all pulls together. From 1 to 32.");
        self.key("max_downloads", image.max_downloads);
        self.note("A download without a byte for so long is given up; 0 is for ever.");
        self.key("progress_timeout", image.progress_timeout.as_secs());
        self.note("Names of images that the kubelet must not collect; * is any text.");
        self.key("pinned", list(image.pinned.iter().map(text)));
        self.note(
            "Let containerd drop layers once they are unpacked: less disk, but such an image cannot be exported.",
        );
        self.key("discard_unpacked_layers", image.discard_unpacked_layers);
        self.note("Archives in this folder are imported, at start and when they appear; empty is nowhere.");
        self.key("import_dir", image.import_dir.as_deref().map_or_else(|| text(""), path));
    }

    fn handler(&mut self, name: &str, handler: &Handler) {
        let bare = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
        self.table(&format!("runtime.{}", if bare { name.to_owned() } else { text(name) }));
        self.note("containerd's runtime type.");
        self.key("type", text(&handler.runtime_type));
        self.note(
            "auto, cricket or runc-v2: the shim of that type. auto is cricket's own where containerd can run it.",
        );
        self.key("shim", text(handler.shim.as_str()));
        self.note("OCI runtime binary and its state folder; empty is the shim's own default.");
        self.key("binary", handler.binary.as_deref().map_or_else(|| text(""), path));
        self.key("root", handler.root.as_deref().map_or_else(|| text(""), path));
        self.note("Ask systemd for cgroups; left out, it follows cgroup_driver.");
        match handler.systemd_cgroup {
            Some(yes) => self.key("systemd_cgroup", yes),
            None => self.note("systemd_cgroup = true"),
        }
        self.note("Snapshotter of this handler's pods; empty is containerd.snapshotter.");
        self.key("snapshotter", text(handler.snapshotter.as_deref().unwrap_or_default()));
        self.note("Privileged containers of this handler do not get the host's devices.");
        self.key("privileged_without_host_devices", handler.privileged_without_host_devices);
        self.note(
            "Annotations of pods, and of containers, that the runtime gets to see: patterns such as example.com/*.",
        );
        self.key("pod_annotations", list(handler.pod_annotations.iter().map(text)));
        self.key("container_annotations", list(handler.container_annotations.iter().map(text)));
        self.note("A runtime spec in JSON for what pods cannot say, such as rlimits and hooks; empty is none.");
        self.key("base_spec", handler.base_spec.as_deref().map_or_else(|| text(""), path));
        self.note("Configuration file for a shim that is not of the runc family; empty is none.");
        self.key("config_path", handler.config_path.as_deref().map_or_else(|| text(""), path));
    }
}

/// A TOML string. Quoting as in JSON is a subset of TOML's, and control characters were refused by the checks.
fn text(value: impl AsRef<str>) -> String {
    serde_json::Value::from(value.as_ref()).to_string()
}

fn path(value: &Path) -> String {
    text(value.to_string_lossy())
}

fn list(values: impl Iterator<Item = String>) -> String {
    format!("[{}]", values.collect::<Vec<_>>().join(", "))
}
