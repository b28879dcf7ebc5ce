//! `cargo +nightly fuzz run spdy`: frames of a SPDY client.
#![no_main]

#[path = "../bodies/wire.rs"]
mod wire;

#[path = "../bodies/spdy.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| body::run(bytes));
