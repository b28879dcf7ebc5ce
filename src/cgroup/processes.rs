//! The processes of a control group, and what they have open.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::files::text;
use super::groups::Groups;

/// Groups below that are looked into: systemd in a container has dozens.
const MAX_GROUPS: usize = 256;
/// Past these numbers nobody counts what is open: it would take longer than it is worth.
const MAX_PROCESSES: usize = 1024;
const MAX_DESCRIPTORS: u64 = 100_000;
/// Each descriptor has to be asked whether it is a socket.
const MAX_ASKED: u64 = 10_000;

/// Processes, those of the groups below included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Processes {
    pub count: u64,
    /// `None` where there are too many to count them.
    pub descriptors: Option<u64>,
    /// Of those. `None` as above.
    pub sockets: Option<u64>,
}

impl Processes {
    /// Counts them. `None` if the group is gone, or there are too many groups in it.
    pub fn read(groups: &Groups) -> Option<Processes> {
        let dir = match groups {
            Groups::V1(v1) => v1.pids.as_ref().or(v1.memory.as_ref()).or(v1.cpuacct.as_ref())?,
            Groups::V2(dir) => dir,
        };
        let mut pids = pids(dir)?;
        let mut left = MAX_GROUPS;
        below(dir, &mut left, &mut pids)?;
        let open = if pids.len() > MAX_PROCESSES { None } else { open(&pids) };
        Some(Processes {
            count: u64::try_from(pids.len()).unwrap_or(u64::MAX),
            descriptors: open.map(|open| open.descriptors),
            sockets: open.and_then(|open| open.sockets),
        })
    }
}

/// How many files process `pid` may have open, as its soft limit says; `None` for no limit, or if it is gone.
pub fn max_open_files(pid: u32) -> Option<u64> {
    open_files_of(&fs::read_to_string(format!("/proc/{pid}/limits")).ok()?)
}

/// A title of several words, then the soft limit, the hard one, and the unit.
fn open_files_of(limits: &str) -> Option<u64> {
    let values = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    values.split_ascii_whitespace().next()?.parse().ok()
}

fn pids(dir: &Path) -> Option<Vec<u32>> {
    Some(text(dir, "cgroup.procs")?.lines().filter_map(|line| line.parse().ok()).collect())
}

/// Adds the processes of the groups below; `None` if they are more than `left`.
fn below(dir: &Path, left: &mut usize, found: &mut Vec<u32>) -> Option<()> {
    // The kernel counts a link for each group in it, and spares us the list of files.
    if fs::metadata(dir).is_ok_and(|facts| facts.nlink() == 2) {
        return Some(());
    }
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        *left = left.checked_sub(1)?;
        // One that has just gone has none.
        found.extend(pids(&entry.path()).unwrap_or_default());
        below(&entry.path(), left, found)?;
    }
    Some(())
}

#[derive(Clone, Copy)]
struct Open {
    descriptors: u64,
    sockets: Option<u64>,
}

fn open(pids: &[u32]) -> Option<Open> {
    let (mut descriptors, mut sockets) = (0, 0);
    for pid in pids {
        // A process that has just gone has nothing open.
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            descriptors += 1;
            if descriptors > MAX_DESCRIPTORS {
                return None;
            }
            if descriptors <= MAX_ASKED && is_socket(&entry.path()) {
                sockets += 1;
            }
        }
    }
    Some(Open { descriptors, sockets: (descriptors <= MAX_ASKED).then_some(sockets) })
}

fn is_socket(descriptor: &Path) -> bool {
    fs::read_link(descriptor).is_ok_and(|target| target.as_os_str().as_encoded_bytes().starts_with(b"socket:"))
}

#[cfg(test)]
mod tests {
    use super::super::files::testing::Dir;
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn what_we_have_open() {
        let me = [std::process::id()];
        let before = open(&me).expect("not many");
        let pair = UnixStream::pair().expect("a pair");
        let file = fs::File::open("/dev/null").expect("open");
        let after = open(&me).expect("not many");
        // Other tests open and close files at the same time.
        assert!(after.descriptors >= 3 && after.sockets.expect("not many") >= 2, "{} {:?}", after.descriptors, pair);
        drop(file);
        assert!(before.descriptors >= before.sockets.expect("not many"));
        assert_eq!(open(&[u32::MAX]).map(|open| open.descriptors), Some(0), "gone");
    }

    #[test]
    fn groups_below_count_and_have_a_bound() {
        let me = std::process::id();
        let dir = Dir::new(&[("cgroup.procs", "\n")]);
        let inner = dir.0.join("init.scope");
        fs::create_dir_all(inner.join("deeper")).expect("made");
        fs::write(inner.join("cgroup.procs"), format!("{me}\n")).expect("written");
        fs::write(inner.join("deeper/cgroup.procs"), format!("{}\n", u32::MAX)).expect("written");
        let found = Processes::read(&Groups::V2(dir.0.clone())).expect("there");
        assert_eq!(found.count, 2);
        assert!(found.descriptors > Some(2), "{found:?}");
        let (mut left, mut pids) = (1, Vec::new());
        assert_eq!(below(&dir.0, &mut left, &mut pids), None, "one is allowed, there are two");
        assert_eq!(Processes::read(&Groups::V2("/does/not/exist".into())), None);
        assert_eq!(Processes::read(&Groups::V1(Box::default())), None);
    }

    #[test]
    fn a_soft_limit() {
        let limits = "\
Limit                     Soft Limit           Hard Limit           Units     
Max cpu time              unlimited            unlimited            seconds   
Max processes             96365                96365                processes 
Max open files            20000                524288               files     
";
        assert_eq!(open_files_of(limits), Some(20000));
        assert_eq!(open_files_of(&limits.replace("20000", "unlimited")), None);
        assert_eq!(open_files_of(""), None);
        assert!(max_open_files(std::process::id()).is_some());
        assert_eq!(max_open_files(u32::MAX), None);
    }
}
