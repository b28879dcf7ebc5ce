//! `cargo +nightly fuzz run shim`: what a shim reads from others.
#![no_main]

#[path = "../bodies/shim.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| body::run(bytes));
