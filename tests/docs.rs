//! The documents tell the truth where a machine can judge it: calls, keys, rooms, links.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use cricket::config::Config;
use cricket_proto::methods::{image_service, runtime_service};

const DOCUMENTS: [&str; 8] = [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs/config.md",
    "docs/cri.md",
    "docs/operations.md",
    "docs/threat-model.md",
];

fn top() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(top().join(path)).unwrap_or_else(|e| panic!("read {path}: {e}"))
}

/// The cells of every table row whose first cell is code: `| `name` | second | …`.
fn rows(text: &str) -> Vec<(String, String)> {
    let cells = |line: &str| -> Option<(String, String)> {
        let mut cells = line.strip_prefix("| `")?.split('|').map(str::trim);
        Some((cells.next()?.strip_suffix('`')?.to_owned(), cells.next()?.to_owned()))
    };
    text.lines().filter_map(cells).collect()
}

/// Names without the service: `/runtime.v1.RuntimeService/Version` → `Version`.
fn calls() -> BTreeSet<&'static str> {
    let paths = runtime_service::ALL.iter().chain(image_service::ALL);
    paths.map(|path| path.rsplit('/').next().unwrap_or(path)).collect()
}

/// The calls that have a verb, from the table RPC → verb: `RUN_POD_SANDBOX` → `RunPodSandbox`.
fn served() -> BTreeSet<&'static str> {
    let text = read("src/server/services.rs");
    let constants: Vec<String> = text
        .split("_service::")
        .skip(1)
        .map(|rest| rest.chars().take_while(|c| c.is_ascii_uppercase() || *c == '_').filter(|c| *c != '_').collect())
        .filter(|constant: &String| constant != "ALL" && !constant.is_empty())
        .collect();
    let served: BTreeSet<&str> =
        calls().into_iter().filter(|call| constants.contains(&call.to_ascii_uppercase())).collect();
    assert_eq!(served.len(), constants.len(), "src/server/services.rs is not read as it is written: {constants:?}");
    served
}

#[test]
fn the_table_of_calls_is_the_servers() {
    let text = read("docs/cri.md");
    let (services, _) = text.split_once("## RunPodSandbox").expect("the calls come before their fields");
    let (mut listed, mut worded) = (Vec::new(), Vec::new());
    for (call, state) in rows(services) {
        assert!(["yes", "partly", "no"].contains(&state.as_str()), "{call}: {state:?} is no state");
        if state != "no" {
            worded.push(call.clone());
        }
        listed.push(call);
    }
    assert_eq!(listed.len(), 41, "every call has one row");
    assert_eq!(listed.iter().map(String::as_str).collect::<BTreeSet<_>>(), calls());
    assert_eq!(worded.iter().map(String::as_str).collect::<BTreeSet<_>>(), served(), "rows that are not marked no");
}

#[test]
fn every_key_is_documented_with_its_default() {
    let documented = rows(&read("docs/config.md"));
    let shown = Config::default().to_toml();
    let mut keys = Vec::new();
    for line in shown.lines() {
        // One key has no default and is shown as a comment.
        let line = line.strip_prefix("# ").filter(|l| l.starts_with("systemd_cgroup = ")).unwrap_or(line);
        let Some((key, value)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) else { continue };
        let value = if key == "systemd_cgroup" { "follows `cgroup_driver`".to_owned() } else { format!("`{value}`") };
        assert!(documented.contains(&(key.to_owned(), value.clone())), "docs/config.md: {key} with default {value}");
        keys.push(key);
    }
    assert!(keys.len() > 20, "the keys are not read: {keys:?}");
    let unknown: Vec<_> = documented.iter().filter(|(key, _)| !keys.contains(&key.as_str())).map(|(k, _)| k).collect();
    assert_eq!(unknown, ["NOTIFY_SOCKET", "JOURNAL_STREAM"], "rows of docs/config.md that are no keys");
}

#[test]
fn the_map_has_every_room_in_order() {
    let lib = read("src/lib.rs");
    let rooms: Vec<&str> =
        lib.lines().filter_map(|line| line.strip_prefix("pub mod ").and_then(|rest| rest.strip_suffix(';'))).collect();
    let map = read("ARCHITECTURE.md");
    let (_, table) = map.split_once("## Rooms").expect("a chapter on rooms");
    let (table, _) = table.split_once("\n## ").expect("another one after it");
    let first_cells = table.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    let mapped: Vec<&str> =
        first_cells.flat_map(|cell| cell.split([' ', '`']).filter(|word| !word.is_empty())).collect();
    assert_eq!(mapped, rooms);
}

#[test]
fn what_documents_point_at_exists() {
    for document in DOCUMENTS {
        let text = read(document);
        let folder = top().join(document).parent().map(Path::to_path_buf).expect("below the top");
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.starts_with("https://")) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { top().join(document) } else { folder.join(path) };
            assert!(target.exists(), "{document}: {link} leads nowhere");
            if !anchor.is_empty() {
                let headings = fs::read_to_string(&target).expect("a text");
                let found = headings.lines().filter(|line| line.starts_with('#')).any(|line| slug(line) == anchor);
                assert!(found, "{document}: {link}: no such heading");
            }
        }
        // Paths in the repository, in code: `src/…`, `tests/…`.
        for code in text.split('`').skip(1).step_by(2) {
            let ours = ["src/", "tests/", "benches/", "proto/", "docs/", "dist/"]
                .iter()
                .any(|folder| code.starts_with(folder));
            if ours && !code.contains(['…', '<', ' ']) {
                assert!(top().join(code).exists(), "{document}: `{code}` does not exist");
            }
        }
    }
}

/// A heading's anchor, for headings of plain words.
fn slug(heading: &str) -> String {
    heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-")
}
