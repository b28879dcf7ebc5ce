//! Writes down which source this binary is made of: the crate's version and, in a git checkout, the revision.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // The reflog grows with every commit and checkout. A path that does not exist would rebuild every time.
    for file in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", file]).filter(|path| Path::new(path).exists()) {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    let version = env!("CARGO_PKG_VERSION");
    let revision = git(&["rev-parse", "--short=12", "HEAD"]).map_or(String::new(), |r| format!(" ({r})"));
    println!("cargo:rustc-env=CRICKET_VERSION={version}{revision}");
}

/// What git says, or nothing: a source archive has no history, and a build machine may have no git.
fn git(arguments: &[&str]) -> Option<String> {
    // Not the history of a repository that happens to contain an unpacked archive.
    if !Path::new(".git").exists() {
        return None;
    }
    let output = Command::new("git").args(arguments).output().ok().filter(|o| o.status.success())?;
    String::from_utf8(output.stdout).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}
