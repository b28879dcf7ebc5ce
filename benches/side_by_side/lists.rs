//! What the kubelet asks all the time: lists and statuses on a node that has something to list.

use std::io::Read;

use cricket::error::{Context, Result};
use cricket_proto::methods::runtime_service as rpc;
use cricket_proto::runtime::{
    ContainerState, ContainerStatusRequest, ContainerStatusResponse, ListContainersResponse, ListPodSandboxResponse,
    PodSandboxState, PodSandboxStatusRequest, PodSandboxStatusResponse, VersionResponse,
};
use grpcio::{Marshaller, Method};
use protobuf::Message;

use crate::group::Cpu;
use crate::interrupt;
use crate::setting::Setting;
use crate::side::{polite, Pod, Side};
use crate::stopwatch::Times;
use crate::table::{Goal, Row, Table};

/// Pods of one running container, which are asked for one by one.
const PODS: usize = 20;
/// Containers that each of them has beside it, created and not started.
const CREATED: usize = 4;
/// Calls of one side before it is the other's turn.
const TURN: usize = 10;

/// A question.
type Question = fn(&Side, &Pod) -> Result<Vec<u8>>;
/// Whether the answer is right.
type Check = fn(&[u8]) -> bool;

const QUESTIONS: [(&str, Question, Check, Option<Goal>); 5] = [
    ("ListContainers", list_containers, all_containers, Some(Goal::RatioAtMost(0.3))),
    ("ListPodSandbox", list_pods, all_pods, Some(Goal::RatioAtMost(0.3))),
    ("ContainerStatus", container_status, running, Some(Goal::RatioAtMost(0.3))),
    ("PodSandboxStatus", pod_status, ready, Some(Goal::RatioAtMost(0.3))),
    // The floor of a call: client, socket, gRPC on both ends.
    ("Version", version, v1, None),
];

/// Fills both sides and asks in turn.
pub fn measure(setting: &Setting, table: &mut Table) -> Result<()> {
    let sides = Side::both(setting)?;
    let mut pods = [Vec::new(), Vec::new()];
    for (side, pods) in sides.iter().zip(&mut pods) {
        fill(side, pods)?;
    }
    table.group(
        "Lists and statuses",
        &format!(
            "{PODS} pods, {} containers ({PODS} running); {} calls of each kind on each side, {TURN} here and {TURN} there; \
             the time of each call until the client has the answer, not yet decoded.",
            PODS * (1 + CREATED),
            setting.calls
        ),
    );
    table.note("CPU: of all processes of the side for one call, from the kernel's count for its control group.");
    for (name, question, check, goal) in QUESTIONS {
        let mut times = [Times::default(), Times::default()];
        let mut cpu = [Cpu::default(); 2];
        for _ in 0..setting.calls.div_ceil(TURN) {
            interrupt::check()?;
            for (n, side) in sides.iter().enumerate() {
                let before = side.group.cpu()?;
                for pod in pods[n].iter().cycle().take(TURN) {
                    let answer = times[n].take(name, || question(side, pod))?;
                    assert!(check(&answer), "{}: {name} answers something else", side.name);
                }
                cpu[n].system += (side.group.cpu()? - before).system;
            }
        }
        table.row(Row { goal, ..Row::new(name, "ms", &times[0], &times[1]) });
        let calls = (setting.calls.div_ceil(TURN) * TURN) as f64;
        let [ours, peer] = cpu.map(|cpu| cpu.system.as_secs_f64() * 1000.0 / calls);
        table.row(Row::new(&format!("{name}, CPU"), "ms", ours, peer));
    }
    for (side, pods) in sides.iter().zip(&pods) {
        pods.iter().try_for_each(|pod| side.remove(pod))?;
    }
    Ok(())
}

fn fill(side: &Side, pods: &mut Vec<Pod>) -> Result<()> {
    for n in 0..PODS {
        let pod = side.run(&format!("listed-{n}"))?;
        for m in 0..CREATED {
            let created = side.cri().create(&pod.id, &pod.config, polite(&format!("created-{m}")));
            created.with_context(|| format!("{}: CreateContainer", side.name))?;
        }
        pods.push(pod);
    }
    Ok(())
}

fn list_containers(side: &Side, _: &Pod) -> Result<Vec<u8>> {
    ask(side, &rpc::LIST_CONTAINERS, &Default::default())
}

fn all_containers(answer: &[u8]) -> bool {
    ListContainersResponse::parse_from_bytes(answer).is_ok_and(|a| a.containers.len() == PODS * (1 + CREATED))
}

fn list_pods(side: &Side, _: &Pod) -> Result<Vec<u8>> {
    ask(side, &rpc::LIST_POD_SANDBOX, &Default::default())
}

fn all_pods(answer: &[u8]) -> bool {
    ListPodSandboxResponse::parse_from_bytes(answer).is_ok_and(|a| a.items.len() == PODS)
}

fn container_status(side: &Side, pod: &Pod) -> Result<Vec<u8>> {
    let request = ContainerStatusRequest { container_id: pod.container.clone(), ..Default::default() };
    ask(side, &rpc::CONTAINER_STATUS, &request)
}

fn running(answer: &[u8]) -> bool {
    let state = ContainerState::CONTAINER_RUNNING.into();
    ContainerStatusResponse::parse_from_bytes(answer).is_ok_and(|a| a.status.state == state)
}

fn pod_status(side: &Side, pod: &Pod) -> Result<Vec<u8>> {
    let request = PodSandboxStatusRequest { pod_sandbox_id: pod.id.clone(), ..Default::default() };
    ask(side, &rpc::POD_SANDBOX_STATUS, &request)
}

fn ready(answer: &[u8]) -> bool {
    let state = PodSandboxState::SANDBOX_READY.into();
    PodSandboxStatusResponse::parse_from_bytes(answer).is_ok_and(|a| a.status.state == state)
}

fn version(side: &Side, _: &Pod) -> Result<Vec<u8>> {
    ask(side, &rpc::VERSION, &Default::default())
}

fn v1(answer: &[u8]) -> bool {
    VersionResponse::parse_from_bytes(answer).is_ok_and(|a| a.runtime_api_version == "v1")
}

/// Calls, and takes the answer as it came.
fn ask<Q, R>(side: &Side, method: &Method<Q, R>, request: &Q) -> Result<Vec<u8>> {
    let undecoded = Method {
        ty: method.ty,
        name: method.name,
        req_mar: Marshaller { ser: method.req_mar.ser, de: method.req_mar.de },
        resp_mar: Marshaller {
            ser: |_, _| Err(grpcio::Error::Codec("a client answers nothing".into())),
            de: |mut answer| {
                let mut bytes = Vec::new();
                answer.read_to_end(&mut bytes).map_err(|e| grpcio::Error::Codec(e.into()))?;
                Ok(bytes)
            },
        },
    };
    side.cri().call(&undecoded, request)
}
