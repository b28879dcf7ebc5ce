//! cricket beside containerd's own CRI plugin: one client drives both in turn, on the same versions of everything.
//!
//! `make bench` runs it. Each side is a private containerd of its own; what is measured is written beside each figure.
//! Environment: `ONLY=pods,lists` chooses experiments, `CONTAINERD=2` takes the programs of `target/conformance`,
//! `setting.rs` has the rest. A new experiment is a file here and a line in `EXPERIMENTS`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

#[path = "../../tests/support/binary.rs"]
mod binary;
#[path = "../../tests/support/containerd.rs"]
mod containerd;
#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../../tests/support/cri.rs"]
mod cri;
#[path = "../../tests/support/elf.rs"]
mod elf;
#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../../tests/support/frames.rs"]
mod frames;
#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../../tests/support/network.rs"]
mod network;
#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../../tests/support/node.rs"]
mod node;
#[path = "../../tests/support/registry.rs"]
mod registry;
#[path = "../../tests/support/shell.rs"]
mod shell;
#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../../tests/support/stream.rs"]
mod stream;

mod group;
mod interrupt;
mod lists;
mod logs;
mod memory;
mod pause;
mod peer;
mod pods;
mod polling;
mod process;
mod pull;
mod recovery;
mod setting;
mod side;
mod stopwatch;
mod streams;
mod table;

use std::process::ExitCode;
use std::time::Instant;

use cricket::error::{Context, Error, Result};

use setting::Setting;
use table::Table;

/// What measures, and adds its rows.
type Experiment = fn(&Setting, &mut Table) -> Result<()>;

/// In the order of the table.
const EXPERIMENTS: [(&str, Experiment); 8] = [
    ("pods", pods::measure),
    ("lists", lists::measure),
    ("memory", memory::measure),
    ("polling", polling::measure),
    ("logs", logs::measure),
    ("recovery", recovery::measure),
    ("streams", streams::measure),
    ("pull", pull::measure),
];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("bench: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    // Before there is any other thread.
    interrupt::watch()?;
    let names = EXPERIMENTS.map(|(name, _)| name);
    let setting = Setting::of_environment(&names)?;
    let mut table = Table::new(setting.title()?);
    for (name, measure) in EXPERIMENTS {
        if !setting.wants(name) {
            continue;
        }
        let begun = Instant::now();
        // What the tests share panics with what is missing; its destructors have cleaned up by the time it is here.
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| measure(&setting, &mut table)));
        let done = done.unwrap_or_else(|_| Err(Error::internal("it panicked, see above")));
        if interrupt::interrupted() {
            return Err(Error::new(cricket::error::Kind::Canceled, "interrupted; everything was taken down"));
        }
        done.with_context(|| format!("experiment {name}"))?;
        eprintln!("{name}: {:.0} s", begun.elapsed().as_secs_f64());
    }
    print!("{}", table.text());
    table.write(&setting.output)
}
