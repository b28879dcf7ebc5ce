//! The daemon as it is shipped, on real containerd, runc and CNI plugins, driven over its socket. Needs root.
//!
//! The binary is the product of `make build`, or what CRICKET_BIN names. What is missing is an error that says how to
//! get it.

#[path = "../support/archive.rs"]
mod archive;
#[path = "../support/binary.rs"]
mod binary;
#[allow(dead_code, reason = "others use more of it")]
#[path = "../support/census.rs"]
mod census;
#[path = "../support/certificate.rs"]
mod certificate;
#[path = "../support/containerd.rs"]
mod containerd;
#[path = "../support/cri.rs"]
mod cri;
#[path = "../support/elf.rs"]
mod elf;
#[allow(dead_code, reason = "the unit tests use more of it")]
#[path = "../support/frames.rs"]
mod frames;
#[path = "../support/network.rs"]
mod network;
#[path = "../support/node.rs"]
mod node;
#[path = "../support/registry.rs"]
mod registry;
#[path = "../support/shell.rs"]
mod shell;
#[path = "../support/stream.rs"]
mod stream;

mod budget;
mod confined;
mod container;
mod doctor;
mod exec;
mod exits;
mod forward;
mod leaks;
mod logs;
mod metrics;
mod pod;
mod process;
mod pull;
mod restart;
mod security;
mod sessions;
mod selftest;
mod volumes;
mod shim;
mod streaming;
mod stats;
mod shim_scope;
mod tls;
