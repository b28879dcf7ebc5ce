//! A containerd of the test's own: private directories and socket, no CRI plugin, gone without a trace at the end.
#![allow(dead_code, reason = "every test target uses a part of it")]
#![allow(clippy::print_stderr, reason = "the only voice of a destructor")]

use std::fs::{self, File};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cricket::containerd::Any;
use cricket_proto::runc::Options;
use protobuf::Message;

/// Where Debian and others put daemons, whatever the caller's PATH says.
const SBIN: &str = "/usr/local/sbin:/usr/sbin:/sbin";
/// What containerd 2 is told of unpacking.
const UNPACK: &str = r#"[[plugins."io.containerd.transfer.v1.local".unpack_config]]
  platform = "linux/ARCHITECTURE"
  snapshotter = "overlayfs"
  differ = "walking"
"#;
const START_PATIENCE: Duration = Duration::from_secs(60);

/// Which containerd it is. The default is that of the search path, without its CRI plugin.
#[derive(Clone, Debug, Default)]
pub struct Flavour {
    /// A folder of programs that comes before the search path: containerd, its shim and its tools of another version.
    pub programs: Option<PathBuf>,
    /// Tables of its configuration beyond the common ones, for the directory it gets.
    pub tables: Option<fn(&Flavour, &Path) -> String>,
    /// Its own CRI plugin is on.
    pub cri: bool,
    /// What its containers are run by; runc if it is not set.
    pub runtime: Option<PathBuf>,
}

impl Flavour {
    fn search_path(&self) -> String {
        let path = search_path();
        self.programs.as_ref().map_or(path.clone(), |dir| format!("{}:{path}", dir.display()))
    }
}

/// A running containerd. Dropping it kills it and everything it started, and removes its mounts and files.
pub struct PrivateContainerd {
    dir: PathBuf,
    flavour: Flavour,
    daemon: Child,
}

impl PrivateContainerd {
    /// Starts one and returns when it serves. Panics with what to install when something is missing; needs root.
    pub fn start() -> Self {
        Self::start_as(Flavour::default())
    }

    /// As [`PrivateContainerd::start`], of another flavour.
    pub fn start_as(flavour: Flavour) -> Self {
        for program in ["containerd", "containerd-shim-runc-v2", "runc"] {
            let found = flavour.search_path().split(':').any(|dir| Path::new(dir).join(program).is_file());
            assert!(found, "{program} is not on PATH: apt-get install containerd runc");
        }
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("cricket-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        fs::create_dir(&dir).expect("a fresh directory");
        let tables = flavour.tables.map(|tables| tables(&flavour, &dir)).unwrap_or_default();
        fs::write(dir.join("config.toml"), config(&dir, &flavour) + &tables).expect("write config.toml");
        let daemon = spawn(&dir, &flavour);
        PrivateContainerd { dir, flavour, daemon }
    }

    /// Its socket.
    pub fn socket(&self) -> String {
        self.dir.join("containerd.sock").display().to_string()
    }

    /// Its directory, free for the test's own files as well. Removed at the end.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Options for the runc shim: its containers' state in our directory, not in the machine's.
    pub fn runc_options(&self) -> Any {
        let options = Options { root: self.runc_root().display().to_string(), ..Options::default() };
        let value = options.write_to_bytes().expect("in memory");
        Any { type_url: "containerd.runc.v1.Options".to_owned(), value }
    }

    fn runc_root(&self) -> PathBuf {
        self.dir.join("runc")
    }

    /// The daemon's pid.
    pub fn pid(&self) -> u32 {
        self.daemon.id()
    }

    /// Kills the daemon; shims and containers live on.
    pub fn kill(&mut self) {
        self.daemon.kill().expect("it is our child");
        self.daemon.wait().expect("it is our child");
    }

    /// Starts the daemon again after [`PrivateContainerd::kill`].
    pub fn start_again(&mut self) {
        self.daemon = spawn(&self.dir, &self.flavour);
    }
}

impl Drop for PrivateContainerd {
    fn drop(&mut self) {
        // Already dead after `kill`: then there is nothing to do.
        self.daemon.kill().ok();
        self.daemon.wait().ok();
        // Containers first: without their shims nobody would know them. runc removes their cgroups as well.
        let runc = self.runc_root().join("k8s.io");
        let runtime = self.flavour.runtime.as_ref().map_or("runc".into(), |path| path.display().to_string());
        for container in fs::read_dir(&runc).into_iter().flatten().flatten() {
            let (root, id) = (runc.display().to_string(), container.file_name());
            run(&runtime, &["--root", &root, "delete", "--force", &id.to_string_lossy()]);
        }
        for shim in shims(&self.socket()) {
            run("kill", &["-KILL", &shim.to_string()]);
        }
        let mounts = mounts_under(&self.dir);
        for mount in mounts.iter().rev() {
            run("umount", &["-l", mount]);
        }
        let left = mounts_under(&self.dir);
        if left.is_empty() {
            if let Err(e) = fs::remove_dir_all(&self.dir) {
                eprintln!("{}: {e}", self.dir.display());
            }
        } else {
            eprintln!("still mounted, so not removed: {left:?}");
        }
    }
}

/// Where programs are looked for.
pub fn search_path() -> String {
    format!("{}:{SBIN}", std::env::var("PATH").unwrap_or_default())
}

/// The names of the CRI plugin in 1.x and in 2.x.
const CRI: &str = r#"
  "io.containerd.grpc.v1.cri",
  "io.containerd.cri.v1.runtime",
  "io.containerd.cri.v1.images","#;

/// Without the CRI plugin if it is not wanted, and without the snapshotters that only make the start slow.
fn config(dir: &Path, flavour: &Flavour) -> String {
    let dir = dir.display();
    let unwanted = if flavour.cri { "" } else { CRI };
    // The transfer service of containerd 2, without which nothing is served, looks for tools of file systems that most
    // machines lack, unless it is told how to unpack.
    let second = match flavour.programs {
        Some(_) => UNPACK.replace("ARCHITECTURE", architecture()),
        None => String::new(),
    };
    format!(
        r#"version = 2
root = "{dir}/root"
state = "{dir}/state"
disabled_plugins = [{unwanted}
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.internal.v1.opt",
]
[grpc]
  address = "{dir}/containerd.sock"
[ttrpc]
  address = "{dir}/containerd.sock.ttrpc"
{second}"#
    )
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Starts the daemon and waits for its `READY=1`, as systemd would.
fn spawn(dir: &Path, flavour: &Flavour) -> Child {
    let notify = dir.join("notify.sock");
    // From an earlier start.
    fs::remove_file(&notify).ok();
    let ready = UnixDatagram::bind(&notify).expect("bind the notify socket");
    ready.set_read_timeout(Some(START_PATIENCE)).expect("a timeout");
    let log = File::options().create(true).append(true).open(dir.join("log")).expect("open the log");
    let mut daemon = Command::new("containerd")
        .arg("--config")
        .arg(dir.join("config.toml"))
        .env("PATH", flavour.search_path())
        .env("NOTIFY_SOCKET", &notify)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("start containerd");
    let mut message = [0; 256];
    let heard = ready.recv(&mut message);
    if !heard.as_ref().is_ok_and(|n| message[..*n].starts_with(b"READY=1")) {
        let log = fs::read_to_string(dir.join("log")).unwrap_or_default();
        daemon.kill().ok();
        panic!("containerd did not start ({heard:?}); its log:\n{log}");
    }
    daemon
}

/// Pids of the shims that report to this socket.
fn shims(socket: &str) -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let reports_here = |pid: &u32| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command.split(|&byte| byte == 0).any(|argument| argument == socket.as_bytes())
    };
    pids.filter(reports_here).collect()
}

/// Mount points under `dir`, in the order they were made.
fn mounts_under(dir: &Path) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    points.filter(|point| Path::new(point).starts_with(dir)).map(str::to_owned).collect()
}

/// A failure is worth a line, not a panic in a destructor.
fn run(program: &str, arguments: &[&str]) {
    let done = Command::new(program).args(arguments).env("PATH", search_path()).status();
    if !done.as_ref().is_ok_and(std::process::ExitStatus::success) {
        eprintln!("{program} {arguments:?}: {done:?}");
    }
}
