//! `cargo +nightly fuzz run websocket`: frames of a WebSocket's client.
#![no_main]

#[path = "../bodies/wire.rs"]
mod wire;

#[path = "../bodies/websocket.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| body::run(bytes));
