//! What idle pods take, beside their own processes.

use std::time::Duration;

use cricket::error::Result;

use crate::interrupt;
use crate::setting::Setting;
use crate::side::Side;
use crate::table::{Goal, Row, Table};

/// A few pods, after which whatever the first ones cost once is paid.
const FEW: usize = 10;
/// How long memory may take to be given back.
const SETTLE: Duration = Duration::from_secs(5);

/// Bytes with none, a few and many pods.
#[derive(Clone, Copy, Default)]
struct Grown {
    none: u64,
    few: u64,
    many: u64,
}

/// Fills one side after the other, so that none shares memory with the other.
pub fn measure(setting: &Setting, table: &mut Table) -> Result<()> {
    let pod_scope = grow(Side::cricket(setting, "shim_scope = \"pod\"")?, setting)?;
    let node_scope = grow(Side::cricket(setting, "shim_scope = \"node\"")?, setting)?;
    let peer = grow(Side::peer(setting)?, setting)?;

    table.group(
        "Memory",
        &format!(
            "PSS of containerd, daemon, shims and pause processes together, without the containers' own, on a node of \
             its own for each column, {} s after the last pod was started.",
            SETTLE.as_secs()
        ),
    );
    table
        .note("Per pod: what each pod after the first ten adds. A shim a pod, and one shim for the node (shim_scope).");
    let few = setting.pods.min(FEW);
    for (scope, ours, goal) in [("a shim a pod", pod_scope, 0.85), ("one shim", node_scope, 0.15)] {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let row = |pods: usize, of: fn(&Grown) -> u64| {
            Row::new(&format!("{pods} pods, {scope}"), "MiB", mib(of(&ours)), mib(of(&peer)))
        };
        table.row(row(0, |grown| grown.none));
        table.row(row(few, |grown| grown.few));
        table.row(row(setting.pods, |grown| grown.many));
        let per_pod = |grown: &Grown| mib(grown.many.saturating_sub(grown.few)) / (setting.pods - few).max(1) as f64;
        let row = Row::new(&format!("per pod, {scope}"), "MiB", per_pod(&ours), per_pod(&peer));
        table.row(row.goal(Goal::RatioAtMost(goal)));
    }
    Ok(())
}

fn grow(side: Side, setting: &Setting) -> Result<Grown> {
    let mut pods = Vec::new();
    let mut up_to = |wanted: usize| {
        while pods.len() < wanted {
            pods.push(side.run(&format!("idle-{}", pods.len()))?);
        }
        interrupt::sleep(SETTLE)?;
        side.pss_bytes()
    };
    let grown = Grown { none: up_to(0)?, few: up_to(setting.pods.min(FEW))?, many: up_to(setting.pods)? };
    pods.iter().try_for_each(|pod| side.remove(pod))?;
    Ok(grown)
}
