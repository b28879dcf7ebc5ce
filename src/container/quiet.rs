//! A start that was cut short by the end of a daemon: containerd goes on with it for a while, and then takes it back.
//!
//! It does not say when it is through, and a new task of the same name that comes too early is taken down with the old
//! one. So we look for what it has of a task that is being made or taken away: a directory, and a call of the shim's program.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::call::Call;
use crate::container::task;
use crate::containerd::{Plugin, NAMESPACE};
use crate::error::Result;
use crate::ids::ContainerId;
use crate::runtime::Runtime;
use crate::sys::process::pids;

/// How long containerd may be at it: it gives itself five seconds for each step.
const BUDGET: Duration = Duration::from_secs(20);
/// Between two looks, and how many in a row must find nothing: there are moments between two steps.
const PAUSE: Duration = Duration::from_millis(50);
const LOOKS: usize = 4;

/// Where containerd has a directory for each task, below the root that the snapshotters have theirs in.
const TASKS: &str = "io.containerd.runtime.v2.task";
/// What the shim's program is called with to begin and to end.
const CALLS: [&str; 2] = ["start", "delete"];

/// That place, from what containerd says of its snapshotters; `None` if none of them is where they usually are.
pub fn tasks_dir(snapshotters: &[Plugin]) -> Option<PathBuf> {
    let root = |plugin: &Plugin| {
        let root = Path::new(plugin.exports.get("root")?);
        (root.file_name()?.to_str()? == format!("{}.{}", plugin.kind, plugin.id))
            .then(|| root.parent().map(Path::to_owned))?
    };
    snapshotters.iter().find_map(root).map(|root| root.join(TASKS).join(NAMESPACE))
}

/// Takes away the task that such a start has left, and waits until containerd is through with it. Blocks, up to
/// [`BUDGET`]; then the next start may fail.
///
/// # Errors
/// Only what [`Call::check`] says.
pub fn await_quiet(rt: &Runtime, call: &Call, id: &ContainerId) -> Result<()> {
    let (until, dir, mut quiet) = (Instant::now() + BUDGET, rt.tasks_dir(), 0);
    while quiet < LOOKS && Instant::now() < until {
        call.check()?;
        if let Err(e) = task::destroy(&*rt.containerd, call, id.as_str(), None) {
            log::info!("end what an earlier start of container {id} left (it is tried again): {e}");
            quiet = 0;
        }
        let at_work = dir.as_ref().is_some_and(|dir| dir.join(id.as_str()).exists()) || is_called(id.as_str());
        quiet = if at_work { 0 } else { quiet + 1 };
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// Whether containerd runs the program of a shim for this task just now.
fn is_called(id: &str) -> bool {
    let mut lines = pids().into_iter().flatten().filter_map(|pid| fs::read(format!("/proc/{pid}/cmdline")).ok());
    lines.any(|words| is_call(&words, id))
}

fn is_call(words: &[u8], id: &str) -> bool {
    let mut words = words.split(|byte| *byte == 0).skip(1);
    let named = words.any(|word| word == b"-id") && words.next() == Some(id.as_bytes());
    named && words.any(|word| CALLS.iter().any(|call| word == call.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containerd::Labels;

    #[test]
    fn the_directory_is_beside_those_of_the_snapshotters() {
        let plugin = |id: &str, root: &str| Plugin {
            kind: "io.containerd.snapshotter.v1".into(),
            id: id.into(),
            exports: Labels::from([("root".into(), root.into())]),
            capabilities: Vec::new(),
            error: None,
        };
        let elsewhere = plugin("zfs", "/tank");
        let usual = plugin("overlayfs", "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs");
        assert_eq!(tasks_dir(std::slice::from_ref(&elsewhere)), None);
        let expected = Path::new("/var/lib/containerd/io.containerd.runtime.v2.task/k8s.io");
        assert_eq!(tasks_dir(&[elsewhere, usual]).as_deref(), Some(expected));
    }

    #[test]
    fn only_a_call_for_this_task_is_one() {
        let is = |words: &[&str]| is_call(words.join("\0").as_bytes(), "c1");
        assert!(is(&["shim", "-namespace", "k8s.io", "-id", "c1", "-address", "/c.sock", "start"]));
        assert!(is(&["shim", "-id", "c1", "-bundle", "/b/c1", "delete"]));
        assert!(!is(&["shim", "-id", "c2", "-bundle", "/b/c1", "delete"]));
        assert!(!is(&["shim", "-namespace", "k8s.io", "-id", "c1", "-address", "/c.sock"]), "the shim itself");
        assert!(!is(&["start", "-id"]));
    }
}
