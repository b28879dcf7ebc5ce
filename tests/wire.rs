//! No number of the wire is wrong: our `.proto` files against the descriptors in the Go modules of the CRI and of
//! containerd, name by name. `tests/conformance/wire.sh` prints those again and compares them with the checked-in copy.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use protobuf::descriptor::field_descriptor_proto::{Label, Type};
use protobuf::descriptor::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto};

/// What is ours alone.
const OWN: &str = "cricket.";

fn top() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(top().join(path)).unwrap_or_else(|e| panic!("read {path}: {e}"))
}

/// `kind name` → the rest of the line: number, label and type, or what a method takes and returns.
type Table = BTreeMap<(String, String), String>;

/// The upstream table: `field runtime.v1.PodSandbox.id 1 string`.
fn theirs() -> Table {
    let entry = |line: &str| {
        let mut words = line.splitn(3, ' ').map(str::to_owned);
        let (kind, name) = (words.next().expect("a kind"), words.next().expect("a name"));
        ((kind, name), words.next().unwrap_or_default())
    };
    read("tests/conformance/wire.txt").lines().map(entry).collect()
}

/// The same of the `.proto` files below `proto/`.
fn ours() -> Table {
    let root = top().join("proto");
    let mut inputs = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("read proto/") {
            let path = entry.expect("read proto/").path();
            match path.extension().is_some_and(|end| end == "proto") {
                true => inputs.push(path),
                false if path.is_dir() && path != root.join("src") => folders.push(path),
                false => {}
            }
        }
    }
    table(&root, &inputs)
}

fn table(root: &Path, inputs: &[PathBuf]) -> Table {
    let parsed = protobuf_parse::Parser::new().pure().include(root).inputs(inputs).parse_and_typecheck();
    let mut table = Table::new();
    for file in parsed.expect("the .proto files parse").file_descriptors {
        if !file.package().starts_with("google.protobuf") && !file.package().starts_with(OWN) {
            add_file(&file, &mut table);
        }
    }
    table
}

fn add_file(file: &FileDescriptorProto, to: &mut Table) {
    for message in &file.message_type {
        add_message(file.package(), message, to);
    }
    for of in &file.enum_type {
        add_enum(file.package(), of, to);
    }
    for service in &file.service {
        for method in &service.method {
            let stream = |is| if is { "stream " } else { "" };
            let (input, output) = (&method.input_type()[1..], &method.output_type()[1..]);
            let (before, after) = (stream(method.client_streaming()), stream(method.server_streaming()));
            let name = format!("{}.{}.{}", file.package(), service.name(), method.name());
            to.insert(("method".to_owned(), name), format!("{before}{input} -> {after}{output}"));
        }
    }
}

fn add_message(scope: &str, message: &DescriptorProto, to: &mut Table) {
    let name = format!("{scope}.{}", message.name());
    for field in &message.field {
        let oneof = match field.has_oneof_index() && !field.proto3_optional() {
            true => {
                format!(" in {}", message.oneof_decl[usize::try_from(field.oneof_index()).expect("an index")].name())
            }
            false => String::new(),
        };
        let text = format!("{} {}{}{oneof}", field.number(), label(field), type_of(field));
        to.insert(("field".to_owned(), format!("{name}.{}", field.name())), text);
    }
    for nested in &message.nested_type {
        add_message(&name, nested, to);
    }
    for of in &message.enum_type {
        add_enum(&name, of, to);
    }
    to.insert(("message".to_owned(), name), String::new());
}

fn add_enum(scope: &str, of: &EnumDescriptorProto, to: &mut Table) {
    for value in &of.value {
        let name = format!("{scope}.{}.{}", of.name(), value.name());
        to.insert(("value".to_owned(), name), value.number().to_string());
    }
}

fn label(field: &FieldDescriptorProto) -> &'static str {
    match field.label() {
        Label::LABEL_REPEATED => "repeated ",
        _ if field.proto3_optional() => "optional ",
        _ => "",
    }
}

fn type_of(field: &FieldDescriptorProto) -> String {
    match field.type_() {
        Type::TYPE_MESSAGE | Type::TYPE_ENUM => field.type_name()[1..].to_owned(),
        scalar => format!("{scalar:?}").trim_start_matches("TYPE_").to_ascii_lowercase(),
    }
}

/// What is left out on purpose: `[reason]`, below it names, each with everything below it.
fn omitted() -> Vec<String> {
    let text = read("tests/conformance/omitted.txt");
    let mut reason = "";
    let mut names = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(new) => reason = new,
            None if reason.is_empty() => panic!("tests/conformance/omitted.txt: {line} has no [reason] above it"),
            None => names.push(line.to_owned()),
        }
    }
    names
}

fn is_below(name: &str, top: &str) -> bool {
    name.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Differences, a line each. Empty when every name of ours is theirs with the same number, label and type, when every
/// name of theirs is ours or left out on purpose, and when nothing is said to be left out that is not.
fn differences(ours: &Table, theirs: &Table, omitted: &[String]) -> Vec<String> {
    let mut wrong = Vec::new();
    for ((kind, name), text) in ours {
        match theirs.get(&(kind.clone(), name.clone())) {
            Some(same) if same == text => {}
            Some(other) => wrong.push(format!("{kind} {name}: ours is {text:?}, theirs {other:?}")),
            None => wrong.push(format!("{kind} {name}: they have no such name")),
        }
    }
    let missing: Vec<_> = theirs.keys().filter(|key| !ours.contains_key(*key)).collect();
    let mut used = BTreeSet::new();
    for (kind, name) in missing {
        match omitted.iter().find(|top| is_below(name, top)) {
            Some(top) => drop(used.insert(top)),
            None => wrong.push(format!("{kind} {name}: ours lacks it, and omitted.txt does not say why")),
        }
    }
    wrong.extend(
        omitted.iter().filter(|top| !used.contains(top)).map(|top| format!("omitted.txt: {top} is not missing")),
    );
    wrong
}

#[test]
fn every_name_and_number_is_theirs() {
    let (ours, theirs) = (ours(), theirs());
    assert!(ours.len() > 1000 && theirs.len() > ours.len(), "{} of ours, {} of theirs", ours.len(), theirs.len());
    let wrong = differences(&ours, &theirs, &omitted());
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
}

/// The check can fail: one number, label, type, streaming flag or name that is changed is one difference or more.
#[test]
fn whatever_is_changed_is_seen() {
    let (ours, theirs, omitted) = (ours(), theirs(), omitted());
    let seen = |name: &str, change: &dyn Fn(&mut String)| {
        let mut changed = ours.clone();
        let (_, text) = changed.iter_mut().find(|((_, n), _)| n == name).unwrap_or_else(|| panic!("no {name}"));
        let before = text.clone();
        change(text);
        assert_ne!(before, *text, "{name}: not changed");
        let found = differences(&changed, &theirs, &omitted);
        assert!(found.len() == 1 && found[0].contains(name), "{name}: {found:?}");
    };
    seen("runtime.v1.PodSandbox.id", &|text| *text = text.replace('1', "2"));
    seen("runtime.v1.ListPodSandboxResponse.items", &|text| *text = text.replace("repeated ", ""));
    seen("runtime.v1.PodSandbox.created_at", &|text| *text = text.replace("int64", "uint64"));
    seen("runtime.v1.PodSandboxState.SANDBOX_NOTREADY", &|text| *text = "2".to_owned());
    seen("runtime.v1.RuntimeService.GetContainerEvents", &|text| *text = text.replace("stream ", ""));
    seen("containerd.services.content.v1.Content.Write", &|text| *text = text.replacen("stream ", "", 1));

    let mut less = ours.clone();
    less.remove(&("field".to_owned(), "runtime.v1.PodSandbox.labels".to_owned())).expect("it is there");
    assert_eq!(differences(&less, &theirs, &omitted).len(), 1);
    let mut more = ours.clone();
    more.insert(("field".to_owned(), "runtime.v1.PodSandbox.color".to_owned()), "99 string".to_owned());
    assert_eq!(differences(&more, &theirs, &omitted).len(), 1);
    assert_eq!(differences(&ours, &theirs, &[omitted, vec!["runtime.v1.PodSandbox".to_owned()]].concat()).len(), 1);
}

#[test]
fn a_proto_file_becomes_the_lines_that_the_other_side_prints() {
    let folder = std::env::temp_dir().join(format!("cricket-wire-{}", std::process::id()));
    fs::create_dir(&folder).expect("make a folder");
    let file = folder.join("a.proto");
    let text = "syntax = \"proto3\"; package p.v1;
        message M { map<string, int32> m = 3; repeated M.N n = 4; optional bool o = 5; oneof either { E e = 6; bytes b = 7; }
          message N { string s = 1; } enum E { ZERO = 0; ONE = 1; } }
        service S { rpc Do(M) returns (stream M.N); }";
    fs::write(&file, text).expect("write a file");
    let table = table(&folder, &[file]);
    fs::remove_dir_all(&folder).expect("remove the folder");
    let lines: Vec<String> = table.iter().map(|((kind, name), text)| format!("{kind} {name} {text}")).collect();
    let expected = [
        "field p.v1.M.MEntry.key 1 string",
        "field p.v1.M.MEntry.value 2 int32",
        "field p.v1.M.N.s 1 string",
        "field p.v1.M.b 7 bytes in either",
        "field p.v1.M.e 6 p.v1.M.E in either",
        "field p.v1.M.m 3 repeated p.v1.M.MEntry",
        "field p.v1.M.n 4 repeated p.v1.M.N",
        "field p.v1.M.o 5 optional bool",
        "message p.v1.M ",
        "message p.v1.M.MEntry ",
        "message p.v1.M.N ",
        "method p.v1.S.Do p.v1.M -> stream p.v1.M.N",
        "value p.v1.M.E.ONE 1",
        "value p.v1.M.E.ZERO 0",
    ];
    assert_eq!(lines, expected);
}
