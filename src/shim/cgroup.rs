//! The control groups of one container: who is in them, and when they ran out of memory.

use std::fs;
use std::path::{Path, PathBuf};

use crate::sys::reap;
use crate::sys::watch::Watch;

/// Where the hierarchies are mounted.
const MOUNT: &str = "/sys/fs/cgroup";
/// Killing everybody is repeated while new processes appear, so often at most.
const ROUNDS: usize = 16;

/// Where a container is in every hierarchy, as `/proc/<pid>/cgroup` said when it was made; as far as the group is its own
/// and not one that others are in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cgroups(Box<str>);

impl Cgroups {
    /// Those of a process that lives.
    pub fn of(pid: u32) -> Cgroups {
        // A process that is gone has none, and nothing to be watched or killed.
        let text = |pid: &str| fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        // A runtime that was told to make no group leaves a container where we are, and containerd, and who knows who:
        // "everybody in there" is not to be killed then.
        Cgroups(without(&text(&pid.to_string()), &[text("self"), text("1")]).into())
    }

    /// The group in the v1 hierarchy of a controller.
    pub fn v1(&self, controller: &str) -> Option<PathBuf> {
        let found = self.lines().find(|(_, controllers, _)| controllers.split(',').any(|c| c == controller));
        found.map(|(_, controllers, path)| below(&Path::new(MOUNT).join(controllers), path))
    }

    /// The group in the v2 hierarchy, if that is the one with the controllers.
    pub fn v2(&self) -> Option<PathBuf> {
        if self.lines().any(|(_, controllers, _)| controllers.split(',').any(|c| c == "memory")) {
            return None;
        }
        let found = self.lines().find(|(hierarchy, _, _)| *hierarchy == "0");
        found.map(|(_, _, path)| below(Path::new(MOUNT), path))
    }

    fn lines(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.0.lines().filter_map(|line| {
            let mut parts = line.splitn(3, ':');
            Some((parts.next()?, parts.next()?, parts.next()?))
        })
    }

    /// The hierarchy in which every process of the container is.
    fn home(&self) -> Option<PathBuf> {
        // Never the root.
        let all = [self.v2(), self.v1("pids"), self.v1("memory"), self.v1("devices"), self.v1("cpu")];
        let own =
            |path: &PathBuf| path.strip_prefix(MOUNT).is_ok_and(|p| p.components().count() > 1 || self.v2().is_some());
        all.into_iter().flatten().find(|path| own(path) && path.as_path() != Path::new(MOUNT))
    }

    /// Every process in there, in groups below too.
    pub fn pids(&self) -> Vec<u32> {
        let mut found = Vec::new();
        self.home().into_iter().for_each(|dir| collect(&dir, &mut found));
        found
    }

    /// Sends a signal to every process in there. Returns whether there was any.
    pub fn kill_all(&self, signal: u32) -> bool {
        let mut signalled: Vec<u32> = Vec::new();
        for _ in 0..ROUNDS {
            let new: Vec<u32> = self.pids().into_iter().filter(|pid| !signalled.contains(pid)).collect();
            if new.is_empty() {
                break;
            }
            // One that has ended meanwhile needs no signal.
            new.iter().for_each(|pid| drop(reap::kill(i64::from(*pid), signal)));
            signalled.extend(new);
        }
        !signalled.is_empty()
    }

    /// Something that is readable when the kernel kills for want of memory.
    pub fn watch(&self) -> Option<Watch> {
        let watch = match (self.v2(), self.v1("memory")) {
            (Some(dir), _) => Watch::file(&dir.join("memory.events")),
            (None, Some(dir)) => Watch::memory_group(&dir),
            (None, None) => return None,
        };
        watch.map_err(|e| log::debug!("watch for a want of memory: {e}")).ok()
    }

    /// How many processes the kernel killed in there for want of memory; `None` if the group is gone.
    pub fn oom_kills(&self) -> Option<u64> {
        match self.v2() {
            Some(dir) => kills_below(&dir),
            None => kills(&self.v1("memory")?.join("memory.oom_control")),
        }
    }

    /// The group around it, where that counts with what is below it: in the v2 hierarchy.
    pub fn parent(&self) -> Option<PathBuf> {
        Some(self.v2()?.parent()?.to_owned())
    }
}

/// How many processes the kernel killed for want of memory in a v2 group and all below it, those that are gone too; `None`
/// for the root, and for one that is gone itself.
pub fn kills_below(group: &Path) -> Option<u64> {
    kills(&group.join("memory.events"))
}

fn kills(file: &Path) -> Option<u64> {
    number_after(&fs::read_to_string(file).ok()?, "oom_kill")
}

/// The lines that are in none of the others.
fn without(text: &str, others: &[String]) -> String {
    let shared = |line: &&str| others.iter().any(|other| other.lines().any(|o| o == *line));
    text.lines().filter(|line| !shared(line)).fold(String::new(), |own, line| own + line + "\n")
}

fn below(mount: &Path, path: &str) -> PathBuf {
    mount.join(path.trim_start_matches('/'))
}

fn collect(dir: &Path, found: &mut Vec<u32>) {
    let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    found.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()).filter(|pid| *pid > 0));
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), found);
        }
    }
}

/// The number in the line that begins with `key` and a blank.
pub fn number_after(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cgroups(text: &str) -> Cgroups {
        Cgroups(text.into())
    }

    #[test]
    fn both_generations() {
        let v1 = cgroups("5:cpu,cpuacct:/k/x\n3:memory:/k/x\n1:name=systemd:/\n0::/k/x\n");
        assert_eq!(v1.v1("cpuacct"), Some("/sys/fs/cgroup/cpu,cpuacct/k/x".into()));
        assert_eq!((v1.v1("pids"), v1.v2()), (None, None));
        assert_eq!(v1.home(), Some("/sys/fs/cgroup/memory/k/x".into()));
        let v2 = cgroups("0::/k/y\n");
        assert_eq!((v2.v1("memory"), v2.v2()), (None, Some("/sys/fs/cgroup/k/y".into())));
        assert_eq!(v2.home(), Some("/sys/fs/cgroup/k/y".into()));
    }

    #[test]
    fn the_root_is_nobodys_own() {
        assert_eq!(cgroups("0::/\n").home(), None);
        assert_eq!(cgroups("3:memory:/\n0::/\n").home(), None);
        assert_eq!(Cgroups::default().home(), None);
        assert!(!cgroups("0::/\n").kill_all(0));
    }

    #[test]
    fn a_group_that_we_are_in_is_not_the_containers() {
        assert_eq!(Cgroups::of(std::process::id()), Cgroups::default());
        let text = "3:memory:/k/x\n2:cpu:/\n0::/s\n";
        assert_eq!(without(text, &["2:cpu:/\n".to_owned(), "3:memory:/k\n0::/s\n".to_owned()]), "3:memory:/k/x\n");
    }

    #[test]
    fn numbers_are_found() {
        assert_eq!(number_after("oom 1\noom_kill 2\n", "oom_kill"), Some(2));
        assert_eq!(number_after("oom_kill_disable 0\n", "oom_kill"), None);
    }
}
