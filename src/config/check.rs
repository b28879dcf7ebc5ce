//! The last stage of the configuration: values that cannot work are refused before anything starts.

use std::ops::RangeInclusive;
use std::path::{Component, Path};

use super::{glob, Config, Shim, RUNC};
use crate::error::{Error, Result};

/// The kernel keeps 108 bytes for a socket path. We bind in a folder beside it first, which takes a few of them.
const SOCKET_PATH_BYTES: usize = 96;

/// Judges every value; the first that cannot work is named with its key.
pub(super) fn checked(config: Config) -> Result<Config> {
    path("socket", &config.socket)?;
    socket_length("socket", &config.socket)?;
    path("root", &config.root)?;
    path("state", &config.state)?;
    if config.root == config.state {
        return Err(refusal("state", "must differ from `root`: it may vanish at boot"));
    }
    path("netns_dir", &config.netns_dir)?;
    path("containerd.address", &config.containerd.address)?;
    socket_length("containerd.address", &config.containerd.address)?;
    word("containerd.snapshotter", &config.containerd.snapshotter)?;
    path("cni.conf_dir", &config.cni.conf_dir)?;
    path("cni.cache_dir", &config.cni.cache_dir)?;
    if config.cni.bin_dirs.is_empty() {
        return Err(refusal("cni.bin_dirs", "needs at least one folder"));
    }
    config.cni.bin_dirs.iter().try_for_each(|dir| path("cni.bin_dirs", dir))?;
    range("cni.timeout", config.cni.timeout.as_secs(), 1..=3600)?;
    config.image.registry_dirs.iter().try_for_each(|dir| path("image.registry_dirs", dir))?;
    range("image.max_downloads", config.image.max_downloads as u64, 1..=32)?;
    range("image.progress_timeout", config.image.progress_timeout.as_secs(), 0..=86_400)?;
    for pattern in &config.image.pinned {
        if pattern.is_empty() || pattern.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(refusal("image.pinned", &format!("{pattern:?} is no pattern of a name")));
        }
    }
    if let Some(dir) = &config.image.import_dir {
        path("image.import_dir", dir)?;
    }
    range("shutdown_grace", config.shutdown_grace.as_secs(), 0..=3600)?;
    range("max_calls", config.max_calls as u64, 8..=4096)?;
    range("log_line_bytes", config.log_line_bytes as u64, 256..=1 << 20)?;
    config.cdi_dirs.iter().try_for_each(|dir| path("cdi_dirs", dir))?;
    let streaming = &config.streaming;
    let at = streaming.address;
    let problem = match &streaming.certificate {
        None if !at.is_loopback() => "must be a loopback address: without a certificate sessions are not encrypted",
        Some(_) if at.is_unspecified() => "must be one address: URLs name it",
        _ => "",
    };
    if !problem.is_empty() {
        return Err(refusal("streaming.address", &format!("`{at}` {problem}")));
    }
    if let Some(certificate) = &streaming.certificate {
        path("streaming.tls_cert", &certificate.chain)?;
        path("streaming.tls_key", &certificate.key)?;
    }
    range("streaming.idle_timeout", streaming.idle_timeout.as_secs(), 1..=7 * 24 * 3600)?;
    range("streaming.max_sessions", streaming.max_sessions as u64, 1..=4096)?;
    handlers(&config)?;
    Ok(config)
}

fn handlers(config: &Config) -> Result<()> {
    for (name, handler) in &config.runtimes {
        let key = |field: &str| format!("runtime.{name}.{field}");
        word("the name of a table `runtime.<name>`", name)?;
        word(&key("type"), &handler.runtime_type)?;
        if handler.shim != Shim::Auto && handler.runtime_type != RUNC {
            let other = &handler.runtime_type;
            return Err(refusal(&key("shim"), &format!("is for the type `{RUNC}`; `{other}` has a shim of its own")));
        }
        if let Some(binary) = &handler.binary {
            path(&key("binary"), binary)?;
        }
        if let Some(root) = &handler.root {
            path(&key("root"), root)?;
        }
        if let Some(snapshotter) = &handler.snapshotter {
            word(&key("snapshotter"), snapshotter)?;
        }
        if let Some(base) = &handler.base_spec {
            path(&key("base_spec"), base)?;
        }
        if let Some(config_path) = &handler.config_path {
            path(&key("config_path"), config_path)?;
        }
        patterns(&key("pod_annotations"), &handler.pod_annotations)?;
        patterns(&key("container_annotations"), &handler.container_annotations)?;
    }
    if !config.runtimes.contains_key(&config.default_runtime) {
        let name = &config.default_runtime;
        return Err(refusal("default_runtime", &format!("`{name}` needs a table `[runtime.{name}]`")));
    }
    Ok(())
}

/// Absolute, without `..`, and printable, since it goes into mount tables and systemd units.
fn path(key: &str, value: &Path) -> Result<()> {
    let shown = value.display();
    if !value.is_absolute() || value.parent().is_none() {
        return Err(refusal(key, &format!("`{shown}` must be an absolute path below /")));
    }
    if value.components().any(|c| c == Component::ParentDir) {
        return Err(refusal(key, &format!("`{shown}` must not contain `..`")));
    }
    if value.to_str().is_none_or(|text| text.chars().any(char::is_control)) {
        return Err(refusal(key, &format!("{value:?} contains characters that cannot be printed")));
    }
    Ok(())
}

fn socket_length(key: &str, value: &Path) -> Result<()> {
    match value.as_os_str().len() {
        0..=SOCKET_PATH_BYTES => Ok(()),
        n => Err(refusal(key, &format!("is {n} bytes long; a socket path has room for {SOCKET_PATH_BYTES}"))),
    }
}

/// A name that is passed on to containerd or matched against a request.
fn word(key: &str, value: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/');
    if value.is_empty() || !value.chars().all(plain) {
        return Err(refusal(key, &format!("`{}` must be letters, digits and `.-_/`", value.escape_debug())));
    }
    Ok(())
}

fn patterns(key: &str, all: &[String]) -> Result<()> {
    match all.iter().find(|p| p.is_empty() || !glob::is_valid(p) || p.chars().any(char::is_control)) {
        Some(bad) => Err(refusal(key, &format!("`{}` is not a pattern", bad.escape_debug()))),
        None => Ok(()),
    }
}

fn range(key: &str, value: u64, allowed: RangeInclusive<u64>) -> Result<()> {
    if allowed.contains(&value) {
        return Ok(());
    }
    Err(refusal(key, &format!("is {value}; from {} to {} is possible", allowed.start(), allowed.end())))
}

fn refusal(key: &str, problem: &str) -> Error {
    Error::invalid(format!("configuration: {key} {problem}"))
}

#[cfg(test)]
mod tests {
    use super::super::Overrides;
    use super::*;
    use crate::error::Kind;

    #[test]
    fn every_bad_value_is_refused_with_its_key() {
        let long = format!("socket = \"/{}\"", "x".repeat(SOCKET_PATH_BYTES));
        for (text, key) in [
            ("socket = \"cricket.sock\"", "socket"),
            (long.as_str(), "socket"),
            ("root = \"\"", "root"),
            ("root = \"/\"", "root"),
            ("root = \"/a/../b\"", "root"),
            ("root = \"/a\\nb\"", "root"),
            ("root = \"/a\"\nstate = \"/a\"", "state"),
            ("netns_dir = \"netns\"", "netns_dir"),
            ("max_calls = 7", "max_calls"),
            ("max_calls = 5000", "max_calls"),
            ("shutdown_grace = 4000", "shutdown_grace"),
            ("log_line_bytes = 0", "log_line_bytes"),
            ("cdi_dirs = [\"cdi\"]", "cdi_dirs"),
            ("default_runtime = \"kata\"", "default_runtime"),
            ("[containerd]\naddress = \"x\"", "containerd.address"),
            ("[containerd]\nsnapshotter = \"\"", "containerd.snapshotter"),
            ("[cni]\nbin_dirs = []", "cni.bin_dirs"),
            ("[cni]\nbin_dirs = [\"bin\"]", "cni.bin_dirs"),
            ("[cni]\nconf_dir = \"x\"", "cni.conf_dir"),
            ("[cni]\ncache_dir = \"x\"", "cni.cache_dir"),
            ("[cni]\ntimeout = 0", "cni.timeout"),
            ("[streaming]\naddress = \"0.0.0.0\"", "streaming.address"),
            ("[streaming]\naddress = \"localhost\"", "streaming.address"),
            ("[streaming]\ntls_cert = \"/c.pem\"", "streaming"),
            ("[streaming]\ntls_key = \"/k.pem\"", "streaming"),
            ("[streaming]\ntls_cert = \"c.pem\"\ntls_key = \"/k.pem\"", "streaming.tls_cert"),
            ("[streaming]\ntls_cert = \"/c.pem\"\ntls_key = \"k.pem\"", "streaming.tls_key"),
            ("[streaming]\naddress = \"::\"\ntls_cert = \"/c.pem\"\ntls_key = \"/k.pem\"", "streaming.address"),
            ("[streaming]\nidle_timeout = 0", "streaming.idle_timeout"),
            ("[streaming]\nmax_sessions = 0", "streaming.max_sessions"),
            ("[runtime.\"a b\"]", "runtime.<name>"),
            ("[runtime.x]\ntype = \"\"", "runtime.x.type"),
            ("[runtime.x]\ntype = \"io.containerd.kata.v2\"\nshim = \"cricket\"", "runtime.x.shim"),
            ("[runtime.x]\nbinary = \"crun\"", "runtime.x.binary"),
            ("[runtime.x]\nroot = \"x\"", "runtime.x.root"),
            ("[runtime.x]\nsnapshotter = \"a b\"", "runtime.x.snapshotter"),
            ("[runtime.x]\nbase_spec = \"base.json\"", "runtime.x.base_spec"),
            ("[runtime.x]\nconfig_path = \"x\"", "runtime.x.config_path"),
            ("[runtime.x]\npod_annotations = [\"[\"]", "runtime.x.pod_annotations"),
            ("[runtime.x]\ncontainer_annotations = [\"\"]", "runtime.x.container_annotations"),
        ] {
            let e = Config::parse(text, Overrides::default()).expect_err(text);
            assert_eq!(e.kind(), Kind::InvalidArgument, "{text}");
            assert!(e.to_string().contains(key), "{text}: {e}");
        }
    }

    #[test]
    fn the_bounds_themselves_are_allowed() {
        let text = "max_calls = 8\nlog_line_bytes = 256\nshutdown_grace = 0\n[cni]\ntimeout = 3600";
        assert!(Config::parse(text, Overrides::default()).is_ok());
    }
}
