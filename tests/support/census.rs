//! Everything that pods can leave behind on a node, listed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use cricket::call::Call;
use cricket::containerd::Containerd;

use crate::node::{Node, PATIENCE};

/// What there is of each kind, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Census(pub BTreeMap<&'static str, Vec<String>>);

impl Census {
    /// Looks at the machine, at containerd and at the directories of the node. Not at the daemon itself.
    pub fn take(node: &Node) -> Census {
        let (call, containerd, dir) = (Call::within(PATIENCE), node.containerd_client(), node.dir());
        let snapshots = containerd.snapshots(&call, "overlayfs").expect("snapshots");
        let records = containerd.containers(&call, &[]).expect("containers");
        let tasks = containerd.tasks(&call).expect("tasks");
        let mut all = BTreeMap::from([
            ("network namespaces", names(&dir.join("netns"))),
            ("mounts", mounts(dir)),
            ("snapshots", snapshots.into_iter().map(|s| s.key).collect()),
            ("containerd containers", records.into_iter().map(|r| r.id).collect()),
            ("tasks", tasks.into_iter().map(|t| t.id).collect()),
            ("leases", containerd.leases(&call).expect("leases")),
            ("shims", shims(node).into_iter().map(|(_, command)| command).collect()),
            ("runc containers", names(&dir.join("runc/k8s.io"))),
            ("CNI results", names(&dir.join("cni/results"))),
            // The pool's own files lie there too, and stay: a lock and the address given last.
            ("addresses", names(&dir.join("ipam/test")).into_iter().filter(|n| n.starts_with("10.")).collect()),
        ]);
        for (name, place) in [
            ("sandbox directories", "lib/sandboxes"),
            ("container directories", "lib/containers"),
            ("volatile sandbox directories", "run/sandboxes"),
            ("volatile container directories", "run/containers"),
        ] {
            all.insert(name, names(&dir.join(place)));
        }
        all.values_mut().for_each(|names| names.sort());
        Census(all)
    }

    /// What is here and was not in `before`, a line a thing.
    pub fn new_since(&self, before: &Census) -> Vec<String> {
        let old = |kind: &str, name: &String| before.0.get(kind).is_some_and(|names| names.contains(name));
        let all = self.0.iter().flat_map(|(kind, names)| names.iter().map(move |name| (kind, name)));
        all.filter(|(kind, name)| !old(kind, name)).map(|(kind, name)| format!("{kind}: {name}")).collect()
    }
}

/// Waits until there is nothing that was not there `before`, nor `more`, or nothing but shims for a while: those end by
/// themselves, mostly a moment after their last container, but one that containerd had announced a container to, and then
/// nothing came of it, waits for it. Returns these.
pub fn await_clean(node: &Node, before: &Census, more: impl Fn() -> Vec<String>, shims: Duration) -> Vec<String> {
    let begun = Instant::now();
    loop {
        let mut left = Census::take(node).new_since(before);
        left.extend(more());
        let only_shims = left.iter().all(|what| what.starts_with("shims: "));
        if left.is_empty() || (only_shims && begun.elapsed() > shims) {
            return left;
        }
        assert!(only_shims || begun.elapsed() < PATIENCE, "left behind:\n  {}", left.join("\n  "));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The processes that are shims of this node's containerd, with their command lines.
pub fn shims(node: &Node) -> Vec<(u32, String)> {
    let socket = node.containerd.socket();
    let reports_here = |command: &str| command.contains("shim") && command.split(' ').any(|word| word == socket);
    processes().into_iter().filter(|(_, command)| reports_here(command)).collect()
}

/// A figure of `/proc/<pid>/smaps_rollup`, in kB.
pub fn kilobytes(pid: u32, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("it lives");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).expect("there");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Every process with its command line.
pub fn processes() -> Vec<(u32, String)> {
    let command = |pid: &u32| {
        let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\0', " ")
    };
    names(Path::new("/proc")).iter().filter_map(|n| n.parse().ok()).map(|pid| (pid, command(&pid))).collect()
}

/// The entries of a directory; none if it does not exist.
pub fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn mounts(dir: &Path) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    points.filter(|point| Path::new(point).starts_with(dir)).map(str::to_owned).collect()
}

/// The threads of a daemon that does nothing, but for its first one and those of the C core.
const AT_REST: [&str; 5] = ["grpc-0", "monitor", "stdio", "streaming", "worker"];
/// Those of the C core, as the kernel shortens their names. It starts a second one of some of them when there is much to do.
const CORE: [&str; 5] = ["default-executo", "event_engine", "grpc_global_tim", "resolver-execut", "timer_manager"];

/// What a process holds: threads, and open files by kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holdings {
    /// The name of the main thread.
    pub program: String,
    /// By name.
    pub threads: Vec<String>,
    /// What they point at; of a socket, also its type and the path where it was bound or accepted.
    pub files: Vec<String>,
    /// Resident memory.
    pub rss_bytes: u64,
    /// What of it is the process's own: the rest are pages of its program, which the kernel takes back when it likes.
    pub anon_bytes: u64,
}

impl Holdings {
    /// The threads that are there for ever: not the workers, and not the C core's.
    pub fn named(&self) -> Vec<&String> {
        self.threads.iter().filter(|name| *name != "worker" && !CORE.contains(&name.as_str())).collect()
    }

    /// Waits until no call and no event is being worked on, and takes stock then.
    pub fn at_rest(pid: u32) -> Holdings {
        let begun = Instant::now();
        loop {
            let now = Holdings::of(pid);
            let rests = |name: &&String| {
                **name == now.program || [AT_REST.as_slice(), &CORE].iter().any(|names| names.contains(&name.as_str()))
            };
            let busy: Vec<&String> = now.threads.iter().filter(|name| !rests(name)).collect();
            if busy.is_empty() {
                return now;
            }
            assert!(begun.elapsed() < PATIENCE, "only the threads should live that are there for ever, not {busy:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn of(pid: u32) -> Holdings {
        let proc = |rest: &str| format!("/proc/{pid}/{rest}");
        let comm =
            |task: String| fs::read_to_string(proc(&format!("task/{task}/comm"))).unwrap_or_default().trim().to_owned();
        let threads = names(Path::new(&proc("task"))).into_iter().map(comm);
        let files = names(Path::new(&proc("fd"))).into_iter();
        let files = files.filter_map(|fd| fs::read_link(proc(&format!("fd/{fd}"))).ok());
        let status = fs::read_to_string(proc("status")).expect("the process lives");
        let bytes = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).expect(key);
            1024 * line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number")
        };
        let mut threads: Vec<String> = threads.collect();
        let sockets = fs::read_to_string(proc("net/unix")).unwrap_or_default();
        let mut files: Vec<String> = files.map(|f| described(&f.display().to_string(), &sockets)).collect();
        threads.sort();
        files.sort();
        Holdings {
            program: comm(pid.to_string()),
            threads,
            files,
            rss_bytes: bytes("VmRSS:"),
            anon_bytes: bytes("RssAnon:"),
        }
    }
}

/// `file` with its type and path, if it is a socket in this table of `/proc/net/unix`. One that has connected has no path.
fn described(file: &str, sockets: &str) -> String {
    let Some(inode) = file.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')) else {
        return file.to_owned();
    };
    // Address, references, protocol, flags, type, state, inode, path.
    let columns = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<String>>();
    let Some(columns) = sockets.lines().map(columns).find(|of| of.get(6).is_some_and(|it| it == inode)) else {
        return format!("{file}, not unix");
    };
    let kind = match columns[4].as_str() {
        "0001" => "stream",
        "0005" => "seqpacket",
        other => other,
    };
    format!("{file}, {kind}, at {}", columns.get(7).map_or("no path", String::as_str))
}
