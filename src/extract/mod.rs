//! Layers' tars onto a directory while they are fetched, by a process that has nothing but that directory.
//!
//! ```text
//! daemon:  bytes ──▶ containerd's content store
//!            └────▶ pipe ──▶ [ uncompress → hash → entries → files ] ──▶ diff ids
//! ```
//!
//! Whoever made a layer may have wanted to get out: the process has the directory for its root, no descriptor but its
//! three pipes, and only those capabilities that making files takes. What it refuses, and whatever becomes of it, containerd
//! unpacks.

mod adopt;
mod child;
pub mod header;
mod node;
mod process;
pub mod stream;
mod tree;

pub use adopt::{adopt, must_be_empty};
pub use child::run;
pub use process::{Compression, Stored, Unpacked, Unpacker, COMMAND, SELF};
pub use tree::Onto;
