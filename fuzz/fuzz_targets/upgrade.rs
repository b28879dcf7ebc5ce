//! `cargo +nightly fuzz run upgrade`: the request that begins a session.
#![no_main]

#[path = "../bodies/upgrade.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| body::run(bytes));
