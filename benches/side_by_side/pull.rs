//! Pulls from docker-registry on this machine: how long they take, and the most memory that they need on the way.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cricket::call::Call;
use cricket::containerd::Containerd;
use cricket::error::{Context, Error, Kind, Result};

use crate::interrupt;
use crate::process;
use crate::registry::{Layer, Noise, Registry};
use crate::setting::Setting;
use crate::side::Side;
use crate::stopwatch::Times;
use crate::table::{Goal, Row, Table};

/// Of the image of many layers.
const LAYERS: u64 = 20;
const SMALL_BYTES: u64 = 64 << 10;
/// Images that are pulled at once, and their layers.
const IMAGES: u64 = 8;
const LAYERS_EACH: u64 = 3;
const MIDDLE_BYTES: u64 = 4 << 20;
/// Pulls of each side before those that count.
const WARM_UP: usize = 1;
/// Between two looks at memory.
const LOOK: Duration = Duration::from_millis(20);
/// A pull may take so long, and so may its remains.
const PATIENCE: Duration = Duration::from_secs(600);
/// What the daemon may grow by, in MiB.
const GROWTH: f64 = 8.0;

/// What is pulled at once, and what containerd has of it then.
struct Work {
    name: String,
    images: Vec<String>,
    blobs: Vec<String>,
}

/// What one side has taken.
#[derive(Default)]
struct Taken {
    times: Times,
    cpu: Times,
    peak_bytes: Vec<u64>,
    /// By how much the daemon grew at most, in any pull.
    growth_bytes: u64,
}

/// Pulls the same on each side in turn; the side that begins changes. Each row is of a node of its own.
pub fn measure(setting: &Setting, table: &mut Table) -> Result<()> {
    let dir = Folder::new()?;
    let registry = Registry::start(&dir.0, "", "");
    let many = image(&registry, "many", 1, LAYERS, SMALL_BYTES);
    let large = image(&registry, "large", 100, 1, setting.pull_mib << 20);
    let mut at_once = Work { name: format!("{IMAGES} images at once"), images: Vec::new(), blobs: Vec::new() };
    for n in 0..IMAGES {
        let one = image(&registry, &format!("one-{n}"), 200 + 10 * n, LAYERS_EACH, MIDDLE_BYTES);
        at_once.images.extend(one.images);
        at_once.blobs.extend(one.blobs);
    }
    let many = Work { name: format!("{LAYERS} small layers"), ..many };
    let large = Work { name: format!("one layer of {} MiB", setting.pull_mib), ..large };

    let mut rows = Vec::new();
    for (work, is_large) in [(many, false), (large, true), (at_once, false)] {
        let [ours, peer] = compare(setting, &work)?;
        let time = Row::new(&work.name, "ms", &ours.times, &peer.times).goal(Goal::RatioAtMost(1.0));
        let cpu = Row::new(&format!("CPU, {}", work.name), "ms", &ours.cpu, &peer.cpu);
        let peak = Row::new(&format!("peak memory, {}", work.name), "MiB", ours.peak(), peer.peak());
        rows.extend([time, cpu, peak]);
        if is_large {
            let name = "cricket's daemon grows by, the same".to_owned();
            let ours = mib(ours.growth_bytes).into();
            rows.push(Row { name, unit: "MiB", ours, goal: Some(Goal::AtMost(GROWTH)), ..Row::default() });
        }
    }
    table.group(
        "Pulls",
        &format!(
            "{} PullImage of each on each side, in turn, from docker-registry on loopback; whoever asks waits for all. Layers are \
             noise in gzip: {LAYERS} of {} KiB; one; {LAYERS_EACH} of {} MiB in each of {IMAGES} images, asked for from {IMAGES} threads. \
             Between two pulls the image is removed, containerd's garbage is collected, its blobs are seen to be gone, and files \
             are written back.",
            setting.pulls,
            SMALL_BYTES >> 10,
            MIDDLE_BYTES >> 20,
        ),
    );
    table.note("CPU: of all processes of the side, from the kernel's count for its control group; not the registry's.");
    table.note(&format!(
        "Memory: the most that was seen, looking each {} ms, of the PSS of containerd, daemon and whatever they start; the \
         median of the pulls. The daemon's growth: the most that its RSS was, as the kernel says, less what it was before; of all pulls the \
         worst, the first one included.",
        LOOK.as_millis()
    ));
    rows.into_iter().for_each(|row| table.row(row));
    Ok(())
}

/// Puts an image of so many layers of noise into the registry.
fn image(registry: &Registry, name: &str, seed: u64, layers: u64, bytes: u64) -> Work {
    let layer = |n| Layer::gzip_of(&format!("noise-{n}"), bytes, Noise(seed + n));
    let layers: Vec<Layer> = (0..layers).map(layer).collect();
    registry.push(name, "1", &layers);
    Work {
        name: String::new(),
        images: vec![format!("{}/{name}:1", registry.address)],
        blobs: layers.iter().map(Layer::digest).collect(),
    }
}

fn compare(setting: &Setting, work: &Work) -> Result<[Taken; 2]> {
    let sides = Side::both(setting)?;
    let mut taken = [Taken::default(), Taken::default()];
    for run in 0..WARM_UP + setting.pulls {
        for n in [run % 2, (run + 1) % 2] {
            interrupt::check()?;
            let (side, taken) = (&sides[n], &mut taken[n]);
            let one = pull(side, work).with_context(|| format!("{}: {}", side.name, work.name))?;
            taken.growth_bytes = taken.growth_bytes.max(one.growth_bytes);
            if run >= WARM_UP {
                taken.times.add(one.time);
                taken.cpu.add(one.cpu);
                taken.peak_bytes.push(one.peak_bytes);
            }
            forget(side, work).with_context(|| format!("{}: remove {}", side.name, work.name))?;
        }
    }
    Ok(taken)
}

struct Pulled {
    time: Duration,
    cpu: Duration,
    peak_bytes: u64,
    growth_bytes: u64,
}

/// Pulls all of it at once, and looks at the side's memory meanwhile.
fn pull(side: &Side, work: &Work) -> Result<Pulled> {
    let before = process::rss_bytes(side.daemon_pid());
    process::forget_peak(side.daemon_pid())?;
    let cpu = side.group.cpu()?.system;
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let looking = scope.spawn(|| look(side, &over));
        let begun = Instant::now();
        let pulls: Vec<_> =
            work.images.iter().map(|image| scope.spawn(|| side.cri().pull_within(PATIENCE, image, None))).collect();
        let ends: Vec<Result<String>> = pulls.into_iter().map(|pull| pull.join().unwrap_or_else(panicked)).collect();
        let time = begun.elapsed();
        let cpu = side.group.cpu().map(|now| now.system.saturating_sub(cpu));
        over.store(true, Ordering::Release);
        let peak_bytes = looking.join().unwrap_or_else(panicked)?;
        let daemon_bytes = process::peak_rss_bytes(side.daemon_pid());
        ends.into_iter().collect::<Result<Vec<_>>>()?;
        Ok(Pulled { time, cpu: cpu?, peak_bytes, growth_bytes: daemon_bytes.saturating_sub(before) })
    })
}

fn panicked<T>(_: Box<dyn std::any::Any + Send>) -> Result<T> {
    Err(Error::internal("a thread panicked, see above"))
}

/// The most memory of all processes of the side until it is over.
fn look(side: &Side, over: &AtomicBool) -> Result<u64> {
    let mut most = 0;
    while !over.load(Ordering::Acquire) {
        most = side.pss_bytes()?.max(most);
        thread::sleep(LOOK);
    }
    Ok(most)
}

/// Removes it, so that the next pull is a whole one.
fn forget(side: &Side, work: &Work) -> Result<()> {
    work.images.iter().try_for_each(|image| side.cri().remove_image(image))?;
    let containerd = side.containerd_client();
    let call = Call::within(PATIENCE);
    // With a lease that goes goes what nothing keeps.
    containerd.create_lease(&call, "bench", PATIENCE)?;
    containerd.delete_lease(&call, "bench", true)?;
    for blob in &work.blobs {
        match containerd.content(&call, blob) {
            Err(e) if e.kind() == Kind::NotFound => {}
            Err(e) => return Err(e),
            Ok(_) => return Err(Error::internal(format!("{blob} is still there"))),
        }
    }
    // Else the other side's next pull would have to wait for it.
    Command::new("sync").status().context("run sync").map(drop)
}

impl Taken {
    fn peak(&self) -> f64 {
        let mut sorted = self.peak_bytes.clone();
        sorted.sort_unstable();
        mib(sorted.get(sorted.len() / 2).copied().unwrap_or_default())
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Where the registry stores. Dropping it removes it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Folder> {
        let dir = std::env::temp_dir().join(format!("cricket-bench-{}", std::process::id()));
        fs::create_dir(&dir).with_context(|| format!("make {}", dir.display()))?;
        Ok(Folder(dir))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(e) = fs::remove_dir_all(&self.0) {
            eprintln!("remove {}: {e}", self.0.display());
        }
    }
}
