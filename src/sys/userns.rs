//! Namespaces that belong to a user namespace of their own: made by a child that does nothing else.
//!
//! A thread cannot enter a new user namespace, only a process can. It is copied without running a program, and waits to
//! be killed.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use super::check;
use super::namespace::{self, pin_of, Namespace};
use crate::error::{Context, Result};

/// Makes new namespaces that belong to a new user namespace with these mappings (lines of `uid_map` and `gid_map`), pins
/// each at its path, the user namespace with them, and runs `setup` in the others.
///
/// On a thread of its own that ends afterwards. As with [`namespace::create`], the paths must not exist, and on failure
/// the undo is [`namespace::unpin`] of each.
pub fn create(
    pins: &[(Namespace, &Path)],
    (uid_map, gid_map): (&str, &str),
    setup: impl FnOnce() -> Result<()> + Send,
) -> Result<()> {
    namespace::on_thread("unshare", || {
        let flags = pins.iter().fold(libc::CLONE_NEWUSER, |all, (namespace, _)| all | namespace.flag());
        let child = Child::start(flags).context("make a process with namespaces of its own")?;
        for (file, map) in [("uid_map", uid_map), ("gid_map", gid_map)] {
            let path = format!("/proc/{}/{file}", child.0);
            fs::write(&path, map).with_context(|| format!("write {map:?} to {path}"))?;
        }
        for (namespace, path) in pins {
            pin_of(*namespace, child.0.unsigned_abs(), path)?;
        }
        for (namespace, path) in pins.iter().filter(|(namespace, _)| *namespace != Namespace::User) {
            enter(*namespace, path)
                .with_context(|| format!("enter {} namespace {}", namespace.name(), path.display()))?;
        }
        setup()
    })
}

/// Puts the calling thread, which nothing else uses, into a pinned namespace.
fn enter(namespace: Namespace, path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    // SAFETY: the descriptor is open; the call affects this thread only.
    check(unsafe { libc::setns(file.as_raw_fd(), namespace.flag()) }).map(drop)
}

/// A process that waits to be killed; dropping it kills it.
struct Child(libc::pid_t);

impl Child {
    fn start(flags: libc::c_int) -> io::Result<Child> {
        let none: libc::c_ulong = 0;
        // SAFETY: without CLONE_VM the child runs on a copy of this thread's stack, and it makes system calls only: it
        // takes no lock, allocates nothing, and never returns from this block. Its copies of our descriptors are closed
        // when it ends, which is before this thread does.
        let pid = unsafe {
            let pid = libc::syscall(
                libc::SYS_clone,
                libc::c_ulong::from(flags.unsigned_abs()) | libc::SIGCHLD as libc::c_ulong,
                none,
                none,
                none,
                none,
            );
            if pid == 0 {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                loop {
                    libc::pause();
                }
            }
            pid
        };
        match pid {
            -1 => Err(io::Error::last_os_error()),
            pid => Ok(Child(pid as libc::pid_t)),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // SAFETY: it is our child, and not waited for yet: its pid is its own.
        unsafe {
            libc::kill(self.0, libc::SIGKILL);
            while libc::waitpid(self.0, std::ptr::null_mut(), 0) == -1
                && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
            {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::mount::is_namespace;
    use crate::sys::net;
    use std::path::PathBuf;

    #[test]
    fn they_belong_to_a_namespace_with_these_mappings() {
        let dir = std::env::temp_dir().join(format!("cricket-userns-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let at = |name: &str| -> PathBuf { dir.join(name) };
        let (user, net, uts) = (at("user"), at("net"), at("uts"));
        let pins =
            [(Namespace::User, user.as_path()), (Namespace::Net, net.as_path()), (Namespace::Uts, uts.as_path())];
        create(&pins, ("0 100000 65536", "0 200000 65536"), || {
            namespace::set_hostname("mapped").context("set the host name")?;
            net::loopback_up().context("loopback")
        })
        .unwrap();
        for (_, path) in pins {
            assert!(is_namespace(path), "{}", path.display());
        }
        let seen = |program: &[&str]| {
            let flags = [format!("--user={}", user.display()), format!("--uts={}", uts.display())];
            let output = std::process::Command::new("nsenter").args(flags).args(program).output().unwrap();
            String::from_utf8_lossy(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(seen(&["hostname"]), "mapped");
        assert_eq!(seen(&["cat", "/proc/self/uid_map"]), "0 100000 65536");
        assert_eq!(seen(&["cat", "/proc/self/gid_map"]), "0 200000 65536");
        for (_, path) in pins {
            namespace::unpin(path).unwrap();
        }
        fs::remove_dir(&dir).unwrap();
        let refused = create(&[(Namespace::User, user.as_path())], ("nonsense", "0 0 1"), || Ok(()));
        assert!(refused.is_err());
    }
}
