//! A client as a kubelet is one: what got no answer is asked again, and what became of it is looked up in the lists.

use std::collections::HashMap;
use std::fmt;
use std::ops::AddAssign;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use cricket::error::{Error, Kind, Result};
use cricket_proto::methods::runtime_service as rpc;
use cricket_proto::runtime::{
    Container, ContainerStatus, ContainerStatusRequest, PodSandbox, PodSandboxStatus, PodSandboxStatusRequest,
};

use crate::cri::Cri;
use crate::dice::Dice;
use crate::model::Pod;
use crate::node::PATIENCE;
use crate::schedule::{Fault, Round};

/// Until the next try.
const PAUSE: Duration = Duration::from_millis(10);
/// A call may take all of `PATIENCE`, and must then be repeated once.
const BOUND: Duration = PATIENCE.saturating_mul(3);

/// What was done, in numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub kills: u64,
    pub faults: u64,
    pub pods: u64,
    pub containers: u64,
    pub starts: u64,
    pub execs: u64,
    pub stops: u64,
    pub removals: u64,
    /// Comparisons of everything that a client has.
    pub looks: u64,
    /// Lines of logs.
    pub lines: u64,
    /// Calls that were repeated.
    pub repeated: u64,
    /// Objects of whose making no answer came, and which were there.
    pub found: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.kills += other.kills;
        self.faults += other.faults;
        self.pods += other.pods;
        self.containers += other.containers;
        self.starts += other.starts;
        self.execs += other.execs;
        self.stops += other.stops;
        self.removals += other.removals;
        self.looks += other.looks;
        self.lines += other.lines;
        self.repeated += other.repeated;
        self.found += other.found;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { kills, faults, pods, containers, starts, execs, stops, removals, looks, lines, repeated, found } =
            self;
        write!(
            f,
            "{kills} kills, {faults} other faults; {pods} pods, {containers} containers, {starts} starts, {execs} execs, \
             {stops} stops, {removals} removals; {looks} looks, {lines} log lines; {repeated} repeated calls, {found} found \
             after a lost answer"
        )
    }
}

/// One client, with what is its own.
pub struct Client {
    pub name: String,
    pub cri: Cri,
    pub dice: Dice,
    pub fault: Option<Fault>,
    /// Log directories are made here.
    pub logs: PathBuf,
    /// The control group above its pods.
    pub cgroup: String,
    pub pods: Vec<Pod>,
    pub tally: Tally,
    /// The round has failed already: nothing is worth waiting for.
    given_up: Arc<AtomicBool>,
}

impl Client {
    /// The client of this number in a round, on the node in `dir`.
    pub fn new(round: &Round, number: u64, dir: &Path, cgroup: &str, given_up: Arc<AtomicBool>) -> Client {
        Client {
            name: format!("c{}-{number}", round.number),
            cri: Cri::connect(&dir.join("cricket.sock")),
            dice: Dice::new(round.seed, &[round.number, 1 + number]),
            fault: round.fault,
            logs: dir.join("logs"),
            cgroup: cgroup.to_owned(),
            pods: Vec::new(),
            tally: Tally::default(),
            given_up,
        }
    }

    /// Whether a call that failed so may be right the next time. Only where something beside the daemon fails may it say
    /// anything but that it is away.
    pub fn may_repeat(&self, e: &Error) -> bool {
        e.kind() == Kind::Unavailable
            || (self.fault.is_some() && !matches!(e.kind(), Kind::InvalidArgument | Kind::Unimplemented))
    }

    /// Waits a little before the next try of what began at `begun`.
    pub fn again(&mut self, begun: Instant, what: &str, e: &Error) {
        let bound = if self.given_up.load(Ordering::Relaxed) { Duration::ZERO } else { BOUND };
        assert!(begun.elapsed() < bound, "{}: {what} is refused for ever: {e}", self.name);
        self.tally.repeated += 1;
        sleep(PAUSE);
    }

    /// Asks until there is an answer; panics if it is a refusal for good.
    pub fn insist<T>(&mut self, what: &str, ask: impl Fn(&Cri) -> Result<T>) -> T {
        let begun = Instant::now();
        loop {
            match ask(&self.cri) {
                Ok(answer) => return answer,
                Err(e) if self.may_repeat(&e) => self.again(begun, what, &e),
                Err(e) => panic!("{}: {what}: {:?}: {e}", self.name, e.kind()),
            }
        }
    }

    pub fn list_pods(&mut self) -> Vec<PodSandbox> {
        self.insist("ListPodSandbox", Cri::pods)
    }

    pub fn list_containers(&mut self) -> Vec<Container> {
        self.insist("ListContainers", Cri::containers)
    }

    pub fn status(&mut self, id: &str) -> ContainerStatus {
        let request = ContainerStatusRequest { container_id: id.into(), ..Default::default() };
        self.insist(&format!("ContainerStatus of {id}"), |cri| cri.call(&rpc::CONTAINER_STATUS, &request))
            .status
            .unwrap_or_default()
    }

    pub fn pod_status(&mut self, id: &str) -> PodSandboxStatus {
        let request = PodSandboxStatusRequest { pod_sandbox_id: id.into(), ..Default::default() };
        self.insist(&format!("PodSandboxStatus of {id}"), |cri| cri.call(&rpc::POD_SANDBOX_STATUS, &request))
            .status
            .unwrap_or_default()
    }

    /// Compares everything that it has with what lists and statuses say.
    pub fn look(&mut self) {
        self.tally.looks += 1;
        let fault = self.fault;
        let pods: HashMap<String, PodSandbox> = self.list_pods().into_iter().map(|p| (p.id.clone(), p)).collect();
        let containers: HashMap<String, Container> =
            self.list_containers().into_iter().map(|c| (c.id.clone(), c)).collect();
        let mut own = std::mem::take(&mut self.pods);
        let mut wrong = Vec::new();
        for pod in &mut own {
            let mut note = |what: Result<(), String>| wrong.extend(what.err().map(|e| format!("pod {}: {e}", pod.id)));
            match pods.get(&pod.id) {
                None => note(Err("it is not listed".into())),
                Some(listed) => note(pod.may_be(listed.state.enum_value_or_default(), listed.created_at, fault)),
            }
            let status = self.pod_status(&pod.id);
            let agrees = pod.agree(&status, fault);
            wrong.extend(agrees.err().map(|e| format!("pod {}: {e}", pod.id)));
            for container in &mut pod.containers {
                let id = container.id.clone();
                let listed = match containers.get(&id) {
                    None => Err("it is not listed".into()),
                    Some(listed) => container.may_be(listed.state.enum_value_or_default(), listed.created_at, fault),
                };
                let agrees = container.agree(&self.status(&id), fault);
                let both = [listed, agrees].into_iter().filter_map(Result::err);
                wrong.extend(both.map(|e| format!("container {id} ({:?}): {e}", container.program)));
            }
        }
        self.pods = own;
        assert!(wrong.is_empty(), "{}: what is and what was acknowledged:\n  {}", self.name, wrong.join("\n  "));
    }
}
