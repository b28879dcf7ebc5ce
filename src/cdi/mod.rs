//! The Container Device Interface: what a device of a vendor changes in a container, as files of the node say.

pub mod yaml;

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Result};

/// Annotations with which device plugins name devices when they cannot use the field.
pub const ANNOTATION: &str = "cdi.k8s.io/";

/// One file: the devices of one kind.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// The version of the specification it is written for.
    pub cdi_version: String,
    /// `vendor/class`.
    pub kind: String,
    #[serde(default)]
    annotations: Value,
    /// Its devices.
    #[serde(default)]
    pub devices: Vec<Device>,
    /// For whoever gets any of them.
    #[serde(default)]
    pub container_edits: Edits,
}

/// One device.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Device {
    /// Within its kind.
    pub name: String,
    #[serde(default)]
    annotations: Value,
    /// What it changes.
    pub container_edits: Edits,
}

/// What is changed in a container. A key that we do not know is a file that we must not use: a device half configured
/// would not be what the pod asks for.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Edits {
    /// `KEY=value`.
    pub env: Vec<String>,
    /// Nodes to make.
    pub device_nodes: Vec<Node>,
    /// Mounts to add.
    pub mounts: Vec<Mount>,
    /// Programs to run.
    pub hooks: Vec<Hook>,
    /// Groups for the first process.
    #[serde(rename = "additionalGids")]
    pub additional_gids: Vec<u32>,
    /// Cache and memory bandwidth.
    pub intel_rdt: Option<IntelRdt>,
}

/// A device node. What is missing is taken from the node on the host.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Node {
    /// In the container.
    pub path: String,
    /// On the host; `path` if empty.
    pub host_path: String,
    /// `b`, `c`, `u` or `p`.
    pub r#type: String,
    /// Its number.
    pub major: Option<i64>,
    /// See `major`.
    pub minor: Option<i64>,
    /// Permission bits.
    pub file_mode: Option<u32>,
    /// Letters of `rwm`; all of them if empty.
    pub permissions: String,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
}

/// A mount.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Mount {
    /// What.
    pub host_path: String,
    /// Where.
    pub container_path: String,
    /// How.
    pub options: Vec<String>,
    /// A bind mount if empty.
    pub r#type: String,
}

/// A program that the OCI runtime runs.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Hook {
    /// When: `createContainer` and so on.
    pub hook_name: String,
    /// The program.
    pub path: String,
    /// Its arguments, its name first.
    pub args: Vec<String>,
    /// Its environment.
    pub env: Vec<String>,
    /// Seconds.
    pub timeout: Option<i64>,
}

/// Intel's resource director technology.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IntelRdt {
    /// Class.
    #[serde(rename = "closID")]
    pub clos_id: String,
    /// L3 cache.
    #[serde(rename = "l3CacheSchema")]
    pub l3_cache_schema: String,
    /// Memory bandwidth.
    #[serde(rename = "memBwSchema")]
    pub mem_bw_schema: String,
    /// Cache monitoring.
    #[serde(rename = "enableCMT")]
    pub enable_cmt: bool,
    /// Memory bandwidth monitoring.
    #[serde(rename = "enableMBM")]
    pub enable_mbm: bool,
}

/// A file and what is in it, or why it cannot be used.
#[derive(Debug)]
pub struct Found {
    /// The file.
    pub path: PathBuf,
    /// Its directory's place in the configuration: the devices of a later one hide those of an earlier one.
    pub priority: usize,
    /// What it says.
    pub spec: Result<Spec>,
}

/// Reads a specification, in JSON or YAML.
///
/// # Errors
/// `InvalidArgument`.
pub fn parse(text: &str) -> Result<Spec> {
    // JSON knows more of itself than our YAML does.
    let value = if text.trim_start().starts_with('{') {
        serde_json::from_str(text).map_err(|e| Error::invalid(e.to_string()))?
    } else {
        yaml::parse(text)?
    };
    let spec: Spec = serde_json::from_value(value).map_err(|e| Error::invalid(e.to_string()))?;
    if !spec.kind.split_once('/').is_some_and(|(vendor, class)| is_word(vendor, "_-.") && is_word(class, "_-")) {
        return Err(Error::invalid(format!("kind {:?} is not vendor/class", spec.kind)));
    }
    let mut names = BTreeSet::new();
    for device in &spec.devices {
        if !is_name(&device.name) {
            return Err(Error::invalid(format!("{:?} cannot name a device", device.name)));
        }
        if !names.insert(&device.name) {
            return Err(Error::invalid(format!("device {:?} is there twice", device.name)));
        }
    }
    Ok(spec)
}

/// The devices that a container names, by its field and by its annotations, each once.
///
/// # Errors
/// `InvalidArgument` for what is not `vendor/class=device`.
pub fn names<'a>(
    fields: impl Iterator<Item = &'a str>,
    annotations: impl Iterator<Item = (&'a String, &'a String)>,
) -> Result<Vec<String>> {
    let mut annotated: Vec<_> = annotations.filter(|(key, _)| key.starts_with(ANNOTATION)).collect();
    annotated.sort();
    let annotated = annotated.into_iter().flat_map(|(_, value)| value.split(','));
    let mut all: Vec<String> = Vec::new();
    for name in fields.chain(annotated) {
        let parts = name.split_once('=').and_then(|(kind, name)| Some((kind.split_once('/')?, name)));
        let fine = parts
            .is_some_and(|((vendor, class), name)| is_word(vendor, "_-.") && is_word(class, "_-") && is_name(name));
        if !fine {
            return Err(Error::invalid(format!("CDI device {name:?} is not vendor/class=device")));
        }
        if !all.iter().any(|known| known == name) {
            all.push(name.to_owned());
        }
    }
    Ok(all)
}

/// What the devices named change, in the order of their names; what a file has for all its devices comes once, before
/// the first of them.
///
/// # Errors
/// `InvalidArgument` for a device that no file has, or two of the same priority, with what is wrong with the files that
/// cannot be used.
pub fn select(names: &[String], files: &[Found]) -> Result<Vec<Edits>> {
    let mut edits = Vec::new();
    let mut begun: Vec<&PathBuf> = Vec::new();
    for full in names {
        let (kind, name) = full.split_once('=').unwrap_or_default();
        let having = files.iter().filter_map(|file| {
            let spec = file.spec.as_ref().ok().filter(|spec| spec.kind == kind)?;
            Some((file, spec, spec.devices.iter().find(|d| d.name == name)?))
        });
        let mut having: Vec<_> = having.collect();
        having.sort_by_key(|(file, ..)| std::cmp::Reverse(file.priority));
        let (file, spec, device) = match having[..] {
            [] => return Err(missing(full, files)),
            [(a, ..), (b, ..), ..] if a.priority == b.priority => {
                let (a, b) = (a.path.display(), b.path.display());
                return Err(Error::invalid(format!("CDI device {full} is in {a} and in {b}")));
            }
            [found, ..] => found,
        };
        if !begun.contains(&&file.path) {
            begun.push(&file.path);
            edits.push(spec.container_edits.clone());
        }
        edits.push(device.container_edits.clone());
    }
    Ok(edits)
}

fn missing(name: &str, files: &[Found]) -> Error {
    let faults = files.iter().filter_map(|f| Some(format!("; {}: {}", f.path.display(), f.spec.as_ref().err()?)));
    let faults: String = faults.collect();
    Error::invalid(format!("no file of cdi_dirs has CDI device {name}{faults}"))
}

/// A letter, then letters, digits and `more`, no sign at the end.
fn is_word(text: &str, more: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
}

fn is_name(text: &str) -> bool {
    let ends = |c: char| c.is_ascii_alphanumeric();
    text.starts_with(ends) && text.ends_with(ends) && text.chars().all(|c| ends(c) || "_-.:".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    const SPEC: &str = "cdiVersion: 0.6.0\nkind: acme.com/gpu\ncontainerEdits: {env: [ALL=1]}\ndevices:\n\
                        - name: '0'\n  containerEdits: {env: [GPU=0]}\n- name: '1'\n  containerEdits: {env: [GPU=1]}\n";

    fn found(path: &str, priority: usize, text: &str) -> Found {
        Found { path: path.into(), priority, spec: parse(text) }
    }

    fn env(names: &[&str], files: &[Found]) -> Result<Vec<String>> {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        Ok(select(&names, files)?.into_iter().flat_map(|e| e.env).collect())
    }

    #[test]
    fn edits_of_a_file_come_once_and_a_later_directory_wins() {
        let mut files = vec![found("/etc/cdi/a.yaml", 0, SPEC)];
        let both = ["acme.com/gpu=1", "acme.com/gpu=0"];
        assert_eq!(env(&both, &files).expect("there"), ["ALL=1", "GPU=1", "GPU=0"]);
        files.push(found(
            "/run/cdi/a.json",
            1,
            r#"{"cdiVersion": "0.3.0", "kind": "acme.com/gpu",
            "devices": [{"name": "1", "containerEdits": {"env": ["GPU=new"]}}]}"#,
        ));
        assert_eq!(env(&both, &files).expect("there"), ["GPU=new", "ALL=1", "GPU=0"]);
        files.push(found("/run/cdi/b.yaml", 1, SPEC));
        let e = env(&both, &files).expect_err("ambiguous").to_string();
        assert!(e.contains("/run/cdi/a.json and in /run/cdi/b.yaml"), "{e}");
    }

    #[test]
    fn a_missing_device_is_named_with_the_files_that_are_broken() {
        let files = [found("/etc/cdi/a.yaml", 0, SPEC), found("/etc/cdi/bad.json", 0, "{\"kind\": 1}")];
        let e = env(&["acme.com/gpu=7"], &files).expect_err("missing");
        assert_eq!(e.kind(), Kind::InvalidArgument);
        let text = e.to_string();
        assert!(text.contains("acme.com/gpu=7") && text.contains("/etc/cdi/bad.json: "), "{text}");
    }

    #[test]
    fn names_of_both_sources() {
        let annotations = [
            ("cdi.k8s.io/b".to_owned(), "acme.com/gpu=2".to_owned()),
            ("cdi.k8s.io/a".to_owned(), "acme.com/gpu=1,x.y/z=all".to_owned()),
            ("other".to_owned(), "nonsense".to_owned()),
        ];
        let all = |fields: &[&'static str]| names(fields.iter().copied(), annotations.iter().map(|(k, v)| (k, v)));
        let expected = ["acme.com/gpu=2", "acme.com/gpu=1", "x.y/z=all"];
        assert_eq!(all(&["acme.com/gpu=2"]).expect("valid"), expected);
        for bad in ["", "gpu", "gpu=0", "acme.com/gpu", "acme.com/gpu=", "1a/b=c", "a/b.c=d", "a/b=-c", "a/b=c-"] {
            assert_eq!(all(&[bad]).map_err(|e| e.kind()), Err(Kind::InvalidArgument), "{bad}");
        }
    }

    #[test]
    fn files_that_are_wrong() {
        let cases = [
            ("", "invalid"),
            ("kind: acme.com/gpu", "cdiVersion"),
            ("cdiVersion: 1\nkind: a/b", "string"),
            ("cdiVersion: 0.5.0\nkind: gpu", "vendor/class"),
            ("cdiVersion: 0.5.0\nkind: a/b\ndevices: [{name: '', containerEdits: {}}]", "cannot name"),
            (
                "cdiVersion: 0.5.0\nkind: a/b\ndevices: [{name: x, containerEdits: {}}, {name: x, containerEdits: {}}]",
                "twice",
            ),
            ("cdiVersion: 1.1.0\nkind: a/b\ncontainerEdits: {netDevices: []}", "netDevices"),
        ];
        for (text, expected) in cases {
            let e = parse(text).expect_err(text).to_string();
            assert!(e.contains(expected), "{text}: {e}");
        }
    }
}
