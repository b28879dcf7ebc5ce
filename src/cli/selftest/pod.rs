//! The selftest's pod: every step over the CRI socket, as a kubelet would go.

use std::fs;
use std::path::Path;
use std::time::Duration;

use cricket_proto::methods::runtime_service as rpc;
use cricket_proto::runtime::{
    ContainerConfig, ContainerMetadata, ContainerState, ContainerStatus, ContainerStatusRequest,
    CreateContainerRequest, ExecSyncRequest, ExecSyncResponse, ImageSpec, LinuxPodSandboxConfig,
    LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption, PodSandboxConfig, PodSandboxMetadata, PodSandboxState,
    PodSandboxStatusRequest, RemoveContainerRequest, RemovePodSandboxRequest, RunPodSandboxRequest,
    StartContainerRequest, StatusRequest, StopContainerRequest, StopPodSandboxRequest, VersionRequest,
};
use grpcio::Method;
use protobuf::MessageField;

use super::probe::{GREETING, GREETING_ERR, STOPPED};
use super::{leftovers, Options, Steps, IMAGE};
use crate::call::Call;
use crate::config::Config;
use crate::containerd::Containerd;
use crate::error::{Context, Error, Result};
use crate::grpc::Peer;

/// Bound on one CRI call.
const CALL_BUDGET: Duration = Duration::from_secs(60);
/// Seconds that the container has to end after its stop signal.
const GRACE_SECONDS: i64 = 20;
/// The pod's host name, when it has its own.
const HOSTNAME: &str = "cricket-selftest";
/// The container's log below the pod's log directory.
const LOG: &str = "probe.log";

/// A pod in the making.
pub struct Pod<'a> {
    cri: Peer,
    containerd: &'a dyn Containerd,
    config: &'a Config,
    logs: &'a Path,
    host_network: bool,
    sandbox: PodSandboxConfig,
    sandbox_id: String,
    container_id: String,
}

impl<'a> Pod<'a> {
    /// A client of the CRI socket; `logs` is where the container's log goes.
    pub fn connect(
        options: &Options,
        containerd: &'a dyn Containerd,
        config: &'a Config,
        logs: &'a Path,
    ) -> Result<Pod<'a>> {
        let cri = Peer::connect("the CRI", &options.socket.to_string_lossy())?;
        let host_network = options.host_network;
        let sandbox = sandbox_config(logs, host_network);
        let (sandbox_id, container_id) = (String::new(), String::new());
        Ok(Pod { cri, containerd, config, logs, host_network, sandbox, sandbox_id, container_id })
    }

    fn call<Q, R: Unpin>(&self, method: &Method<Q, R>, request: &Q) -> Result<R> {
        self.cri.unary(&Call::within(CALL_BUDGET), method, request, &[])
    }

    fn container(&self) -> Result<ContainerStatus> {
        let request = ContainerStatusRequest { container_id: self.container_id.clone(), ..Default::default() };
        Ok(self.call(&rpc::CONTAINER_STATUS, &request)?.status.unwrap_or_default())
    }

    fn exec(&self, probe: &[&str]) -> Result<ExecSyncResponse> {
        let cmd = ["/cricket", "probe"].iter().chain(probe).map(|s| (*s).to_owned()).collect();
        let request =
            ExecSyncRequest { container_id: self.container_id.clone(), cmd, timeout: 10, ..Default::default() };
        self.call(&rpc::EXEC_SYNC, &request)
    }
}

/// Runs the whole life of a pod; after a failure, takes down what there is and reports the failure.
pub fn exercise(steps: &mut Steps<'_>, mut pod: Pod<'_>) -> Result<()> {
    let lived = live(steps, &mut pod);
    let ended = end(steps, &pod);
    lived.and(ended)
}

fn live(steps: &mut Steps<'_>, pod: &mut Pod<'_>) -> Result<()> {
    steps.step("version and status", || ready(pod))?;
    let request = RunPodSandboxRequest { config: MessageField::some(pod.sandbox.clone()), ..Default::default() };
    steps.step("run a pod sandbox", || {
        pod.sandbox_id = pod.call(&rpc::RUN_POD_SANDBOX, &request)?.pod_sandbox_id;
        Ok(short(&pod.sandbox_id))
    })?;
    let mut ip = String::new();
    steps.step("it is ready and has an address", || {
        ip = address(pod)?;
        Ok(if pod.host_network { "the host's".into() } else { ip.clone() })
    })?;
    steps.step("create a container", || {
        pod.container_id = create(pod)?;
        Ok(short(&pod.container_id))
    })?;
    steps.step("start it", || {
        let request = StartContainerRequest { container_id: pod.container_id.clone(), ..Default::default() };
        pod.call(&rpc::START_CONTAINER, &request)?;
        expect("state", pod.container()?.state.enum_value_or_default(), ContainerState::CONTAINER_RUNNING)
    })?;
    steps.step("exec: output and exit code", || {
        let answer = pod.exec(&["exit", "3"])?;
        expect("exit code", answer.exit_code, 3)?;
        expect("stdout", String::from_utf8_lossy(&answer.stdout).as_ref(), "out 3")?;
        expect("stderr", String::from_utf8_lossy(&answer.stderr).as_ref(), "err 3")
    })?;
    if !pod.host_network {
        steps.step("exec: host name and address inside", || inside(pod, &ip))?;
    }
    steps.step("stop it: its own exit code", || {
        let container_id = pod.container_id.clone();
        let request = StopContainerRequest { container_id, timeout: GRACE_SECONDS, ..Default::default() };
        pod.call(&rpc::STOP_CONTAINER, &request)?;
        let status = pod.container()?;
        expect("state", status.state.enum_value_or_default(), ContainerState::CONTAINER_EXITED)?;
        expect("exit code", status.exit_code, i32::from(STOPPED))
    })?;
    steps.step("its log has both streams in CRI format", || log_is_whole(&pod.logs.join(LOG)))
}

fn end(steps: &mut Steps<'_>, pod: &Pod<'_>) -> Result<()> {
    let mut all = Ok(());
    if !pod.container_id.is_empty() {
        all = all.and(steps.step("remove the container", || {
            let request = RemoveContainerRequest { container_id: pod.container_id.clone(), ..Default::default() };
            pod.call(&rpc::REMOVE_CONTAINER, &request).map(|_| String::new())
        }));
    }
    if !pod.sandbox_id.is_empty() {
        let pod_sandbox_id = pod.sandbox_id.clone();
        all = all.and(steps.step("stop and remove the pod sandbox", || {
            let request = StopPodSandboxRequest { pod_sandbox_id: pod_sandbox_id.clone(), ..Default::default() };
            pod.call(&rpc::STOP_POD_SANDBOX, &request)?;
            let request = RemovePodSandboxRequest { pod_sandbox_id, ..Default::default() };
            pod.call(&rpc::REMOVE_POD_SANDBOX, &request).map(|_| String::new())
        }));
    }
    let ids: Vec<&str> =
        [&pod.sandbox_id, &pod.container_id].into_iter().filter(|id| !id.is_empty()).map(|id| &**id).collect();
    all.and(steps.step("nothing is left of it", || {
        let left = leftovers::of(&ids, pod.containerd, pod.config)?;
        match left.is_empty() {
            true => Ok("mounts, namespaces, snapshots, records, shims".into()),
            false => Err(Error::internal(left.join("; "))),
        }
    }))
}

fn ready(pod: &Pod<'_>) -> Result<String> {
    let version = pod.call(&rpc::VERSION, &VersionRequest::default())?;
    let status = pod.call(&rpc::STATUS, &StatusRequest::default())?.status.unwrap_or_default();
    for condition in status.conditions.iter().filter(|c| !c.status) {
        if condition.type_ == "RuntimeReady" || (condition.type_ == "NetworkReady" && !pod.host_network) {
            let advice = if condition.type_ == "NetworkReady" { " (or try --host-network)" } else { "" };
            return Err(Error::precondition(format!("{} is false: {}{advice}", condition.type_, condition.message)));
        }
    }
    Ok(format!("{} {}", version.runtime_name, version.runtime_version))
}

fn address(pod: &Pod<'_>) -> Result<String> {
    let request = PodSandboxStatusRequest { pod_sandbox_id: pod.sandbox_id.clone(), ..Default::default() };
    let status = pod.call(&rpc::POD_SANDBOX_STATUS, &request)?.status.unwrap_or_default();
    expect("state", status.state.enum_value_or_default(), PodSandboxState::SANDBOX_READY)?;
    let ip = status.network.ip.clone();
    match (ip.is_empty(), pod.host_network) {
        (true, false) => Err(Error::internal("it has no address")),
        (false, true) => Err(Error::internal(format!("it has address {ip} in the host's network"))),
        _ => Ok(ip),
    }
}

fn create(pod: &Pod<'_>) -> Result<String> {
    let metadata = ContainerMetadata { name: "probe".into(), ..Default::default() };
    let image = ImageSpec { image: IMAGE.into(), ..Default::default() };
    let mut config = ContainerConfig {
        metadata: MessageField::some(metadata),
        image: MessageField::some(image),
        log_path: LOG.into(),
        ..Default::default()
    };
    let options = pod.sandbox.linux.security_context.namespace_options.clone();
    config.linux.mut_or_insert_default().security_context.mut_or_insert_default().namespace_options = options;
    let request = CreateContainerRequest {
        pod_sandbox_id: pod.sandbox_id.clone(),
        config: MessageField::some(config),
        sandbox_config: MessageField::some(pod.sandbox.clone()),
        ..Default::default()
    };
    Ok(pod.call(&rpc::CREATE_CONTAINER, &request)?.container_id)
}

fn inside(pod: &Pod<'_>, ip: &str) -> Result<String> {
    let name = pod.exec(&["hostname"])?;
    expect("host name", String::from_utf8_lossy(&name.stdout).trim(), HOSTNAME)?;
    let owns = pod.exec(&["has-address", ip])?;
    match owns.exit_code {
        0 => Ok(format!("{HOSTNAME}, {ip}")),
        _ => Err(Error::internal(String::from_utf8_lossy(&owns.stderr).trim().to_owned())),
    }
}

fn log_is_whole(path: &Path) -> Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    for (stream, line) in [("stdout", GREETING), ("stderr", GREETING_ERR)] {
        let rest = format!(" {stream} F {line}");
        if !text.lines().any(|found| found.ends_with(&rest)) {
            return Err(Error::internal(format!("{} has no line with {rest:?}", path.display())));
        }
    }
    Ok(format!("{} lines", text.lines().count()))
}

fn sandbox_config(logs: &Path, host_network: bool) -> PodSandboxConfig {
    let metadata = PodSandboxMetadata {
        name: "cricket-selftest".into(),
        namespace: "default".into(),
        uid: format!("selftest-{}", std::process::id()),
        ..Default::default()
    };
    let network = if host_network { NamespaceMode::NODE } else { NamespaceMode::POD };
    let options =
        NamespaceOption { network: network.into(), pid: NamespaceMode::CONTAINER.into(), ..Default::default() };
    let security = LinuxSandboxSecurityContext { namespace_options: MessageField::some(options), ..Default::default() };
    let linux = LinuxPodSandboxConfig { security_context: MessageField::some(security), ..Default::default() };
    PodSandboxConfig {
        metadata: MessageField::some(metadata),
        hostname: if host_network { String::new() } else { HOSTNAME.into() },
        log_directory: logs.to_string_lossy().into_owned(),
        linux: MessageField::some(linux),
        ..Default::default()
    }
}

fn expect<T: PartialEq + std::fmt::Debug>(what: &str, is: T, should: T) -> Result<String> {
    match is == should {
        true => Ok(String::new()),
        false => Err(Error::internal(format!("{what} is {is:?}, not {should:?}"))),
    }
}

fn short(id: &str) -> String {
    id.chars().take(13).collect()
}
