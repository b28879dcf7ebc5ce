//! A node whose daemon is killed at a step of one request, and started again.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cricket::error::{Kind, Result};
use cricket_proto::runtime::{ContainerConfig, NamespaceMode, PodSandbox, PodSandboxConfig};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

use crate::census::{await_clean, Census};
use crate::containerd::PrivateContainerd;
use crate::cri::{container, namespaces, pod_config, Cri};
use crate::node::{Node, PATIENCE};
use crate::tracer::{Traced, Tracer};

/// More effects than any verb has.
const MANY: usize = 600;
/// How long a recovery may take, traced.
const RECOVERY: Duration = Duration::from_secs(5);
/// After so many recoveries that came to their own end there is nothing more to try.
const WHOLE: usize = 3;
/// After that a shim is one that waits for a container: containerd had announced one to it, and then nothing came of it. It
/// ends by itself, later.
const SHIM_PATIENCE: Duration = Duration::from_millis(500);

/// Where logs of a failed test are kept.
const KEPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/steps");

/// The node, and how it was before.
pub struct Rig {
    node: Node,
    empty: Census,
}

impl Rig {
    /// A node that has had a pod, so that the bridge and the caches are there.
    pub fn start() -> Rig {
        let node = Node::start();
        let config = pod_config(&node, "first");
        let id = node.cri.run_pod(&config).expect("RunPodSandbox");
        node.cri.remove_pod(&id).expect("RemovePodSandbox");
        let empty = Census::take(&node);
        Rig { node, empty }
    }

    pub fn cri(&self) -> &Cri {
        &self.node.cri
    }

    /// Its containerd.
    pub fn containerd(&self) -> &PrivateContainerd {
        &self.node.containerd
    }

    /// The configuration of a new pod, with a process of its own or without.
    pub fn pod_config(&self, process: bool) -> PodSandboxConfig {
        let mut config = pod_config(&self.node, "a");
        if process {
            let security = config.linux.mut_or_insert_default().security_context.mut_or_insert_default();
            let mut options = namespaces(NamespaceMode::POD);
            options.pid = NamespaceMode::POD.into();
            security.namespace_options = Some(options).into();
        }
        config
    }

    /// Lets the verb meet its end after each of its effects; `check` looks at what the next daemon makes of that, does the
    /// same again, and removes everything. Returns how many effects the verb has.
    pub fn killed_after_every_effect<S: Sync, T: Send>(
        &mut self,
        prepare: impl Fn(&Rig) -> S,
        verb: impl Fn(&Cri, &S) -> Result<T> + Sync,
        check: impl Fn(&Cri, &S, Result<T>),
    ) -> usize {
        let (first, every) = choice();
        for n in (first..MANY).step_by(every) {
            let subject = prepare(self);
            let (traced, answer) = self.traced(n, |cri| verb(cri, &subject));
            self.node.end_daemon("KILL");
            self.node.start_daemon();
            self.await_recovery();
            match traced {
                Traced::Killed(effect) => {
                    println!("{n}: {effect}{}", if answer.is_ok() { " (answered)" } else { "" });
                    if let Err(e) = &answer {
                        assert_eq!(e.kind(), Kind::Unavailable, "{e}");
                    }
                    check(self.cri(), &subject, answer);
                    self.nothing_is_left();
                }
                Traced::Done(effects) => {
                    assert!(answer.is_ok(), "nothing was in its way");
                    check(self.cri(), &subject, answer);
                    self.last_shims_end();
                    return effects.len();
                }
            }
        }
        panic!("it has more than {MANY} effects");
    }

    /// What a verb does outside, in order, when nothing is in its way.
    pub fn effects<T: Send>(&mut self, verb: impl Fn(&Cri) -> Result<T> + Sync) -> Vec<String> {
        let (traced, answer) = self.traced(MANY, |cri| verb(cri));
        self.node.end_daemon("KILL");
        self.node.start_daemon();
        self.await_recovery();
        undisturbed(traced, answer)
    }

    /// What a start does outside, in order, from the moment that containerd answers until it has recovered.
    /// `left` is the directory of a pod whose record is gone already.
    pub fn effects_of_a_start(&mut self, left: &str) -> Vec<String> {
        self.node.end_daemon("KILL");
        fs::create_dir(self.node.dir().join("lib/sandboxes").join(left)).expect("make a directory");
        let containerd = Pid::from_raw(self.node.containerd.pid() as i32);
        kill(containerd, Signal::SIGSTOP).expect("stop containerd");
        self.node.spawn_daemon();
        let (traced, answer) = self.traced(MANY, |cri| {
            kill(containerd, Signal::SIGCONT).expect("let containerd go on");
            first_list(cri, PATIENCE)
        });
        undisturbed(traced, answer)
    }

    /// Lets the recovery from such an end meet its own end, after each of its effects. The verb, which has `effects`, is ended
    /// somewhere else each time.
    pub fn killed_in_recovery<S: Sync, T: Send>(
        &mut self,
        effects: usize,
        prepare: impl Fn(&Rig) -> S,
        verb: impl Fn(&Cri, &S) -> Result<T> + Sync,
        check: impl Fn(&Cri, &S, Result<T>),
    ) {
        let (first, every) = choice();
        let (mut whole, mut killed) = (0, 0);
        for n in (first..MANY).step_by(every) {
            let subject = prepare(self);
            let (_, answer) = self.traced(1 + n * 7 % effects, |cri| verb(cri, &subject));
            self.node.end_daemon("KILL");
            self.node.spawn_daemon();
            let (traced, _) = self.traced(n, |cri| first_list(cri, RECOVERY));
            self.node.end_daemon("KILL");
            self.node.start_daemon();
            self.await_recovery();
            match traced {
                Traced::Killed(effect) => {
                    killed += 1;
                    println!("recovery {n}: {effect}");
                }
                Traced::Done(_) => whole += 1,
            }
            check(self.cri(), &subject, answer);
            self.nothing_is_left();
            // Some ends leave less to do than others.
            if whole == WHOLE {
                assert!(killed > 0);
                return self.last_shims_end();
            }
        }
        panic!("recovery has more than {MANY} effects");
    }

    /// Calls the verb, and kills the daemon after its n-th effect, or when there is an answer.
    fn traced<T: Send>(&self, n: usize, verb: impl FnOnce(&Cri) -> Result<T> + Send) -> (Traced, Result<T>) {
        let (answered, cri) = (AtomicBool::new(false), self.cri());
        std::thread::scope(|scope| {
            let tracer = Tracer::seize(self.node.daemon_pid(), self.node.dir().join("cricket.log"));
            let call = scope.spawn(|| {
                let answer = verb(cri);
                answered.store(true, Ordering::Relaxed);
                answer
            });
            let traced = tracer.kill_at(n, || answered.load(Ordering::Relaxed));
            (traced, call.join().expect("the client"))
        })
    }

    /// It answers Version before it has recovered.
    fn await_recovery(&self) {
        crate::node::until("the daemon has recovered", || self.cri().pods().is_ok());
    }

    /// But for shims that wait for a container.
    pub fn nothing_is_left(&self) {
        await_clean(&self.node, &self.empty, Vec::new, SHIM_PATIENCE);
    }

    /// Nor those, at the very end.
    fn last_shims_end(&self) {
        let left = await_clean(&self.node, &self.empty, Vec::new, 2 * PATIENCE);
        assert!(left.is_empty(), "left behind:\n  {}", left.join("\n  "));
    }
}

/// The effects of what had nothing in its way.
fn undisturbed<T>(traced: Traced, answer: Result<T>) -> Vec<String> {
    match traced {
        Traced::Done(effects) if answer.is_ok() => effects,
        other => panic!("nothing was in its way: {other:?}, {:?}", answer.err()),
    }
}

/// What is listed as soon as there is an answer, or the last error.
fn first_list(cri: &Cri, patience: Duration) -> Result<Vec<PodSandbox>> {
    let begun = Instant::now();
    loop {
        match cri.pods() {
            Err(e) if begun.elapsed() < patience => drop(e),
            listed => return listed,
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let kept = Path::new(KEPT).join(std::thread::current().name().unwrap_or("test"));
            fs::create_dir_all(&kept).ok();
            for log in ["cricket.log", "log"] {
                // There is a failure to tell of already.
                fs::copy(self.node.dir().join(log), kept.join(log)).ok();
            }
        }
    }
}

/// Which effects are tried: from which on, and each which.
fn choice() -> (usize, usize) {
    let number = |name: &str| match std::env::var(name).unwrap_or_default().as_str() {
        "" => 1,
        text => text.parse().unwrap_or_else(|e| panic!("{name}={text}: {e}")),
    };
    let (every, seed) = (number("EVERY").max(1), number("SEED"));
    (1 + seed % every, every)
}

/// A container that does nothing.
pub fn sleeper(name: &str) -> ContainerConfig {
    container(name, "sleep 1000")
}
