//! Kernel namespaces without a process: made on a throw-away thread, kept alive by bind mounts.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use super::check;
use super::mount;
use crate::error::{Context, Error, Idempotent, Kind, Result};

/// The namespaces that a pod sandbox can own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Namespace {
    /// Network.
    Net,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Host and domain name.
    Uts,
    /// Users and groups; the other ones belong to it. Made by [`userns`](super::userns).
    User,
    /// Process ids; made by an OCI runtime, never by [`create`].
    Pid,
}

impl Namespace {
    pub(super) fn flag(self) -> libc::c_int {
        match self {
            Namespace::Net => libc::CLONE_NEWNET,
            Namespace::Ipc => libc::CLONE_NEWIPC,
            Namespace::Uts => libc::CLONE_NEWUTS,
            Namespace::User => libc::CLONE_NEWUSER,
            Namespace::Pid => libc::CLONE_NEWPID,
        }
    }

    /// Its name under `/proc/<pid>/ns`.
    pub fn name(self) -> &'static str {
        match self {
            Namespace::Net => "net",
            Namespace::Ipc => "ipc",
            Namespace::Uts => "uts",
            Namespace::User => "user",
            Namespace::Pid => "pid",
        }
    }
}

/// Makes new namespaces, runs `setup` inside them, and pins each at its path.
///
/// All on a thread of its own that ends afterwards: `unshare` changes the calling thread for good. The paths must not
/// exist. On failure, what was pinned stays: the caller's undo is [`unpin`], pushed before this call.
pub fn create(pins: &[(Namespace, &Path)], setup: impl FnOnce() -> Result<()> + Send) -> Result<()> {
    if pins.is_empty() {
        return setup();
    }
    on_thread("unshare", || {
        let flags = pins.iter().fold(0, |all, (namespace, _)| all | namespace.flag());
        // SAFETY: unshare takes flags only; it affects this thread, which nothing else uses and which ends below.
        check(unsafe { libc::unshare(flags) }).context("unshare namespaces")?;
        setup()?;
        for (namespace, path) in pins {
            pin(*namespace, "thread-self", path)?;
        }
        Ok(())
    })
}

/// Pins a namespace of process `pid`, which must not end meanwhile. As with [`create`], the undo is [`unpin`].
pub fn pin_of(namespace: Namespace, pid: u32, path: &Path) -> Result<()> {
    pin(namespace, &pid.to_string(), path)
}

/// Binds a namespace of `whose`, a name below `/proc`, on a new file at `path`.
fn pin(namespace: Namespace, whose: &str, path: &Path) -> Result<()> {
    let source = format!("/proc/{whose}/ns/{}", namespace.name());
    let file = OpenOptions::new().write(true).create_new(true).open(path);
    let pinned = file.and_then(|_| mount::bind(Path::new(&source), path));
    pinned.with_context(|| format!("pin {} namespace at {}", namespace.name(), path.display()))
}

/// Takes a pin down: detaches the mount and removes the file. Idempotent. The namespace lives on while a process is in
/// it.
pub fn unpin(path: &Path) -> Result<()> {
    mount::detach(path).with_context(|| format!("unmount {}", path.display()))?;
    // A read-only file system refuses even the removal of what is not there.
    if path.symlink_metadata().is_err() {
        return Ok(());
    }
    std::fs::remove_file(path).or_gone().with_context(|| format!("remove {}", path.display()))
}

/// Runs `work` in the pinned network namespace at `path`. On a thread of its own: `setns` changes the calling one for good.
/// Sockets that it makes stay in that namespace, whoever uses them later.
///
/// # Errors
/// `FailedPrecondition` when there is no namespace at `path`.
pub fn within<T: Send>(path: &Path, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    if !mount::is_namespace(path) {
        return Err(Error::precondition(format!("there is no network namespace at {}", path.display())));
    }
    let netns = std::fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
    on_thread("setns", || {
        enter(&netns).context("enter the network namespace")?;
        work()
    })
}

/// As [`within`] in each of the namespaces at `paths`, all on one thread; the results are in the order of the paths.
pub fn within_each<T: Send>(paths: &[PathBuf], work: impl Fn() -> Result<T> + Sync) -> Vec<Result<T>> {
    let visit = |path: &PathBuf| {
        let netns = std::fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
        enter(&netns).with_context(|| format!("enter the network namespace {}", path.display()))?;
        work()
    };
    if paths.is_empty() {
        return Vec::new();
    }
    on_thread("setns", || Ok(paths.iter().map(visit).collect()))
        .unwrap_or_else(|e| paths.iter().map(|_| Err(Error::new(e.kind(), e.to_string()))).collect())
}

/// Moves the calling thread, which must end afterwards, into a network namespace. The kernel refuses any other file.
fn enter(netns: &std::fs::File) -> io::Result<()> {
    // SAFETY: setns takes a descriptor, open for the length of the call, and a flag; it affects this thread only.
    check(unsafe { libc::setns(netns.as_raw_fd(), libc::CLONE_NEWNET) }).map(drop)
}

/// Runs `work` on a new named thread and waits for it.
pub(super) fn on_thread<T: Send>(name: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, work);
        let thread = thread.context("start a thread")?;
        thread.join().unwrap_or_else(|_| Err(Error::new(Kind::Internal, format!("the {name} thread panicked"))))
    })
}

/// Sets the host name of the calling thread's UTS namespace. Only within [`create`]'s `setup`.
pub fn set_hostname(name: &str) -> io::Result<()> {
    // SAFETY: pointer and length describe `name`.
    check(unsafe { libc::sethostname(name.as_ptr().cast(), name.len() as _) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("cricket-ns-{}-{name}", std::process::id()));
        unpin(&path).unwrap();
        path
    }

    #[test]
    fn pins_outlive_their_thread_and_leave_the_process_alone() {
        let (net, uts) = (scratch("net"), scratch("uts"));
        let ours = std::fs::read_link("/proc/self/ns/net").unwrap();
        let pins = [(Namespace::Net, net.as_path()), (Namespace::Uts, uts.as_path())];
        create(&pins, || set_hostname("elsewhere").context("sethostname")).unwrap();
        assert!(mount::is_namespace(&net) && mount::is_namespace(&uts));
        assert_eq!(std::fs::read_link("/proc/self/ns/net").unwrap(), ours);
        assert_ne!(std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim(), "elsewhere");
        unpin(&net).unwrap();
        unpin(&uts).unwrap();
        unpin(&uts).unwrap();
        assert!(!net.exists() && !uts.exists());
    }

    #[test]
    fn a_failing_setup_pins_nothing() {
        let net = scratch("none");
        let refused = create(&[(Namespace::Net, net.as_path())], || Err(Error::invalid("no")));
        assert_eq!(refused.map_err(|e| e.kind()), Err(Kind::InvalidArgument));
        assert!(!net.exists());
    }
}
