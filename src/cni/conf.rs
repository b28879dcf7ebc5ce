//! Network configurations: which file of the directory counts, and what a list must have before a plugin runs.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{json, Map, Value};

use super::attachment::is_name;
use crate::error::{Context, Error, Result};
use crate::sys::tree;

/// The versions of the specification that we speak, oldest first.
pub(super) const VERSIONS: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// Larger configuration files are not read.
const MAX_BYTES: u64 = 1 << 20;

/// A network: a name and the plugins that attach a container to it, in order.
#[derive(Clone, Debug)]
pub struct Network {
    name: String,
    version: &'static str,
    plugins: Vec<Plugin>,
    config: Vec<u8>,
}

/// One plugin of a network.
#[derive(Clone, Debug)]
pub(super) struct Plugin {
    /// The name of its binary.
    pub kind: String,
    /// Its configuration as written.
    pub config: Map<String, Value>,
}

impl Network {
    /// The network's name: letters, digits, `_`, `.` and `-`, usable in a file name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The whole configuration list as JSON: as in the file, or as made from a single plugin's file.
    pub fn config(&self) -> &[u8] {
        &self.config
    }

    pub(super) fn version(&self) -> &'static str {
        self.version
    }

    pub(super) fn plugins(&self) -> &[Plugin] {
        &self.plugins
    }

    /// Since 0.4.0 a DEL is given the result of the ADD.
    pub(super) fn del_has_result(&self) -> bool {
        !matches!(self.version, "0.1.0" | "0.2.0" | "0.3.0" | "0.3.1")
    }

    /// What the plugin reads on stdin: its configuration with what the specification inserts.
    ///
    /// `capabilities` stays in, although the specification says it must not: libcni leaves it, and meta plugins read it.
    pub(super) fn request(&self, plugin: &Plugin, previous: Option<&Value>, offered: &Map<String, Value>) -> Vec<u8> {
        let mut request = plugin.config.clone();
        request.insert("name".into(), self.name.clone().into());
        request.insert("cniVersion".into(), self.version.into());
        if let Some(result) = previous {
            request.insert("prevResult".into(), result.clone());
        }
        let declared = plugin.config.get("capabilities").and_then(Value::as_object);
        let wanted = |name: &String| declared.is_some_and(|d| d.get(name) == Some(&Value::Bool(true)));
        let chosen: Map<_, _> = offered.clone().into_iter().filter(|(name, _)| wanted(name)).collect();
        if !chosen.is_empty() {
            request.insert("runtimeConfig".into(), chosen.into());
        }
        Value::Object(request).to_string().into_bytes()
    }

    /// Reads a complete configuration list. Pure.
    ///
    /// # Errors
    /// `FailedPrecondition`, with what is wrong with it.
    pub(super) fn from_list(config: Vec<u8>) -> Result<Network> {
        let list = object(&config)?;
        let name = list_name(&list)?.to_owned();
        let version = version(&list)?;
        let plugins = match list.get("plugins") {
            Some(Value::Array(plugins)) if !plugins.is_empty() => plugins,
            Some(Value::Array(_)) | None => return Err(Error::precondition("the network has no plugins")),
            Some(_) => return Err(Error::precondition("plugins is not a list")),
        };
        let plugins = plugins.iter().enumerate();
        let plugins = plugins.map(|(i, p)| plugin(p).with_context(|| format!("plugin {i}"))).collect::<Result<_>>()?;
        Ok(Network { name, version, plugins, config })
    }

    /// Reads the network of `dir`: its lexically first valid `*.conf`, `*.conflist` or `*.json`.
    ///
    /// # Errors
    /// `FailedPrecondition` if there is none; the message has every file with its fault.
    pub(super) fn load(dir: &Path) -> Result<Network> {
        let mut faults = String::new();
        for file in files(dir, &["conf", "conflist", "json"])? {
            match Network::read(&file) {
                Ok(network) => return Ok(network),
                Err(e) => {
                    log::debug!("skip {}: {e}", file.display());
                    let name = file.file_name().unwrap_or_default().to_string_lossy();
                    faults.push_str(&format!("; {name}: {e}"));
                }
            }
        }
        let what = if faults.is_empty() { "no network config" } else { "no valid network config" };
        Err(Error::precondition(format!(
            "cni plugin not initialized: {what} in {} (the network add-on puts one there){faults}",
            dir.display()
        )))
    }

    fn read(file: &Path) -> Result<Network> {
        let bytes = read_bounded(file)?;
        let mut list = object(&bytes)?;
        let is_list = file.extension().is_some_and(|e| e == "conflist") || list.contains_key("plugins");
        if !is_list && list.contains_key("type") {
            return Network::from_list(wrapped(&list));
        }
        let more = extra_plugins(file, &list)?;
        if more.is_empty() {
            return Network::from_list(bytes);
        }
        let plugins = list.entry("plugins").or_insert_with(|| json!([]));
        plugins.as_array_mut().ok_or_else(|| Error::precondition("plugins is not a list"))?.extend(more);
        // The list is whole now; whoever reads it again, from the cache, must not add to it.
        list.insert("loadOnlyInlinedPlugins".into(), true.into());
        Network::from_list(Value::Object(list).to_string().into_bytes())
    }
}

/// The list that a file with a single plugin stands for.
fn wrapped(plugin: &Map<String, Value>) -> Vec<u8> {
    let mut list = Map::new();
    for key in ["name", "cniVersion", "cniVersions"] {
        if let Some(value) = plugin.get(key) {
            list.insert(key.into(), value.clone());
        }
    }
    list.insert("plugins".into(), json!([plugin]));
    Value::Object(list).to_string().into_bytes()
}

/// The plugins that other packages add to a network: `<conf dir>/<network name>/*.conf` (specification 1.1).
fn extra_plugins(file: &Path, list: &Map<String, Value>) -> Result<Vec<Value>> {
    if matches!(list.get("loadOnlyInlinedPlugins"), Some(Value::Bool(true))) {
        return Ok(Vec::new());
    }
    let dir = file.with_file_name(list_name(list)?);
    files(&dir, &["conf"])?
        .iter()
        .map(|extra| read_bounded(extra).and_then(|bytes| object(&bytes)).map(Value::Object).context(extra.display()))
        .collect()
}

/// The regular files of `dir` with one of these extensions, sorted; none if there is no such directory.
fn files(dir: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>> {
    let mut found = tree::entries(dir).with_context(|| format!("read {}", dir.display()))?;
    found.retain(|path| {
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        // A link to a file counts; a FIFO would block its reader. What has just been removed is skipped.
        extensions.contains(&extension) && fs::metadata(path).is_ok_and(|m| m.is_file())
    });
    found.sort();
    Ok(found)
}

fn read_bounded(file: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(file)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Error::precondition(format!("larger than {MAX_BYTES} bytes")));
    }
    Ok(bytes)
}

fn object(bytes: &[u8]) -> Result<Map<String, Value>> {
    serde_json::from_slice(bytes).map_err(|e| Error::precondition(format!("not a JSON object: {e}")))
}

fn list_name(list: &Map<String, Value>) -> Result<&str> {
    match list.get("name") {
        Some(Value::String(name)) if is_name(name) => Ok(name),
        Some(Value::String(name)) => Err(Error::precondition(format!(
            "network name {name:?} is not made of letters, digits, '_', '.' and '-' with a letter or digit first"
        ))),
        Some(_) => Err(Error::precondition("the network name is not a string")),
        None => Err(Error::precondition("the network has no name")),
    }
}

/// The newest version we speak of those in `cniVersion` and `cniVersions`; 0.1.0 if none is given.
fn version(list: &Map<String, Value>) -> Result<&'static str> {
    let mut offered = Vec::new();
    match list.get("cniVersions") {
        Some(Value::Array(versions)) => offered.extend(versions.iter().map(Value::as_str)),
        Some(_) => return Err(Error::precondition("cniVersions is not a list")),
        None => {}
    }
    match list.get("cniVersion") {
        Some(Value::String(version)) if version.is_empty() => {}
        Some(version) => offered.push(version.as_str()),
        None => {}
    }
    if offered.is_empty() {
        return Ok(VERSIONS[0]);
    }
    let offered: Vec<&str> = offered
        .into_iter()
        .collect::<Option<_>>()
        .ok_or_else(|| Error::precondition("a cniVersion is not a string"))?;
    let newest = VERSIONS.into_iter().rev().find(|known| offered.contains(known));
    newest.ok_or_else(|| Error::precondition(format!("cniVersion {} is none of {VERSIONS:?}", offered.join(", "))))
}

fn plugin(value: &Value) -> Result<Plugin> {
    let config = value.as_object().ok_or_else(|| Error::precondition("not a JSON object"))?;
    let kind = match config.get("type") {
        Some(Value::String(kind)) => kind,
        Some(_) => return Err(Error::precondition("type is not a string")),
        None => return Err(Error::precondition("no type")),
    };
    if matches!(kind.as_str(), "" | "." | "..") || kind.contains(['/', '\\', '\0']) {
        return Err(Error::precondition(format!("type {kind:?} cannot name a plugin binary")));
    }
    Ok(Plugin { kind: kind.clone(), config: config.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cni::scripted::Dir;
    use crate::error::Kind;
    use std::process::Command;

    fn parse(list: &Value) -> Result<Network> {
        Network::from_list(list.to_string().into_bytes())
    }

    fn kinds(network: &Network) -> Vec<&str> {
        network.plugins().iter().map(|p| p.kind.as_str()).collect()
    }

    /// A directory with these files.
    fn dir(files: &[(&str, &str)]) -> Dir {
        let dir = Dir::new();
        for (name, content) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().expect("has one")).expect("mkdir");
            fs::write(path, content).expect("write");
        }
        dir
    }

    #[test]
    fn a_list_with_every_key_of_the_specification() {
        let list = json!({"name": "k8s-pod_net.1", "cniVersion": "0.4.0", "cniVersions": ["1.0.0", "0.3.1"],
            "disableCheck": true, "disableGC": "true", "loadOnlyInlinedPlugins": true,
            "plugins": [{"type": "bridge", "mtu": 1450}, {"type": "portmap"}]});
        let network = parse(&list).expect("valid");
        assert_eq!((network.name(), network.version()), ("k8s-pod_net.1", "1.0.0"));
        assert_eq!(kinds(&network), ["bridge", "portmap"]);
        assert_eq!(network.plugins()[0].config["mtu"], 1450);
        assert_eq!(network.config(), list.to_string().as_bytes());
    }

    #[test]
    fn the_newest_known_version_counts() {
        let cases = [
            (json!({}), "0.1.0"),
            (json!({"cniVersion": ""}), "0.1.0"),
            (json!({"cniVersion": "1.1.0"}), "1.1.0"),
            (json!({"cniVersions": ["0.4.0", "1.1.0", "1.0.0", "7.0.0"]}), "1.1.0"),
            (json!({"cniVersion": "9.0.0", "cniVersions": ["0.4.0"]}), "0.4.0"),
            (json!({"cniVersion": "1.0.0", "cniVersions": []}), "1.0.0"),
        ];
        for (versions, expected) in cases {
            assert_eq!(version(versions.as_object().expect("object")).expect("known"), expected, "{versions}");
        }
    }

    #[test]
    fn what_is_missing_or_wrong_is_said() {
        let with = |key: &str, value: Value| {
            let mut list = json!({"name": "net", "cniVersion": "1.0.0", "plugins": [{"type": "bridge"}]});
            list[key] = value;
            list.to_string()
        };
        let cases = [
            ("{", "not a JSON object"),
            ("[]", "not a JSON object"),
            ("{}", "the network has no name"),
            (r#"{"name":"net"}"#, "no plugins"),
            (&with("name", json!(1)), "name is not a string"),
            (&with("name", json!("../etc")), "network name"),
            (&with("name", json!("a/b")), "network name"),
            (&with("name", json!("..")), "network name"),
            (&with("name", json!("")), "network name"),
            (&with("plugins", json!([])), "no plugins"),
            (&with("plugins", json!({})), "plugins is not a list"),
            (&with("plugins", json!([1])), "plugin 0: not a JSON object"),
            (&with("plugins", json!([{}])), "plugin 0: no type"),
            (&with("plugins", json!([{"type": 1}])), "type is not a string"),
            (&with("plugins", json!([{"type": ""}])), "cannot name a plugin binary"),
            (&with("plugins", json!([{"type": "bridge"}, {"type": "../../bin/sh"}])), "plugin 1: type"),
            (&with("plugins", json!([{"type": ".."}])), "cannot name a plugin binary"),
            (&with("cniVersion", json!(1)), "a cniVersion is not a string"),
            (&with("cniVersion", json!("2.0.0")), "cniVersion 2.0.0 is none of"),
            (&with("cniVersions", json!("1.0.0")), "cniVersions is not a list"),
        ];
        for (text, fault) in cases {
            let e = Network::from_list(text.as_bytes().to_vec()).expect_err(text);
            assert_eq!(e.kind(), Kind::FailedPrecondition, "{text}");
            assert!(e.message().contains(fault), "{text}: {e}");
        }
    }

    #[test]
    fn the_first_valid_file_in_order_counts() {
        let good = r#"{"name":"net","plugins":[{"type":"bridge"}]}"#;
        let files = dir(&[
            ("00-not-for-us.txt", good),
            ("05-dir.conflist/x", ""),
            ("10-broken.conflist", "{"),
            ("15-single.conflist", r#"{"name":"single","type":"ptp"}"#),
            ("20-net.json", good),
            ("30-other.conf", r#"{"name":"other","type":"ptp"}"#),
        ]);
        assert!(Command::new("mkfifo").arg(files.path().join("01-blocks.conf")).status().expect("mkfifo").success());
        assert_eq!(Network::load(files.path()).expect("valid").name(), "net");
    }

    #[test]
    fn a_single_plugin_is_a_list_of_one() {
        for name in ["10.conf", "10.json"] {
            let files = dir(&[(name, r#"{"name":"net","cniVersion":"0.3.1","type":"ptp","mtu":9}"#)]);
            let network = Network::load(files.path()).expect("valid");
            assert_eq!((network.name(), network.version(), kinds(&network)), ("net", "0.3.1", vec!["ptp"]));
            assert_eq!(network.plugins()[0].config["mtu"], 9);
            let again = Network::from_list(network.config().to_vec()).expect("a list");
            assert_eq!((again.name(), again.version(), kinds(&again)), ("net", "0.3.1", vec!["ptp"]));
        }
    }

    #[test]
    fn other_packages_add_plugins_unless_the_list_forbids_it() {
        let list =
            |only: &str| format!(r#"{{"name":"net","plugins":[{{"type":"a"}}],"loadOnlyInlinedPlugins":{only}}}"#);
        let extra = [("net/20.conf", r#"{"type":"c"}"#), ("net/10.conf", r#"{"type":"b"}"#), ("net/x.json", "{")];
        let files = dir(&[&extra[..], &[("1.conflist", &list("false"))]].concat());
        let network = Network::load(files.path()).expect("valid");
        assert_eq!(kinds(&network), ["a", "b", "c"]);
        assert_eq!(kinds(&Network::from_list(network.config().to_vec()).expect("whole")), ["a", "b", "c"]);
        let files = dir(&[&extra[..], &[("1.conflist", &list("true"))]].concat());
        assert_eq!(kinds(&Network::load(files.path()).expect("valid")), ["a"]);
        let files = dir(&[&extra[..], &[("1.conflist", r#"{"name":"net"}"#)]].concat());
        assert_eq!(kinds(&Network::load(files.path()).expect("valid")), ["b", "c"]);
    }

    #[test]
    fn without_a_valid_file_every_fault_is_named() {
        let missing = Dir::new().path().to_owned();
        let large = " ".repeat(MAX_BYTES as usize + 1);
        let cases = [
            (Network::load(&missing), vec!["cni plugin not initialized: no network config in"]),
            (Network::load(dir(&[]).path()), vec!["cni plugin not initialized: no network config in"]),
            (
                Network::load(dir(&[("1.conf", "{}"), ("2.conflist", "x"), ("3.json", &large)]).path()),
                vec![
                    "no valid network config in",
                    "; 1.conf: the network has no name; 2.conflist: not a JSON",
                    "; 3.json: larger",
                ],
            ),
        ];
        for (loaded, parts) in cases {
            let e = loaded.expect_err("none is valid");
            assert_eq!(e.kind(), Kind::FailedPrecondition);
            for part in parts {
                assert!(e.message().contains(part), "{e}");
            }
        }
    }
}
