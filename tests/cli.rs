//! The binary as a process: exit codes, messages, signals, and what it tells systemd.

use std::fs;
use std::io::Read;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const CRICKET: &str = env!("CARGO_BIN_EXE_cricket");
/// Only a failing test waits this long.
const PATIENCE: Duration = Duration::from_secs(60);

fn cricket(arguments: &[&str]) -> Output {
    Command::new(CRICKET).args(arguments).output().expect("runs")
}

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("cricket-cli-{}-{name}", std::process::id()));
    fs::create_dir_all(&folder).expect("a temp folder");
    folder
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args(["-s", name, &child.id().to_string()]).status().expect("kill").success());
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A daemon in a folder of its own, ready.
fn serve(folder: &Path) -> (Child, UnixDatagram) {
    serve_by(&mut Command::new(CRICKET), folder)
}

/// The same, started by this program, which has its arguments.
fn serve_by(program: &mut Command, folder: &Path) -> (Child, UnixDatagram) {
    let manager = UnixDatagram::bind(folder.join("notify")).expect("free");
    manager.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let child = program
        .args(["serve", "--log-level", "debug", "--config", "/dev/null"])
        .arg(format!("--socket={}", folder.join("run/c.sock").display()))
        .arg(format!("--root={}", folder.join("root").display()))
        .arg(format!("--state={}", folder.join("run").display()))
        .arg(format!("--containerd={}", folder.join("containerd.sock").display()))
        .env("NOTIFY_SOCKET", folder.join("notify"))
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    (child, manager)
}

fn heard(manager: &UnixDatagram) -> String {
    let mut buffer = [0; 64];
    let length = manager.recv(&mut buffer).expect("systemd is told");
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

#[test]
fn version_and_help_are_for_people() {
    let version = cricket(&["--version"]);
    assert!(version.status.success());
    assert!(String::from_utf8_lossy(&version.stdout).starts_with(concat!("cricket ", env!("CARGO_PKG_VERSION"))));
    assert!(String::from_utf8_lossy(&cricket(&["--help"]).stdout).contains("usage: cricket"));
}

#[test]
fn wrong_usage_is_2_and_failure_is_1() {
    for (arguments, code, named) in [
        (&["frobnicate"][..], 2, "frobnicate"),
        (&["--sokcet", "/x"], 2, "--sokcet"),
        (&["config", "--log-level", "loud"], 1, "loud"),
        (&["--config", "/nonexistent.toml"], 1, "/nonexistent.toml"),
    ] {
        let output = cricket(arguments);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        assert!(message.starts_with("cricket: ") && message.contains(named), "{message}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn config_prints_what_is_in_effect() {
    let output = cricket(&["config", "--config", "/dev/null", "--root", "/srv/cricket"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("\nroot = \"/srv/cricket\"\n"));
}

#[test]
fn serve_tells_systemd_and_ends_well_at_sigterm() {
    let folder = folder("serve");
    let (mut child, manager) = serve(&folder);
    assert_eq!(heard(&manager), "READY=1");
    let socket = folder.join("run/c.sock");
    let _client = UnixStream::connect(&socket).expect("served");

    let second = Command::new(CRICKET).args(["--config=/dev/null", "--socket"]).arg(&socket).output().expect("runs");
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("another cricket serves it"));

    signal(&child, "TERM");
    assert_eq!(heard(&manager), "STOPPING=1");
    assert!(child.wait().expect("ends").success());
    assert!(!socket.exists());
    let mut log = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut log).expect("text");
    assert!(log.contains("serving the CRI on"), "{log}");
    fs::remove_dir_all(&folder).expect("ours");
}

#[test]
fn a_killed_daemon_does_not_hinder_the_next() {
    let folder = folder("kill");
    let (mut child, manager) = serve(&folder);
    assert_eq!(heard(&manager), "READY=1");
    signal(&child, "KILL");
    assert!(!child.wait().expect("ends").success());
    assert!(folder.join("run/c.sock").exists(), "a stale socket");
    drop(manager);
    fs::remove_file(folder.join("notify")).expect("ours");
    let (mut child, manager) = serve(&folder);
    assert_eq!(heard(&manager), "READY=1");
    signal(&child, "INT");
    assert!(child.wait().expect("ends").success());
    fs::remove_dir_all(&folder).expect("ours");
}

/// A library of a parent with many threads may have opened a file in just that moment, and the daemon lives for months.
#[test]
fn what_a_parent_left_open_is_closed() {
    let folder = folder("inherited");
    let mut parent = Command::new("sh");
    parent.args(["-c", "exec 7</dev/zero; exec \"$0\" \"$@\"", CRICKET]);
    let (mut child, manager) = serve_by(&mut parent, &folder);
    assert_eq!(heard(&manager), "READY=1");
    let open = fs::read_dir(format!("/proc/{}/fd", child.id())).expect("it lives").flatten();
    let open: Vec<PathBuf> = open.filter_map(|fd| fs::read_link(fd.path()).ok()).collect();
    assert!(open.len() > 3 && !open.contains(&"/dev/zero".into()), "{open:?}");
    signal(&child, "TERM");
    assert!(child.wait().expect("ends").success());
    fs::remove_dir_all(&folder).expect("ours");
}

#[test]
fn pause_buries_the_dead_and_ends_when_told() {
    for name in ["TERM", "INT"] {
        // The shell's child outlives the shell, which becomes the pause process.
        let mut pause = Command::new("sh")
            .args(["-c", "sleep 0.1 & exec \"$0\" pause", CRICKET])
            .stdin(Stdio::null())
            .spawn()
            .expect("starts");
        let task = format!("/proc/{0}/task/{0}", pause.id());
        let read = |file: &str| fs::read_to_string(format!("{task}/{file}")).unwrap_or_default();
        until("the exec", || read("comm").trim_end() == "cricket");
        until("the burial", || read("children").is_empty());
        assert!(pause.try_wait().expect("a child").is_none(), "it goes on");
        assert_eq!(fs::read_dir(format!("/proc/{}/task", pause.id())).expect("alive").count(), 1);
        signal(&pause, name);
        assert!(pause.wait().expect("ends").success());
    }
}
