//! The rule of the house: `src/lib.rs` lists the rooms, lowest first, and a room uses only those listed before it.
//! Smaller walls stand beside it; `rules.rs` has them all. The rules are proved here on sources that break them.

#[path = "rooms/rules.rs"]
mod rules;
#[path = "rooms/source.rs"]
mod source;

use std::fs;
use std::path::{Path, PathBuf};

use rules::House;
use source::Source;

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()))
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("readable").path();
        match path.is_dir() {
            true => sources(&path, found),
            false if path.extension().is_some_and(|e| e == "rs") => found.push(path),
            false => {}
        }
    }
}

#[test]
fn the_house_stands() {
    let house = House::read(&read(&top().join("src/lib.rs")));
    assert!(house.rooms.len() > 20, "the list of rooms is not read: {:?}", house.rooms);
    assert!(["reference", "config", "oci", "layout"].iter().all(|room| house.pure.iter().any(|p| p == room)));
    let mut files = vec![top().join("build.rs"), top().join("proto/build.rs"), top().join("shim/build.rs")];
    for folder in ["src", "tests", "benches", "proto/src", "shim/src"] {
        sources(&top().join(folder), &mut files);
    }
    files.sort();
    let path = |file: &Path| file.strip_prefix(top()).expect("below the top").to_string_lossy().into_owned();
    let mut all: Vec<Source> = files.iter().map(|file| Source::new(&path(file), &read(file))).collect();
    let test_files: Vec<String> = all.iter().flat_map(Source::test_files).collect();
    all.iter_mut().filter(|source| test_files.contains(&source.path)).for_each(Source::all_test);
    let mut wrong: Vec<String> = all.iter().flat_map(|source| house.check(source)).collect();
    for manifest in ["Cargo.toml", "proto/Cargo.toml", "shim/Cargo.toml"] {
        wrong.extend(rules::dependencies(manifest, &read(&top().join(manifest))));
    }
    assert!(wrong.is_empty(), "the house does not stand:\n  {}", wrong.join("\n  "));
}

#[test]
fn every_room_has_a_file() {
    for room in House::read(&read(&top().join("src/lib.rs"))).rooms {
        let (file, folder) = (format!("src/{room}.rs"), format!("src/{room}/mod.rs"));
        assert!(top().join(&file).exists() || top().join(&folder).exists(), "{file} and {folder} are missing");
    }
}

/// What is wrong with `text` as the file `path` of a house of four rooms, the first of them pure.
fn wrong(path: &str, text: &str) -> Vec<String> {
    let house = House::read("// pure\npub mod oci;\n// world\npub mod sys;\npub mod store;\npub mod server;\n");
    house.check(&Source::new(path, &format!("//! A file.\n{text}")))
}

#[track_caller]
fn refused(path: &str, text: &str, expected: &str) {
    let found = wrong(path, text);
    assert!(found.len() == 1 && found[0].starts_with(expected), "{text}\nexpected {expected}\nfound {found:?}");
}

#[track_caller]
fn allowed(path: &str, text: &str) {
    assert_eq!(wrong(path, text), Vec::<String>::new(), "{text}");
}

#[test]
fn a_room_does_not_look_up() {
    let up = "src/oci/x.rs:2 names crate::store, which is listed after oci";
    for text in [
        "use crate::store::Store;",
        "use crate::{oci, store};",
        "use crate::{oci::{self, spec}, store::{Container, Sandbox}};",
        "pub use crate::store as memory;",
        "fn f() { crate::store::open(); }",
        "fn f(_: &'static crate::store::Store) {}",
        "impl crate::store::Trait for u8 {}",
        "macro_rules! m { () => { $crate::store::f() } }",
        "#[cfg(test)] mod tests { use crate::store::Store; }",
        "const A: &str = \"/*\"; use crate::store; /* \" */",
        "const A: char = '\"'; use crate::store;",
        "fn f<'a>(_: &'a str) -> char { 'a' } use crate::store;",
        "const A: &str = r#\"\"\"#; use crate::store;",
    ] {
        refused("src/oci/x.rs", text, up);
    }
    refused("src/oci/x.rs", "use crate::{\n    oci,\n    store,\n};", "src/oci/x.rs:4 names crate::store");
    refused("src/oci.rs", "use crate::attic::Box;", "src/oci.rs:2 names crate::attic, which is no room");
    refused("src/attic.rs", "", "src/attic.rs:1 belongs to no room");
}

#[test]
fn a_room_looks_down_and_at_itself() {
    for text in [
        "use crate::{oci::{self, spec}, store, sys};",
        "pub(crate) fn f() {}",
        "// crate::server",
        "//! crate::server\n/* a /* crate::server */ crate::server */",
        "const A: &str = \"crate::server \\\" crate::server\";",
        "const A: &str = r#\"crate::server \" crate::server\"#;",
        "const A: &[u8] = b\"crate::server\"; const B: u8 = b'\"'; const C: char = '\\''; fn f<'a>() {}",
    ] {
        allowed("src/store/x.rs", text);
    }
}

#[test]
fn nobody_climbs_out_of_a_room() {
    let out = "src/oci/x.rs:2 climbs out of oci";
    refused("src/oci/x.rs", "use super::super::store;", out);
    refused("src/oci/x.rs", "mod tests { use super::super::super::store; }", out);
    refused("src/oci/mod.rs", "use super::store;", "src/oci/mod.rs:2 climbs out of oci");
    refused("src/store.rs", "use cricket::server;", "src/store.rs:2 names cricket::");
    allowed("src/oci/x.rs", "use super::y; pub(super) fn f() {} mod tests { use super::super::y; }");
}

#[test]
fn pure_rooms_touch_nothing() {
    for text in ["use std::fs;", "use std::{collections::HashMap, env};", "fn f() { std::process::id(); }"] {
        refused("src/oci/x.rs", text, "src/oci/x.rs:2 names std::");
        allowed("src/store/x.rs", text);
        allowed("src/oci/x.rs", &format!("#[cfg(test)]\nmod tests {{ {text} }}"));
    }
    refused("src/oci/x.rs", "use std::time::Instant;", "src/oci/x.rs:2 names Instant, but oci is pure");
    allowed("src/oci/x.rs", "use std::time::Duration;");
}

#[test]
fn wire_types_stay_in_their_rooms() {
    refused("src/store.rs", "use cricket_proto::tasks::Task;", "src/store.rs:2 names cricket_proto::tasks::Task");
    refused("src/store.rs", "use cricket_proto::{runtime, images};", "src/store.rs:2 names cricket_proto::images");
    refused("src/store.rs", "use cricket_proto::methods::tasks;", "src/store.rs:2 names cricket_proto::methods::tasks");
    refused("src/store.rs", "use cricket_proto::methods;", "src/store.rs:2 names cricket_proto::methods");
    allowed("src/store.rs", "use cricket_proto::{methods::{image_service, runtime_service}, records, runtime::Mount};");
    refused("src/store.rs", "use grpcio::Channel;", "src/store.rs:2 names grpcio::Channel: gRPC is behind");
    refused("src/sys/grpc_deadline.rs", "use grpcio::{Deadline, ServerBuilder};", "src/sys/grpc_deadline.rs:2 names");
    allowed("src/server/x.rs", "use grpcio::ServerBuilder;");
}

#[test]
fn words_that_are_refused() {
    refused("src/store.rs", "fn f() { unsafe { g() } }", "src/store.rs:2 is unsafe");
    allowed("src/sys/x.rs", "fn f() { unsafe { g() } }");
    allowed("src/store.rs", "#![deny(unsafe_code)] // unsafe");
    refused("src/store.rs", "async fn f() {}", "src/store.rs:2 is an async fn");
    refused("src/store.rs", "use tokio::net;", "src/store.rs:2 names tokio");
    refused("src/store.rs", "fn f() { g()\n.unwrap(); }", "src/store.rs:3 unwraps");
    allowed("src/store.rs", "fn f() { g().unwrap_or(1); }\n#[cfg(test)]\nmod tests { fn f() { g().unwrap(); } }");
    allowed("tests/x.rs", "fn f() { g().unwrap(); }");
    let house = House::read("pub mod oci;");
    let bare = house.check(&Source::new("src/oci.rs", "use std::fs;"));
    assert!(bare.len() == 1 && bare[0].starts_with("src/oci.rs:1 does not start with"), "{bare:?}");
}

#[test]
fn a_module_of_tests_may_be_a_file() {
    let parent = Source::new("src/store/mod.rs", "//! A.\nmod a;\n#[cfg(test)]\npub(crate) mod testing;\nmod b;");
    assert_eq!(parent.test_files(), ["src/store/testing.rs"]);
    let parent = Source::new("src/store.rs", "//! A.\n#[cfg(test)]\nmod testing;");
    assert_eq!(parent.test_files(), ["src/store/testing.rs"]);
}

#[test]
fn files_and_functions_fit() {
    let filler = "const A: u8 = 0;\n";
    refused("src/store.rs", &filler.repeat(350), "src/store.rs:1 has 351 lines before its tests");
    allowed("src/store.rs", &filler.repeat(349));
    let tests = format!("{}#[cfg(test)]\nmod tests {{\n{}}}\n", filler.repeat(340), filler.repeat(340));
    allowed("src/store.rs", &tests);
    let function = |lines: usize| format!("fn f(a: [u8; 3]) -> u8 {{\n{}}}\n", "    let a = '{';\n".repeat(lines - 2));
    refused("src/store.rs", &function(81), "src/store.rs:2 fn f has 81 lines");
    allowed("src/store.rs", &function(80));
    allowed("src/store.rs", &format!("trait T {{ fn f(a: fn(u8) -> u8); }}\n{}", function(80)));
}

#[test]
fn dependencies_say_what_they_are_for() {
    let manifest = "[package]\nname = \"x\"\n[dependencies]\n# For a.\na = \"1\"\nb = \"1\"\nc.workspace = true\n";
    assert_eq!(rules::dependencies("Cargo.toml", manifest), ["Cargo.toml:6 b: a comment above says what it is for"]);
}
