//! `cricket doctor`: what is wrong on this node, without a running daemon and without changing anything.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::logging;
use crate::call::Call;
use crate::cni::Cni;
use crate::config::Config;
use crate::containerd::{Client, Containerd};
use crate::error::{Context, Error, Result};
use crate::layout::Layout;
use crate::recover::orphans::{self, Orphan, Place};
use crate::sys::tree;

/// How long containerd may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at a node whose daemon runs: what is being made is an orphan for a moment only.
const A_MOMENT: Duration = Duration::from_secs(3);

/// Looks at everything, or at orphans alone, and prints a line for each thing that is wrong. The exit code tells whether
/// anything is. Blocks.
///
/// # Errors
/// If it cannot look.
pub(super) fn doctor(config: &Config, orphans_only: bool, out: &mut dyn Write) -> Result<ExitCode> {
    logging::start(config.log_level);
    let containerd = Client::new(&config.containerd.address.to_string_lossy())?;
    let cni = Cni::new(&config.cni.conf_dir, config.cni.bin_dirs.clone(), &config.cni.cache_dir, config.cni.timeout);
    let layout = Layout::new(config);
    let mut wrong = Vec::new();
    let mut answers = true;
    if !orphans_only {
        let silent = containerd.version(&Call::within(PATIENCE)).err();
        answers = silent.is_none();
        wrong.extend(silent.map(|e| e.to_string()));
        wrong.extend(cni.ready().err().map(|e| format!("pod network: {e}")));
        wrong.extend(damaged(&layout)?);
    }
    if answers {
        let at = Place { containerd: &containerd, layout: &layout, config, cni: &cni };
        let daemon_runs = UnixStream::connect(&config.socket).is_ok();
        wrong.extend(find(&at, daemon_runs)?.iter().map(|orphan| format!("orphan: {orphan}")));
    }
    let mut print = |line: &str| writeln!(out, "{line}").map_err(Error::from);
    wrong.iter().try_for_each(|line| print(line)).context("print")?;
    if wrong.iter().any(|line| line.starts_with("orphan: ")) {
        print("orphans are removed when cricket starts: systemctl restart cricket").context("print")?;
    }
    if wrong.is_empty() {
        print("nothing is wrong").context("print")?;
    }
    Ok(ExitCode::from(u8::from(!wrong.is_empty())))
}

fn find(at: &Place<'_>, daemon_runs: bool) -> Result<Vec<Orphan>> {
    let look = || {
        let call = Call::within(PATIENCE);
        orphans::find(at, &call, || at.containerd.containers(&call, &[]))
    };
    let mut found = look()?;
    if daemon_runs && !found.is_empty() {
        std::thread::sleep(A_MOMENT);
        let again = look()?;
        found.retain(|orphan| again.contains(orphan));
    }
    Ok(found)
}

fn damaged(layout: &Layout) -> Result<Vec<String>> {
    let dir = layout.damaged();
    let files = tree::entries(&dir).with_context(|| format!("read {}", dir.display()))?;
    let tell =
        |file: &PathBuf| format!("{}: a record that could not be read; remove it when you know why", file.display());
    Ok(files.iter().map(tell).collect())
}
