//! A node at rest: what the kubelet's questions cost, and what nobody's questions cost.

use std::time::{Duration, Instant};

use cricket::error::{Kind, Result};
use cricket_proto::methods::{image_service, runtime_service};

use crate::interrupt;
use crate::process;
use crate::setting::Setting;
use crate::side::Side;
use crate::table::{Goal, Row, Table};

/// Idle pods on each side.
const PODS: usize = 20;
/// After the last pod, before anything counts.
const SETTLE: Duration = Duration::from_secs(10);

/// Calls that were refused because the side does not have them.
#[derive(Default)]
struct Refused {
    calls: Vec<&'static str>,
}

impl Refused {
    fn note<T>(&mut self, call: &'static str, answer: Result<T>) -> Result<()> {
        match answer {
            Err(e) if e.kind() == Kind::Unimplemented => {
                if !self.calls.contains(&call) {
                    self.calls.push(call);
                }
                Ok(())
            }
            answer => answer.map(drop),
        }
    }
}

/// Fills both sides, asks both as a kubelet does, and then neither.
pub fn measure(setting: &Setting, table: &mut Table) -> Result<()> {
    let sides = Side::both(setting)?;
    // In turn, so that the shims of both have the same age.
    let mut pods = [Vec::new(), Vec::new()];
    for n in 0..PODS {
        for (side, pods) in sides.iter().zip(&mut pods) {
            pods.push(side.run(&format!("resting-{n}"))?);
        }
    }
    interrupt::sleep(SETTLE)?;
    table.group(
        "At rest",
        &format!(
            "{PODS} pods of one idle container on each side. Polled, both in the same {} s: ListPodSandbox and \
             ListContainers every second, Status every 5 s, ListContainerStats and ImageFsInfo every 10 s.",
            setting.poll.as_secs()
        ),
    );
    let polled = polled(setting, table, &sides)?;
    let alone = alone(setting, table, &sides)?;
    let [ours, peer] = [0, 1].map(|n: usize| (polled[n] - alone[n]).max(0.0));
    table.note("The questions alone: the first row less the second, which is what the same processes take anyway.");
    table.row(Row::new("CPU of the questions alone", "ms/min", ours, peer).goal(Goal::RatioAtMost(0.2)));
    for (side, pods) in sides.iter().zip(&pods) {
        pods.iter().try_for_each(|pod| side.remove(pod))?;
    }
    Ok(())
}

/// Milliseconds of processor time a minute, of each side.
fn polled(setting: &Setting, table: &mut Table, sides: &[Side; 2]) -> Result<[f64; 2]> {
    let mut refused = [Refused::default(), Refused::default()];
    let before = [sides[0].group.cpu()?, sides[1].group.cpu()?];
    let begun = Instant::now();
    for second in 0..setting.poll.as_secs() {
        for (side, refused) in sides.iter().zip(&mut refused) {
            poll(side, second, refused)?;
        }
        interrupt::sleep_until(begun + Duration::from_secs(second + 1))?;
    }
    let used = [sides[0].group.cpu()? - before[0], sides[1].group.cpu()? - before[1]];
    let a_minute = |cpu: Duration| cpu.as_secs_f64() * 1000.0 * 60.0 / setting.poll.as_secs_f64();
    let [ours, peer] = used.map(|cpu| a_minute(cpu.system));
    table.row(Row::new("CPU of all processes, polled", "ms/min", ours, peer));
    for (side, refused) in sides.iter().zip(&refused).filter(|(_, refused)| !refused.calls.is_empty()) {
        table.note(&format!("{} does not have {}: refused, so not paid for.", side.name, refused.calls.join(", ")));
    }
    Ok([ours, peer])
}

fn poll(side: &Side, second: u64, refused: &mut Refused) -> Result<()> {
    let cri = side.cri();
    cri.pods()?;
    cri.containers()?;
    if second % 5 == 0 {
        cri.call(&runtime_service::STATUS, &Default::default())?;
    }
    if second % 10 == 0 {
        let stats = cri.call(&runtime_service::LIST_CONTAINER_STATS, &Default::default());
        refused.note("ListContainerStats", stats)?;
        refused.note("ImageFsInfo", cri.call(&image_service::IMAGE_FS_INFO, &Default::default()))?;
    }
    Ok(())
}

/// Nobody calls. The same figure.
fn alone(setting: &Setting, table: &mut Table, sides: &[Side; 2]) -> Result<[f64; 2]> {
    interrupt::sleep(SETTLE)?;
    let switches = |side: &Side| process::voluntary_switches(side.daemon_pid());
    let before = [(sides[0].group.cpu()?, switches(&sides[0])?), (sides[1].group.cpu()?, switches(&sides[1])?)];
    interrupt::sleep(setting.idle)?;
    let seconds = setting.idle.as_secs_f64();
    let mut figures = [(0.0, 0.0); 2];
    for (n, side) in sides.iter().enumerate() {
        let cpu = (side.group.cpu()? - before[n].0).system.as_secs_f64() * 1000.0;
        figures[n] = (cpu * 60.0 / seconds, switches(side)?.saturating_sub(before[n].1) as f64 / seconds);
    }
    let [ours, peer] = figures;
    table.note(&format!(
        "Without a client, for {} s: the daemon that serves the CRI, which on the other side is containerd itself.",
        setting.idle.as_secs()
    ));
    table.row(Row::new("CPU of all processes, no client", "ms/min", ours.0, peer.0));
    table.row(Row::new("wake-ups of the daemon, no client", "1/s", ours.1, peer.1).goal(Goal::AtMost(1.0)));
    Ok([ours.0, peer.0])
}
