//! What a client does, one after the other, as the dice fall.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use cricket::error::{Error, Kind};
use cricket_proto::runtime::{ContainerState, ContainerStatus, NamespaceMode, PodSandboxConfig, PodSandboxState};

use crate::client::Client;
use crate::cri::{container, namespaces, pod_config_in};
use crate::logs::Program;
use crate::model::{Container, Ended, Life, Pod};
use crate::node::BUSYBOX;
use crate::schedule::Fault;

/// What a client has at most.
const PODS: usize = 2;
const CONTAINERS: usize = 3;
/// Graces of StopContainer, in seconds.
const GRACES: [i64; 3] = [0, 2, 30];

impl Client {
    /// Works without rest until it is told to end; what it has begun it brings to an end.
    pub fn work(&mut self, enough: &AtomicBool) {
        while !enough.load(Ordering::Relaxed) {
            self.step();
        }
        self.look();
    }

    /// Does so many things.
    pub fn warm_up(&mut self, steps: usize) {
        for _ in 0..steps {
            self.step();
        }
        self.look();
    }

    fn step(&mut self) {
        // Both are thrown in any case: what is next does not depend on what there is.
        let (what, which) = (self.dice.below(16), self.dice.below(1 << 20));
        let Some(pod) = usize::try_from(which).expect("small").checked_rem(self.pods.len()) else {
            return self.run_pod();
        };
        match what {
            0 | 1 if self.pods.len() < PODS => self.run_pod(),
            0..=6 => self.start_another(pod),
            7 | 8 => self.exec(pod),
            9 | 10 => self.stop(pod),
            11 => self.remove(pod),
            12 => self.stop_pod(pod),
            13 => self.remove_pod(pod),
            _ => self.look(),
        }
    }

    /// Removes all that it has, with the dice's choice of ways, after a last look at every log.
    pub fn end(&mut self) {
        self.look();
        while let Some(pod) = self.pods.len().checked_sub(1) {
            match self.dice.below(4) {
                0 => self.stop_pod(pod),
                1 => self.stop(pod),
                2 => self.remove(pod),
                _ => self.remove_pod(pod),
            }
        }
    }

    fn new_pod(&mut self) -> (PodSandboxConfig, bool) {
        let mut config = pod_config_in(&self.logs, &self.name);
        let process = self.dice.one_in(4);
        let linux = config.linux.mut_or_insert_default();
        linux.cgroup_parent = self.cgroup.clone();
        if process {
            let security = linux.security_context.mut_or_insert_default();
            security.namespace_options = Some(namespaces(NamespaceMode::POD)).into();
            security.namespace_options.mut_or_insert_default().pid = NamespaceMode::POD.into();
        }
        (config, process)
    }

    fn run_pod(&mut self) {
        let (config, process) = self.new_pod();
        let begun = Instant::now();
        let id = loop {
            let e = match self.cri.run_pod(&config) {
                Ok(id) => break id,
                Err(e) if self.may_repeat(&e) || e.kind() == Kind::AlreadyExists => e,
                Err(e) => panic!("{}: RunPodSandbox: {:?}: {e}", self.name, e.kind()),
            };
            self.again(begun, "RunPodSandbox", &e);
            // No answer is no refusal: it may be there.
            let mine: Vec<_> = self.list_pods().into_iter().filter(|p| p.metadata == config.metadata).collect();
            assert!(mine.len() < 2, "{}: one request made {mine:#?}", self.name);
            let Some(pod) = mine.into_iter().next() else { continue };
            if pod.state == PodSandboxState::SANDBOX_READY.into() {
                self.tally.found += 1;
                break pod.id;
            }
            // Its undo failed as well, and it is kept for this.
            assert!(self.fault.is_some(), "{}: RunPodSandbox left a pod that is not ready after: {e}", self.name);
            self.insist("StopPodSandbox", |cri| cri.stop_pod(&pod.id));
            self.insist("RemovePodSandbox", |cri| cri.remove_pod(&pod.id));
        };
        self.tally.pods += 1;
        let status = self.pod_status(&id);
        let (created_at, ip) = (status.created_at, status.network.ip.clone());
        assert!(created_at != 0 && !ip.is_empty(), "{}: a pod without IP or time: {status:?}", self.name);
        let mut pod = Pod { config, id, created_at, ip, process, ready: true, containers: Vec::new() };
        let agrees = pod.agree(&status, self.fault);
        agrees.unwrap_or_else(|e| panic!("{}: pod {} right after its start: {e}", self.name, pod.id));
        self.pods.push(pod);
    }

    /// A new container in a pod, usually started.
    fn start_another(&mut self, pod: usize) {
        let program = match self.dice.below(4) {
            0 => Program::Ends(0),
            1 => Program::Ends(3),
            _ => Program::Counts,
        };
        let starts = !self.dice.one_in(5);
        if !self.pods[pod].ready || self.pods[pod].containers.len() >= CONTAINERS {
            return self.remove(pod);
        }
        let Some(made) = self.create(pod, program) else { return };
        self.pods[pod].containers.push(made);
        if starts {
            self.start(pod, self.pods[pod].containers.len() - 1);
        }
    }

    /// None if the pod is not ready any more, which it may be where shims die.
    fn create(&mut self, pod: usize, program: Program) -> Option<Container> {
        let name = format!("{}-{}", self.name, self.tally.containers);
        self.tally.containers += 1;
        let mut config = container(&name, &program.script());
        let (sandbox, pod_config) = (self.pods[pod].id.clone(), self.pods[pod].config.clone());
        if self.pods[pod].process {
            let security = config.linux.mut_or_insert_default().security_context.mut_or_insert_default();
            security.namespace_options.mut_or_insert_default().pid = NamespaceMode::POD.into();
        }
        let begun = Instant::now();
        let id = loop {
            let e = match self.cri.create(&sandbox, &pod_config, config.clone()) {
                Ok(id) => break id,
                Err(e) if self.may_repeat(&e) || e.kind() == Kind::AlreadyExists => e,
                Err(e) => panic!("{}: CreateContainer: {:?}: {e}", self.name, e.kind()),
            };
            self.again(begun, "CreateContainer", &e);
            let mine: Vec<_> = self.list_containers().into_iter().filter(|c| c.metadata == config.metadata).collect();
            assert!(mine.len() < 2, "{}: one request made {mine:#?}", self.name);
            if let Some(made) = mine.into_iter().next() {
                self.tally.found += 1;
                break made.id;
            }
            if self.has_lost(pod) {
                return None;
            }
        };
        let status = self.status(&id);
        let log = std::path::Path::new(&pod_config.log_directory).join(format!("{name}.log"));
        let mut made =
            Container { id, name, created_at: status.created_at, program, log, life: Life::Created, torn: false };
        let agrees = made.agree(&status, self.fault);
        agrees.unwrap_or_else(|e| panic!("{}: container {} right after its creation: {e}", self.name, made.id));
        Some(made)
    }

    /// Whether a pod with a process is not ready any more.
    fn has_lost(&mut self, pod: usize) -> bool {
        if self.fault == Some(Fault::ShimDies) && self.pods[pod].process {
            let status = self.pod_status(&self.pods[pod].id.clone());
            self.pods[pod].ready = status.state == PodSandboxState::SANDBOX_READY.into();
        }
        !self.pods[pod].ready
    }

    fn start(&mut self, pod: usize, at: usize) {
        let id = self.pods[pod].containers[at].id.clone();
        let begun = Instant::now();
        loop {
            let done = self.cri.start(&id);
            let status = self.status(&id);
            match (done, status.state.enum_value_or_default()) {
                (Err(e), ContainerState::CONTAINER_CREATED) if self.may_repeat(&e) => {
                    self.again(begun, "StartContainer", &e);
                    if self.has_lost(pod) {
                        return;
                    }
                }
                (Err(e), ContainerState::CONTAINER_CREATED) => {
                    panic!("{}: StartContainer of {id}: {:?}: {e}", self.name, e.kind());
                }
                (Err(e), ContainerState::CONTAINER_EXITED) if status.reason == "StartError" => {
                    return self.start_failed(pod, at, &status, &e);
                }
                (done, _) => {
                    self.tally.found += u64::from(done.is_err());
                    break self.started(pod, at, &status);
                }
            }
        }
    }

    fn started(&mut self, pod: usize, at: usize, status: &ContainerStatus) {
        self.tally.starts += 1;
        let (name, fault) = (&self.name, self.fault);
        let container = &mut self.pods[pod].containers[at];
        assert!(status.started_at >= status.created_at, "{name}: started before it was created: {status:?}");
        container.life = Life::Running { started_at: status.started_at };
        let agrees = container.agree(status, fault);
        agrees.unwrap_or_else(|e| panic!("{name}: container {} right after its start: {e}", container.id));
    }

    fn start_failed(&mut self, pod: usize, at: usize, status: &ContainerStatus, e: &Error) {
        assert!(self.fault.is_some(), "{}: StartContainer of {}: {e}: {}", self.name, status.id, status.message);
        let container = &mut self.pods[pod].containers[at];
        let (started_at, finished_at) = (status.started_at, status.finished_at);
        let ended = Ended { started_at, finished_at, code: status.exit_code, reason: status.reason.clone() };
        container.life = Life::Ended(ended);
    }

    /// One of the pod's containers for which this holds.
    fn pick(&mut self, pod: usize, wanted: impl Fn(&Container) -> bool) -> Option<usize> {
        let throw = self.dice.below(1 << 20);
        let all = &self.pods[pod].containers;
        let found: Vec<usize> = (0..all.len()).filter(|at| wanted(&all[*at])).collect();
        usize::try_from(throw).expect("small").checked_rem(found.len()).map(|at| found[at])
    }

    /// A command in a container that runs. One that got no answer is not repeated: a probe comes again anyway.
    fn exec(&mut self, pod: usize) {
        let runs = |c: &Container| matches!(c.life, Life::Running { .. }) && c.program == Program::Counts;
        let Some(at) = self.pick(pod, runs) else { return self.look() };
        let id = self.pods[pod].containers[at].id.clone();
        match self.cri.exec(&id, &[BUSYBOX, "echo", &id], 20) {
            Ok(answer) => {
                self.tally.execs += 1;
                let said = String::from_utf8_lossy(&answer.stdout);
                let expected = (0, format!("{id}\n"));
                let loose = self.fault == Some(Fault::ShimDies);
                assert!(loose || (answer.exit_code, said.to_string()) == expected, "{}: exec: {answer:?}", self.name);
            }
            Err(e) if self.may_repeat(&e) => self.tally.repeated += 1,
            Err(e) => panic!("{}: ExecSync in {id}: {:?}: {e}", self.name, e.kind()),
        }
    }

    fn stop(&mut self, pod: usize) {
        let grace = GRACES[self.dice.place(GRACES.len())];
        let Some(at) = self.pick(pod, |c| matches!(c.life, Life::Running { .. })) else { return self.look() };
        let id = self.pods[pod].containers[at].id.clone();
        self.insist("StopContainer", |cri| cri.stop(&id, grace));
        self.tally.stops += 1;
        self.has_ended(pod, at, grace > 0, "StopContainer");
    }

    /// After an acknowledged end: it is over at once, and its log is complete.
    fn has_ended(&mut self, pod: usize, at: usize, asked: bool, how: &str) {
        let status = self.status(&self.pods[pod].containers[at].id.clone());
        let (name, fault) = (&self.name, self.fault);
        let container = &mut self.pods[pod].containers[at];
        let agrees = container.stopped(&status, asked, fault);
        agrees.unwrap_or_else(|e| panic!("{name}: container {} after {how}: {e}", container.id));
        let running = matches!(container.life, Life::Running { .. });
        assert!(!running, "{name}: container {} runs after {how}", container.id);
    }

    fn remove(&mut self, pod: usize) {
        let Some(at) = self.pick(pod, |_| true) else { return self.look() };
        let container = self.pods[pod].containers.remove(at);
        self.insist("RemoveContainer", |cri| cri.remove(&container.id));
        self.tally.removals += 1;
        self.is_gone(container);
    }

    /// The log of a container that was removed stays, and it is in no list.
    fn is_gone(&mut self, mut container: Container) {
        if let Life::Running { started_at } = container.life {
            // Removed while it ran: killed at any place, if it had not ended before.
            let (finished_at, code, reason) = (started_at, 137, String::new());
            container.life = Life::Ended(Ended { started_at, finished_at, code, reason });
        }
        let lines = container.check_log(self.fault);
        let lines = lines.unwrap_or_else(|e| panic!("{}: the log of {}: {e}", self.name, container.id));
        self.tally.lines += lines as u64;
        let left = self.list_containers().into_iter().find(|c| c.id == container.id);
        assert!(left.is_none(), "{}: removed and listed: {:?}", self.name, left);
    }

    fn stop_pod(&mut self, pod: usize) {
        let id = self.pods[pod].id.clone();
        self.insist("StopPodSandbox", |cri| cri.stop_pod(&id));
        self.tally.stops += 1;
        self.pods[pod].ready = false;
        for at in 0..self.pods[pod].containers.len() {
            self.has_ended(pod, at, false, "StopPodSandbox");
        }
        self.look();
    }

    fn remove_pod(&mut self, pod: usize) {
        let pod = self.pods.remove(pod);
        self.insist("RemovePodSandbox", |cri| cri.remove_pod(&pod.id));
        self.tally.removals += 1;
        let left = self.list_pods().into_iter().find(|p| p.id == pod.id);
        assert!(left.is_none(), "{}: removed and listed: {:?}", self.name, left);
        for container in pod.containers {
            self.is_gone(container);
        }
    }
}
