//! `start`: finds the shim of this container's group, or makes one, and says where it serves.
//!
//! The answer is the plain address, which every containerd understands and calls version 2 by. Version 3 would save a
//! start for each further container of containerd's own CRI pods, and would leave those behind when a shim is killed:
//! only the first one's clean-up is called then.

use std::collections::hash_map::DefaultHasher;
use std::fs::{self, DirBuilder, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::arguments::Arguments;
use super::frame::{self, Frames, LIMIT};
use super::messages::{any, Options};
use super::{json, wire, JOIN, SHIM};
use crate::error::{Context, Error, Kind, Result};
use crate::sys::lock_file::LockFile;
use crate::sys::socket::{self, Listener};

/// Annotations that name a container's group; the first that is there counts.
const GROUPS: [&str; 2] = ["io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"];
/// Where sockets are unless containerd says otherwise.
const SOCKETS: &str = "/run/containerd/s";
/// Beside them: held by whoever makes or removes one.
pub const LOCK: &str = "cricket.lock";
/// How long a shim that serves may take to answer.
const JOINING: Duration = Duration::from_secs(5);
/// How often a shim that is just ending is met before we give up.
const ATTEMPTS: usize = 20;
/// What a shim keeps of containerd's environment, for itself and for the runtime.
const KEPT: [&str; 6] =
    ["PATH", "TTRPC_ADDRESS", "XDG_RUNTIME_DIR", "DBUS_SYSTEM_BUS_ADDRESS", "DBUS_SESSION_BUS_ADDRESS", "TMPDIR"];
/// In a bundle: where its shim serves. containerd 1.x finds it again by this.
const ADDRESS: &str = "address";

/// What containerd says on standard input.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    options: Options,
    socket_dir: String,
}

/// Returns the address. The working directory is the bundle.
pub fn start(arguments: &Arguments) -> Result<String> {
    let mut input = Vec::new();
    io::stdin().take(LIMIT as u64).read_to_end(&mut input).context("read standard input")?;
    let said = said(&input, &arguments.id)?;
    let bundle = std::env::current_dir().context("find the bundle")?;
    let group = group(&bundle).unwrap_or_else(|| arguments.id.clone());
    let dir = if said.socket_dir.is_empty() { SOCKETS } else { &said.socket_dir };
    DirBuilder::new().recursive(true).mode(0o711).create(dir).with_context(|| format!("make {dir}"))?;
    let path = socket_path(Path::new(dir), arguments, &group);
    let address = format!("unix://{}", path.display());
    // Before anybody can serve: a shim without this is lost after a restart of containerd.
    fs::write(bundle.join(ADDRESS), &address).context("write the address into the bundle")?;
    for _ in 0..ATTEMPTS {
        if let Some(listener) = bind(Path::new(dir), &path)? {
            let started = spawn(arguments, &group, &said.options, listener, &path, &bundle);
            return started.map(|()| address).inspect_err(|_| drop(fs::remove_file(&path)));
        }
        if join(&path)? {
            return Ok(address);
        }
    }
    Err(Error::new(Kind::Unavailable, format!("the shim at {address} neither serves nor goes away")))
}

/// `BootstrapParams` from containerd 2.3 on, an `Any` with options before, or nothing.
fn said(input: &[u8], id: &str) -> Result<Said> {
    let (mut instance, mut version, mut said) = (Vec::new(), false, Said::default());
    let mut extensions = Vec::new();
    // The options alone look like this message too, but not with our id in it.
    let read = wire::read(input, |field, value| {
        match field {
            1 => instance = value.bytes().to_vec(),
            4 => version = !value.bytes().is_empty(),
            8 => extensions.push(value.bytes()),
            9 => said.socket_dir = value.text()?,
            _ => {}
        }
        Ok(())
    });
    read.context("read what containerd says")?;
    if version && instance == id.as_bytes() {
        for extension in extensions {
            wire::read(extension, |field, value| {
                if field == 1 {
                    let (kind, options) = any(value.bytes())?;
                    if kind.ends_with("runc.v1.Options") {
                        said.options = Options::read(&kind, &options)?;
                    }
                }
                Ok(())
            })?;
        }
        return Ok(said);
    }
    let (kind, options) = any(input)?;
    Ok(Said { options: Options::read(&kind, &options)?, socket_dir: String::new() })
}

/// Which containers share a shim; `None` if this one is alone.
fn group(bundle: &Path) -> Option<String> {
    let spec = fs::read_to_string(bundle.join("config.json")).ok()?;
    GROUPS.iter().find_map(|key| json::text_at(&spec, &["annotations", key])).filter(|group| !group.is_empty())
}

/// A name that only containers of this group, namespace and containerd have. A path of its own for each would not fit.
fn socket_path(dir: &Path, arguments: &Arguments, group: &str) -> PathBuf {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, super::VERSION, &arguments.address, &arguments.namespace, group).hash(&mut hasher);
        hasher.finish()
    };
    dir.join(format!("{:016x}{:016x}", half(0), half(1)))
}

/// Whether a file in that directory is a socket of ours.
pub fn is_socket_name(name: &str) -> bool {
    name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Listens, unless somebody does already. What a killed shim left is taken away.
fn bind(dir: &Path, path: &Path) -> Result<Option<UnixListener>> {
    // Two starts must not take each other's new socket for a stale one.
    let _lock = LockFile::take(&dir.join(LOCK)).context("lock the sockets")?;
    match UnixListener::bind(path) {
        Ok(listener) => return Ok(Some(listener)),
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => {}
        Err(e) => return Err(e).with_context(|| format!("listen at {}", path.display())),
    }
    match socket::probe(path).with_context(|| format!("look at {}", path.display()))? {
        Listener::Live => return Ok(None),
        Listener::Stale => fs::remove_file(path).with_context(|| format!("remove {}", path.display()))?,
        Listener::Absent => {}
    }
    UnixListener::bind(path).map(Some).with_context(|| format!("listen at {}", path.display()))
}

/// Announces a container to the shim that serves there: until it comes, that shim does not end. False if it is just
/// ending.
fn join(path: &Path) -> Result<bool> {
    let doing = || format!("join the shim at {}", path.display());
    let Ok(mut stream) = UnixStream::connect(path) else { return Ok(false) };
    stream.set_read_timeout(Some(JOINING)).with_context(doing)?;
    if stream.write_all(&frame::request(1, SHIM, JOIN, &[])).is_err() {
        return Ok(false);
    }
    let (mut frames, mut buffer) = (Frames::default(), [0; 256]);
    loop {
        let mut input = match stream.read(&mut buffer) {
            Ok(0) => return Ok(false),
            Ok(n) => &buffer[..n],
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Ok(false),
            Err(e) => return Err(e).with_context(doing),
        };
        if let Some(frame) = frames.next(&mut input) {
            return frame.answer().map(|()| true).with_context(doing);
        }
    }
}

/// Starts the shim itself, with the listening socket as its standard input.
fn spawn(
    arguments: &Arguments,
    group: &str,
    options: &Options,
    listener: UnixListener,
    path: &Path,
    bundle: &Path,
) -> Result<()> {
    let program = std::env::current_exe().context("find our own program")?;
    let mut command = Command::new(program);
    command.args(["-namespace", &arguments.namespace, "-id", group, "-address", &arguments.address]);
    if arguments.debug {
        command.arg("-debug");
    }
    command.arg("-socket").arg(path).arg("serve");
    command.env_clear().envs(KEPT.iter().filter_map(|key| Some((key, std::env::var_os(key)?))));
    // containerd waits for the end of our output, so the shim must not have it. It reads what comes out of this FIFO;
    // ours in both directions, the FIFO outlives it.
    let log = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(bundle.join("log"));
    command.stderr(log.map_or_else(|_| Stdio::null(), Stdio::from));
    command.stdin(OwnedFd::from(listener)).stdout(Stdio::null()).process_group(0);
    let child = command.spawn().context("start the shim")?;
    if !options.shim_cgroup.is_empty() {
        join_cgroup(&options.shim_cgroup, child.id());
    }
    // A little before containerd, long after its containers.
    let score = fs::read_to_string("/proc/self/oom_score_adj").ok().and_then(|text| text.trim().parse::<i32>().ok());
    let score = score.unwrap_or(0).saturating_add(1).min(1000);
    if let Err(e) = fs::write(format!("/proc/{}/oom_score_adj", child.id()), score.to_string()) {
        log::debug!("set the shim's out-of-memory score: {e}");
    }
    Ok(())
}

/// Moves the shim into a control group, in every hierarchy that there is.
fn join_cgroup(group: &str, pid: u32) {
    let mount = Path::new("/sys/fs/cgroup");
    let unified = mount.join("cgroup.controllers").exists();
    let below = |dir: PathBuf| dir.join(group.trim_start_matches('/'));
    let dirs: Vec<PathBuf> = match unified {
        true => vec![below(mount.to_owned())],
        false => fs::read_dir(mount).into_iter().flatten().flatten().map(|entry| below(entry.path())).collect(),
    };
    for dir in dirs {
        let moved = fs::create_dir_all(&dir).and_then(|()| fs::write(dir.join("cgroup.procs"), pid.to_string()));
        moved.unwrap_or_else(|e| log::debug!("move the shim into {}: {e}", dir.display()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shim::wire::Message;

    fn options(binary: &str) -> Message {
        let options = Message::new().bytes(6, binary).done();
        Message::new().bytes(1, "containerd.runc.v1.Options").bytes(2, options)
    }

    #[test]
    fn options_come_alone_or_in_a_message() {
        assert_eq!(said(&[], "id").expect("nothing"), Said::default());
        assert_eq!(said(&options("crun").done(), "id").expect("alone").options.binary, "crun");
        let params = |id: &str| {
            let extension = Message::new().message(1, options("youki"));
            let params = Message::new().bytes(1, id).bytes(2, "ns").bytes(4, "2.3.0");
            params.message(8, extension).bytes(9, "/run/s").done()
        };
        let read = said(&params("id"), "id").expect("params");
        assert_eq!((read.options.binary.as_str(), read.socket_dir.as_str()), ("youki", "/run/s"));
        assert!(said(b"\xff", "id").is_err());
    }

    #[test]
    fn a_group_has_one_socket_and_another_has_another() {
        let arguments = |address: &str| {
            let line = format!("-namespace n -id i -address {address} start");
            Arguments::read(line.split(' ').map(str::to_owned)).expect("valid")
        };
        let path = |address: &str, group: &str| socket_path(Path::new("/s"), &arguments(address), group);
        assert_eq!(path("/a", "g"), path("/a", "g"));
        assert_ne!(path("/a", "g"), path("/b", "g"));
        assert_ne!(path("/a", "g"), path("/a", "h"));
        let name = path("/a", "g").file_name().expect("a name").to_string_lossy().into_owned();
        assert!(is_socket_name(&name) && !is_socket_name(LOCK) && !is_socket_name(&name.repeat(2)));
    }

    #[test]
    fn the_first_annotation_that_is_there_names_the_group() {
        let dir = std::env::temp_dir().join(format!("cricket-group-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("fresh");
        assert_eq!(group(&dir), None);
        for (spec, expected) in [
            (r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"s","io.containerd.runc.v2.group":"g"}}"#, Some("g")),
            (r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"s"}}"#, Some("s")),
            (r#"{"annotations":{"io.kubernetes.cri.sandbox-id":""}}"#, None),
            (r#"{}"#, None),
        ] {
            fs::write(dir.join("config.json"), spec).expect("writable");
            assert_eq!(group(&dir).as_deref(), expected);
        }
        fs::remove_dir_all(&dir).expect("ours");
    }

    #[test]
    fn a_stale_socket_is_taken_over_and_a_live_one_is_not() {
        let dir = std::env::temp_dir().join(format!("cricket-bind-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("fresh");
        let path = dir.join("s");
        let first = bind(&dir, &path).expect("bound").expect("nobody was there");
        assert!(bind(&dir, &path).expect("looked").is_none());
        drop(first);
        assert!(bind(&dir, &path).expect("bound").is_some());
        fs::remove_dir_all(&dir).expect("ours");
    }
}
