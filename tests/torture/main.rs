//! SIGKILL at any instruction is an ordinary way to stop: clients that never rest, and a daemon that is killed under them.
//!
//! The daemon as it is shipped, on real containerd, runc and CNI plugins. A round is a few seconds of work by several
//! clients, each of which keeps what was acknowledged to it, while the daemon is killed at random instants and started
//! again; every other round something beside it fails as well. Afterwards what was acknowledged is what is, every line of
//! every log is there once, and when all is removed nothing is left.
//!
//! `make test` runs a short form; `make torture` a long one. Environment: `ROUNDS`, `SEED`, `FIRST` for the number of the first
//! round, `CONTAINERD=2` for the programs of `target/conformance`. A seed gives the same operations and the same delays; what
//! the machine makes of them varies.
#![allow(clippy::print_stdout, reason = "the seed, and how far it is")]

#[path = "../support/binary.rs"]
mod binary;
#[allow(dead_code, reason = "others use more of it")]
#[path = "../support/census.rs"]
mod census;
#[path = "../support/containerd.rs"]
mod containerd;
#[allow(dead_code, reason = "others use more of it")]
#[path = "../support/cri.rs"]
mod cri;
#[path = "../support/elf.rs"]
mod elf;
#[allow(dead_code, reason = "others use more of it")]
#[path = "../support/network.rs"]
mod network;
#[allow(dead_code, reason = "others use more of it")]
#[path = "../support/node.rs"]
mod node;
#[path = "../support/shell.rs"]
mod shell;

mod client;
mod dice;
mod faults;
mod logs;
mod model;
mod operations;
mod relay;
mod round;
mod schedule;
mod setting;
mod witness;

use schedule::Round;
use setting::Setting;

#[test]
fn killed_at_any_instant_nothing_is_lost_and_nothing_left() {
    let setting = Setting::of_environment();
    println!("SEED={} ROUNDS={}", setting.seed, setting.rounds);
    let mut rig = round::Rig::start(&setting);
    for number in setting.first..setting.first + setting.rounds {
        rig.round(&Round::plan(setting.seed, number));
    }
    rig.last_shims_end();
    println!("SEED={} ROUNDS={}: {}", setting.seed, setting.rounds, rig.tally);
}
