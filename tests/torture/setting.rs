//! What the environment says.

use std::env;
use std::path::{Path, PathBuf};

use crate::containerd::Flavour;

/// What `make test` runs: about a minute, and each fault once.
const SHORT: u64 = 16;
/// Any number; always the same, so that a failure of `make test` is a failure for everybody.
const SEED: u64 = 11;

pub struct Setting {
    pub seed: u64,
    pub first: u64,
    pub rounds: u64,
    pub containerd: Flavour,
}

impl Setting {
    /// Reads it. Panics for a value that means nothing, with its variable.
    pub fn of_environment() -> Setting {
        let programs = match text("CONTAINERD").as_str() {
            "" | "1.6" => None,
            "2" => Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("target/conformance/bin")),
            other => panic!("CONTAINERD={other}: 1.6 or 2"),
        };
        if let Some(dir) = programs.as_ref().filter(|dir| !dir.join("containerd").is_file()) {
            panic!("{} has no containerd: make conformance CONTAINERD=2 builds it", dir.display());
        }
        let containerd = Flavour { programs, ..Flavour::default() };
        Setting { seed: number("SEED", SEED), first: number("FIRST", 0), rounds: number("ROUNDS", SHORT), containerd }
    }
}

/// Where logs of a failed run are kept.
pub fn kept() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/torture")
}

fn text(name: &str) -> String {
    env::var(name).unwrap_or_default()
}

fn number(name: &str, default: u64) -> u64 {
    match text(name).as_str() {
        "" => default,
        text => text.parse().unwrap_or_else(|e| panic!("{name}={text}: {e}")),
    }
}
