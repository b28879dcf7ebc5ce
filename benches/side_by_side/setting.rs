//! What the environment says of a run.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;
use std::time::Duration;

use cricket::error::{Context, Error, Result};

use crate::containerd::{search_path, Flavour};
use crate::node;

/// Where containerd 2.x and its tools are built.
const CONFORMANCE: &str = "target/conformance";

/// How a run is made.
#[derive(Clone, Debug)]
pub struct Setting {
    /// `ONLY`: names of experiments; all for none.
    only: Vec<String>,
    /// `RUNS`: pods that are made and removed on each side.
    pub runs: usize,
    /// `CALLS`: answers of each list and status on each side.
    pub calls: usize,
    /// `PODS`: the most idle pods whose memory is measured.
    pub pods: usize,
    /// `POLL_SECONDS`: how long both sides are polled as a kubelet does.
    pub poll: Duration,
    /// `IDLE_SECONDS`: how long nobody calls.
    pub idle: Duration,
    /// `LOG_MIB`: how much a container writes.
    pub log_mib: usize,
    /// `STREAM_MIB`: how much goes through an exec session or a forwarded port, each way.
    pub stream_mib: usize,
    /// `PULLS`: pulls of each image on each side.
    pub pulls: usize,
    /// `PULL_MIB`: how much is in the layer of the image that has one.
    pub pull_mib: u64,
    /// `CONTAINERD`: `1.6`, which is that of the search path, or `2`, which is in `CONTAINERD_BIN`.
    programs: Option<PathBuf>,
    /// `SHIM`: the key `shim` of cricket's handler; not written if it is not set.
    shim: Option<String>,
    /// `OCI_RUNTIME`: a program of the search path that runs the containers of both sides instead of runc, such as `crun`.
    runtime: Option<PathBuf>,
    /// `BENCH_OUT`: the folder of the tables.
    pub output: PathBuf,
}

impl Setting {
    /// Reads it.
    ///
    /// # Errors
    /// `InvalidArgument` for a value that means nothing, with its variable.
    pub fn of_environment(experiments: &[&str]) -> Result<Setting> {
        let only: Vec<String> = text("ONLY").split(',').filter(|s| !s.is_empty()).map(str::to_owned).collect();
        if let Some(unknown) = only.iter().find(|name| !experiments.contains(&name.as_str())) {
            return Err(Error::invalid(format!("ONLY={unknown}: there are {}", experiments.join(", "))));
        }
        let programs = match text("CONTAINERD").as_str() {
            "" | "1.6" => None,
            "2" => Some(
                env::var_os("CONTAINERD_BIN").map_or_else(|| top().join(CONFORMANCE).join("bin/c2"), PathBuf::from),
            ),
            other => return Err(Error::invalid(format!("CONTAINERD={other}: 1.6 or 2"))),
        };
        if let Some(dir) = programs.as_ref().filter(|dir| !dir.join("containerd").is_file()) {
            let message = format!("{} has no containerd: make conformance CONTAINERD=2 builds it", dir.display());
            return Err(Error::precondition(message));
        }
        let runtime = Some(text("OCI_RUNTIME")).filter(|name| !name.is_empty());
        Ok(Setting {
            only,
            runs: number("RUNS", 30)?,
            calls: number("CALLS", 500)?,
            pods: number("PODS", 50)?,
            poll: Duration::from_secs(number("POLL_SECONDS", 60)?),
            idle: Duration::from_secs(number("IDLE_SECONDS", 30)?),
            log_mib: number("LOG_MIB", 256)?,
            stream_mib: number("STREAM_MIB", 256)?,
            pulls: number("PULLS", 5)?,
            pull_mib: number("PULL_MIB", 500)?,
            programs,
            shim: Some(text("SHIM")).filter(|shim| !shim.is_empty()),
            runtime: runtime.map(|name| found(&name)).transpose()?,
            output: env::var_os("BENCH_OUT").map_or_else(|| top().join("target/bench"), PathBuf::from),
        })
    }

    /// Whether this experiment is to be made.
    pub fn wants(&self, experiment: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == experiment)
    }

    /// containerd as it is behind both sides, but for the CRI plugin.
    pub fn flavour(&self) -> Flavour {
        Flavour { programs: self.programs.clone(), runtime: self.runtime.clone(), ..Flavour::default() }
    }

    /// Lines of `[runtime.runc]` in cricket's configuration.
    pub fn handler(&self) -> String {
        let shim = self.shim.as_ref().map(|shim| format!("shim = {shim:?}\n"));
        let runtime = self.runtime.as_ref().map(|path| format!("binary = {path:?}\n"));
        shim.unwrap_or_default() + &runtime.unwrap_or_default()
    }

    /// What runs here, a line each.
    ///
    /// # Errors
    /// If one of the programs does not say its version.
    pub fn title(&self) -> Result<Vec<String>> {
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").context("read the kernel's release")?;
        let program = |name: &str| self.programs.as_ref().map(|d| d.join(name)).filter(|p| p.is_file());
        let program = |name: &str| program(name).unwrap_or_else(|| name.into());
        let runtime = self.runtime.clone().unwrap_or_else(|| program("runc"));
        Ok(vec![
            format!("date        {}", said(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"]))?),
            format!("cricket     {}", said(Command::new(node::binary()).arg("--version"))?),
            format!("containerd  {}", said(Command::new(program("containerd")).arg("--version"))?),
            format!("runtime     {}", said(Command::new(runtime).arg("--version"))?),
            format!("shim        {}", self.shim.as_deref().unwrap_or("cricket's own beside containerd's runc-v2")),
            "garbage     as rarely as dist/containerd.toml has it beside as containerd does it by itself".to_owned(),
            format!("kernel      {}", kernel.trim()),
            format!("processors  {}", std::thread::available_parallelism().context("count processors")?),
        ])
    }
}

/// A program of the search path.
fn found(name: &str) -> Result<PathBuf> {
    let path = search_path();
    let found = path.split(':').map(|dir| Path::new(dir).join(name)).find(|program| program.is_file());
    found.ok_or_else(|| Error::precondition(format!("OCI_RUNTIME={name} is not on PATH: apt-get install {name}")))
}

/// The first line that a program prints.
fn said(command: &mut Command) -> Result<String> {
    let output = command.env("PATH", search_path()).output();
    let output = output.with_context(|| format!("run {}", command.get_program().to_string_lossy()))?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned())
}

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(name: &str) -> String {
    env::var(name).unwrap_or_default()
}

fn number<T: FromStr>(name: &str, default: T) -> Result<T> {
    match text(name).as_str() {
        "" => Ok(default),
        text => text.parse().map_err(|_| Error::invalid(format!("{name}={text}: a whole number"))),
    }
}
