//! A node of the test's own: a private containerd, cricket's binary before it, a pod network, an image with a shell.
#![allow(clippy::print_stderr, reason = "the only voice of a destructor")]

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use cricket::containerd::Client;
use cricket::image::build::{self, Bytes, NewFile, NewImage};

use crate::containerd::PrivateContainerd;
use crate::cri::Cri;
use crate::elf;

/// The image of every container: a static busybox.
pub const IMAGE: &str = "localhost/cricket-test-shell:1";
/// Its only program.
pub const BUSYBOX: &str = "/bin/busybox";
/// Bound on everything that takes a moment; what needs it has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

const PLUGINS: [&str; 4] = ["bridge", "host-local", "loopback", "portmap"];
const PLUGIN_DIRS: [&str; 2] = ["/opt/cni/bin", "/usr/lib/cni"];

/// Everything of it lies in one temporary directory. Dropping it stops the daemon and containerd, and removes the rest.
pub struct Node {
    pub containerd: PrivateContainerd,
    daemon: Option<Child>,
    bridge: String,
    /// The bridge's address: the host, as pods see it.
    pub gateway: String,
    /// A client of the daemon's socket.
    pub cri: Cri,
}

/// The daemon under test: what CRICKET_BIN names, else the product of `make build`.
pub fn binary() -> PathBuf {
    if let Some(path) = env::var_os("CRICKET_BIN") {
        let path = PathBuf::from(path);
        assert!(path.is_file(), "CRICKET_BIN={}: there is no such file", path.display());
        return path;
    }
    let target = format!("target/{}-unknown-linux-musl/release/cricket", env::consts::ARCH);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(target);
    assert!(path.is_file(), "{} is missing: run `make build` first, or set CRICKET_BIN", path.display());
    path
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
        Node::made("", "")
    }

    /// The same with `settings` at the top of the configuration file.
    pub fn with(settings: &str) -> Node {
        Node::made(settings, "")
    }

    /// The same with more settings for the runtime handler.
    pub fn start_with(handler: &str) -> Node {
        Node::made("", handler)
    }

    fn made(settings: &str, handler: &str) -> Node {
        let mut node = Node::prepare();
        let path = node.dir().join("cricket.toml");
        let text = fs::read_to_string(&path).expect("readable");
        fs::write(&path, format!("{settings}\n{text}{handler}\n")).expect("writable");
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
        binary();
        for plugin in PLUGINS {
            let found = PLUGIN_DIRS.iter().any(|dir| Path::new(dir).join(plugin).is_file());
            assert!(found, "CNI plugin {plugin} is missing: apt-get install containernetworking-plugins iptables");
        }
        let containerd = PrivateContainerd::start();
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let (pid, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        // A network of its own for each node of each process on this machine.
        let number = (pid * 16 + count) % (64 * 256);
        let subnet = format!("10.{}.{}", 100 + number / 256, number % 256);
        let bridge = format!("ckn{pid}-{count}");
        let dir = containerd.dir();
        for name in ["net.d", "logs", "volumes"] {
            fs::create_dir(dir.join(name)).expect("make a directory");
        }
        fs::write(dir.join("cricket.toml"), config(dir)).expect("write cricket.toml");
        fs::write(dir.join("net.d/10-test.conflist"), network(dir, &bridge, &subnet)).expect("write the network");
        let cri = Cri::connect(&dir.join("cricket.sock"));
        Node { daemon: None, bridge, gateway: format!("{subnet}.1"), cri, containerd }
    }

    /// Where everything lies.
    pub fn dir(&self) -> &Path {
        self.containerd.dir()
    }

    /// Starts the daemon and returns when it answers Version, with the time that it took.
    pub fn start_daemon(&mut self) -> Duration {
        let begun = self.spawn_daemon();
        until("the daemon answers Version", || self.assert_daemon_lives().cri.version().is_ok());
        begun.elapsed()
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
        let busybox = Path::new(BUSYBOX);
        let fix = "apt-get install busybox-static";
        assert!(busybox.is_file(), "{BUSYBOX} is missing: {fix}");
        assert!(elf::is_static(busybox), "{BUSYBOX} is not the static one: {fix}");
        let inline = |path, text: &'static str| NewFile { path, mode: 0o644, bytes: Bytes::Inline(text.as_bytes()) };
        let image = NewImage {
            name: IMAGE,
            files: vec![
                NewFile { path: "bin/busybox", mode: 0o755, bytes: Bytes::File(busybox) },
                inline("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001:web:/:/bin/sh\n"),
                inline("etc/group", "root:x:0:\nweb:x:1001:\nstaff:x:50000:web\n"),
                inline("tmp/.keep", ""),
            ],
            entrypoint: vec![BUSYBOX, "sh", "-c"],
            env: vec!["PATH=/bin", "FROM_IMAGE=yes"],
            ..NewImage::default()
        };
        let archive = self.dir().join("shell.tar");
        build::write(&image, &mut File::create(&archive).expect("make the archive")).expect("build the image");
        let imported = self.run(&["import", &archive.display().to_string()]);
        assert!(imported.status.success(), "cricket import: {}", String::from_utf8_lossy(&imported.stderr));
        until("the daemon hears of the image", || self.cri.has_image(IMAGE));
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
        // Without a pod there was no bridge either.
        Command::new("ip").args(["link", "del", &self.bridge]).output().ok();
    }
}

/// The last lines of a log.
fn tail(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

/// `PrivateContainerd` knows that runc keeps its state in `runc`, and cleans up there.
fn config(dir: &Path) -> String {
    let dir = dir.display();
    let bin_dirs = PLUGIN_DIRS.map(|dir| format!("{dir:?}")).join(", ");
    format!(
        r#"socket = "{dir}/cricket.sock"
root = "{dir}/lib"
state = "{dir}/run"
netns_dir = "{dir}/netns"
log_level = "debug"
cgroup_driver = "cgroupfs"
[containerd]
address = "{dir}/containerd.sock"
[cni]
conf_dir = "{dir}/net.d"
bin_dirs = [{bin_dirs}]
cache_dir = "{dir}/cni"
[runtime.runc]
root = "{dir}/runc"
"#
    )
}

fn network(dir: &Path, bridge: &str, subnet: &str) -> String {
    let dir = dir.display();
    format!(
        r#"{{"cniVersion": "1.0.0", "name": "test", "plugins": [
{{"type": "bridge", "bridge": "{bridge}", "isGateway": true, "ipam":
  {{"type": "host-local", "dataDir": "{dir}/ipam", "ranges": [[{{"subnet": "{subnet}.0/24"}}]]}}}},
{{"type": "portmap", "capabilities": {{"portMappings": true}}}}]}}
"#
    )
}
