//! A way to containerd that can be shut: what it answers stops in the middle of a message, and it works on all the same.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::Builder;

/// What the daemon is told to connect to: a link to containerd's socket, or to ours.
const WAY: &str = "way.sock";
const DIRECT: &str = "containerd.sock";
const OURS: &str = "relay.sock";

/// Tells the daemon to take this way. Before there is a daemon.
pub fn on_the_way(dir: &Path) {
    let config = dir.join("cricket.toml");
    let text = fs::read_to_string(&config).expect("read cricket.toml");
    assert!(text.contains(DIRECT), "{text}");
    fs::write(&config, text.replace(DIRECT, WAY)).expect("write cricket.toml");
    lead(dir, DIRECT);
}

/// Whoever connects from now on comes there.
fn lead(dir: &Path, to: &str) {
    let new = dir.join("way.new");
    symlink(dir.join(to), &new).expect("a link");
    fs::rename(new, dir.join(WAY)).expect("a link");
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) {
    Builder::new().name(name.to_owned()).spawn(work).expect("a thread");
}

/// How many bytes of answers may pass yet; `None` is any number.
#[derive(Default)]
struct Gate {
    left: Mutex<Option<usize>>,
    changed: Condvar,
}

impl Gate {
    fn set(&self, left: Option<usize>) {
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) = left;
        self.changed.notify_all();
    }

    /// How many of so many may pass now. Waits for the first.
    fn pass(&self, wanted: usize) -> usize {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left = self.changed.wait_while(left, |left| *left == Some(0)).unwrap_or_else(PoisonError::into_inner);
        let passing = left.map_or(wanted, |left| left.min(wanted));
        *left = left.map(|left| left - passing);
        passing
    }
}

pub struct Relay {
    dir: PathBuf,
    gate: Arc<Gate>,
}

impl Relay {
    /// It serves until the process ends.
    pub fn start(dir: &Path) -> Relay {
        let listener = UnixListener::bind(dir.join(OURS)).expect("a socket");
        let (relay, to) = (Relay { dir: dir.to_owned(), gate: Arc::default() }, dir.join(DIRECT));
        let gate = relay.gate.clone();
        spawn("relay", move || {
            for client in listener.incoming() {
                let client = client.expect("a connection");
                // Without containerd there is nobody to talk to, and the client sees that.
                if let Ok(server) = UnixStream::connect(&to) {
                    connect(client, server, gate.clone());
                }
            }
        });
        relay
    }

    /// Who connects now comes through here, and after so many bytes no answer arrives.
    pub fn shut_after(&self, bytes: usize) {
        self.gate.set(Some(bytes));
        lead(&self.dir, OURS);
    }

    /// What was held back arrives, and who connects now comes to containerd itself.
    pub fn open(&self) {
        lead(&self.dir, DIRECT);
        self.gate.set(None);
    }
}

fn connect(client: UnixStream, server: UnixStream, gate: Arc<Gate>) {
    let questions = (client.try_clone().expect("a descriptor"), server.try_clone().expect("a descriptor"));
    spawn("questions", move || copy(questions, |wanted| wanted));
    spawn("answers", move || copy((server, client), |wanted| gate.pass(wanted)));
}

/// Until either side ends, which ends the other.
fn copy((mut from, mut to): (UnixStream, UnixStream), may_pass: impl Fn(usize) -> usize) {
    let mut buffer = [0; 4096];
    'all: while let Ok(length @ 1..) = from.read(&mut buffer) {
        let mut rest = &buffer[..length];
        while !rest.is_empty() {
            let (now, later) = rest.split_at(may_pass(rest.len()));
            if to.write_all(now).is_err() {
                break 'all;
            }
            rest = later;
        }
    }
    for end in [from, to] {
        // One that is shut already needs nothing.
        end.shutdown(Shutdown::Both).ok();
    }
}
