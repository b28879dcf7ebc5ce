//! What the kubelet asks all the time: lists and statuses on a node that has something to list.

use cricket::error::{Context, Result};
use cricket_proto::runtime::{ContainerState, PodSandboxState};

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

/// A question, and whether the answer is right.
type Question = fn(&Side, &Pod) -> Result<bool>;

const QUESTIONS: [(&str, Question, Option<Goal>); 5] = [
    ("ListContainers", list_containers, Some(Goal::RatioAtMost(0.3))),
    ("ListPodSandbox", list_pods, Some(Goal::RatioAtMost(0.3))),
    ("ContainerStatus", container_status, Some(Goal::RatioAtMost(0.3))),
    ("PodSandboxStatus", pod_status, Some(Goal::RatioAtMost(0.3))),
    // The floor of a call: client, socket, gRPC on both ends.
    ("Version", version, None),
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
             the time of each call at the client, answer decoded.",
            PODS * (1 + CREATED),
            setting.calls
        ),
    );
    table.note("CPU: of all processes of the side for one call, from the kernel's count for its control group.");
    for (name, question, goal) in QUESTIONS {
        let mut times = [Times::default(), Times::default()];
        let mut cpu = [Cpu::default(); 2];
        for _ in 0..setting.calls.div_ceil(TURN) {
            interrupt::check()?;
            for (n, side) in sides.iter().enumerate() {
                let before = side.group.cpu()?;
                for pod in pods[n].iter().cycle().take(TURN) {
                    let right = times[n].take(name, || question(side, pod))?;
                    assert!(right, "{}: {name} answers something else", side.name);
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

fn list_containers(side: &Side, _: &Pod) -> Result<bool> {
    Ok(side.cri().containers()?.len() == PODS * (1 + CREATED))
}

fn list_pods(side: &Side, _: &Pod) -> Result<bool> {
    Ok(side.cri().pods()?.len() == PODS)
}

fn container_status(side: &Side, pod: &Pod) -> Result<bool> {
    Ok(side.cri().status(&pod.container).state == ContainerState::CONTAINER_RUNNING.into())
}

fn pod_status(side: &Side, pod: &Pod) -> Result<bool> {
    Ok(side.cri().pod_status(&pod.id)?.state == PodSandboxState::SANDBOX_READY.into())
}

fn version(side: &Side, _: &Pod) -> Result<bool> {
    Ok(side.cri().version()?.runtime_api_version == "v1")
}
