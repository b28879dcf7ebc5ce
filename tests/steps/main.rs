//! SIGKILL right after every single effect of a verb: the next daemon finds all of it or nothing, and the same request again
//! does the rest.
//!
//! The daemon as it is shipped, on real containerd, runc and CNI plugins. It is traced while it works on one request, and
//! killed after its first effect outside (a file, a mount, a namespace, a process, a message to containerd or to the
//! client), then after its second, and so on until the request is through before there is another.
//!
//! `EVERY=n` tries each n-th effect only, from a start that `SEED` gives; 1 is all.
#![allow(clippy::print_stdout, reason = "how many effects there were")]

#[path = "../support/binary.rs"]
mod binary;
#[allow(dead_code, reason = "others use more of it")]
#[path = "../support/census.rs"]
mod census;
#[path = "../support/containerd.rs"]
mod containerd;
#[allow(dead_code, reason = "others use more of it")]
#[path = "../support/cri.rs"]
mod cri;
#[path = "../support/elf.rs"]
mod elf;
#[allow(dead_code, reason = "others use more of it")]
#[path = "../support/network.rs"]
mod network;
#[allow(dead_code, reason = "others use more of it")]
#[path = "../support/node.rs"]
mod node;
#[path = "../support/registry.rs"]
mod registry;
#[path = "../support/shell.rs"]
mod shell;

mod images;
mod rig;
mod tracer;

use cricket::error::{Kind, Result};
use cricket_proto::runtime::{ContainerState, PodSandboxConfig, PodSandboxState};

use cri::{container, state, Cri};
use rig::{sleeper, Rig};

/// A pod of the rig's node, and what its configuration was.
struct OnePod {
    id: String,
    config: PodSandboxConfig,
}

impl OnePod {
    fn run(rig: &Rig, process: bool) -> OnePod {
        let config = rig.pod_config(process);
        OnePod { id: rig.cri().run_pod(&config).expect("RunPodSandbox"), config }
    }

    fn create(&self, cri: &Cri) -> Result<String> {
        cri.create(&self.id, &self.config, sleeper("a"))
    }

    fn created(rig: &Rig) -> (OnePod, String) {
        let pod = OnePod::run(rig, false);
        let id = pod.create(rig.cri()).expect("CreateContainer");
        (pod, id)
    }

    fn running(rig: &Rig) -> (OnePod, String) {
        let (pod, id) = OnePod::created(rig);
        rig.cri().start(&id).expect("StartContainer");
        (pod, id)
    }

    /// With a container in each state.
    fn full(rig: &Rig, process: bool) -> OnePod {
        let pod = OnePod::run(rig, process);
        let cri = rig.cri();
        for (name, script) in [("ended", "exit 3"), ("runs", "sleep 1000"), ("made", "sleep 1000")] {
            let id = cri.create(&pod.id, &pod.config, container(name, script)).expect("CreateContainer");
            if name != "made" {
                cri.start(&id).expect("StartContainer");
            }
            if name == "ended" {
                assert_eq!(cri.ended(&id).exit_code, 3);
            }
        }
        pod
    }

    fn remove(&self, cri: &Cri) {
        cri.remove_pod(&self.id).expect("RemovePodSandbox");
    }
}

/// The states of the containers, sorted by name.
fn states(cri: &Cri) -> Vec<(String, ContainerState)> {
    let all = cri.containers().expect("ListContainers").into_iter();
    let mut all: Vec<_> = all.map(|c| (c.metadata.name.clone(), c.state.enum_value_or_default())).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

fn run_pod(process: bool) {
    let mut rig = Rig::start();
    let ready = PodSandboxState::SANDBOX_READY;
    let effects = rig.killed_after_every_effect(
        |rig| rig.pod_config(process),
        |cri, config| cri.run_pod(config),
        |cri, config, done| {
            let listed = cri.pods().expect("ListPodSandbox");
            let there: Vec<_> = listed.iter().map(|pod| (&pod.id, pod.state.enum_value_or_default())).collect();
            match (&done, there.as_slice()) {
                (Err(_), []) => {}
                (Err(_), [(_, state)]) => assert_eq!(*state, ready),
                (Ok(id), [one]) => assert_eq!(*one, (id, ready)),
                _ => panic!("{done:?}, and there are {there:?}"),
            }
            let id = cri.run_pod(config).expect("the same request");
            if let Some((before, _)) = there.first() {
                assert_eq!(id, **before, "it joins what is there");
            }
            let pod = OnePod { id, config: config.clone() };
            let ip = cri.pod_status(&pod.id).expect("PodSandboxStatus").network.ip.clone();
            assert!(!ip.is_empty());
            let container = pod.create(cri).expect("CreateContainer");
            cri.start(&container).expect("StartContainer");
            pod.remove(cri);
        },
    );
    assert!(effects > 20, "{effects}");
}

#[test]
fn run_pod_sandbox() {
    run_pod(false);
}

#[test]
fn run_pod_sandbox_with_a_process() {
    run_pod(true);
}

#[test]
fn create_container() {
    let created = ContainerState::CONTAINER_CREATED;
    let effects = Rig::start().killed_after_every_effect(
        |rig| OnePod::run(rig, false),
        |cri, pod| pod.create(cri),
        |cri, pod, done| {
            let there: Vec<String> = cri.containers().expect("ListContainers").into_iter().map(|c| c.id).collect();
            let right = done.as_ref().map_or(there.len() < 2, |id| there == [id.as_str()]);
            assert!(right, "{done:?}: {there:?}");
            assert!(states(cri).iter().all(|(_, state)| *state == created));
            let id = pod.create(cri).expect("the same request");
            if let Some(before) = there.first() {
                assert_eq!(id, *before, "it joins what is there");
            }
            cri.start(&id).expect("StartContainer");
            pod.remove(cri);
        },
    );
    assert!(effects > 10, "{effects}");
}

/// It runs or can be started.
fn started(cri: &Cri, (pod, id): &(OnePod, String), done: Result<()>) {
    match state(&cri.status(id)) {
        ContainerState::CONTAINER_RUNNING => {}
        ContainerState::CONTAINER_CREATED if done.is_err() => cri.start(id).expect("the same request"),
        other => panic!("{done:?}, and it is {other:?}"),
    }
    assert_eq!(cri.sh(id, "echo there"), "there");
    let started_at = cri.status(id).started_at;
    assert!(started_at >= cri.status(id).created_at);
    cri.stop(id, 0).expect("StopContainer");
    assert_eq!((cri.status(id).exit_code, cri.status(id).started_at), (137, started_at));
    pod.remove(cri);
}

#[test]
fn start_container() {
    let verb = |cri: &Cri, (_, id): &(OnePod, String)| cri.start(id);
    let mut rig = Rig::start();
    let effects = rig.killed_after_every_effect(OnePod::created, verb, started);
    assert!(effects > 5, "{effects}");
    rig.killed_in_recovery(effects, OnePod::created, verb, started);
}

#[test]
fn stop_container() {
    let effects = Rig::start().killed_after_every_effect(
        OnePod::running,
        |cri, (_, id)| cri.stop(id, 1),
        |cri, (pod, id), done| {
            let before = state(&cri.status(id));
            let ended = before == ContainerState::CONTAINER_EXITED;
            assert!(ended || (before == ContainerState::CONTAINER_RUNNING && done.is_err()), "{done:?}: {before:?}");
            cri.stop(id, 0).expect("the same request");
            let status = cri.status(id);
            assert_eq!(state(&status), ContainerState::CONTAINER_EXITED);
            // 2 if TERM came before runc's init had become the program, which does not mind it.
            assert!(matches!(status.exit_code, 137 | 2), "{status:?}");
            pod.remove(cri);
        },
    );
    assert!(effects > 3, "{effects}");
}

#[test]
fn remove_container() {
    let effects = Rig::start().killed_after_every_effect(
        OnePod::running,
        |cri, (_, id)| cri.remove(id),
        |cri, (pod, id), done| {
            let there = states(cri);
            assert!(done.is_err() || there.is_empty(), "{done:?}: {there:?}");
            assert!(there.iter().all(|(_, state)| *state != ContainerState::CONTAINER_UNKNOWN), "{there:?}");
            cri.remove(id).expect("the same request");
            assert_eq!(states(cri), []);
            pod.create(cri).expect("its name is free");
            pod.remove(cri);
        },
    );
    assert!(effects > 8, "{effects}");
}

fn stop_pod(process: bool) {
    let effects = Rig::start().killed_after_every_effect(
        |rig| OnePod::full(rig, process),
        |cri, pod| cri.stop_pod(&pod.id),
        |cri, pod, done| {
            let ready = |cri: &Cri| {
                let status = cri.pod_status(&pod.id).expect("PodSandboxStatus");
                status.state == PodSandboxState::SANDBOX_READY.into()
            };
            assert!(done.is_err() || !ready(cri), "it was stopped");
            cri.stop_pod(&pod.id).expect("the same request");
            assert!(!ready(cri));
            let [(_, ended), (_, made), (_, ran)] = states(cri).try_into().expect("three");
            let exited = ContainerState::CONTAINER_EXITED;
            assert_eq!((ended, made, ran), (exited, ContainerState::CONTAINER_CREATED, exited));
            pod.remove(cri);
        },
    );
    assert!(effects > 10, "{effects}");
}

#[test]
fn stop_pod_sandbox() {
    stop_pod(false);
}

#[test]
fn stop_pod_sandbox_with_a_process() {
    stop_pod(true);
}

#[test]
fn remove_pod_sandbox() {
    let effects = Rig::start().killed_after_every_effect(
        |rig| OnePod::full(rig, false),
        |cri, pod| cri.remove_pod(&pod.id),
        |cri, pod, done| {
            let there = cri.pods().expect("ListPodSandbox").len();
            assert!(there == 0 || done.is_err(), "it was removed");
            pod.remove(cri);
            assert_eq!((cri.pods().expect("ListPodSandbox").len(), states(cri).len()), (0, 0));
            let gone = cri.pod_status(&pod.id).expect_err("it is gone");
            assert_eq!(gone.kind(), Kind::NotFound);
        },
    );
    assert!(effects > 20, "{effects}");
}

/// A power cut brings back what has been forgotten only in memory.
#[test]
fn a_pod_that_is_removed_is_so_on_disk() {
    let mut rig = Rig::start();
    let pod = OnePod::full(&rig, false);
    let effects = rig.effects(|cri| cri.remove_pod(&pod.id));
    let removed = effects.iter().rposition(|effect| effect == "unlinkat").expect("its directory goes");
    assert!(removed < on_disk(&effects), "{effects:?}");
    rig.nothing_is_left();
}

/// The daemon that removed it may have been killed before that was on disk, or before it was through, and the next one tells
/// that it is gone.
#[test]
fn what_an_earlier_daemon_was_removing_is_gone_on_disk_before_it_is_told() {
    let effects = Rig::start().effects_of_a_start(&"a".repeat(64));
    let removed = effects.iter().position(|effect| effect == "unlinkat" || effect == "rmdir").expect("the rest goes");
    assert!(removed < on_disk(&effects), "{effects:?}");
}

/// Where the directory of all pods is written out for the last time.
fn on_disk(effects: &[String]) -> usize {
    let written = |effect: &String| effect.starts_with("fsync ") && effect.ends_with("/sandboxes");
    effects.iter().rposition(written).unwrap_or_else(|| panic!("it is not: {effects:?}"))
}
