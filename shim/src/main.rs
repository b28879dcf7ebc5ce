//! The shim as a program of its own: the few rooms that it needs out of the house, and no C core.
//!
//! What nobody here uses of them is left out by the linker. Their tests run with the rest of the house.
#![deny(unsafe_code)]
#![allow(dead_code, unused_imports, reason = "rooms of which a part is used")]

#[path = "../../src/error.rs"]
mod error;
#[path = "../../src/shim/mod.rs"]
mod shim;
#[path = "../../src/stdio/mod.rs"]
mod stdio;
#[path = "../../src/sync.rs"]
mod sync;
#[allow(unsafe_code)]
#[path = "../../src/sys/mod.rs"]
mod sys;

/// For this program only: see there.
#[global_allocator]
static HEAP: sys::heap::Heap = sys::heap::Heap::new();

fn main() -> std::process::ExitCode {
    shim::main(std::env::args().skip(1))
}
