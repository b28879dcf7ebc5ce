//! What `power-cut` does to its node as a client of the CRI, in one process that is started once, which under software
//! emulation is most of what crictl takes: `load` makes pods without rest and writes down what was acknowledged; `check` compares
//! that with what is there after the power went; `clean` removes everything, and runs one pod more to its end.
#![allow(clippy::print_stdout, reason = "the console is where a scenario speaks")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::panic;
use std::path::{Path, PathBuf};
use std::process::abort;

use std::thread::{scope, sleep};
use std::time::Duration;

use cricket::call::Call;
use cricket::error::Result;
use cricket::grpc::Peer;
use cricket::store::record::sync_dir;
use cricket_proto::methods::runtime_service as rpc;
use cricket_proto::runtime as cri;
use protobuf::MessageField;

const SOCKET: &str = "/run/cricket/cricket.sock";
const IMAGE: &str = "localhost/busybox:1";
/// What was acknowledged: a file for each lane.
const TOLD: &str = "/vm/out/told";
/// Who works at once.
const LANES: u32 = 3;
/// Pods that each of them leaves; more would only make the next boot longer.
const KEPT: u32 = 4;
/// For one call, on a machine that emulates.
const PATIENCE: Duration = Duration::from_secs(120);
/// How a container ends that ends by itself.
const CODE: i32 = 3;

fn main() {
    // Whichever thread it is: the others would go on for ever.
    let tell = panic::take_hook();
    panic::set_hook(Box::new(move |what| {
        tell(what);
        abort();
    }));
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let cri = Cri(Peer::connect("cricket", SOCKET).expect("a path"));
    match words[..] {
        ["load", boot] => {
            let cri = &cri;
            scope(|scope| (1..=LANES).for_each(|lane| drop(scope.spawn(move || Lane::new(cri, boot, lane).work()))));
        }
        ["check"] => check(&cri),
        ["clean", boot] => clean(&cri, boot),
        _ => panic!("usage: client load BOOT | check | clean BOOT"),
    }
}

struct Cri(Peer);

impl Cri {
    fn call<Q, R: Unpin>(&self, method: &grpcio::Method<Q, R>, request: &Q) -> R {
        self.ask(method, request).unwrap_or_else(|e| panic!("{:?}: {e}", e.kind()))
    }

    fn ask<Q, R: Unpin>(&self, method: &grpcio::Method<Q, R>, request: &Q) -> Result<R> {
        self.0.unary(&Call::within(PATIENCE), method, request, &[])
    }

    fn pods(&self) -> Vec<cri::PodSandbox> {
        self.call(&rpc::LIST_POD_SANDBOX, &Default::default()).items
    }

    fn containers(&self) -> Vec<cri::Container> {
        self.call(&rpc::LIST_CONTAINERS, &Default::default()).containers
    }

    fn status(&self, id: &str) -> cri::ContainerStatus {
        let request = cri::ContainerStatusRequest { container_id: id.into(), ..Default::default() };
        self.call(&rpc::CONTAINER_STATUS, &request).status.unwrap_or_default()
    }

    /// A pod of this name with a container that runs a line of shell, as a kubelet would ask for them; `made` is told of each
    /// as it is acknowledged.
    fn run(&self, name: &str, line: &str, mut made: impl FnMut(&str)) -> (String, String) {
        let logs = PathBuf::from(format!("/var/log/pods/vm_{name}_uid-{name}"));
        fs::create_dir_all(&logs).expect("make the log directory");
        let options = cri::NamespaceOption { pid: cri::NamespaceMode::CONTAINER.into(), ..Default::default() };
        let metadata = cri::PodSandboxMetadata {
            name: name.into(),
            namespace: "vm".into(),
            uid: format!("uid-{name}"),
            ..Default::default()
        };
        let mut pod = cri::PodSandboxConfig {
            metadata: MessageField::some(metadata),
            hostname: name.into(),
            log_directory: logs.display().to_string(),
            ..Default::default()
        };
        let linux = pod.linux.mut_or_insert_default();
        linux.cgroup_parent = "vm.slice".into();
        linux.security_context.mut_or_insert_default().namespace_options = MessageField::some(options.clone());
        let mut main = cri::ContainerConfig {
            metadata: MessageField::some(cri::ContainerMetadata { name: "main".into(), ..Default::default() }),
            image: MessageField::some(cri::ImageSpec { image: IMAGE.into(), ..Default::default() }),
            command: ["sh", "-c", line].map(str::to_owned).to_vec(),
            log_path: "main_0.log".into(),
            ..Default::default()
        };
        let linux = main.linux.mut_or_insert_default();
        linux.security_context.mut_or_insert_default().namespace_options = MessageField::some(options);

        let request = cri::RunPodSandboxRequest { config: MessageField::some(pod.clone()), ..Default::default() };
        let pod_id = self.call(&rpc::RUN_POD_SANDBOX, &request).pod_sandbox_id;
        made(&pod_id);
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: pod_id.clone(),
            config: MessageField::some(main),
            sandbox_config: MessageField::some(pod),
            ..Default::default()
        };
        let id = self.call(&rpc::CREATE_CONTAINER, &request).container_id;
        made(&id);
        let request = cri::StartContainerRequest { container_id: id.clone(), ..Default::default() };
        self.call(&rpc::START_CONTAINER, &request);
        (pod_id, id)
    }

    fn remove(&self, pod: &str) {
        let request = cri::StopPodSandboxRequest { pod_sandbox_id: pod.into(), ..Default::default() };
        self.call(&rpc::STOP_POD_SANDBOX, &request);
        let request = cri::RemovePodSandboxRequest { pod_sandbox_id: pod.into(), ..Default::default() };
        self.call(&rpc::REMOVE_POD_SANDBOX, &request);
    }
}

/// One of those that work.
struct Lane<'a> {
    cri: &'a Cri,
    name: String,
    told: File,
}

impl<'a> Lane<'a> {
    fn new(cri: &'a Cri, boot: &str, lane: u32) -> Lane<'a> {
        let told = File::options().create(true).append(true).open(format!("{TOLD}.{lane}")).expect("a file");
        Lane { cri, name: format!("cut-{boot}-{lane}"), told }
    }

    /// On disk when it returns.
    fn tell(&mut self, line: &str) {
        self.told.write_all(format!("{line}\n").as_bytes()).and_then(|()| self.told.sync_data()).expect("tell");
    }

    /// In turn a pod that is removed, one whose container ends by itself, and one that runs on.
    fn work(mut self) {
        for n in 0.. {
            let line = if n % 3 == 1 { format!("exit {CODE}") } else { "exec sleep 1000000".to_owned() };
            let (cri, name) = (self.cri, format!("{}-{n}", self.name));
            let (pod, id) = cri.run(&name, &line, |id| self.tell(&format!("made {id}")));
            if n % 3 == 1 {
                self.tell(&format!("ended {id} {}", ended(cri, &id)));
            }
            if n % 3 != 0 && n < KEPT * 3 / 2 {
                continue;
            }
            self.tell(&format!("removing {id}"));
            self.tell(&format!("removing {pod}"));
            cri.remove(&pod);
            self.tell(&format!("removed {pod}"));
        }
    }
}

/// When it ended, which it does soon.
fn ended(cri: &Cri, id: &str) -> i64 {
    for _ in 0..PATIENCE.as_millis() / 100 {
        let status = cri.status(id);
        if status.state == cri::ContainerState::CONTAINER_EXITED.into() {
            assert_eq!(status.exit_code, CODE, "it said {:?}: {status:?}", said(&status));
            return status.finished_at;
        }
        sleep(Duration::from_millis(100));
    }
    panic!("it does not end: {:?}", cri.status(id));
}

/// All of its log.
fn said(status: &cri::ContainerStatus) -> String {
    fs::read_to_string(&status.log_path).unwrap_or_else(|e| e.to_string())
}

/// What was acknowledged before the power went.
#[derive(Default)]
struct Told {
    /// Ids of what was made, and whose removal had not begun.
    kept: BTreeSet<String>,
    /// Pods that were gone.
    removed: BTreeSet<String>,
    /// When a container had ended.
    ended: BTreeMap<String, i64>,
}

impl Told {
    fn read() -> Told {
        let mut told = Told::default();
        for path in files() {
            let text = fs::read_to_string(path).expect("a file");
            // What has no end was not on disk yet, and nothing came after it.
            for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
                let words: Vec<&str> = line.split_whitespace().collect();
                match words[..] {
                    ["made", id] => drop(told.kept.insert(id.to_owned())),
                    ["removing", id] => drop(told.kept.remove(id)),
                    ["removed", id] => drop(told.removed.insert(id.to_owned())),
                    ["ended", id, at] => drop(told.ended.insert(id.to_owned(), at.parse().expect("nanoseconds"))),
                    _ => panic!("told: {line:?}"),
                }
            }
        }
        told
    }
}

fn files() -> Vec<PathBuf> {
    let told = (1..=LANES).map(|lane| PathBuf::from(format!("{TOLD}.{lane}")));
    told.filter(|path| path.exists()).collect()
}

/// Whether what was acknowledged is there, and how it was; nothing runs.
fn check(cri: &Cri) {
    await_daemon(cri);
    let (told, pods, containers) = (Told::read(), cri.pods(), cri.containers());
    let there: BTreeSet<&String> = pods.iter().map(|p| &p.id).chain(containers.iter().map(|c| &c.id)).collect();
    let lost: Vec<&String> = told.kept.iter().filter(|id| !there.contains(id)).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    let back: Vec<&String> = told.removed.iter().filter(|id| there.contains(id)).collect();
    assert!(back.is_empty(), "removed and there again: {back:?}");
    for pod in &pods {
        assert_eq!(pod.state, cri::PodSandboxState::SANDBOX_NOTREADY.into(), "{pod:?}");
    }
    for container in &containers {
        let status = cri.status(&container.id);
        assert_ne!(status.state, cri::ContainerState::CONTAINER_RUNNING.into(), "{status:?}");
        assert_ne!(status.state, cri::ContainerState::CONTAINER_UNKNOWN.into(), "{status:?}");
        if let Some(at) = told.ended.get(&container.id) {
            assert_eq!((status.exit_code, status.finished_at), (CODE, *at), "it had ended otherwise: {status:?}");
        }
    }
    let ids: String = containers.iter().map(|c| format!("{}\n", c.id)).collect::<BTreeSet<_>>().into_iter().collect();
    fs::write("/tmp/containers", ids).expect("write");
    let (kept, ends, removed) = (told.kept.len(), told.ended.len(), told.removed.len());
    println!(
        "acknowledged: {kept} made and kept, {ends} ends, {removed} pods removed; there: {} pods, {} containers",
        pods.len(),
        containers.len()
    );
}

fn await_daemon(cri: &Cri) {
    for _ in 0..PATIENCE.as_millis() / 100 {
        if cri.ask(&rpc::STATUS, &Default::default()).is_ok() {
            return;
        }
        sleep(Duration::from_millis(100));
    }
    panic!("cricket does not answer");
}

/// Removes all pods, and runs another.
fn clean(cri: &Cri, boot: &str) {
    let pods = cri.pods();
    let part = pods.len().div_ceil(4).max(1);
    scope(|scope| {
        for pods in pods.chunks(part) {
            scope.spawn(|| pods.iter().for_each(|pod| cri.remove(&pod.id)));
        }
    });
    assert!(cri.pods().is_empty() && cri.containers().is_empty(), "all were removed");
    files().iter().for_each(|path| fs::remove_file(path).expect("ours"));
    // A power cut before the next load tells anything would bring them back.
    sync_dir(Path::new(TOLD).parent().expect("a folder")).expect("on disk");
    let (pod, id) = cri.run(&format!("after-{boot}"), &format!("exit {CODE}"), |_| ());
    ended(cri, &id);
    cri.remove(&pod);
}
