//! cricket: a CRI v1 runtime for Kubernetes nodes where every megabyte counts.
//!
//! **The rule of the house.** The modules below are the rooms, lowest first. A room may use the rooms listed before
//! it and no others; `tests/rooms.rs` fails the build otherwise. ARCHITECTURE.md is the map.
#![deny(unsafe_code)]

// base
pub mod call;
pub mod error;
pub mod ids;
pub mod rollback;
pub mod sync;
// pure: no files, clock, environment, network
pub mod config;
pub mod oci;
pub mod reference;
// the outside world and memory
pub mod cni;
pub mod containerd;
pub mod host;
pub mod runtime;
pub mod stdio;
pub mod store;
#[allow(unsafe_code)]
pub mod sys;
// verbs: one file per RPC
pub mod container;
pub mod image;
pub mod monitor;
pub mod recover;
pub mod sandbox;
// front
pub mod cli;
pub mod server;
