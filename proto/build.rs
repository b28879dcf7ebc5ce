//! Generates the messages and the gRPC method tables from the `.proto` files beside it, in pure Rust.
//!
//! Each file becomes one module of messages, and `methods.rs` holds one module of `grpcio::Method` constants per
//! service. Clients and servers are generic over those constants, so nothing else is generated.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use protobuf_parse::{Parser, ProtoPath, ProtoPathBuf};

/// Files whose messages are ours to generate. The well-known types come with the protobuf crate.
const INPUTS: &[&str] = &[
    "cri/runtime.proto",
    "google/rpc/status.proto",
    "cricket/records.proto",
    "containerd/containers.proto",
    "containerd/content.proto",
    "containerd/diff.proto",
    "containerd/events.proto",
    "containerd/images.proto",
    "containerd/introspection.proto",
    "containerd/leases.proto",
    "containerd/namespaces.proto",
    "containerd/runc.proto",
    "containerd/snapshots.proto",
    "containerd/task.proto",
    "containerd/task_events.proto",
    "containerd/tasks.proto",
    "containerd/types.proto",
    "containerd/version.proto",
];

fn main() {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets OUT_DIR"));
    let inputs: Vec<PathBuf> = INPUTS.iter().map(|f| root.join(f)).collect();
    for input in &inputs {
        println!("cargo:rerun-if-changed={}", input.display());
    }
    println!("cargo:rerun-if-changed=build.rs");

    protobuf_codegen::Codegen::new()
        .pure()
        .include(&root)
        .inputs(&inputs)
        .out_dir(&out)
        .customize(protobuf_codegen::Customize::default().lite_runtime(true).generate_accessors(false).gen_mod_rs(true))
        .run()
        .expect("the .proto files parse");
    fs::write(out.join("methods.rs"), methods(&root, &inputs)).expect("OUT_DIR is writable");
}

/// The source of `methods.rs`: a module per service with a constant per method.
fn methods(root: &Path, inputs: &[PathBuf]) -> String {
    let parsed =
        Parser::new().pure().include(root).inputs(inputs).parse_and_typecheck().expect("the .proto files parse");
    let ours: Vec<ProtoPathBuf> =
        INPUTS.iter().map(|f| ProtoPathBuf::new((*f).to_owned()).expect("a proto path")).collect();
    // Fully qualified message name → Rust path.
    let mut types = std::collections::HashMap::new();
    for file in &parsed.file_descriptors {
        let path = ProtoPath::new(file.name()).expect("a proto path");
        let module = path.to_string().rsplit('/').next().unwrap_or_default().trim_end_matches(".proto").to_owned();
        let prefix = match ours.iter().any(|p| **p == *path) {
            true => format!("crate::{module}"),
            false => format!("::protobuf::well_known_types::{module}"),
        };
        for message in &file.message_type {
            types.insert(format!(".{}.{}", file.package(), message.name()), format!("{prefix}::{}", message.name()));
        }
    }
    let mut text = String::new();
    for file in &parsed.file_descriptors {
        for service in &file.service {
            let full = format!("{}.{}", file.package(), service.name());
            let _ = writeln!(text, "/// Methods of `{full}`.\npub mod {} {{", snake(service.name()));
            let paths: Vec<String> = service.method.iter().map(|m| format!("/{full}/{}", m.name())).collect();
            let _ = writeln!(text, "    /// The paths of all of them.\n    pub const ALL: &[&str] = &{paths:?};");
            for method in &service.method {
                let kind = match (method.client_streaming(), method.server_streaming()) {
                    (false, false) => "Unary",
                    (false, true) => "ServerStreaming",
                    (true, false) => "ClientStreaming",
                    (true, true) => "Duplex",
                };
                let (input, output) = (&types[method.input_type()], &types[method.output_type()]);
                let _ = writeln!(
                    text,
                    "    /// `/{full}/{name}`\n    pub const {upper}: ::grpcio::Method<{input}, {output}> = \
                     crate::method(::grpcio::MethodType::{kind}, \"/{full}/{name}\");",
                    name = method.name(),
                    upper = snake(method.name()).to_uppercase(),
                );
            }
            text.push_str("}\n");
        }
    }
    text
}

/// `ReopenContainerLog` → `reopen_container_log`; a run of capitals stays one word (`CloseIO` → `close_io`).
fn snake(name: &str) -> String {
    let mut text = String::new();
    let mut after_lower = false;
    for c in name.chars() {
        if c.is_ascii_uppercase() && after_lower {
            text.push('_');
        }
        after_lower = !c.is_ascii_uppercase();
        text.push(c.to_ascii_lowercase());
    }
    text
}
