//! `cargo +nightly fuzz run headers`: header blocks of a SPDY client.
#![no_main]

#[path = "../bodies/headers.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| body::run(bytes));
