//! A container as its shim knows it: the first process, the execs, and what is kept for them.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::cgroup::Cgroups;
use super::frame::Request;
use super::json;
use super::messages::{timestamp, Mount, Options, Stdio};
use super::runc::Runc;
use super::server::Reply;
use super::streams::Held;
use super::wire::Message;
use crate::error::{Context, Error, Result};
use crate::sys::mount;
use crate::sys::watch::Watch;

/// Where a process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The runtime is making it. A container in this state is not there yet for anybody else.
    Creating,
    /// It can be started.
    Created,
    /// It runs.
    Running,
    /// It is frozen.
    Paused,
    /// It has ended.
    Stopped,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// 128 and the signal if it was one.
    pub code: u32,
    /// When we took it.
    pub at: SystemTime,
}

/// A process of a container.
#[derive(Debug)]
pub struct Process {
    /// Where it is.
    pub state: State,
    /// 0 before the runtime has made it.
    pub pid: u32,
    /// As the client wrote it.
    pub stdio: Stdio,
    /// The OCI process of an exec.
    pub spec: Vec<u8>,
    /// Set with [`State::Stopped`].
    pub exit: Option<Exit>,
    /// Ours until it ends.
    pub held: Held,
    /// The master of its terminal.
    pub terminal: Option<File>,
    /// Tokens of what copies between terminal and client.
    pub pumps: Vec<u64>,
    /// Who waits for its end.
    pub waiting: Vec<Reply>,
}

/// A container.
#[derive(Debug)]
pub struct Container {
    /// containerd's directory for it, our working directory for it.
    pub bundle: PathBuf,
    /// What made it.
    pub runc: Runc,
    /// What the client wanted besides.
    pub options: Options,
    /// Its first process.
    pub first: Process,
    /// The others by name.
    pub execs: BTreeMap<String, Process>,
    /// Its processes are not alone in their PID namespace, so the kernel does not end them with the first.
    pub shares_pids: bool,
    /// The first process has ended while it was being started: told after that.
    pub early_exit: Option<Exit>,
    /// A call of the runtime is at work on the container as a whole.
    pub busy: bool,
    /// That call is its start.
    pub starting: bool,
    /// What has to wait for that.
    pub queue: VecDeque<(Reply, Request)>,
    /// Where it is.
    pub cgroups: Cgroups,
    /// Tells of a want of memory, under this token.
    pub watch: Option<(Watch, u64)>,
    /// Out-of-memory kills that were told.
    pub oom_kills: u64,
    /// A client had its first process killed.
    pub killed: bool,
}

impl Process {
    /// A process that is yet to be made.
    pub fn new(state: State, stdio: Stdio, spec: Vec<u8>) -> Process {
        Process {
            state,
            pid: 0,
            stdio,
            spec,
            exit: None,
            held: Held::default(),
            terminal: None,
            pumps: Vec::new(),
            waiting: Vec::new(),
        }
    }

    /// It lives, and it can be sent signals.
    pub fn lives(&self) -> bool {
        self.pid > 0 && self.exit.is_none()
    }

    /// The answer to State, but for what is the container's.
    pub fn status(&self, message: Message) -> Message {
        let state = match self.state {
            State::Creating | State::Created => 1,
            State::Running => 2,
            State::Stopped => 3,
            State::Paused => 4,
        };
        let Stdio { stdin, stdout, stderr, terminal } = &self.stdio;
        let message = message.number(3, u64::from(self.pid)).number(4, state).bytes(5, stdin).bytes(6, stdout);
        let message = message.bytes(7, stderr).number(8, u64::from(*terminal));
        match &self.exit {
            Some(exit) => message.number(9, u64::from(exit.code)).message(10, timestamp(exit.at)),
            None => message,
        }
    }
}

impl Exit {
    /// Just now.
    pub fn now(code: u32) -> Exit {
        Exit { code, at: SystemTime::now() }
    }

    /// The answer to Wait.
    pub fn told(&self) -> Message {
        Message::new().number(1, u64::from(self.code)).message(2, timestamp(self.at))
    }

    /// The answer to Delete.
    pub fn deleted(&self, pid: u32) -> Message {
        Message::new().number(1, u64::from(pid)).number(2, u64::from(self.code)).message(3, timestamp(self.at))
    }
}

impl Container {
    /// A container that the runtime is about to make.
    pub fn new(bundle: PathBuf, runc: Runc, options: Options, stdio: Stdio) -> Container {
        let spec = fs::read_to_string(bundle.join("config.json")).unwrap_or_default();
        Container {
            shares_pids: !has_own_pids(&spec),
            bundle,
            runc,
            options,
            first: Process::new(State::Creating, stdio, Vec::new()),
            execs: BTreeMap::new(),
            early_exit: None,
            busy: true,
            starting: false,
            queue: VecDeque::new(),
            cgroups: Cgroups::default(),
            watch: None,
            oom_kills: 0,
            killed: false,
        }
    }

    /// It has ended, and containerd, which has taken its directory away, will not ask how: a creation that it gave up.
    pub fn is_forgotten(&self) -> bool {
        !self.busy && !self.first.lives() && !self.bundle.exists()
    }

    /// A process of it; "" is the first.
    pub fn process(&mut self, id: &str, exec_id: &str) -> Result<&mut Process> {
        match exec_id {
            "" => Ok(&mut self.first),
            exec => {
                let missing = || Error::not_found(format!("container {id} has no process {exec}"));
                self.execs.get_mut(exec).ok_or_else(missing)
            }
        }
    }

    /// All processes.
    pub fn processes(&mut self) -> impl Iterator<Item = (&str, &mut Process)> {
        std::iter::once(("", &mut self.first)).chain(self.execs.iter_mut().map(|(id, exec)| (id.as_str(), exec)))
    }
}

/// Whether the spec asks for a new PID namespace.
fn has_own_pids(spec: &str) -> bool {
    let namespaces = json::part_at(spec, &["linux", "namespaces"]).map(json::elements).unwrap_or_default();
    let new = |namespace: &&str| {
        let path = json::text_at(namespace, &["path"]).unwrap_or_default();
        json::text_at(namespace, &["type"]).as_deref() == Some("pid") && path.is_empty()
    };
    namespaces.iter().any(new)
}

/// Mounts the root filesystem of a bundle; all or nothing.
pub fn mount_root(bundle: &Path, mounts: &[Mount]) -> Result<()> {
    let root = bundle.join("rootfs");
    if !mounts.is_empty() {
        fs::create_dir_all(&root).with_context(|| format!("make {}", root.display()))?;
    }
    for one in mounts {
        let target = match one.target.trim_start_matches('/') {
            "" => root.clone(),
            below if below.split('/').any(|part| part == "..") => {
                return Err(Error::invalid(format!("mount target {below} leaves the root filesystem")));
            }
            below => root.join(below),
        };
        let doing = || format!("mount {} on {}", one.kind, target.display());
        let mounted = shortened(&one.options).and_then(|(dir, options)| {
            within(&dir, || mount::described(&one.kind, Path::new(&one.source), &target, &options))
        });
        if let Err(e) = mounted.with_context(doing) {
            unmount_root(bundle);
            return Err(e);
        }
    }
    Ok(())
}

/// Takes it down again; what is not mounted is no matter.
pub fn unmount_root(bundle: &Path) {
    let root = bundle.join("rootfs");
    mount::detach(&root).unwrap_or_else(|e| log::warn!("unmount {}: {e}", root.display()));
}

/// The kernel takes one page of data. Many layers are more, unless their directories are written as seen from the one
/// that has them all.
fn shortened(options: &[String]) -> std::io::Result<(PathBuf, Vec<String>)> {
    const PAGE: usize = 4096 - 1;
    let whole = (PathBuf::new(), options.to_vec());
    if options.iter().map(|option| option.len() + 1).sum::<usize>() <= PAGE {
        return Ok(whole);
    }
    let lower = options.iter().position(|option| option.starts_with("lowerdir="));
    let Some(at) = lower else { return Ok(whole) };
    let dirs: Vec<&str> = options[at]["lowerdir=".len()..].split(':').collect();
    let shared = dirs.iter().skip(1).fold(dirs[0].len(), |shared, dir| {
        dirs[0].bytes().zip(dir.bytes()).take(shared).take_while(|(a, b)| a == b).count()
    });
    let Some(shared) = dirs[0][..shared].rfind('/').filter(|shared| *shared > 0) else { return Ok(whole) };
    let rest: Vec<&str> = dirs.iter().map(|dir| &dir[shared + 1..]).collect();
    let mut options = options.to_vec();
    options[at] = format!("lowerdir={}", rest.join(":"));
    Ok((PathBuf::from(&dirs[0][..shared]), options))
}

/// Does something in a directory. We have one thread, so nobody else sees it.
fn within<T>(dir: &Path, work: impl FnOnce() -> std::io::Result<T>) -> std::io::Result<T> {
    if dir.as_os_str().is_empty() {
        return work();
    }
    std::env::set_current_dir(dir)?;
    let done = work();
    std::env::set_current_dir("/")?;
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_namespace_is_its_own_only_without_a_path() {
        assert!(has_own_pids(r#"{"linux":{"namespaces":[{"type":"mount"},{"type":"pid"}]}}"#));
        assert!(!has_own_pids(r#"{"linux":{"namespaces":[{"type":"pid","path":"/proc/1/ns/pid"}]}}"#));
        assert!(!has_own_pids(r#"{"linux":{"namespaces":[{"type":"mount"}]}}"#));
        assert!(!has_own_pids(""));
    }

    #[test]
    fn many_layers_are_written_from_their_common_directory() {
        let few = ["lowerdir=/a:/b".to_owned()];
        assert_eq!(shortened(&few).expect("short"), (PathBuf::new(), few.to_vec()));
        let dirs: Vec<String> =
            (100..200).map(|n| format!("/var/lib/containerd/snapshotters/overlay/1{n}/fs")).collect();
        let many = ["ro".to_owned(), format!("lowerdir={}", dirs.join(":"))];
        let (dir, options) = shortened(&many).expect("shortened");
        assert_eq!(dir, Path::new("/var/lib/containerd/snapshotters/overlay"));
        assert!(options[1].starts_with("lowerdir=1100/fs:1101/fs:") && options[1].len() < 1000);
        let nothing_shared = ["lowerdir=".to_owned() + &"/a/b:/c/d:".repeat(500)];
        assert_eq!(shortened(&nothing_shared).expect("as it is").0, PathBuf::new());
    }

    #[test]
    fn a_target_stays_below_the_root() {
        let one = Mount { kind: "tmpfs".into(), target: "/a/../../x".into(), ..Mount::default() };
        let dir = std::env::temp_dir().join(format!("cricket-root-{}", std::process::id()));
        assert!(mount_root(&dir, &[one]).expect_err("refused").to_string().contains("leaves the root"));
        fs::remove_dir_all(&dir).expect("ours");
    }
}
