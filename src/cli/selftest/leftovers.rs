//! What a pod can leave behind on a node, found by the ids of the sandbox and its container.

use std::fs;
use std::path::Path;

use crate::call::Call;
use crate::config::Config;
use crate::containerd::{Containerd, SnapshotRef};
use crate::error::{Kind, Result};

/// Everything that still carries one of the ids: mounts, pins, directories, FIFOs, snapshots, records, tasks, shims.
pub fn of(ids: &[&str], containerd: &dyn Containerd, config: &Config) -> Result<Vec<String>> {
    let carries = |text: &str| ids.iter().any(|id| text.contains(id));
    let mut found = Vec::new();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    found.extend(mounts.lines().filter(|line| carries(line)).map(|line| format!("mount {line}")));
    for dir in [&config.netns_dir, &config.cni.cache_dir.join("results")] {
        found.extend(names(dir).into_iter().filter(|n| carries(n)).map(|n| format!("{}/{n}", dir.display())));
    }
    for parent in [&config.root, &config.state] {
        for dir in ["sandboxes", "containers"].map(|noun| parent.join(noun)) {
            found.extend(names(&dir).into_iter().filter(|n| carries(n)).map(|n| format!("{}/{n}", dir.display())));
        }
    }
    found.extend(shims(&carries));
    let call = Call::within(std::time::Duration::from_secs(30));
    for id in ids {
        let at = SnapshotRef { snapshotter: &config.containerd.snapshotter, key: id };
        let there = [
            ("snapshot", containerd.snapshot(&call, &at).map(drop)),
            ("containerd container", containerd.container(&call, id).map(drop)),
            ("task", containerd.task(&call, id, None).map(drop)),
        ];
        for (noun, answer) in there {
            match answer {
                Ok(()) => found.push(format!("{noun} {id}")),
                Err(e) if e.kind() == Kind::NotFound => {}
                Err(e) => return Err(e.context(format_args!("look for {noun} {id}"))),
            }
        }
    }
    Ok(found)
}

fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Shim processes by their command line.
fn shims(carries: &dyn Fn(&str) -> bool) -> Vec<String> {
    let pids = names(Path::new("/proc")).into_iter().filter(|name| name.bytes().all(|b| b.is_ascii_digit()));
    let command = |pid: &String| {
        let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\0', " ")
    };
    pids.map(|pid| (command(&pid), pid))
        .filter(|(command, _)| command.contains("shim") && carries(command))
        .map(|(command, pid)| format!("process {pid} {command}"))
        .collect()
}
