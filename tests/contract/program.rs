//! What runs in the containers: this test binary, which is static, bind-mounted into an empty root filesystem.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{fs, thread};

use cricket::containerd::{NewExec, NewTask, Record};
use serde_json::{json, Value};

use crate::{kept, overlay, World};

/// What the program does. On the fake the test says so itself, see [`World::ended`].
const WHAT: &str = "CRICKET_CONTRACT_PROGRAM";

/// What says that `sleep` has come to its loop.
const ASLEEP: &str = "/dev/asleep";

/// Not a test: the program. Does nothing in an ordinary run.
#[test]
fn in_the_container() {
    match std::env::var(WHAT).ok().as_deref() {
        None => {}
        Some("sleep") => {
            fs::write(ASLEEP, "").expect("in a tmpfs of our own");
            loop {
                thread::park();
            }
        }
        Some("eat") => {
            let eaten: Vec<Vec<u8>> = (0..256).map(|n| vec![n as u8 | 1; 1 << 20]).collect();
            panic!("256 MiB are too much, yet: {}", std::hint::black_box(eaten).len());
        }
        Some(code) => {
            #[expect(clippy::disallowed_methods, reason = "the exit code is what the container is for")]
            std::process::exit(code.parse().expect("a code"));
        }
    }
}

/// The OCI process that does `what`: `sleep`, `eat` memory, or a number to exit with.
fn process(what: &str) -> Value {
    json!({
        "user": {"uid": 0, "gid": 0},
        "args": ["/program", "program::in_the_container", "--exact", "--nocapture", "--test-threads=1"],
        "env": [format!("{WHAT}={what}")],
        "cwd": "/",
    })
}

fn spec(id: &str, what: &str, namespaces: &[&str]) -> Value {
    // The suite runs on several shims at once, with the same ids.
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let (pid, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let program = std::env::current_exe().expect("our own path");
    json!({
        "ociVersion": "1.0.2",
        "process": process(what),
        "root": {"path": "rootfs"},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            {"destination": "/program", "type": "bind", "source": program, "options": ["bind", "ro"]},
        ],
        "linux": {
            "namespaces": namespaces.iter().map(|ns| json!({"type": ns})).collect::<Vec<_>>(),
            "resources": {"memory": {"limit": 64 << 20}},
            "cgroupsPath": format!("/cricket-contract-{pid}-{count}-{id}"),
        },
    })
}

impl World {
    /// A container whose first process does `what`, in a PID namespace of its own, with its task created.
    pub fn created(&self, id: &str, what: &str) -> u32 {
        self.created_in(id, what, &["mount", "pid", "ipc", "uts", "network"])
    }

    pub fn created_in(&self, id: &str, what: &str, namespaces: &[&str]) -> u32 {
        let (c, call) = (&self.containerd, &self.call);
        let rootfs = c.prepare_snapshot(call, &overlay(id), "", &kept()).expect("prepare");
        let record = Record {
            id: id.to_owned(),
            runtime: self.runtime.clone(),
            runtime_options: self.options.clone(),
            spec: spec(id, what, namespaces).to_string().into_bytes(),
            snapshotter: "overlayfs".to_owned(),
            snapshot_key: id.to_owned(),
            ..Record::default()
        };
        c.create_container(call, &record).expect("create the record");
        let task = NewTask { id: id.to_owned(), rootfs, options: self.options.clone(), ..NewTask::default() };
        c.create_task(call, &task).expect("create the task")
    }

    /// As [`World::created`], and started.
    pub fn running(&self, id: &str, what: &str) -> u32 {
        let pid = self.created(id, what);
        assert_eq!(self.containerd.start_task(&self.call, id, None).expect("start"), pid);
        pid
    }

    /// Until the first process sleeps and no thread of it blocks a signal. The kernel does kill the first process of a PID
    /// namespace with a signal that it has no handler for, if one thread blocks it and another does not, as while a
    /// program starts a thread.
    pub fn asleep(&self, pid: u32) {
        if self.fake.is_some() {
            return;
        }
        let blocks = |task: PathBuf| {
            let status = fs::read_to_string(task.join("status")).expect("a thread's status");
            !status.lines().any(|line| line == "SigBlk:\t0000000000000000")
        };
        let end = Instant::now() + Duration::from_secs(60);
        while !fs::exists(format!("/proc/{pid}/root{ASLEEP}")).expect("its root")
            || fs::read_dir(format!("/proc/{pid}/task")).expect("threads").any(|task| blocks(task.expect("one").path()))
        {
            assert!(Instant::now() < end, "process {pid} does not come to rest");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// An exec that does `what`, prepared.
    pub fn prepared_exec(&self, id: &str, exec_id: &str, what: &str) {
        let process = process(what).to_string().into_bytes();
        let exec = NewExec { id: id.to_owned(), exec_id: exec_id.to_owned(), process, ..NewExec::default() };
        self.containerd.exec(&self.call, &exec).expect("exec");
    }

    /// A real program ends by itself; the fake has to be told.
    pub fn ended(&self, id: &str, exec_id: Option<&str>, code: u32) {
        if let Some(fake) = &self.fake {
            fake.exit(id, exec_id, code);
        }
    }

    /// Removes a container in whatever state it is.
    pub fn remove(&self, id: &str) {
        let (c, call) = (&self.containerd, &self.call);
        if c.kill(call, id, None, 9, true).is_ok() {
            c.wait_task(call, id, None).expect("it dies");
        }
        c.delete_task(call, id, None).expect("delete the task");
        c.delete_container(call, id).expect("delete the record");
        c.remove_snapshot(call, &overlay(id)).expect("remove the snapshot");
    }
}
