//! The verbs in process, on a fake containerd, with real namespaces and mounts and scripted CNI plugins; needs root.
//!
//! What must hold: whatever fails, the caller hears the right kind of it, nothing is left, and the same request
//! afterwards works.

#[path = "../support/archive.rs"]
mod archive;

mod bad_input;
mod declared;
mod events;
mod exec;
mod exits;
mod faults;
mod files;
mod lists;
mod metrics;
mod network;
mod orphans;
mod plugin;
mod process;
mod property;
mod races;
mod requests;
mod restart;
mod sessions;
mod stats;
mod stop;
mod update;
mod users;
mod volumes;
mod world;
