//! What is done to the node: the daemon and containerd end, shims too, and the network plugin does as it is told.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use crate::census::shims;
use crate::dice::Dice;
use crate::network::plugin_dir;
use crate::node::Node;
use crate::relay::Relay;
use crate::schedule::{Act, Fault};

/// The plugin that is wrapped: the one that gives addresses and interfaces.
const PLUGIN: &str = "bridge";
/// In this file it is told what to do.
const ORDERS: &str = "plugin-orders";
/// What fills the disk of cricket's records.
const FILLER: &str = "lib/filler";

/// Bytes of answers before they stop, at most: what recovery reads, and as much again.
const LET_THROUGH: usize = 30_000;

/// Puts a wrapper before the network plugin, in a directory of the node that comes first.
pub fn wrap_plugin(dir: &Path) {
    let (bin, orders) = (dir.join("bin"), dir.join(ORDERS));
    fs::create_dir(&bin).expect("make a directory");
    let real = Path::new(plugin_dir(PLUGIN)).join(PLUGIN);
    let (real, orders) = (real.display(), orders.display());
    // A failure as the specification has it, so that it reads like one.
    let fail = r#"{ echo '{"cniVersion": "1.0.0", "code": 11, "msg": "told to fail"}'; exit 1; }"#;
    let script = format!(
        "#!/bin/sh\ncase \"$(cat {orders} 2>/dev/null)\" in\nfail) {fail};;\nlate) {real} >/dev/null; {fail};;\nhang) sleep 1;;\nesac\nexec {real}\n"
    );
    let path = bin.join(PLUGIN);
    fs::write(&path, script).expect("write the wrapper");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("ours");
}

/// Gives cricket's records a disk of their own, so that it can be filled. Before there is a daemon.
pub fn small_disk(dir: &Path) {
    let lib = dir.join("lib");
    fs::create_dir(&lib).expect("make a directory");
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=16m", "tmpfs"]).arg(&lib).status();
    assert!(mount.expect("run mount").success(), "mount a tmpfs");
}

/// Writes until nothing more goes there.
fn fill(path: &Path) {
    let mut file = fs::File::options().create(true).append(true).open(path).expect("a file");
    let mut size = 1 << 20;
    while size > 0 {
        // The rest of the disk in ever smaller pieces.
        if file.write_all(&vec![0; size]).is_err() {
            size /= 2;
        }
    }
}

/// Does it. The daemon must have lived until it is killed.
pub fn act(node: &mut Node, relay: &Relay, act: Act, dice: &mut Dice) {
    match act {
        Act::Kill => another_daemon(node),
        Act::Begin(fault) => begin(node, relay, fault, dice),
        Act::End(fault) => end(node, relay, fault),
    }
}

fn another_daemon(node: &mut Node) {
    let status = node.end_daemon("KILL");
    assert_eq!(status.signal(), Some(9), "the daemon had ended by itself: {status}");
    node.spawn_daemon();
}

fn begin(node: &mut Node, relay: &Relay, fault: Fault, dice: &mut Dice) {
    match fault {
        Fault::ContainerdDies => node.containerd.kill(),
        Fault::ContainerdStalls => signal(node.containerd.pid(), "STOP"),
        Fault::AnswersStall => {
            // Some stop in its recovery, some in its work.
            relay.shut_after(dice.place(LET_THROUGH));
            another_daemon(node);
        }
        Fault::ShimDies => {
            // Not those that containerd runs for a moment, to start one or to clean up after one.
            let lasting = |command: &str| !command.split_whitespace().any(|word| word == "start" || word == "delete");
            let mut all: Vec<u32> =
                shims(node).into_iter().filter(|(_, command)| lasting(command)).map(|(pid, _)| pid).collect();
            all.sort_unstable();
            if !all.is_empty() {
                signal(all[dice.place(all.len())], "KILL");
            }
        }
        Fault::PluginFails => order(node, "fail"),
        Fault::PluginFailsLate => order(node, "late"),
        Fault::PluginHangs => order(node, "hang"),
        Fault::DiskFull => fill(&node.dir().join(FILLER)),
    }
}

fn end(node: &mut Node, relay: &Relay, fault: Fault) {
    match fault {
        Fault::ContainerdDies => node.containerd.start_again(),
        Fault::ContainerdStalls => signal(node.containerd.pid(), "CONT"),
        Fault::AnswersStall => relay.open(),
        Fault::ShimDies => {}
        Fault::DiskFull => fs::remove_file(node.dir().join(FILLER)).expect("it is full of that"),
        Fault::PluginFails | Fault::PluginFailsLate | Fault::PluginHangs => {
            fs::remove_file(node.dir().join(ORDERS)).expect("it was ordered");
        }
    }
}

fn order(node: &Node, what: &str) {
    fs::write(node.dir().join(ORDERS), what).expect("write an order");
}

/// One that is gone by now has missed nothing.
fn signal(pid: u32, signal: &str) {
    Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).output().expect("run kill");
}
