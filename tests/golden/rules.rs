//! What runc refuses to load, as far as a spec can break it: the rules of its validator, and of the spec's schema.

use std::collections::BTreeSet;

use serde_json::Value;

/// Panics, saying what, if a runtime would not load `spec`.
#[track_caller]
pub fn assert_loadable(spec: &Value) {
    if let Err(what) = broken(spec) {
        panic!("{what}: {spec:#}");
    }
}

fn broken(spec: &Value) -> Result<(), String> {
    process(&spec["process"])?;
    mounts(spec)?;
    linux(&spec["linux"])?;
    let root = text(&spec["root"]["path"]);
    let of_sandbox = spec["annotations"]["io.kubernetes.cri.container-type"] == "sandbox";
    let fine = if of_sandbox { root.starts_with('/') } else { root == "rootfs" };
    holds("root.path is that of the bundle, or a sandbox's own", fine)?;
    let own_uts = all(&spec["linux"]["namespaces"]).any(|n| n["type"] == "uts" && n.get("path").is_none());
    holds("a host name needs a UTS namespace", spec.get("hostname").is_none() || own_uts)?;
    let annotations = spec["annotations"].as_object().into_iter().flatten();
    holds("annotations have names", annotations.map(|(name, _)| name).all(|name| !name.is_empty()))
}

fn process(process: &Value) -> Result<(), String> {
    holds("there is something to run", all(&process["args"]).count() > 0)?;
    holds("cwd is absolute", text(&process["cwd"]).starts_with('/'))?;
    let words = all(&process["args"]).chain(all(&process["env"]));
    holds("no NUL", words.map(text).all(|word| !word.contains('\0')))?;
    let names: Vec<&str> = all(&process["env"]).map(|e| text(e).split('=').next().unwrap_or_default()).collect();
    holds("variables have names", all(&process["env"]).map(text).all(|e| e.find('=').is_some_and(|at| at > 0)))?;
    holds("no variable twice", names.iter().collect::<BTreeSet<_>>().len() == names.len())?;
    let user = &process["user"];
    let groups: Vec<&Value> = all(&user["additionalGids"]).collect();
    holds("the primary group is one of all", groups.contains(&&user["gid"]))?;
    if let Some(score) = process.get("oomScoreAdj") {
        holds("a score", score.as_i64().is_some_and(|s| (-1000..=1000).contains(&s)))?;
    }
    let sets = &process["capabilities"];
    let set = |name: &str| all(&sets[name]).map(text).collect::<BTreeSet<_>>();
    let (bounding, ambient) = (set("bounding"), set("ambient"));
    holds("effective within permitted", set("effective").is_subset(&set("permitted")))?;
    holds("permitted within bounding", set("permitted").is_subset(&bounding))?;
    holds("ambient within inheritable", ambient.is_subset(&set("inheritable")))?;
    holds("ambient within permitted", ambient.is_subset(&set("permitted")))?;
    holds("capabilities have the kernel's names", bounding.iter().all(|c| c.starts_with("CAP_")))
}

fn mounts(spec: &Value) -> Result<(), String> {
    let places: Vec<&str> = all(&spec["mounts"]).map(|m| text(&m["destination"])).collect();
    holds("mounts go to absolute places", places.iter().all(|place| place.starts_with('/')))?;
    for mount in all(&spec["mounts"]) {
        let bound = all(&mount["options"]).any(|o| o == "bind" || o == "rbind");
        let source = text(&mount["source"]);
        holds("bound sources are absolute", !bound || source.starts_with('/'))?;
    }
    Ok(())
}

fn linux(linux: &Value) -> Result<(), String> {
    let kinds: Vec<&str> = all(&linux["namespaces"]).map(|n| text(&n["type"])).collect();
    holds("no namespace twice", kinds.iter().collect::<BTreeSet<_>>().len() == kinds.len())?;
    holds("a mount namespace", kinds.contains(&"mount"))?;
    let joined = all(&linux["namespaces"]).filter_map(|n| n.get("path"));
    holds("namespaces are joined by absolute paths", joined.map(text).all(|path| path.starts_with('/')))?;
    for device in all(&linux["devices"]) {
        holds("devices are at absolute places", text(&device["path"]).starts_with('/'))?;
        holds("devices are of a kind", ["c", "b", "p", "u"].contains(&text(&device["type"])))?;
    }
    let rules: Vec<&Value> = all(&linux["resources"]["devices"]).collect();
    let letters = |rule: &&Value| text(&rule["access"]).bytes().all(|b| b"rwm".contains(&b));
    holds("device rules give rwm", rules.iter().all(letters))?;
    holds("device rules begin with a rule for all", rules.first().is_some_and(|r| r.get("major").is_none()))?;
    if let Some(filter) = linux.get("seccomp") {
        seccomp(filter)?;
    }
    Ok(())
}

fn seccomp(filter: &Value) -> Result<(), String> {
    let known = |action: &Value| text(action).starts_with("SCMP_ACT_");
    holds("a default action", known(&filter["defaultAction"]))?;
    for rule in all(&filter["syscalls"]) {
        holds("rules have names", all(&rule["names"]).count() > 0 && all(&rule["names"]).all(|n| !text(n).is_empty()))?;
        holds("rules have actions", known(&rule["action"]))?;
        let numbered = rule.get("errnoRet").is_some();
        holds(
            "numbers go with errors",
            !numbered || ["SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"].contains(&text(&rule["action"])),
        )?;
        holds("six arguments", all(&rule["args"]).all(|a| a["index"].as_u64().is_some_and(|i| i < 6)))?;
    }
    Ok(())
}

fn holds(what: &str, is: bool) -> Result<(), String> {
    is.then_some(()).ok_or_else(|| format!("it must hold that {what}"))
}

fn all(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
