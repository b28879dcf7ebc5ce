//! A round: clients work, the node is tortured, and then everything is compared.

use std::collections::HashMap;
use std::fs;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::{sleep, Builder, ScopedJoinHandle};
use std::time::{Duration, Instant};

use crate::census::{await_clean, names, shims, Census, Holdings};
use crate::client::{Client, Tally};
use crate::cri::Cri;
use crate::dice::Dice;
use crate::faults;
use crate::node::{Node, Tuning, PATIENCE};
use crate::relay::{self, Relay};
use crate::schedule::{Act, Round};
use crate::setting::{kept, Setting};
use crate::witness::Witness;

/// Who works at once.
const CLIENTS: u64 = 3;
/// After that a shim is one that waits for a container.
const SHIM_PATIENCE: Duration = Duration::from_secs(2);
/// The files of the node that a failure is explained by.
const LOGS: [&str; 2] = ["cricket.log", "log"];

/// The node, and how it was before.
pub struct Rig {
    node: Node,
    relay: Relay,
    /// The control group above all pods.
    cgroup: String,
    empty: Census,
    held: Holdings,
    /// Shims without a container, since when.
    lonely: HashMap<String, Instant>,
    pub tally: Tally,
}

impl Rig {
    /// A node that has had a pod, so that caches, connections and the bridge are there.
    pub fn start(setting: &Setting) -> Rig {
        let tuning = Tuning { containerd: setting.containerd.clone(), ..Tuning::default() };
        let node = Node::start_on(tuning, |dir| {
            faults::small_disk(dir);
            relay::on_the_way(dir);
        });
        let relay = Relay::start(node.dir());
        faults::wrap_plugin(node.dir());
        let cgroup = format!("/cricket-torture-{}", std::process::id());
        let (empty, held) = (Census::take(&node), Holdings::at_rest(node.daemon_pid()));
        let mut rig = Rig { node, relay, cgroup, empty, held, lonely: HashMap::new(), tally: Tally::default() };
        let calm = Round { seed: setting.seed, number: u64::MAX, fault: None, acts: Vec::new() };
        let mut client = Client::new(&calm, 0, rig.node.dir(), &rig.cgroup, Arc::default());
        client.warm_up(20);
        client.end();
        rig.held = Holdings::at_rest(rig.node.daemon_pid());
        rig
    }

    /// One round. Panics with what is wrong, and with what makes it happen again; the logs are kept.
    pub fn round(&mut self, round: &Round) {
        let begun = Instant::now();
        let before = self.tally;
        let done = catch_unwind(AssertUnwindSafe(|| self.try_round(round)));
        if done.is_err() {
            let kept = self.keep_logs(round);
            panic!("SEED={} round {} ({:?}) failed; logs in {}", round.seed, round.number, round.fault, kept.display());
        }
        let (kills, lines) = (self.tally.kills - before.kills, self.tally.lines - before.lines);
        let (number, fault, took) = (round.number, round.fault, begun.elapsed().as_secs_f64());
        println!("round {number} {fault:?}: {kills} kills, {lines} log lines, {took:.1} s");
    }

    fn try_round(&mut self, round: &Round) {
        let (dir, enough) = (self.node.dir().to_owned(), AtomicBool::new(false));
        let given_up = Arc::new(AtomicBool::new(false));
        let mut clients: Vec<Client> =
            (0..CLIENTS).map(|number| Client::new(round, number, &dir, &self.cgroup, given_up.clone())).collect();
        let mut witness = Witness::new(Cri::connect(&dir.join("cricket.sock")), round.fault);
        let mut dice = Dice::new(round.seed, &[round.number, 0]);
        std::thread::scope(|scope| {
            let enough = &enough;
            let mut at_work: Vec<ScopedJoinHandle<'_, ()>> = Vec::new();
            for client in &mut clients {
                let thread = Builder::new().name(client.name.clone());
                at_work.push(thread.spawn_scoped(scope, move || client.work(enough)).expect("a thread"));
            }
            let watch = || witness.watch(enough);
            at_work.push(Builder::new().name("witness".into()).spawn_scoped(scope, watch).expect("a thread"));
            // The clients must not wait for ever if this panics.
            let tortured = catch_unwind(AssertUnwindSafe(|| self.torture(round, &mut dice)));
            given_up.store(tortured.is_err(), Ordering::Relaxed);
            enough.store(true, Ordering::Relaxed);
            let failed = at_work.into_iter().map(ScopedJoinHandle::join).filter(Result::is_err).count();
            assert!(failed == 0 && tortured.is_ok(), "{failed} at work failed");
        });
        self.compare(&clients);
        for client in &mut clients {
            client.end();
            self.tally += client.tally;
        }
        self.nothing_is_left();
        // It has served; the next failure is explained by the next round.
        fs::File::options().write(true).truncate(true).open(dir.join(LOGS[0])).expect("the daemon's log");
        for name in names(&dir.join("logs")) {
            fs::remove_dir_all(dir.join("logs").join(name)).expect("ours");
        }
    }

    fn torture(&mut self, round: &Round, dice: &mut Dice) {
        for (pause, act) in &round.acts {
            sleep(*pause);
            faults::act(&mut self.node, &self.relay, *act, dice);
            match act {
                Act::Kill => self.tally.kills += 1,
                Act::Begin(_) => self.tally.faults += 1,
                Act::End(_) => {}
            }
        }
        self.node.await_daemon();
    }

    /// There is what the clients have, and nothing else. Each has compared its own.
    fn compare(&self, clients: &[Client]) {
        let own = clients.iter().flat_map(|client| &client.pods);
        let (mut pods, mut containers) = (Vec::new(), Vec::new());
        for pod in own {
            pods.push(pod.id.clone());
            containers.extend(pod.containers.iter().map(|c| c.id.clone()));
        }
        let mut listed_pods: Vec<String> =
            self.node.cri.pods().expect("ListPodSandbox").into_iter().map(|p| p.id).collect();
        let mut listed: Vec<String> =
            self.node.cri.containers().expect("ListContainers").into_iter().map(|c| c.id).collect();
        for ids in [&mut pods, &mut containers, &mut listed_pods, &mut listed] {
            ids.sort();
        }
        assert_eq!((listed_pods, listed), (pods, containers), "what is listed, and what the clients have");
    }

    /// Nothing but shims that wait for a container: see [`Rig::last_shims_end`].
    fn nothing_is_left(&mut self) {
        let groups = || cgroups(&self.cgroup).into_iter().map(|group| format!("control groups: {group}")).collect();
        let alone = await_clean(&self.node, &self.empty, groups, SHIM_PATIENCE);
        self.lonely.retain(|shim, _| alone.contains(shim));
        for shim in alone {
            let since = *self.lonely.entry(shim.clone()).or_insert_with(Instant::now);
            assert!(since.elapsed() < 2 * PATIENCE, "it does not end by itself: {shim}\n{}", self.of_shims());
        }
        let (pid, begun) = (self.node.daemon_pid(), Instant::now());
        loop {
            let now = Holdings::at_rest(pid);
            if now.named() == self.held.named() && now.files.len() <= self.held.files.len() {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "the daemon held {:#?} at first, and holds {now:#?}", self.held);
            sleep(Duration::from_millis(20));
        }
    }

    /// At the very end not even those are left that wait for a container which does not come.
    pub fn last_shims_end(&mut self) {
        let left = await_clean(&self.node, &self.empty, Vec::new, 2 * PATIENCE);
        let kept = kept().join("end");
        assert!(
            left.is_empty(),
            "left behind; logs in {}:\n  {}\n{}",
            self.copy_logs(&kept).display(),
            left.join("\n  "),
            self.of_shims()
        );
    }

    /// What keeps each shim: callers and watched files, children, and whether containerd has a directory for its container.
    fn of_shims(&self) -> String {
        let mut text = String::new();
        for (pid, command) in shims(&self.node) {
            let files = names(Path::new(&format!("/proc/{pid}/fd")));
            let files = files.iter().filter_map(|fd| fs::read_link(format!("/proc/{pid}/fd/{fd}")).ok());
            let files: Vec<String> = files.map(|file| file.display().to_string()).collect();
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            let id = command.split(' ').skip_while(|word| *word != "-id").nth(1).unwrap_or_default();
            let bundle = self.node.dir().join("state/io.containerd.runtime.v2.task/k8s.io").join(id);
            text.push_str(&format!(
                "shim {pid} of {id}: bundle {}, children [{}], files {files:?}\n",
                bundle.exists(),
                children.trim()
            ));
        }
        text
    }

    fn keep_logs(&self, round: &Round) -> PathBuf {
        self.copy_logs(&kept().join(format!("{}-{}", round.seed, round.number)))
    }

    fn copy_logs(&self, to: &Path) -> PathBuf {
        fs::create_dir_all(to).expect("make a directory");
        for log in LOGS {
            fs::copy(self.node.dir().join(log), to.join(log)).expect("keep a log");
        }
        to.to_owned()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        for hierarchy in hierarchies() {
            // Some have none of ours.
            fs::remove_dir(hierarchy.join(&self.cgroup[1..])).ok();
        }
    }
}

fn hierarchies() -> Vec<PathBuf> {
    let all = Path::new("/sys/fs/cgroup");
    let mut found: Vec<PathBuf> =
        names(all).into_iter().map(|name| all.join(name)).filter(|path| path.is_dir()).collect();
    found.push(all.to_owned());
    found
}

/// The control groups below this one, in every hierarchy.
fn cgroups(parent: &str) -> Vec<String> {
    let below = |hierarchy: PathBuf| {
        let parent = hierarchy.join(&parent[1..]);
        let groups = names(&parent).into_iter().map(|name| parent.join(name)).filter(|path| path.is_dir());
        groups.map(|path| path.display().to_string()).collect::<Vec<_>>()
    };
    hierarchies().into_iter().flat_map(below).collect()
}
