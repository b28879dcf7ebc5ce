//! cricket: a CRI v1 runtime for Kubernetes nodes where every megabyte counts.
//!
//! **The rule of the house.** The modules below are the rooms, lowest first. A room may use the rooms listed before
//! it and no others; `tests/rooms.rs` fails the build otherwise. ARCHITECTURE.md is the map.
#![deny(unsafe_code)]

// base
pub mod error;
pub mod sync;
pub mod rollback;
pub mod ids;
pub mod call;
pub mod flights;
pub mod clock;
pub mod base64;
pub mod encoded;
pub mod digest;
// pure: no files, clock, environment, network
pub mod reference;
pub mod config;
pub mod cdi;
pub mod oci;
pub mod layout;
// the outside world and memory
#[allow(unsafe_code)]
pub mod sys;
pub mod workers;
pub mod host;
pub mod grpc;
pub mod containerd;
pub mod registry;
pub mod cni;
pub mod cgroup;
pub mod stdio;
pub mod shim;
pub mod shipped;
pub mod extract;
pub mod store;
pub mod runtime;
// verbs: one file per RPC
pub mod image;
pub mod container;
pub mod sandbox;
pub mod node;
pub mod recover;
pub mod monitor;
// front
pub mod streaming;
pub mod server;
pub mod cli;
