//! A container that writes as fast as it can.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::time::Instant;

use cricket::error::{Context, Error, Result};
use cricket::image::build::{Bytes, NewFile};
use cricket_proto::runtime::ContainerState;

use crate::cri::{container, state};
use crate::group::Cpu;
use crate::interrupt;
use crate::node::until;
use crate::setting::Setting;
use crate::shell;
use crate::side::Side;
use crate::stopwatch::Times;
use crate::table::{Figure, Goal, Row, Table};

/// The file that the container writes again and again; it stays in the page cache.
const FILE_MIB: usize = 4;
/// Each of its lines with its end.
const LINE_BYTES: usize = 128;
/// Turns of each side.
const TURNS: usize = 3;

/// What a side has taken.
#[derive(Default)]
struct Taken {
    times: Times,
    cpu: Cpu,
}

/// Lets a container of each side write in turn.
pub fn measure(setting: &Setting, table: &mut Table) -> Result<()> {
    let sides = Side::both(setting)?;
    let lines = lines();
    for side in &sides {
        let archive = side.dir().join("lines.tar");
        shell::write(&archive, &[NewFile { path: "lines", mode: 0o644, bytes: Bytes::Inline(&lines) }]);
        side.import(&archive, shell::IMAGE);
    }
    let mut taken = [Taken::default(), Taken::default()];
    for turn in 0..TURNS {
        for (side, taken) in sides.iter().zip(&mut taken) {
            interrupt::check()?;
            write(side, &format!("writer-{turn}"), setting.log_mib.div_ceil(FILE_MIB), taken)?;
        }
    }
    let mib = setting.log_mib.div_ceil(FILE_MIB) * FILE_MIB;
    table.group(
        "Logs",
        &format!(
            "A container writes {mib} MiB of {LINE_BYTES}-byte lines with cat, {TURNS} times on each side in turn. From \
             StartContainer until it is seen to have exited; its log is whole by then. MiB are those of the container, without prefixes."
        ),
    );
    table.note("CPU of all processes: the container's own writing included.");
    let speed = |taken: &Taken| Figure::from(mib as f64 * 1000.0 / taken.times.percentile(50));
    let per_mib = |cpu: std::time::Duration| cpu.as_secs_f64() * 1000.0 / (mib * TURNS) as f64;
    let [ours, peer] = &taken;
    table.row(Row::new("throughput", "MiB/s", speed(ours), speed(peer)).goal(Goal::RatioAtLeast(1.0)));
    let all = |taken: &Taken| per_mib(taken.cpu.system + taken.cpu.pods);
    table.row(Row::new("CPU of all processes", "ms/MiB", all(ours), all(peer)).goal(Goal::RatioAtMost(0.5)));
    let row = Row::new("of it daemons and shims", "ms/MiB", per_mib(ours.cpu.system), per_mib(peer.cpu.system));
    table.row(row);
    Ok(())
}

fn lines() -> Vec<u8> {
    let line = |n: usize| format!("{:0>1$}\n", n, LINE_BYTES - 1).into_bytes();
    (0..(FILE_MIB << 20) / LINE_BYTES).flat_map(line).collect()
}

fn write(side: &Side, name: &str, files: usize, taken: &mut Taken) -> Result<()> {
    let cri = side.cri();
    let config = side.pod_config(name);
    let pod = cri.run_pod(&config)?;
    let script = format!("n=0; while [ $n -lt {files} ]; do cat /lines; n=$((n+1)); done");
    let id = cri.create(&pod, &config, container("c", &script))?;
    let before = side.group.cpu()?;
    let begun = Instant::now();
    cri.start(&id)?;
    until("the container ends", || state(&cri.status(&id)) == ContainerState::CONTAINER_EXITED);
    taken.times.add(begun.elapsed());
    let cpu = side.group.cpu()? - before;
    taken.cpu = Cpu { system: taken.cpu.system + cpu.system, pods: taken.cpu.pods + cpu.pods };
    let log = side.log(&config, "c");
    let (found, expected) = (count_lines(&log)?, files * (FILE_MIB << 20) / LINE_BYTES);
    if found != expected {
        let message = format!("{}: the container has exited, its log has {found} lines of {expected}", side.name);
        return Err(Error::internal(message));
    }
    cri.stop_pod(&pod)?;
    cri.remove_pod(&pod)?;
    fs::remove_file(&log).with_context(|| format!("remove {}", log.display()))
}

fn count_lines(path: &Path) -> Result<usize> {
    let mut file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let (mut buffer, mut lines) = (vec![0; 1 << 20], 0);
    loop {
        match file.read(&mut buffer).with_context(|| format!("read {}", path.display()))? {
            0 => return Ok(lines),
            n => lines += buffer[..n].iter().filter(|byte| **byte == b'\n').count(),
        }
    }
}
