//! The only room with `unsafe`: one file a kernel mechanism, each with a safe function or type in front.

pub mod process;
