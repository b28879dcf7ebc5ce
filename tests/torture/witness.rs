//! Somebody who only looks, all the time, and remembers: nothing that was seen once may be otherwise later.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

use cricket::error::{Kind, Result};
use cricket_proto::methods::runtime_service as rpc;
use cricket_proto::runtime::{
    ContainerMetadata, ContainerState, ContainerStatusRequest, ContainerStatusResponse, PodSandboxMetadata,
    PodSandboxState,
};
use protobuf::MessageField;

use crate::cri::Cri;
use crate::schedule::Fault;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// What it has seen.
pub struct Witness {
    cri: Cri,
    fault: Option<Fault>,
    pods: HashMap<String, PodSeen>,
    containers: HashMap<String, ContainerSeen>,
    gone: HashSet<String>,
}

struct PodSeen {
    name: MessageField<PodSandboxMetadata>,
    created_at: i64,
    was_ready: bool,
}

struct ContainerSeen {
    name: MessageField<ContainerMetadata>,
    created_at: i64,
    /// How far it is: created, running, ended.
    rank: u8,
    started_at: i64,
    /// Code and time.
    end: Option<(i32, i64)>,
}

impl Witness {
    pub fn new(cri: Cri, fault: Option<Fault>) -> Witness {
        Witness { cri, fault, pods: HashMap::new(), containers: HashMap::new(), gone: HashSet::new() }
    }

    /// Looks until it is told to end.
    pub fn watch(&mut self, enough: &AtomicBool) {
        while !enough.load(Ordering::Relaxed) {
            match self.look() {
                Ok(()) => {}
                // The daemon is away, or what was listed has been removed since.
                Err(e) if matches!(e.kind(), Kind::Unavailable | Kind::NotFound) => {}
                Err(e) => panic!("a list or status: {:?}: {e}", e.kind()),
            }
            sleep(PAUSE);
        }
    }

    fn look(&mut self) -> Result<()> {
        self.look_at_pods()?;
        self.look_at_containers()
    }

    fn look_at_pods(&mut self) -> Result<()> {
        let listed = self.cri.pods()?;
        let mut names = HashSet::new();
        for pod in &listed {
            assert!(!self.gone.contains(&pod.id), "it was gone and is listed: {pod:?}");
            assert!(names.insert(format!("{:?}", pod.metadata)), "two of one name: {listed:#?}");
            let ready = pod.state == PodSandboxState::SANDBOX_READY.into();
            let new = || PodSeen { name: pod.metadata.clone(), created_at: pod.created_at, was_ready: ready };
            let seen = self.pods.entry(pod.id.clone()).or_insert_with(new);
            assert!(seen.name == pod.metadata && seen.created_at == pod.created_at, "it was another: {pod:?}");
            assert!(!ready || seen.was_ready, "it was not ready and is again: {pod:?}");
            seen.was_ready = ready;
        }
        let there: HashSet<&String> = listed.iter().map(|pod| &pod.id).collect();
        self.gone.extend(self.pods.keys().filter(|id| !there.contains(id)).cloned());
        Ok(())
    }

    fn look_at_containers(&mut self) -> Result<()> {
        let listed = self.cri.containers()?;
        for container in &listed {
            assert!(!self.gone.contains(&container.id), "it was gone and is listed: {container:?}");
            let state = container.state.enum_value_or_default();
            let new = || ContainerSeen {
                name: container.metadata.clone(),
                created_at: container.created_at,
                rank: 0,
                started_at: 0,
                end: None,
            };
            let seen = self.containers.entry(container.id.clone()).or_insert_with(new);
            let same = seen.name == container.metadata && seen.created_at == container.created_at;
            assert!(same, "it was another: {container:?}");
            seen.rank = rank(state, seen.rank, self.fault).unwrap_or_else(|| panic!("it was further: {container:?}"));
        }
        let there: HashSet<&String> = listed.iter().map(|container| &container.id).collect();
        self.gone.extend(self.containers.keys().filter(|id| !there.contains(id)).cloned());
        for container in &listed {
            self.look_at(&container.id)?;
        }
        Ok(())
    }

    fn look_at(&mut self, id: &str) -> Result<()> {
        let request = ContainerStatusRequest { container_id: id.into(), ..Default::default() };
        let answer: ContainerStatusResponse = self.cri.call(&rpc::CONTAINER_STATUS, &request)?;
        let status = answer.status.unwrap_or_default();
        let seen = self.containers.get_mut(id).expect("listed before");
        let state = status.state.enum_value_or_default();
        seen.rank = rank(state, seen.rank, self.fault).unwrap_or_else(|| panic!("it was further: {status:?}"));
        let started = seen.started_at == 0 || seen.started_at == status.started_at;
        assert!(started, "it started at {}: {status:?}", seen.started_at);
        seen.started_at = status.started_at;
        if state == ContainerState::CONTAINER_EXITED {
            let end = (status.exit_code, status.finished_at);
            assert!(seen.end.is_none_or(|was| was == end), "its end was {:?}: {status:?}", seen.end);
            seen.end = Some(end);
        }
        Ok(())
    }
}

/// How far a container is, if it may be so after it was at `before`.
fn rank(state: ContainerState, before: u8, fault: Option<Fault>) -> Option<u8> {
    let now = match state {
        ContainerState::CONTAINER_CREATED => 0,
        ContainerState::CONTAINER_RUNNING => 1,
        ContainerState::CONTAINER_EXITED => 2,
        // Where containerd or a shim cannot say.
        ContainerState::CONTAINER_UNKNOWN if fault.is_some() => before,
        ContainerState::CONTAINER_UNKNOWN => return None,
    };
    (now >= before).then_some(now)
}
