//! Golden runtime specs: `tests/golden/<case>/spec.json`. `UPDATE_GOLDEN=1 cargo test --test golden` rewrites them;
//! read the diff.

mod cases;
mod fixture;
mod machine;
mod property;
mod rules;
mod runc;
mod sandboxes;
mod security;

use std::fs;
use std::path::Path;

use serde_json::Value;

/// Every case: name of the folder, and how its spec is made.
fn all() -> impl Iterator<Item = (&'static str, Box<dyn Fn() -> Value>)> {
    let containers = cases::ALL.iter().chain(machine::ALL).chain(security::ALL).map(|(name, build)| {
        let made: Box<dyn Fn() -> Value> = Box::new(|| build().json());
        (*name, made)
    });
    containers.chain(sandboxes::ALL.iter().map(|(name, build)| {
        let made: Box<dyn Fn() -> Value> = Box::new(|| serde_json::to_value(build()).expect("a spec is JSON"));
        (*name, made)
    }))
}

#[test]
fn specs_are_as_they_were() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut changed = Vec::new();
    for (name, build) in all() {
        let file = folder.join(name).join("spec.json");
        let spec = build();
        rules::assert_loadable(&spec);
        let found = canonical(spec);
        if update {
            fs::create_dir_all(folder.join(name)).expect("mkdir");
            fs::write(&file, &found).expect("write");
        } else if fs::read_to_string(&file).ok().as_deref() != Some(found.as_str()) {
            changed.push(format!("--- {name}\n{found}"));
        }
    }
    assert!(changed.is_empty(), "changed specs; UPDATE_GOLDEN=1 accepts them:\n{}", changed.join("\n"));
}

#[test]
fn every_golden_file_has_a_case() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for entry in fs::read_dir(folder).expect("readable") {
        let entry = entry.expect("readable");
        if entry.file_type().expect("known").is_dir() {
            let name = entry.file_name();
            assert!(all().any(|(case, _)| name == *case), "{name:?} has no case: delete it");
        }
    }
}

/// Pretty JSON in which only what matters has an order: keys and sets of capabilities are sorted.
fn canonical(mut value: Value) -> String {
    if let Some(sets) = value.pointer_mut("/process/capabilities").and_then(Value::as_object_mut) {
        for names in sets.values_mut().filter_map(Value::as_array_mut) {
            names.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
        }
    }
    value.sort_all_objects();
    let mut text = serde_json::to_string_pretty(&value).expect("JSON");
    text.push('\n');
    text
}
