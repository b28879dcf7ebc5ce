//! SIGKILL at any time, of the daemon or of containerd, is nothing that a container notices.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use cricket::error::Kind;
use cricket_proto::methods::runtime_service as rpc;
use cricket_proto::runtime::{ContainerState, Mount, PodSandboxState, StatusResponse};

use crate::census::Census;
use crate::cri::{container, state, Pod, POLITE};
use crate::node::{until, Node};

/// Counts until it is told to stop by the file /control/stop.
const COUNTER: &str = "i=0; until [ -e /control/stop ]; do i=$((i+1)); echo line $i; sleep 0.01; done; echo end $i";

fn volume(node: &Node, name: &str) -> (std::path::PathBuf, Mount) {
    let path = node.dir().join("volumes").join(name);
    fs::create_dir(&path).expect("a volume");
    let mount =
        Mount { container_path: "/control".into(), host_path: path.display().to_string(), ..Default::default() };
    (path, mount)
}

/// The counter's log must be whole; returns how far it counted.
fn counted(log: &Path) -> usize {
    let text = fs::read_to_string(log).expect("the log");
    for (n, line) in text.lines().enumerate() {
        let said = line.splitn(4, ' ').nth(3).unwrap_or_else(|| panic!("torn at line {n}: {line:?}"));
        let is_last = said.starts_with("end ");
        let expected = if is_last { format!("end {n}") } else { format!("line {}", n + 1) };
        assert_eq!(said, expected, "{line:?}");
    }
    text.lines().count()
}

fn lives(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

fn kill(pid: u32) {
    assert!(Command::new("kill").args(["-KILL", &pid.to_string()]).status().expect("run kill").success());
}

#[test]
fn the_daemon_is_killed_and_knows_everything_again() {
    let mut node = Node::start();
    let empty = Census::take(&node);
    let (control, mount) = volume(&node, "counter");
    let (pod_id, ip, counting, polite, ended, never, started_at, pids, pod_config);
    {
        let pod = Pod::run(&node, "survivor");
        let mut config = container("counting", COUNTER);
        config.mounts = vec![mount];
        counting = pod.start(config);
        polite = pod.start(container("polite", POLITE));
        ended = pod.start(container("ended", "exit 5"));
        never = pod.create(container("never", "exit 0"));
        node.cri.ended(&ended);
        ip = node.cri.pod_status(&pod.id).expect("PodSandboxStatus").network.ip.clone();
        started_at = node.cri.status(&counting).started_at;
        pids = (node.cri.pid(&counting), node.cri.pid(&polite));
        (pod_id, pod_config) = (pod.id, pod.config);
    }
    let log = Path::new(&pod_config.log_directory).join("counting.log");

    for (round, signal) in ["KILL", "TERM", "KILL"].into_iter().enumerate() {
        until("the log grows", || counted(&log) > 20 * (round + 1));
        let status = node.end_daemon(signal);
        assert_eq!(status.success(), signal == "TERM", "{status}");
        let before = counted(&log);
        let took = node.start_daemon();
        println!("ready {:.0} ms after the start that followed SIG{signal}", took.as_secs_f64() * 1000.0);

        let pods = node.cri.pods().expect("ListPodSandbox");
        assert_eq!(pods.len(), 1);
        assert_eq!((&pods[0].id, pods[0].state), (&pod_id, PodSandboxState::SANDBOX_READY.into()));
        assert_eq!(node.cri.pod_status(&pod_id).expect("PodSandboxStatus").network.ip, ip);
        let mut ids: Vec<String> = node.cri.containers().expect("ListContainers").into_iter().map(|c| c.id).collect();
        let mut expected = [&counting, &polite, &ended, &never].map(Clone::clone);
        ids.sort();
        expected.sort();
        assert_eq!(ids, expected);
        let status = node.cri.status(&counting);
        assert_eq!((state(&status), status.started_at), (ContainerState::CONTAINER_RUNNING, started_at));
        assert_eq!((node.cri.pid(&counting), node.cri.pid(&polite)), pids, "never restarted");
        assert_eq!(node.cri.status(&ended).exit_code, 5);
        assert_eq!(state(&node.cri.status(&never)), ContainerState::CONTAINER_CREATED);
        assert_eq!(node.cri.sh(&counting, "echo alive"), "alive");
        until("the log goes on", || counted(&log) > before);
    }

    // What ends while nobody looks is seen all the same.
    node.end_daemon("KILL");
    kill(pids.1);
    fs::write(control.join("stop"), "").expect("write");
    until("both have ended", || !lives(pids.0) && !lives(pids.1));
    node.start_daemon();
    assert_eq!(node.cri.ended(&polite).exit_code, 137);
    let status = node.cri.ended(&counting);
    assert_eq!((status.exit_code, &*status.reason, status.started_at), (0, "Completed", started_at));
    // Its shim has written all of it, last words too, while the daemon was away.
    let lines = counted(&log);
    let text = fs::read_to_string(&log).expect("the log");
    assert!(text.lines().last().is_some_and(|line| line.ends_with(&format!(" F end {}", lines - 1))), "{lines} lines");

    // One that was created before is started after; a new one joins the pod.
    node.cri.start(&never).expect("StartContainer");
    assert_eq!(node.cri.ended(&never).exit_code, 0);
    let late = node.cri.create(&pod_id, &pod_config, container("late", POLITE)).expect("CreateContainer");
    node.cri.start(&late).expect("StartContainer");
    node.cri.stop(&late, 20).expect("StopContainer");

    node.cri.stop_pod(&pod_id).expect("StopPodSandbox");
    node.cri.remove_pod(&pod_id).expect("RemovePodSandbox");
    until("the shim ends", || Census::take(&node).new_since(&empty).is_empty());
}

#[test]
fn containerd_is_killed_and_comes_back() {
    let mut node = Node::start();
    let empty = Census::take(&node);
    let (pod_id, pod_config, stays, dies);
    {
        let pod = Pod::run(&node, "survivor");
        stays = pod.start(container("stays", POLITE));
        dies = pod.start(container("dies", POLITE));
        (pod_id, pod_config) = (pod.id, pod.config);
    }
    let (pid, victim) = (node.cri.pid(&stays), node.cri.pid(&dies));
    node.containerd.kill();

    until("the daemon notices", || !runtime_ready(&node));
    assert_eq!(node.cri.pods().expect("ListPodSandbox").len(), 1, "lists need no containerd");
    assert_eq!(node.cri.containers().expect("ListContainers").len(), 2);
    assert_eq!(state(&node.cri.status(&stays)), ContainerState::CONTAINER_RUNNING);
    assert!(node.cri.version().is_ok());
    let refused = [
        node.cri.exec(&stays, &["/bin/busybox", "true"], 5).map(drop),
        node.cri.create(&pod_id, &pod_config, container("new", POLITE)).map(drop),
        node.cri.stop(&stays, 5),
        node.cri.remove(&stays),
    ];
    for refusal in refused {
        let e = refusal.expect_err("containerd is away");
        assert_eq!(e.kind(), Kind::Unavailable, "{e}");
        assert!(e.message().contains("containerd"), "{e}");
    }
    kill(victim);
    until("it has ended", || !lives(victim));

    let begun = Instant::now();
    node.containerd.start_again();
    until("the daemon is connected again", || runtime_ready(&node));
    println!("connected again {:.0} ms after containerd's start", begun.elapsed().as_secs_f64() * 1000.0);
    assert_eq!(node.cri.ended(&dies).exit_code, 137, "an exit that no event told");
    assert_eq!(state(&node.cri.status(&stays)), ContainerState::CONTAINER_RUNNING);
    assert_eq!(node.cri.pid(&stays), pid);
    assert_eq!(node.cri.sh(&stays, "echo alive"), "alive");
    let new = node.cri.create(&pod_id, &pod_config, container("new", "echo new")).expect("CreateContainer");
    node.cri.start(&new).expect("StartContainer");
    assert_eq!(node.cri.ended(&new).exit_code, 0);
    node.cri.stop(&stays, 20).expect("StopContainer");
    assert_eq!(node.cri.status(&stays).exit_code, 7);

    node.cri.stop_pod(&pod_id).expect("StopPodSandbox");
    node.cri.remove_pod(&pod_id).expect("RemovePodSandbox");
    until("nothing is left", || Census::take(&node).new_since(&empty).is_empty());
}

fn runtime_ready(node: &Node) -> bool {
    let answer: StatusResponse = node.cri.call(&rpc::STATUS, &Default::default()).expect("Status");
    answer.status.conditions.iter().any(|c| c.type_ == "RuntimeReady" && c.status)
}

#[test]
fn without_containerd_the_daemon_says_so_and_serves_when_it_comes() {
    let mut node = Node::prepare();
    node.containerd.kill();
    node.spawn_daemon();
    let mut refusal = None;
    until("the daemon answers", || {
        let e = node.cri.version().expect_err("not ready");
        let ours = e.message().contains("not ready");
        refusal = Some(e);
        ours
    });
    let e = refusal.expect("set");
    assert_eq!(e.kind(), Kind::Unavailable);
    assert!(e.message().contains(&node.containerd.socket()), "it names the socket: {e}");
    let e = node.cri.pods().expect_err("not ready");
    assert_eq!(e.kind(), Kind::Unavailable, "{e}");

    node.containerd.start_again();
    until("the daemon is ready", || node.cri.version().is_ok());
    node.import_shell();
    let pod = Pod::run(&node, "first");
    assert_eq!(pod.run_to_end(container("c", "exit 3")).exit_code, 3);
    pod.remove();
}
