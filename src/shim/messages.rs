//! The messages of containerd's task service, as far as a shim reads them.
//!
//! Pure. Field numbers are the contract; versions 2 and 3 of the service have the same messages.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::wire::{self, Message, Value};
use crate::error::Result;

/// Where the three streams of a process go, as the client wrote it: paths, URIs or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stdio {
    /// Input.
    pub stdin: String,
    /// Output.
    pub stdout: String,
    /// Errors; unused with a terminal.
    pub stderr: String,
    /// The process gets a terminal.
    pub terminal: bool,
}

/// A mount of the root filesystem.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    /// Kind of file system.
    pub kind: String,
    /// Source.
    pub source: String,
    /// Below the root; "" for the root itself.
    pub target: String,
    /// As in a mount table.
    pub options: Vec<String>,
}

/// CreateTaskRequest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Create {
    /// The container.
    pub id: String,
    /// Its directory, with config.json.
    pub bundle: String,
    /// What makes up its root; nothing if the bundle has it.
    pub rootfs: Vec<Mount>,
    /// Its streams.
    pub stdio: Stdio,
    /// A checkpoint to start from.
    pub checkpoint: String,
    /// Options of the shim, marshalled.
    pub options: Vec<u8>,
}

/// The process that a request is about, and the few numbers that some requests have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// The container.
    pub id: String,
    /// An exec of it; "" for its first process.
    pub exec_id: String,
    /// Field 3: a signal, a width, stdin, now.
    pub third: u64,
    /// Field 4: all processes, a height.
    pub fourth: u64,
}

/// ExecProcessRequest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exec {
    /// The container.
    pub id: String,
    /// The new process.
    pub exec_id: String,
    /// Its streams.
    pub stdio: Stdio,
    /// The OCI process, as JSON.
    pub process: Vec<u8>,
}

/// What the runc family of shims can be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `--no-pivot`.
    pub no_pivot_root: bool,
    /// `--no-new-keyring`.
    pub no_new_keyring: bool,
    /// A control group for the shim itself.
    pub shim_cgroup: String,
    /// Owner of the pipes.
    pub io_uid: u32,
    /// Group of the pipes.
    pub io_gid: u32,
    /// The OCI runtime.
    pub binary: String,
    /// Where it keeps its state, without the namespace.
    pub root: String,
    /// `--systemd-cgroup`.
    pub systemd_cgroup: bool,
}

/// An `Any`: type and bytes.
pub fn any(bytes: &[u8]) -> Result<(String, Vec<u8>)> {
    let (mut kind, mut inner) = (String::new(), Vec::new());
    wire::read(bytes, |field, value| {
        match field {
            1 => kind = value.text()?,
            2 => inner = value.bytes().to_vec(),
            _ => {}
        }
        Ok(())
    })?;
    Ok((kind, inner))
}

impl Options {
    /// Reads marshalled options. A type that is not of the runc family means the defaults.
    pub fn read(kind: &str, bytes: &[u8]) -> Result<Options> {
        let mut options = Options::default();
        if !kind.ends_with("runc.v1.Options") {
            return Ok(options);
        }
        wire::read(bytes, |field, value| {
            match field {
                1 => options.no_pivot_root = value.number() != 0,
                2 => options.no_new_keyring = value.number() != 0,
                3 => options.shim_cgroup = value.text()?,
                4 => options.io_uid = value.number() as u32,
                5 => options.io_gid = value.number() as u32,
                6 => options.binary = value.text()?,
                7 => options.root = value.text()?,
                9 => options.systemd_cgroup = value.number() != 0,
                _ => {}
            }
            Ok(())
        })?;
        Ok(options)
    }
}

impl Create {
    /// Reads the request.
    pub fn read(bytes: &[u8]) -> Result<Create> {
        let mut create = Create::default();
        wire::read(bytes, |field, value| {
            match field {
                1 => create.id = value.text()?,
                2 => create.bundle = value.text()?,
                3 => create.rootfs.push(mount(value)?),
                4 => create.stdio.terminal = value.number() != 0,
                5 => create.stdio.stdin = value.text()?,
                6 => create.stdio.stdout = value.text()?,
                7 => create.stdio.stderr = value.text()?,
                8 => create.checkpoint = value.text()?,
                10 => create.options = value.bytes().to_vec(),
                _ => {}
            }
            Ok(())
        })?;
        Ok(create)
    }
}

fn mount(value: Value<'_>) -> Result<Mount> {
    let mut mount = Mount::default();
    wire::read(value.bytes(), |field, value| {
        match field {
            1 => mount.kind = value.text()?,
            2 => mount.source = value.text()?,
            3 => mount.target = value.text()?,
            4 => mount.options.push(value.text()?),
            _ => {}
        }
        Ok(())
    })?;
    Ok(mount)
}

impl Target {
    /// Reads every request whose first two fields name a process.
    pub fn read(bytes: &[u8]) -> Result<Target> {
        let mut target = Target::default();
        wire::read(bytes, |field, value| {
            match field {
                1 => target.id = value.text()?,
                2 => target.exec_id = value.text()?,
                3 => target.third = value.number(),
                4 => target.fourth = value.number(),
                _ => {}
            }
            Ok(())
        })?;
        Ok(target)
    }

    /// Reads a request whose first field alone names a container.
    pub fn container(bytes: &[u8]) -> Result<String> {
        let mut id = String::new();
        wire::read(bytes, |field, value| {
            if field == 1 {
                id = value.text()?;
            }
            Ok(())
        })?;
        Ok(id)
    }
}

impl Exec {
    /// Reads the request.
    pub fn read(bytes: &[u8]) -> Result<Exec> {
        let mut exec = Exec::default();
        wire::read(bytes, |field, value| {
            match field {
                1 => exec.id = value.text()?,
                2 => exec.exec_id = value.text()?,
                3 => exec.stdio.terminal = value.number() != 0,
                4 => exec.stdio.stdin = value.text()?,
                5 => exec.stdio.stdout = value.text()?,
                6 => exec.stdio.stderr = value.text()?,
                7 => exec.process = any(value.bytes())?.1,
                _ => {}
            }
            Ok(())
        })?;
        Ok(exec)
    }
}

/// UpdateTaskRequest: the container and the OCI resources, as JSON.
pub fn update(bytes: &[u8]) -> Result<(String, Vec<u8>)> {
    let (mut id, mut resources) = (String::new(), Vec::new());
    wire::read(bytes, |field, value| {
        match field {
            1 => id = value.text()?,
            2 => resources = any(value.bytes())?.1,
            _ => {}
        }
        Ok(())
    })?;
    Ok((id, resources))
}

/// CheckpointTaskRequest: the container, where to, and what else the runtime is to be told.
pub fn checkpoint(bytes: &[u8]) -> Result<(String, String, Vec<&'static str>)> {
    let (mut id, mut path, mut flags) = (String::new(), String::new(), Vec::new());
    wire::read(bytes, |field, value| {
        match field {
            1 => id = value.text()?,
            2 => path = value.text()?,
            3 => {
                let (_, options) = any(value.bytes())?;
                wire::read(&options, |field, value| {
                    let on = value.number() != 0;
                    match field {
                        // `exit` of the client's: without it the container goes on.
                        1 if on => flags.push("exit"),
                        2 if on => flags.push("--tcp-established"),
                        3 if on => flags.push("--ext-unix-sk"),
                        4 if on => flags.push("--shell-job"),
                        5 if on => flags.push("--file-locks"),
                        _ => {}
                    }
                    Ok(())
                })?;
            }
            _ => {}
        }
        Ok(())
    })?;
    match flags.iter().position(|flag| *flag == "exit") {
        Some(at) => drop(flags.remove(at)),
        None => flags.push("--leave-running"),
    }
    Ok((id, path, flags))
}

/// A moment as `google.protobuf.Timestamp`.
pub fn timestamp(at: SystemTime) -> Message {
    // A clock before 1970 shows as 1970.
    let since: Duration = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    Message::new().number(1, since.as_secs()).number(2, u64::from(since.subsec_nanos()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_create_request_is_read_whole() {
        let mount = Message::new().bytes(1, "overlay").bytes(2, "o").bytes(4, "ro").bytes(4, "lowerdir=/a:/b");
        let options = Message::new().bytes(1, "containerd.runc.v1.Options");
        let options = options.bytes(2, Message::new().bytes(6, "crun").number(9, 1).number(4, 1000).done());
        let bytes = Message::new().bytes(1, "id").bytes(2, "/b").message(3, mount).number(4, 1).bytes(5, "in");
        let bytes = bytes.bytes(6, "out").bytes(8, "chk").message(10, options).done();
        let create = Create::read(&bytes).expect("whole");
        assert_eq!((create.id.as_str(), create.bundle.as_str(), create.checkpoint.as_str()), ("id", "/b", "chk"));
        assert_eq!(create.rootfs[0].options, ["ro", "lowerdir=/a:/b"]);
        assert!(create.stdio.terminal && create.stdio.stdin == "in" && create.stdio.stdout == "out");
        let (kind, options) = any(&create.options).expect("an any");
        let options = Options::read(&kind, &options).expect("options");
        assert_eq!((options.binary.as_str(), options.io_uid, options.systemd_cgroup), ("crun", 1000, true));
        assert_eq!(Options::read("io.example.Options", b"\xff").expect("not ours"), Options::default());
        for n in 0..bytes.len() {
            // Whatever comes of it, no panic.
            Create::read(&bytes[..n]).ok();
        }
    }

    #[test]
    fn the_other_requests() {
        let bytes = Message::new().bytes(1, "c").bytes(2, "e").number(3, 9).number(4, 1).done();
        let target = Target::read(&bytes).expect("whole");
        assert_eq!(target, Target { id: "c".into(), exec_id: "e".into(), third: 9, fourth: 1 });
        let process = Message::new().bytes(1, "x").bytes(2, "{}");
        let bytes = Message::new().bytes(1, "c").bytes(2, "e").bytes(5, "o").message(7, process.clone()).done();
        let exec = Exec::read(&bytes).expect("whole");
        assert_eq!((exec.stdio.stdout.as_str(), exec.process.as_slice()), ("o", &b"{}"[..]));
        let bytes = Message::new().bytes(1, "c").message(2, process).done();
        assert_eq!(update(&bytes).expect("whole"), ("c".into(), b"{}".to_vec()));
        let bytes = Message::new().bytes(1, "c").bytes(2, "/p").done();
        assert_eq!(checkpoint(&bytes).expect("whole"), ("c".into(), "/p".into(), vec!["--leave-running"]));
    }
}
