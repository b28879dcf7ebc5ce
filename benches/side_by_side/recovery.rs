//! How long a restart takes: from the start of the process to the first list of every pod.

use std::time::{Duration, Instant};

use cricket::error::{Error, Result};

use crate::interrupt;
use crate::setting::Setting;
use crate::side::Side;
use crate::stopwatch::Times;
use crate::table::{Goal, Row, Table};

/// Restarts with each number of pods.
const RESTARTS: usize = 5;
/// Numbers of pods. Only the first ones are the peer's as well: a node of it with more would need gigabytes.
const PODS: [usize; 3] = [10, 100, 500];
const PEER: usize = 2;
/// How many may take how long, in milliseconds.
const GOAL: (usize, f64) = (100, 1000.0);
/// How long the daemon may take to give back what its start needed.
const SETTLE: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two tries to get an answer.
const PAUSE: Duration = Duration::from_millis(2);

/// What restarts with so many pods took.
struct Restarts {
    times: Times,
    /// Of the daemon, after the last of them.
    rss_bytes: u64,
}

/// Restarts each side with more and more idle pods of one container, which go on meanwhile.
pub fn measure(setting: &Setting, table: &mut Table) -> Result<()> {
    let ours = restarts(Side::cricket(setting, "")?, &PODS)?;
    let peer = restarts(Side::peer(setting)?, &PODS[..PEER])?;
    table.group(
        "Recovery",
        &format!(
            "From the start of the process (the peer's is containerd itself) to the first ListPodSandbox with every pod, \
             p50 and p95 of {RESTARTS} restarts; resident memory of that process {} s after the last.",
            SETTLE.as_secs()
        ),
    );
    for (at, pods) in PODS.iter().enumerate() {
        let theirs = peer.get(at);
        let (time, memory) = (format!("restart with {pods} pods"), format!("resident after it, {pods} pods"));
        let mib = |restarts: &Restarts| restarts.rss_bytes as f64 / f64::from(1 << 20);
        let mut time = Row { name: time, unit: "ms", ours: (&ours[at].times).into(), ..Row::default() };
        let mut memory = Row { name: memory, unit: "MiB", ours: mib(&ours[at]).into(), ..Row::default() };
        time.peer = theirs.map(|restarts| (&restarts.times).into());
        memory.peer = theirs.map(|restarts| mib(restarts).into());
        table.row(if *pods == GOAL.0 { time.goal(Goal::AtMost(GOAL.1)) } else { time });
        table.row(memory);
    }
    Ok(())
}

fn restarts(mut side: Side, numbers: &[usize]) -> Result<Vec<Restarts>> {
    let (mut pods, mut all) = (Vec::new(), Vec::new());
    for wanted in numbers {
        while pods.len() < *wanted {
            pods.push(side.run(&format!("there-{}", pods.len()))?);
        }
        let mut times = Times::default();
        for _ in 0..RESTARTS {
            let begun = side.restart()?;
            until_all_are_listed(&side, *wanted)?;
            times.add(begun.elapsed());
        }
        interrupt::sleep(SETTLE)?;
        all.push(Restarts { times, rss_bytes: crate::process::rss_bytes(side.daemon_pid()) });
    }
    pods.iter().try_for_each(|pod| side.remove(pod))?;
    Ok(all)
}

fn until_all_are_listed(side: &Side, pods: usize) -> Result<()> {
    let begun = Instant::now();
    loop {
        interrupt::check()?;
        match side.cri().pods() {
            Ok(listed) if listed.len() == pods => return Ok(()),
            Ok(listed) if begun.elapsed() > PATIENCE => {
                return Err(Error::internal(format!("{}: {} of {pods} pods are listed", side.name, listed.len())));
            }
            Err(e) if begun.elapsed() > PATIENCE => return Err(e),
            _ => std::thread::sleep(PAUSE),
        }
    }
}
