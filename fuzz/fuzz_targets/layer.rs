//! `cargo +nightly fuzz run layer`: a layer's tar stream.
#![no_main]

#[path = "../bodies/layer.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| body::run(bytes));
