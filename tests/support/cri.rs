//! A CRI client for tests: what a kubelet would send, with the repetition taken out.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cricket::call::Call;
use cricket::error::Result;
use cricket::grpc::Peer;
use cricket_proto::methods::{image_service, runtime_service as rpc};
use cricket_proto::runtime as cri;
use cricket_proto::runtime::{
    ContainerConfig, ContainerMetadata, ContainerState, ContainerStatus, ExecSyncRequest, ExecSyncResponse, ImageSpec,
    NamespaceMode, NamespaceOption, PodSandboxConfig, PodSandboxMetadata, PodSandboxStatus,
};
use futures_executor::block_on;
use futures_util::TryStreamExt;
use protobuf::MessageField;

use crate::node::{until, Node, BUSYBOX, IMAGE, PATIENCE};

/// A container that ends with 7 when it is asked to. Signals have no default effect on the first process of a PID
/// namespace, so it needs a handler.
pub const POLITE: &str = "trap 'exit 7' TERM; echo ready; while :; do sleep 1000 & wait $!; done";

/// A connection to the CRI socket.
pub struct Cri(Peer);

impl Cri {
    /// Does not connect yet.
    pub fn connect(socket: &Path) -> Cri {
        Cri(Peer::connect("the CRI", &socket.display().to_string()).expect("a path"))
    }

    /// A call of any kind.
    pub fn call<Q, R: Unpin>(&self, method: &grpcio::Method<Q, R>, request: &Q) -> Result<R> {
        self.0.unary(&Call::within(PATIENCE), method, request, &[])
    }

    /// All parts of a streamed answer.
    pub fn stream<Q, R: Unpin>(&self, method: &grpcio::Method<Q, R>, request: &Q) -> Result<Vec<R>> {
        let options = self.0.options(&Call::within(PATIENCE), &[])?;
        let parts = self.0.rpc().server_streaming(method, request, options).map_err(|e| self.0.error(e))?;
        block_on(parts.try_collect()).map_err(|e| self.0.error(e))
    }

    pub fn version(&self) -> Result<cri::VersionResponse> {
        self.0.unary(&Call::within(Duration::from_secs(5)), &rpc::VERSION, &Default::default(), &[])
    }

    pub fn has_image(&self, name: &str) -> bool {
        let request = cri::ImageStatusRequest { image: image_spec(name), ..Default::default() };
        self.call(&image_service::IMAGE_STATUS, &request).is_ok_and(|answer| answer.image.is_some())
    }

    pub fn images(&self) -> Result<Vec<cri::Image>> {
        Ok(self.call(&image_service::LIST_IMAGES, &Default::default())?.images)
    }

    /// Pulls with these credentials, and returns the image's id.
    pub fn pull(&self, name: &str, auth: Option<cri::AuthConfig>) -> Result<String> {
        self.pull_within(PATIENCE, name, auth)
    }

    /// The same, for what may take longer.
    pub fn pull_within(&self, time: Duration, name: &str, auth: Option<cri::AuthConfig>) -> Result<String> {
        let request = cri::PullImageRequest { image: image_spec(name), auth: auth.into(), ..Default::default() };
        Ok(self.0.unary(&Call::within(time), &image_service::PULL_IMAGE, &request, &[])?.image_ref)
    }

    pub fn remove_image(&self, name: &str) -> Result<()> {
        let request = cri::RemoveImageRequest { image: image_spec(name), ..Default::default() };
        self.call(&image_service::REMOVE_IMAGE, &request).map(drop)
    }

    pub fn run_pod(&self, config: &PodSandboxConfig) -> Result<String> {
        let request = cri::RunPodSandboxRequest { config: MessageField::some(config.clone()), ..Default::default() };
        Ok(self.call(&rpc::RUN_POD_SANDBOX, &request)?.pod_sandbox_id)
    }

    pub fn stop_pod(&self, id: &str) -> Result<()> {
        let request = cri::StopPodSandboxRequest { pod_sandbox_id: id.into(), ..Default::default() };
        self.call(&rpc::STOP_POD_SANDBOX, &request).map(drop)
    }

    pub fn remove_pod(&self, id: &str) -> Result<()> {
        let request = cri::RemovePodSandboxRequest { pod_sandbox_id: id.into(), ..Default::default() };
        self.call(&rpc::REMOVE_POD_SANDBOX, &request).map(drop)
    }

    pub fn pod_status(&self, id: &str) -> Result<PodSandboxStatus> {
        let request = cri::PodSandboxStatusRequest { pod_sandbox_id: id.into(), ..Default::default() };
        Ok(self.call(&rpc::POD_SANDBOX_STATUS, &request)?.status.unwrap_or_default())
    }

    pub fn pods(&self) -> Result<Vec<cri::PodSandbox>> {
        Ok(self.call(&rpc::LIST_POD_SANDBOX, &Default::default())?.items)
    }

    pub fn containers(&self) -> Result<Vec<cri::Container>> {
        Ok(self.call(&rpc::LIST_CONTAINERS, &Default::default())?.containers)
    }

    pub fn create(&self, pod: &str, sandbox: &PodSandboxConfig, config: ContainerConfig) -> Result<String> {
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: pod.into(),
            config: MessageField::some(config),
            sandbox_config: MessageField::some(sandbox.clone()),
            ..Default::default()
        };
        Ok(self.call(&rpc::CREATE_CONTAINER, &request)?.container_id)
    }

    pub fn start(&self, id: &str) -> Result<()> {
        let request = cri::StartContainerRequest { container_id: id.into(), ..Default::default() };
        self.call(&rpc::START_CONTAINER, &request).map(drop)
    }

    pub fn stop(&self, id: &str, grace_seconds: i64) -> Result<()> {
        let request =
            cri::StopContainerRequest { container_id: id.into(), timeout: grace_seconds, ..Default::default() };
        self.call(&rpc::STOP_CONTAINER, &request).map(drop)
    }

    pub fn remove(&self, id: &str) -> Result<()> {
        let request = cri::RemoveContainerRequest { container_id: id.into(), ..Default::default() };
        self.call(&rpc::REMOVE_CONTAINER, &request).map(drop)
    }

    pub fn status(&self, id: &str) -> ContainerStatus {
        let request = cri::ContainerStatusRequest { container_id: id.into(), ..Default::default() };
        self.call(&rpc::CONTAINER_STATUS, &request).expect("ContainerStatus").status.unwrap_or_default()
    }

    pub fn stats(&self, id: &str) -> cri::ContainerStats {
        let request = cri::ContainerStatsRequest { container_id: id.into(), ..Default::default() };
        self.call(&rpc::CONTAINER_STATS, &request).expect("ContainerStats").stats.unwrap_or_default()
    }

    /// The pid of a running container's first process.
    pub fn pid(&self, id: &str) -> u32 {
        let request = cri::ContainerStatusRequest { container_id: id.into(), verbose: true, ..Default::default() };
        let info = self.call(&rpc::CONTAINER_STATUS, &request).expect("verbose ContainerStatus").info;
        let info: serde_json::Value = serde_json::from_str(&info["info"]).expect("JSON");
        u32::try_from(info["pid"].as_u64().expect("a pid")).expect("a pid")
    }

    /// The pid of a sandbox's process; 0 if it has none.
    pub fn pod_pid(&self, id: &str) -> u32 {
        let request = cri::PodSandboxStatusRequest { pod_sandbox_id: id.into(), verbose: true, ..Default::default() };
        let info = self.call(&rpc::POD_SANDBOX_STATUS, &request).expect("verbose PodSandboxStatus").info;
        let info: serde_json::Value = serde_json::from_str(&info["info"]).expect("JSON");
        u32::try_from(info["pid"].as_u64().expect("a pid")).expect("a pid")
    }

    /// Waits for a container's end.
    pub fn ended(&self, id: &str) -> ContainerStatus {
        until("the container ends", || state(&self.status(id)) == ContainerState::CONTAINER_EXITED);
        self.status(id)
    }

    pub fn reopen_log(&self, id: &str) -> Result<()> {
        let request = cri::ReopenContainerLogRequest { container_id: id.into(), ..Default::default() };
        self.call(&rpc::REOPEN_CONTAINER_LOG, &request).map(drop)
    }

    /// Runs a command; a timeout of 0 is none.
    pub fn exec(&self, id: &str, command: &[&str], timeout: i64) -> Result<ExecSyncResponse> {
        let cmd = command.iter().map(|s| (*s).to_owned()).collect();
        self.call(&rpc::EXEC_SYNC, &ExecSyncRequest { container_id: id.into(), cmd, timeout, ..Default::default() })
    }

    /// What a script prints in a container; it must succeed.
    pub fn sh(&self, id: &str, script: &str) -> String {
        let answer = self.exec(id, &[BUSYBOX, "sh", "-c", script], 30).expect(script);
        let (out, err) = (String::from_utf8_lossy(&answer.stdout), String::from_utf8_lossy(&answer.stderr));
        assert_eq!(answer.exit_code, 0, "{script}: {out}{err}");
        out.trim_end().to_owned()
    }
}

/// Its state as an enum.
pub fn state(status: &ContainerStatus) -> ContainerState {
    status.state.enum_value().expect("a known state")
}

/// A shell script in a container; logs to `<name>.log`.
pub fn container(name: &str, script: &str) -> ContainerConfig {
    let metadata = ContainerMetadata { name: name.into(), ..Default::default() };
    let mut config = ContainerConfig {
        metadata: MessageField::some(metadata),
        image: image_spec(IMAGE),
        args: vec![script.to_owned()],
        log_path: format!("{name}.log"),
        ..Default::default()
    };
    let security = config.linux.mut_or_insert_default().security_context.mut_or_insert_default();
    security.namespace_options = MessageField::some(namespaces(NamespaceMode::POD));
    config
}

/// An image by one of its names.
pub fn image_spec(name: &str) -> MessageField<ImageSpec> {
    MessageField::some(ImageSpec { image: name.into(), ..Default::default() })
}

/// With this network, and a PID namespace for each container.
pub fn namespaces(network: NamespaceMode) -> NamespaceOption {
    NamespaceOption { network: network.into(), pid: NamespaceMode::CONTAINER.into(), ..Default::default() }
}

/// A pod of a node. Not removed by itself: the node's end cleans up after a failed test.
pub struct Pod<'a> {
    pub cri: &'a Cri,
    pub config: PodSandboxConfig,
    pub id: String,
}

impl<'a> Pod<'a> {
    /// A pod like any other.
    pub fn run(node: &'a Node, name: &str) -> Pod<'a> {
        Pod::run_as(node, pod_config(node, name))
    }

    /// A pod made to measure.
    pub fn run_as(node: &'a Node, config: PodSandboxConfig) -> Pod<'a> {
        let id = node.cri.run_pod(&config).expect("RunPodSandbox");
        Pod { cri: &node.cri, config, id }
    }

    pub fn create(&self, config: ContainerConfig) -> String {
        self.cri.create(&self.id, &self.config, config).expect("CreateContainer")
    }

    /// Creates and starts a container.
    pub fn start(&self, config: ContainerConfig) -> String {
        let id = self.create(config);
        self.cri.start(&id).expect("StartContainer");
        id
    }

    /// Creates, starts, and waits for the end.
    pub fn run_to_end(&self, config: ContainerConfig) -> ContainerStatus {
        self.cri.ended(&self.start(config))
    }

    /// The log of its container of this name.
    pub fn log(&self, container: &str) -> PathBuf {
        Path::new(&self.config.log_directory).join(format!("{container}.log"))
    }

    /// The lines of that log without time and tags.
    pub fn said(&self, container: &str) -> Vec<String> {
        let text = fs::read_to_string(self.log(container)).expect("the log");
        text.lines().map(|line| line.splitn(4, ' ').nth(3).unwrap_or_default().to_owned()).collect()
    }

    /// Stops and removes it.
    pub fn remove(self) {
        self.cri.stop_pod(&self.id).expect("StopPodSandbox");
        self.cri.remove_pod(&self.id).expect("RemovePodSandbox");
    }
}

/// The configuration of a pod on a node, its log directory made.
pub fn pod_config(node: &Node, name: &str) -> PodSandboxConfig {
    pod_config_in(&node.dir().join("logs"), name)
}

/// The same, with its log directory below `logs`.
pub fn pod_config_in(logs: &Path, name: &str) -> PodSandboxConfig {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let uid = format!("uid-{}", COUNT.fetch_add(1, Ordering::Relaxed));
    let logs = logs.join(&uid);
    fs::create_dir(&logs).expect("make the log directory");
    let metadata = PodSandboxMetadata { name: name.into(), namespace: "default".into(), uid, ..Default::default() };
    let mut config = PodSandboxConfig {
        metadata: MessageField::some(metadata),
        hostname: name.into(),
        log_directory: logs.display().to_string(),
        ..Default::default()
    };
    let security = config.linux.mut_or_insert_default().security_context.mut_or_insert_default();
    security.namespace_options = MessageField::some(namespaces(NamespaceMode::POD));
    config
}
