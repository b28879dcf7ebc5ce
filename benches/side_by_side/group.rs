//! A control group for each side: the kernel adds up the processor time of everything in it, ended processes included.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cricket::error::{Context, Error, Idempotent, Result};

/// How long its last processes may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// The group of one side, with two below it: `system` for daemons, shims, runtimes and plugins, `pods` for containers.
/// Dropping it removes it.
pub struct Group {
    /// Below any hierarchy: `cricket-bench-7-peer`.
    name: String,
    /// The hierarchy that counts processor time.
    clock: Clock,
}

/// Who counts, and how.
#[derive(Clone, Debug)]
enum Clock {
    /// `cpuacct.usage`, in nanoseconds.
    First(PathBuf),
    /// `cpu.stat`, in microseconds.
    Second(PathBuf),
}

/// Processor time of a side.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpu {
    /// Of everything but the containers' own processes.
    pub system: Duration,
    /// Of the containers.
    pub pods: Duration,
}

impl std::ops::Sub for Cpu {
    type Output = Cpu;

    fn sub(self, before: Cpu) -> Cpu {
        let since = |now: Duration, then| now.saturating_sub(then);
        Cpu { system: since(self.system, before.system), pods: since(self.pods, before.pods) }
    }
}

impl Group {
    /// A new one.
    ///
    /// # Errors
    /// If there is no hierarchy that counts, or it cannot be written.
    pub fn new(side: &str) -> Result<Group> {
        let group = Group { name: format!("cricket-bench-{}-{side}", std::process::id()), clock: clock()? };
        for part in ["system", "pods"] {
            let dir = group.dir(part);
            fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        }
        Ok(group)
    }

    /// The cgroup parent of this side's pods.
    pub fn pods(&self) -> String {
        format!("/{}/pods", self.name)
    }

    /// Puts a daemon into `system`, and what it starts from now on.
    pub fn adopt(&self, pid: u32) -> Result<()> {
        let file = self.dir("system").join("cgroup.procs");
        fs::write(&file, pid.to_string()).with_context(|| format!("write {}", file.display()))
    }

    /// What it has taken until now.
    pub fn cpu(&self) -> Result<Cpu> {
        Ok(Cpu { system: self.used("system")?, pods: self.used("pods")? })
    }

    /// The processes in `system`.
    pub fn system_pids(&self) -> Result<Vec<u32>> {
        pids(&self.dir("system"))
    }

    /// The processes of containers.
    pub fn pod_pids(&self) -> Result<Vec<u32>> {
        pids(&self.dir("pods"))
    }

    fn dir(&self, part: &str) -> PathBuf {
        let (Clock::First(mount) | Clock::Second(mount)) = &self.clock;
        mount.join(&self.name).join(part)
    }

    fn used(&self, part: &str) -> Result<Duration> {
        let dir = self.dir(part);
        let read = |name: &str| {
            let file = dir.join(name);
            fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))
        };
        let found = match &self.clock {
            Clock::First(_) => read("cpuacct.usage")?.trim().parse().ok().map(Duration::from_nanos),
            Clock::Second(_) => {
                let text = read("cpu.stat")?;
                let number = text.lines().find_map(|line| line.strip_prefix("usage_usec ")?.parse().ok());
                number.map(Duration::from_micros)
            }
        };
        found.ok_or_else(|| Error::internal(format!("{} has no processor time", dir.display())))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for mount in hierarchies() {
            let begun = Instant::now();
            // What was killed takes a moment to be gone.
            while let Err(e) = remove(&mount.join(&self.name)) {
                if begun.elapsed() > PATIENCE {
                    eprintln!("remove the control group {}: {e}", self.name);
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// The processes of a group and of those below it.
fn pids(dir: &Path) -> Result<Vec<u32>> {
    let file = dir.join("cgroup.procs");
    let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    let mut all: Vec<u32> = text.lines().filter_map(|line| line.parse().ok()).collect();
    for below in folders(dir) {
        // One that is removed meanwhile has none.
        all.extend(pids(&below).unwrap_or_default());
    }
    Ok(all)
}

/// Removes a group and those below it. Idempotent.
fn remove(dir: &Path) -> std::io::Result<()> {
    folders(dir).iter().try_for_each(|below| remove(below))?;
    fs::remove_dir(dir).or_gone().map_err(std::io::Error::other)
}

fn folders(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir())).map(|entry| entry.path()).collect()
}

/// Where control groups are mounted.
fn hierarchies() -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let cgroups = table.lines().filter(|line| line.split(' ').nth(2).is_some_and(|kind| kind.starts_with("cgroup")));
    cgroups.filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from).collect()
}

fn clock() -> Result<Clock> {
    let all = hierarchies();
    let counts = |file: &'static str| all.iter().find(|mount| mount.join(file).exists()).cloned();
    counts("cpuacct.usage")
        .map(Clock::First)
        .or_else(|| all.iter().find(|mount| mount.join("cgroup.controllers").exists()).cloned().map(Clock::Second))
        .ok_or_else(|| Error::precondition("no mounted control group hierarchy counts processor time"))
}
