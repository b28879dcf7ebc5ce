//! A base spec of the operator's below ours: for what a configuration of the CRI cannot say.
//!
//! Only what is named here is taken, and only where our spec says nothing: a base can add limits, hooks, mounts and
//! variables, and never undo what a pod asked for.

use std::path::Path;

use oci_spec::runtime::Spec;
use serde_json::{Map, Value};

use super::security::{self, Profile};
use super::{env, Request};
use crate::error::{Error, Kind, Result};

/// Taken from a base as a whole, if our spec has none.
const WHOLE: [&str; 11] = [
    "/process/rlimits",
    "/process/ioPriority",
    "/process/scheduler",
    "/process/execCPUAffinity",
    "/linux/intelRdt",
    "/linux/memoryPolicy",
    "/linux/netDevices",
    "/linux/personality",
    "/linux/rootfsPropagation",
    "/linux/sysctl",
    "/linux/timeOffsets",
];

/// `spec` as JSON, with what `base` adds to it.
///
/// # Errors
/// As [`security::seccomp`]; `Internal` if the spec cannot be encoded.
pub fn complete(spec: &Spec, base: Option<&Value>, request: &Request<'_>) -> Result<Vec<u8>> {
    let encode = |e| Error::caused(Kind::Internal, "encode the runtime spec", e);
    let Some(base) = base else { return serde_json::to_vec(spec).map_err(encode) };
    let mut spec = serde_json::to_value(spec).map_err(encode)?;
    for pointer in WHOLE {
        whole(&mut spec, base, pointer);
    }
    if security::seccomp(request)? == Profile::Unset {
        whole(&mut spec, base, "/linux/seccomp");
    }
    below(&mut spec, base, "/annotations");
    below(&mut spec, base, "/linux/resources");
    hooks(&mut spec, base);
    variables(&mut spec, base);
    mounts(&mut spec, base);
    for pointer in ["/linux/devices", "/linux/resources/devices"] {
        appended(&mut spec, base, pointer);
    }
    serde_json::to_vec(&spec).map_err(encode)
}

/// Whether a value can be a base at all.
pub fn is_base(value: &Value) -> bool {
    value.is_object()
}

/// The object that holds what `pointer` names, made if missing, and the name.
fn place<'a, 'p>(spec: &'a mut Value, pointer: &'p str) -> Option<(&'a mut Map<String, Value>, &'p str)> {
    let (parents, name) = pointer.rsplit_once('/')?;
    let mut at = spec;
    for parent in parents.split('/').filter(|p| !p.is_empty()) {
        let object = at.as_object_mut()?;
        at = object.entry(parent).or_insert_with(|| Value::Object(Map::new()));
    }
    at.as_object_mut().map(|object| (object, name))
}

fn whole(spec: &mut Value, base: &Value, pointer: &str) {
    let Some(wanted) = base.pointer(pointer).filter(|v| !v.is_null()) else { return };
    if let Some((object, name)) = place(spec, pointer) {
        if object.get(name).is_none_or(Value::is_null) {
            object.insert(name.to_owned(), wanted.clone());
        }
    }
}

/// Every leaf that our objects lack. Lists are leaves.
fn below(spec: &mut Value, base: &Value, pointer: &str) {
    fn fill(ours: &mut Map<String, Value>, base: &Map<String, Value>) {
        for (key, wanted) in base {
            match (ours.get_mut(key), wanted) {
                (None | Some(Value::Null), _) => drop(ours.insert(key.clone(), wanted.clone())),
                (Some(Value::Object(own)), Value::Object(wanted)) => fill(own, wanted),
                (Some(_), _) => {}
            }
        }
    }
    let Some(wanted) = base.pointer(pointer).and_then(Value::as_object) else { return };
    if let Some((object, name)) = place(spec, pointer) {
        if let Value::Object(own) = object.entry(name).or_insert_with(|| Value::Object(Map::new())) {
            fill(own, wanted);
        }
    }
}

/// The base's hooks run before ours.
fn hooks(spec: &mut Value, base: &Value) {
    let Some(wanted) = base.get("hooks").and_then(Value::as_object) else { return };
    for (stage, all) in wanted {
        let Some((object, _)) = place(spec, &format!("/hooks/{stage}")) else { continue };
        let mut all = list(Some(all));
        all.extend(list(object.get(stage)));
        object.insert(stage.clone(), all.into());
    }
}

/// The base's variables come first, and ours in their place.
fn variables(spec: &mut Value, base: &Value) {
    let wanted = list(base.pointer("/process/env"));
    let Some((process, name)) = place(spec, "/process/env").filter(|_| !wanted.is_empty()) else { return };
    let own = list(process.get(name));
    let mut all: Vec<String> = Vec::new();
    let names_path = |entry: &str| entry.starts_with("PATH=");
    let chosen = wanted.iter().filter_map(Value::as_str).any(names_path);
    wanted.iter().filter_map(Value::as_str).for_each(|entry| env::set(&mut all, entry.to_owned()));
    for entry in own.iter().filter_map(Value::as_str) {
        // Our own default is nobody's choice.
        if !(chosen && entry == env::PATH) {
            env::set(&mut all, entry.to_owned());
        }
    }
    process.insert(name.to_owned(), all.into());
}

/// A mount at a place where ours is none, before the first of ours that lies below it.
fn mounts(spec: &mut Value, base: &Value) {
    let place_of = |mount: &Value| mount["destination"].as_str().map(|d| Path::new(d).to_path_buf());
    let wanted = list(base.get("mounts"));
    let Some(own) = spec.get_mut("mounts").and_then(Value::as_array_mut) else { return };
    for mount in wanted {
        let Some(at) = place_of(&mount) else { continue };
        let ours = |m: &Value| place_of(m).unwrap_or_default();
        if own.iter().any(|m| ours(m) == at) {
            continue;
        }
        let index = own.iter().position(|m| ours(m).starts_with(&at)).unwrap_or(own.len());
        own.insert(index, mount);
    }
}

/// Entries that ours are not.
fn appended(spec: &mut Value, base: &Value, pointer: &str) {
    let wanted = list(base.pointer(pointer));
    let Some((object, name)) = place(spec, pointer).filter(|_| !wanted.is_empty()) else { return };
    let mut all = list(object.get(name));
    for entry in wanted {
        // A node is what lies at its path, a rule is all that it says.
        let same = |own: &Value| *own == entry || own.get("path").is_some_and(|path| Some(path) == entry.get("path"));
        if !all.iter().any(same) {
            all.push(entry);
        }
    }
    object.insert(name.to_owned(), all.into());
}

fn list(value: Option<&Value>) -> Vec<Value> {
    value.and_then(Value::as_array).cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::container::tests::Case;
    use serde_json::json;

    /// Without capabilities, which are sets, and no base's business.
    fn completed(case: &Case, base: &Value) -> Value {
        let spec = case.spec().expect("valid");
        let bytes = complete(&spec, Some(base), &case.request()).expect("complete");
        let mut spec: Value = serde_json::from_slice(&bytes).expect("JSON");
        let all = spec["process"].as_object_mut().and_then(|process| process.remove("capabilities"));
        assert!(all.is_some_and(|all| all.get("base").is_none()));
        spec
    }

    #[test]
    fn what_ours_lacks_comes_from_the_base() {
        let base = json!({
            "process": {
                "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 64, "soft": 64}],
                "env": ["TZ=UTC", "HOSTNAME=base", "PATH=/base"],
                "capabilities": {"base": []},
                "args": ["other"], "cwd": "/other", "user": {"uid": 7, "gid": 7},
            },
            "hooks": {"prestart": [{"path": "/hook"}]},
            "root": {"path": "/other"},
            "hostname": "other",
            "annotations": {"base": "yes", "io.kubernetes.cri.container-type": "base"},
            "mounts": [{"destination": "/sys", "type": "bind"}, {"destination": "/opt", "type": "tmpfs"}],
            "linux": {
                "sysctl": {"net.core.somaxconn": "10"},
                "resources": {"pids": {"limit": 100}, "devices": [{"allow": true, "type": "c", "access": "r"}]},
                "namespaces": [],
                "maskedPaths": ["/base"],
                "seccomp": {"defaultAction": "SCMP_ACT_LOG"},
                "devices": [{"path": "/dev/x", "type": "c", "major": 1, "minor": 3}],
            }
        });
        let case = Case::default();
        let plain = serde_json::to_value(case.spec().expect("valid")).expect("JSON");
        let spec = completed(&case, &base);
        for pointer in ["/process/rlimits", "/linux/sysctl", "/linux/seccomp", "/linux/devices", "/hooks"] {
            assert_eq!(spec.pointer(pointer), base.pointer(pointer), "{pointer}");
        }
        for pointer in [
            "/process/args",
            "/process/cwd",
            "/process/user",
            "/root",
            "/hostname",
            "/linux/namespaces",
            "/linux/maskedPaths",
        ] {
            assert_eq!(spec.pointer(pointer), plain.pointer(pointer), "{pointer}");
        }
        assert_eq!(spec["process"]["env"], json!(["TZ=UTC", "HOSTNAME=web-0", "PATH=/base"]));
        assert_eq!(spec["annotations"]["base"], "yes");
        assert_eq!(spec["annotations"]["io.kubernetes.cri.container-type"], "container");
        assert_eq!(spec["linux"]["resources"]["pids"]["limit"], 100);
        let rules = spec["linux"]["resources"]["devices"].as_array().expect("rules");
        assert_eq!((&rules[0]["allow"], &rules[rules.len() - 1]["type"]), (&json!(false), &json!("c")));
        let mounts = spec["mounts"].as_array().expect("mounts");
        assert_eq!(mounts.iter().filter(|m| m["destination"] == "/sys").count(), 1);
        assert!(mounts.iter().any(|m| m["destination"] == "/opt"));
        assert!(!mounts.iter().any(|m| m["destination"] == "/sys" && m["type"] == "bind"));
    }

    #[test]
    fn a_base_does_not_undo_a_request() {
        let base = json!({"linux": {"seccomp": {"defaultAction": "SCMP_ACT_LOG"}}, "mounts": [
            {"destination": "/data"}, {"destination": "/dev/shm"}]});
        let mut case = Case::default();
        case.security().seccomp_profile_path = "unconfined".into();
        assert_eq!(completed(&case, &base)["linux"].get("seccomp"), None);
        let mut case = Case::default();
        case.make_privileged();
        assert_eq!(completed(&case, &base)["linux"].get("seccomp"), None);
        // A parent lies below its children.
        let spec = completed(&Case::default(), &json!({"mounts": [{"destination": "/etc"}]}));
        let at = |d: &str| spec["mounts"].as_array().and_then(|all| all.iter().position(|m| m["destination"] == d));
        assert!(at("/etc").expect("there") < at("/etc/hosts").expect("there"));
    }

    #[test]
    fn nonsense_adds_nothing() {
        let plain = completed(&Case::default(), &Value::Null);
        for base in [json!({}), json!({"linux": 7, "process": [], "hooks": "x", "mounts": {}, "annotations": null})] {
            assert_eq!(completed(&Case::default(), &base), plain, "{base}");
        }
        assert!(is_base(&json!({})) && !is_base(&json!([])));
    }
}
