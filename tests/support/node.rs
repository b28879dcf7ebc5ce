//! A node of the test's own: a private containerd, cricket's binary before it, a pod network, an image with a shell.
#![allow(clippy::print_stderr, reason = "the only voice of a destructor")]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use cricket::containerd::Client;

pub use crate::binary::binary;
use crate::containerd::{Flavour, PrivateContainerd};
use crate::cri::Cri;
use crate::network::{Network, PLUGIN_DIRS};
use crate::shell;
pub use crate::shell::{BUSYBOX, IMAGE};

/// Bound on everything that takes a moment; what needs it has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What of a node is not as usual.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// How much the daemon logs.
    pub log_level: &'static str,
    /// Lines of the daemon's configuration before its tables.
    pub top: String,
    /// Lines of its table `[runtime.runc]`.
    pub runc: String,
    /// The containerd behind it.
    pub containerd: Flavour,
}

impl Default for Tuning {
    fn default() -> Self {
        Tuning { log_level: "debug", top: String::new(), runc: String::new(), containerd: Flavour::default() }
    }
}

/// Everything of it lies in one temporary directory. Dropping it stops the daemon and containerd, and removes the rest.
pub struct Node {
    pub containerd: PrivateContainerd,
    daemon: Option<Child>,
    network: Network,
    /// The bridge's address: the host, as pods see it.
    pub gateway: String,
    /// A client of the daemon's socket.
    pub cri: Cri,
}

/// Waits until `check` is true; panics, naming `what`, if it never is.
pub fn until(what: &str, mut check: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !check() {
        assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Node {
    /// A node with a daemon that serves and the shell's image.
    pub fn start() -> Node {
        Node::start_as(Tuning::default())
    }

    /// As [`Node::start`], with something else than usual.
    pub fn start_as(tuning: Tuning) -> Node {
        Node::start_on(tuning, |_| ())
    }

    /// The same; `prepare` gets its directory before there is a daemon.
    pub fn start_on(tuning: Tuning, prepare: impl FnOnce(&Path)) -> Node {
        let mut node = Node::prepare_as(tuning);
        prepare(node.dir());
        node.start_daemon();
        node.import_shell();
        node
    }

    /// The node of all tests that break nothing. It ends with the last of them that holds it.
    pub fn shared() -> Arc<Node> {
        static SHARED: Mutex<Weak<Node>> = Mutex::new(Weak::new());
        // A test that panicked while it started the node left nothing there.
        let mut shared = SHARED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let node = Arc::new(Node::start());
            *shared = Arc::downgrade(&node);
            node
        })
    }

    /// A node without a daemon.
    pub fn prepare() -> Node {
        Node::prepare_as(Tuning::default())
    }

    fn prepare_as(tuning: Tuning) -> Node {
        binary();
        let network = Network::new();
        let containerd = PrivateContainerd::start_as(tuning.containerd);
        let dir = containerd.dir();
        for name in ["logs", "volumes"] {
            fs::create_dir(dir.join(name)).expect("make a directory");
        }
        fs::write(dir.join("cricket.toml"), config(dir, tuning.log_level, &tuning.top, &tuning.runc))
            .expect("write cricket.toml");
        network.configure(dir);
        let cri = Cri::connect(&dir.join("cricket.sock"));
        Node { daemon: None, gateway: network.gateway(), network, cri, containerd }
    }

    /// Where everything lies.
    pub fn dir(&self) -> &Path {
        self.containerd.dir()
    }

    /// Starts the daemon and returns when it answers Version, with the time that it took.
    pub fn start_daemon(&mut self) -> Duration {
        let begun = self.spawn_daemon();
        self.await_daemon();
        begun.elapsed()
    }

    /// Waits until the daemon answers Version.
    pub fn await_daemon(&mut self) {
        until("the daemon answers Version", || self.assert_daemon_lives().cri.version().is_ok());
    }

    /// Starts the daemon and does not wait.
    pub fn spawn_daemon(&mut self) -> Instant {
        assert!(self.daemon.is_none(), "one daemon a node");
        let log = File::options().create(true).append(true).open(self.daemon_log()).expect("open the log");
        let begun = Instant::now();
        let daemon = self.command(&["serve"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        self.daemon = Some(daemon.expect("start cricket"));
        begun
    }

    fn assert_daemon_lives(&mut self) -> &Self {
        let daemon = self.daemon.as_mut().expect("it was started");
        if let Some(status) = daemon.try_wait().expect("our child") {
            panic!("the daemon ended, {status}; its log:\n{}", tail(&self.daemon_log()));
        }
        self
    }

    /// Sends the daemon a signal, `KILL` or `TERM`, and returns how it ended.
    pub fn end_daemon(&mut self, signal: &str) -> std::process::ExitStatus {
        let mut daemon = self.daemon.take().expect("it runs");
        let sent = Command::new("kill").args([format!("-{signal}"), daemon.id().to_string()]).status();
        assert!(sent.expect("run kill").success());
        daemon.wait().expect("our child")
    }

    /// Its pid.
    pub fn daemon_pid(&self) -> u32 {
        self.daemon.as_ref().expect("it runs").id()
    }

    /// `cricket ARGUMENTS --config <this node's>`.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(arguments).arg("--config").arg(self.dir().join("cricket.toml"));
        command
    }

    /// Runs a subcommand to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("run cricket")
    }

    /// A client of this node's containerd.
    pub fn containerd_client(&self) -> Client {
        Client::new(&self.containerd.socket()).expect("a path")
    }

    fn daemon_log(&self) -> PathBuf {
        self.dir().join("cricket.log")
    }

    /// Imports the shell's image with the daemon's own binary, and waits until the daemon has heard of it.
    pub fn import_shell(&self) {
        let archive = self.dir().join("shell.tar");
        shell::write(&archive, &[]);
        self.import(&archive, IMAGE);
    }

    /// Imports an archive that holds the image `name`.
    pub fn import(&self, archive: &Path, name: &str) {
        let imported = self.run(&["import", &archive.display().to_string()]);
        assert!(imported.status.success(), "cricket import: {}", String::from_utf8_lossy(&imported.stderr));
        until("the daemon hears of the image", || self.cri.has_image(name));
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            // It may have ended by itself.
            daemon.kill().ok();
            daemon.wait().ok();
        }
        if std::thread::panicking() {
            eprintln!("the end of the daemon's log:\n{}", tail(&self.daemon_log()));
        } else {
            for place in ["netns", "lib/sandboxes", "lib/containers", "run/containers"] {
                for entry in fs::read_dir(self.dir().join(place)).into_iter().flatten().flatten() {
                    eprintln!("left behind by a test: {}", entry.path().display());
                }
            }
        }
        self.network.remove();
    }
}

/// The last lines of a log.
fn tail(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

/// `PrivateContainerd` knows that runc keeps its state in `runc`, and cleans up there.
fn config(dir: &Path, log_level: &str, top: &str, runc: &str) -> String {
    let dir = dir.display();
    // A test may put a plugin of its own into `bin`.
    let bin_dirs = PLUGIN_DIRS.map(|dir| format!(", {dir:?}")).concat();
    format!(
        r#"socket = "{dir}/cricket.sock"
root = "{dir}/lib"
state = "{dir}/run"
netns_dir = "{dir}/netns"
log_level = "{log_level}"
cgroup_driver = "cgroupfs"
{top}
[containerd]
address = "{dir}/containerd.sock"
[cni]
conf_dir = "{dir}/net.d"
bin_dirs = ["{dir}/bin"{bin_dirs}]
cache_dir = "{dir}/cni"
[runtime.runc]
root = "{dir}/runc"
{runc}
"#
    )
}
