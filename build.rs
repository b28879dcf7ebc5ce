//! Writes down which source this binary is made of: the crate's version and, in a git checkout, the revision. Builds the
//! shim, which the binary carries inside. Leaves the tables to unwind by out of both.

use std::env;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The rooms that the shim is made of, and its program.
const SHIM: [&str; 7] = ["shim", "src/shim", "src/stdio", "src/sys", "src/error.rs", "src/sync.rs", "Cargo.toml"];
const PROGRAM: &str = "containerd-shim-cricket-v1";
/// For the linker: see there.
const NO_UNWIND_TABLES: &str = "vendor/no-unwind-tables.ld";
/// With `unwind` in it, as the tests have it, the tables stay.
const PANIC: &str = "CARGO_PROFILE_RELEASE_PANIC";

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
    println!("cargo:rerun-if-changed={NO_UNWIND_TABLES}");
    println!("cargo:rerun-if-env-changed={PANIC}");
    let aborts = env::var(PANIC).map_or(true, |strategy| strategy == "abort");
    if aborts && env::var("PROFILE").is_ok_and(|profile| profile == "release") {
        println!("cargo:rustc-link-arg-bins={}", no_unwind_tables());
    }
    println!("cargo:rerun-if-env-changed=CRICKET_SHIM");
    let shim = env::var_os("CRICKET_SHIM").map_or_else(shim, PathBuf::from);
    println!("cargo:rerun-if-changed={}", shim.display());
    let packed = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("shim.gz");
    let mut packer = flate2::GzBuilder::new().write(Vec::new(), flate2::Compression::best());
    packer.write_all(&fs::read(&shim).expect("the shim was built")).expect("memory");
    fs::write(&packed, packer.finish().expect("memory")).expect("OUT_DIR is ours");
    println!("cargo:rustc-env=CRICKET_SHIM_PACKED={}", packed.display());
}

/// Builds the shim with the cargo, the target and the linker of this build, but always in the form that is small: there
/// are as many of it as pods. `CRICKET_SHIM` names one that is built already.
fn shim() -> PathBuf {
    for file in SHIM {
        println!("cargo:rerun-if-changed={file}");
    }
    let variable = |name: &str| env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"));
    let (target, out) = (variable("TARGET"), PathBuf::from(variable("OUT_DIR")));
    // Beside the profiles, which all carry the same one: <target>/<profile>/build/<this package>/out.
    let dir = out.ancestors().nth(4).expect("cargo puts it deep").join("shim-target");
    let mut cargo = Command::new(variable("CARGO"));
    cargo.args(["build", "--quiet", "--locked", "--package", "cricket-shim", "--profile", "shim", "--target", &target]);
    cargo.arg("--target-dir").arg(&dir);
    // As the Makefile does it for the rest.
    if Path::new("vendor/config.toml").exists() {
        cargo.args(["--offline", "--config", "vendor/config.toml"]);
    }
    // The flags and the wrappers of this build, such as clippy, are not for that one.
    let ours = |name: &String| name.starts_with("CARGO_PROFILE_") || name.ends_with("_WRAPPER");
    for name in env::vars().map(|(name, _)| name).filter(ours) {
        cargo.env_remove(name);
    }
    // At a fixed address: nothing to relocate, so fewer pages that are each shim's own.
    let flags = ["-Crelocation-model=static".to_owned(), format!("-Clink-arg={}", no_unwind_tables())];
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    let status = cargo.status().expect("cargo runs");
    assert!(status.success(), "the shim cannot be built: {status}");
    dir.join(target).join("shim").join(PROGRAM)
}

/// What the linker is told.
fn no_unwind_tables() -> String {
    let here = env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    format!("-Wl,-T,{here}/{NO_UNWIND_TABLES}")
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
