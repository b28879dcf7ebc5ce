//! A shim without containerd: a client of its task service, a listener for its events, a runtime that does as told.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use cricket::config::Config;
use cricket::error::{Error, Result};
use cricket::shim::frame::{self, Frames};
use cricket::shim::wire::{self, Message};
use cricket::shipped::Shipped;

/// Only a failing test waits so long.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const TASK: &str = "containerd.task.v2.Task";

/// A directory with a runtime, and containerd's two sockets in it. Ends the shims that it started.
pub struct Rig {
    pub dir: PathBuf,
    program: PathBuf,
    pub events: Receiver<String>,
    shims: Vec<u32>,
    _containerd: UnixListener,
}

/// A connection to a shim.
pub struct Client {
    stream: UnixStream,
    frames: Frames,
    next: u32,
}

impl Rig {
    pub fn new() -> Rig {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("cricket-shim-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        fs::create_dir_all(dir.join("runc/ns")).expect("a fresh directory");
        let runtime = dir.join("runtime.sh");
        fs::write(&runtime, include_str!("runtime.sh")).expect("writable");
        fs::set_permissions(&runtime, PermissionsExt::from_mode(0o755)).expect("ours");
        let socket = dir.join("c.sock");
        let containerd = UnixListener::bind(&socket).expect("free");
        let config = Config::parse("[runtime.runc]\nshim = \"cricket\"", Default::default()).expect("valid");
        let shipped = Shipped::new(dir.join("shim"), socket);
        let program = shipped.runtime_type(&config.runtimes["runc"]).expect("it runs here").into();
        let events = listen(&dir.join("c.sock.ttrpc"));
        Rig { dir, program, events, shims: Vec::new(), _containerd: containerd }
    }

    /// The bundle of a container whose first process is this shell script.
    pub fn bundle(&self, id: &str, script: &str) -> PathBuf {
        let bundle = self.dir.join("bundles").join(id);
        fs::create_dir_all(&bundle).expect("fresh");
        fs::write(bundle.join("config.json"), script).expect("writable");
        bundle
    }

    /// Runs the program as containerd does; what it says on standard output.
    pub fn run(&self, id: &str, bundle: &Path, verb: &str) -> Vec<u8> {
        let address = self.dir.join("c.sock");
        let params = Message::new().bytes(1, id).bytes(4, "2.3.0").bytes(9, self.dir.to_string_lossy().as_bytes());
        let mut command = Command::new(&self.program);
        command.args(["-namespace", "ns", "-id", id, "-address"]).arg(&address).args(["-bundle"]).arg(bundle).arg(verb);
        command.current_dir(bundle).env("TTRPC_ADDRESS", self.dir.join("c.sock.ttrpc"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
        // `delete` does not read it.
        child.stdin.take().expect("piped").write_all(&params.done()).ok();
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{verb}: {}", output.status);
        output.stdout
    }

    /// A shim for this container, and its pid.
    pub fn start(&mut self, id: &str, bundle: &Path) -> (Client, u32) {
        let address = String::from_utf8(self.run(id, bundle, "start")).expect("text");
        assert_eq!(fs::read_to_string(bundle.join("address")).expect("written"), address);
        let mut client = self.connect(bundle);
        let answer = client.call("Connect", Message::new().bytes(1, id)).expect("Connect");
        let pid = u32::try_from(number(&answer, 1)).expect("a pid");
        self.shims.push(pid);
        (client, pid)
    }

    /// A connection to the shim of this bundle.
    pub fn connect(&self, bundle: &Path) -> Client {
        let address = fs::read_to_string(bundle.join("address")).expect("written");
        let path = address.strip_prefix("unix://").expect("an address");
        let stream = UnixStream::connect(path).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("ours");
        Client { stream, frames: Frames::default(), next: 1 }
    }

    /// CreateTask, with this rig's runtime and streams as given: stdin, stdout, stderr.
    pub fn create(&self, id: &str, streams: [&str; 3]) -> Message {
        self.create_with(id, streams, &self.dir.join("runtime.sh"))
    }

    pub fn create_with(&self, id: &str, streams: [&str; 3], runtime: &Path) -> Message {
        let root = self.dir.join("runc");
        let options = Message::new().bytes(6, runtime.to_string_lossy().as_bytes());
        let options = options.bytes(7, root.to_string_lossy().as_bytes()).done();
        let options = Message::new().bytes(1, "containerd.runc.v1.Options").bytes(2, options);
        let bundle = self.dir.join("bundles").join(id);
        let [stdin, stdout, stderr] = streams;
        let create = Message::new().bytes(1, id).bytes(2, bundle.to_string_lossy().as_bytes());
        create.bytes(5, stdin).bytes(6, stdout).bytes(7, stderr).message(10, options)
    }

    /// Makes the runtime behave: `create.fail`, `delete.hang`, `create.wait`, `start.rubbish`.
    pub fn tell_runtime(&self, what: &str) -> PathBuf {
        let path = self.dir.join("runc/ns").join(what);
        File::create(&path).expect("writable");
        path
    }

    /// What the runtime knows.
    pub fn states(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.join("runc/ns")).expect("there").flatten();
        entries.filter(|e| e.path().is_dir()).map(|e| e.file_name().to_string_lossy().into_owned()).collect()
    }

    /// The topic of the next event.
    pub fn event(&self) -> String {
        self.events.recv_timeout(PATIENCE).expect("an event")
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        for pid in &self.shims {
            // Most have ended by themselves. The number may be somebody else's by now.
            let ours = fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == self.program);
            if ours {
                Command::new("kill").args(["-KILL", &pid.to_string()]).status().expect("kill");
            }
        }
        fs::remove_dir_all(&self.dir).ok();
    }
}

impl Client {
    pub fn call(&mut self, method: &str, request: Message) -> Result<Vec<u8>> {
        let stream = self.send(TASK, method, 0, request);
        self.receive(stream)
    }

    /// Sends a request and does not wait; the number of its stream.
    pub fn send(&mut self, service: &str, method: &str, timeout_nanos: u64, request: Message) -> u32 {
        let stream = self.next;
        self.next += 2;
        let request =
            Message::new().bytes(1, service).bytes(2, method).bytes(3, request.done()).number(4, timeout_nanos);
        let request = request.done();
        let mut frame = (request.len() as u32).to_be_bytes().to_vec();
        frame.extend(stream.to_be_bytes());
        frame.extend([1, 0]);
        frame.extend(request);
        self.raw(&frame);
        stream
    }

    pub fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the shim reads");
    }

    /// The answer on a stream; answers on others are an error of the test.
    pub fn receive(&mut self, stream: u32) -> Result<Vec<u8>> {
        let mut buffer = [0; 4096];
        loop {
            let n = self.stream.read(&mut buffer).expect("an answer");
            assert!(n > 0, "the shim hung up");
            let mut input = &buffer[..n];
            if let Some(frame) = self.frames.next(&mut input) {
                assert_eq!(frame.stream, stream, "answers come when they are there");
                assert!(input.is_empty(), "one at a time");
                frame.answer()?;
                let mut payload = Vec::new();
                wire::read(&frame.message.expect("short"), |field, value| {
                    if field == 2 {
                        payload = value.bytes().to_vec();
                    }
                    Ok(())
                })?;
                return Ok(payload);
            }
        }
    }

    /// Whether the shim has closed the connection.
    pub fn is_closed(&mut self) -> bool {
        self.stream.read(&mut [0; 1]).is_ok_and(|n| n == 0)
    }
}

/// A field of a message that is a number.
pub fn number(message: &[u8], wanted: u32) -> u64 {
    let mut found = 0;
    wire::read(message, |field, value| {
        found = if field == wanted { value.number() } else { found };
        Ok(())
    })
    .expect("a message");
    found
}

/// The code in front of an error's words.
#[track_caller]
pub fn refused<T: std::fmt::Debug>(result: Result<T>, code: u8, words: &str) {
    let e: Error = result.expect_err(words);
    let text = e.to_string();
    assert!(text.contains(&format!("code {code}: ")) && text.contains(words), "{text}");
}

/// containerd's end of events: takes every one, and passes its topic on.
fn listen(path: &Path) -> Receiver<String> {
    let listener = UnixListener::bind(path).expect("free");
    let (sender, receiver) = mpsc::channel();
    let serve = move || {
        for mut stream in listener.incoming().flatten() {
            let (mut frames, mut buffer) = (Frames::default(), [0; 4096]);
            while let Ok(n @ 1..) = stream.read(&mut buffer) {
                let mut input = &buffer[..n];
                while let Some(frame) = frames.next(&mut input) {
                    let topic = topic(&frame.request().expect("a request").payload);
                    stream.write_all(&frame::response(frame.stream, &Ok(Message::new()))).ok();
                    if sender.send(topic).is_err() {
                        return;
                    }
                }
            }
        }
    };
    std::thread::Builder::new().name("events".to_owned()).spawn(serve).expect("a thread");
    receiver
}

fn topic(payload: &[u8]) -> String {
    let mut topic = String::new();
    wire::read(payload, |_, envelope| {
        wire::read(envelope.bytes(), |field, value| {
            if field == 3 {
                topic = value.text()?;
            }
            Ok(())
        })
    })
    .expect("an envelope");
    topic
}

/// Waits until `check` is true; panics, naming `what`, if it never is.
pub fn until(what: &str, mut check: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !check() {
        assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
