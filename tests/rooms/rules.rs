//! The walls of the house, each a function from a file to what is wrong with it: `path:line what`.

use crate::source::Source;

/// Longest file, not counting its tests.
const FILE_LINES: usize = 350;
/// Longest function: one screen.
const FUNCTION_LINES: usize = 80;
/// Files that may be longer, each with its reason. Shorter is better than another line here.
const LONG_FILES: &[(&str, &str)] = &[];
/// Who may speak to the C core of gRPC.
const GRPC: &[&str] = &[
    "src/grpc.rs",
    "src/containerd/",
    "src/server/",
    "src/cli/selftest/",
    // Reads the one field of a deadline that grpcio keeps to itself, which takes `unsafe`.
    "src/sys/grpc_deadline.rs",
];
/// What only a server needs.
const GRPC_SERVER: &[&str] = &[
    "Server",
    "ServerBuilder",
    "ServerCredentials",
    "ServiceBuilder",
    "Service",
    "RpcContext",
    "UnarySink",
    "ClientStreamingSink",
    "ServerStreamingSink",
    "DuplexSink",
];
/// Messages that are everybody's language: the CRI's, and our own records.
const SPOKEN: &[&str] = &["runtime", "records"];
const SPOKEN_SERVICES: &[&str] = &["runtime_service", "image_service"];
/// What the outside world is called in Rust.
const OUTSIDE: &[&str] = &["fs", "env", "process", "net"];
const CLOCKS: &[&str] = &["Instant", "SystemTime"];

/// The list of rooms in `src/lib.rs`.
pub struct House {
    /// Lowest first.
    pub rooms: Vec<String>,
    /// Those that touch nothing outside.
    pub pure: Vec<String>,
}

impl House {
    /// Reads the `pub mod` lines. The rooms under a comment that starts with `pure` are the pure ones.
    pub fn read(lib: &str) -> House {
        let (mut rooms, mut pure, mut in_pure) = (Vec::new(), Vec::new(), false);
        for line in lib.lines() {
            if let Some(comment) = line.strip_prefix("// ") {
                in_pure = comment.starts_with("pure");
            }
            let Some(room) = line.strip_prefix("pub mod ").and_then(|rest| rest.strip_suffix(';')) else { continue };
            rooms.push(room.to_owned());
            if in_pure {
                pure.push(room.to_owned());
            }
        }
        House { rooms, pure }
    }

    /// The room of a file; `None` for `src/lib.rs`, `src/main.rs` and what is outside `src/`.
    fn room<'a>(&self, path: &'a str) -> Option<&'a str> {
        let below = path.strip_prefix("src/")?;
        let room = below.split('/').next().unwrap_or(below);
        let room = room.strip_suffix(".rs").unwrap_or(room);
        (!["lib", "main"].contains(&room)).then_some(room)
    }

    /// Everything that is wrong with a file.
    pub fn check(&self, source: &Source) -> Vec<String> {
        let mut wrong = Vec::new();
        self.direction(source, &mut wrong);
        self.purity(source, &mut wrong);
        containerd_only(source, &mut wrong);
        grpc_only(source, &mut wrong);
        words(source, &mut wrong);
        size(source, &mut wrong);
        // A use tree may say the same twice.
        wrong.dedup();
        wrong
    }

    /// A room names only rooms listed before it. Tests obey too.
    fn direction(&self, source: &Source, wrong: &mut Vec<String>) {
        let Some(room) = self.room(&source.path) else { return };
        let place = |name: &str| self.rooms.iter().position(|r| r == name);
        let Some(own) = place(room) else {
            wrong.push(format!("{}:1 belongs to no room: src/lib.rs does not list {room}", source.path));
            return;
        };
        for named in source.paths("crate") {
            let name = named.parts.get(1).map_or("", String::as_str);
            let at = format!("{}:{} names crate::{name}", source.path, named.line);
            match place(name) {
                Some(other) if other <= own => {}
                Some(_) => wrong.push(format!("{at}, which is listed after {room}")),
                None => wrong.push(format!("{at}, which is no room")),
            }
        }
        for at in 0..source.words.len() {
            if source.words[at].text != "super" || (at > 0 && source.reads(at - 1, ":")) {
                continue;
            }
            let climbs = (0..).take_while(|n| source.reads(at + 3 * n, "super : :")).count();
            if climbs >= source.depth(at) {
                let line = source.words[at].line;
                wrong.push(format!("{}:{line} climbs out of {room} by super::; write crate::", source.path));
            }
        }
        for named in source.paths("cricket") {
            wrong.push(format!("{}:{} names cricket::; write crate::", source.path, named.line));
        }
    }

    /// A pure room touches nothing outside the process. Its tests may.
    fn purity(&self, source: &Source, wrong: &mut Vec<String>) {
        let Some(room) = self.room(&source.path).filter(|room| self.pure.iter().any(|p| p == room)) else { return };
        for named in source.paths("std").iter().filter(|named| !named.test) {
            let module = named.parts.get(1).map_or("", String::as_str);
            if OUTSIDE.contains(&module) || module == "*" {
                wrong.push(format!("{}:{} names std::{module}, but {room} is pure", source.path, named.line));
            }
        }
        for word in source.words.iter().filter(|w| !w.test && CLOCKS.contains(&w.text.as_str())) {
            wrong.push(format!("{}:{} names {}, but {room} is pure", source.path, word.line, word.text));
        }
    }
}

/// containerd's messages stay in their room.
fn containerd_only(source: &Source, wrong: &mut Vec<String>) {
    if !source.path.starts_with("src/") || source.path.starts_with("src/containerd/") {
        return;
    }
    for named in source.paths("cricket_proto") {
        let part = |i: usize| named.parts.get(i).map_or("", String::as_str);
        let spoken = match part(1) {
            "methods" => SPOKEN_SERVICES.contains(&part(2)),
            module => SPOKEN.contains(&module),
        };
        if !spoken {
            let name = named.parts.join("::");
            wrong.push(format!("{}:{} names {name}: only src/containerd/ does", source.path, named.line));
        }
    }
}

/// grpcio is behind two walls: its server in one room, all of it in a few.
fn grpc_only(source: &Source, wrong: &mut Vec<String>) {
    if !source.path.starts_with("src/") {
        return;
    }
    for named in source.paths("grpcio") {
        let name = named.parts.get(1).map_or("", String::as_str);
        let at = format!("{}:{} names grpcio::{name}", source.path, named.line);
        if !GRPC.iter().any(|place| source.path.starts_with(place)) {
            wrong.push(format!("{at}: gRPC is behind {}", GRPC.join(", ")));
        } else if !source.path.starts_with("src/server/") && (GRPC_SERVER.contains(&name) || name == "*") {
            wrong.push(format!("{at}: only src/server/ serves"));
        }
    }
}

/// Words that are refused wherever they stand.
fn words(source: &Source, wrong: &mut Vec<String>) {
    if !source.text.starts_with("//! ") {
        wrong.push(format!("{}:1 does not start with a `//!` sentence that says what it is", source.path));
    }
    let in_tests = source.path.starts_with("tests/");
    for (at, word) in source.words.iter().enumerate() {
        let here = format!("{}:{}", source.path, word.line);
        match word.text.as_str() {
            "unsafe" if !source.path.starts_with("src/sys/") => {
                wrong.push(format!("{here} is unsafe: only src/sys/ may be"));
            }
            "async" if source.reads(at, "async fn") => {
                wrong.push(format!("{here} is an async fn: verbs block, threads are named"));
            }
            "tokio" => wrong.push(format!("{here} names tokio: there is no async runtime here")),
            "unwrap" if !in_tests && !word.test && at > 0 && source.reads(at - 1, ". unwrap ( )") => {
                wrong.push(format!("{here} unwraps: return the error, or `expect` with the invariant"));
            }
            _ => {}
        }
    }
}

fn size(source: &Source, wrong: &mut Vec<String>) {
    let lines = source.lines_before_tests();
    if lines > FILE_LINES && !LONG_FILES.iter().any(|(path, _)| *path == source.path) {
        wrong.push(format!("{}:1 has {lines} lines before its tests, more than {FILE_LINES}: split it", source.path));
    }
    for function in source.functions().iter().filter(|f| f.lines > FUNCTION_LINES) {
        let (line, name) = (function.line, &function.name);
        wrong
            .push(format!("{}:{line} fn {name} has {} lines, more than {FUNCTION_LINES}", source.path, function.lines));
    }
}

/// Every direct dependency has a line above it that says what it is for.
pub fn dependencies(path: &str, manifest: &str) -> Vec<String> {
    let (mut wrong, mut inside, mut above) = (Vec::new(), false, "");
    for (number, line) in manifest.lines().enumerate() {
        if line.starts_with('[') {
            inside = line.trim_end_matches(']').ends_with("dependencies");
        } else if let Some((name, value)) = line.split_once('=').filter(|_| inside && !line.starts_with('#')) {
            // The workspace table has the reason.
            let inherited = name.trim().ends_with(".workspace") || value.contains("workspace = true");
            if !inherited && !above.starts_with('#') {
                let name = name.trim();
                wrong.push(format!("{path}:{} {name}: a comment above says what it is for", number + 1));
            }
        }
        above = line;
    }
    wrong
}
