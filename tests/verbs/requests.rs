//! Requests as a kubelet would send them, to be bent by the tests.

use cricket_proto::runtime::{
    ContainerConfig, ContainerMetadata, CreateContainerRequest, ExecSyncRequest, ImageSpec, LinuxContainerConfig,
    LinuxContainerSecurityContext, LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption,
    PodSandboxConfig, PodSandboxMetadata, RemoveContainerRequest, RemovePodSandboxRequest, RunPodSandboxRequest,
    StartContainerRequest, StopContainerRequest, StopPodSandboxRequest,
};
use protobuf::MessageField;

/// The image of all containers.
pub const IMAGE: &str = "cricket.local/app:1";

/// A pod's namespaces of its own, but a PID namespace for each container.
pub fn isolated() -> NamespaceOption {
    NamespaceOption {
        network: NamespaceMode::POD.into(),
        pid: NamespaceMode::CONTAINER.into(),
        ipc: NamespaceMode::POD.into(),
        ..Default::default()
    }
}

/// A pod whose containers see each other's processes.
pub fn shared_pids() -> NamespaceOption {
    NamespaceOption { pid: NamespaceMode::POD.into(), ..isolated() }
}

/// A pod in the host's network and IPC.
pub fn on_host() -> NamespaceOption {
    NamespaceOption { network: NamespaceMode::NODE.into(), ipc: NamespaceMode::NODE.into(), ..isolated() }
}

/// RunPodSandbox.
pub fn pod(name: &str) -> RunPodSandboxRequest {
    let security =
        LinuxSandboxSecurityContext { namespace_options: MessageField::some(isolated()), ..Default::default() };
    let config = PodSandboxConfig {
        metadata: MessageField::some(PodSandboxMetadata {
            name: name.into(),
            namespace: "default".into(),
            uid: format!("uid-of-{name}"),
            ..Default::default()
        }),
        hostname: name.into(),
        labels: [("pod".to_owned(), name.to_owned())].into(),
        linux: MessageField::some(LinuxPodSandboxConfig {
            cgroup_parent: "/kubepods/pod1".into(),
            security_context: MessageField::some(security),
            ..Default::default()
        }),
        ..Default::default()
    };
    RunPodSandboxRequest { config: MessageField::some(config), ..Default::default() }
}

/// The namespaces of a RunPodSandbox.
pub fn namespaces(request: &mut RunPodSandboxRequest) -> &mut NamespaceOption {
    let linux = request.config.mut_or_insert_default().linux.mut_or_insert_default();
    linux.security_context.mut_or_insert_default().namespace_options.mut_or_insert_default()
}

/// CreateContainer.
pub fn container(pod: &str, name: &str) -> CreateContainerRequest {
    let security =
        LinuxContainerSecurityContext { namespace_options: MessageField::some(isolated()), ..Default::default() };
    let config = ContainerConfig {
        metadata: MessageField::some(ContainerMetadata { name: name.into(), ..Default::default() }),
        image: MessageField::some(ImageSpec { image: IMAGE.into(), ..Default::default() }),
        command: vec!["/bin/app".into()],
        log_path: format!("{name}.log"),
        labels: [("container".to_owned(), name.to_owned())].into(),
        linux: MessageField::some(LinuxContainerConfig {
            security_context: MessageField::some(security),
            ..Default::default()
        }),
        ..Default::default()
    };
    CreateContainerRequest { pod_sandbox_id: pod.into(), config: MessageField::some(config), ..Default::default() }
}

/// The configuration in a CreateContainer.
pub fn config(request: &mut CreateContainerRequest) -> &mut ContainerConfig {
    request.config.mut_or_insert_default()
}

/// The security context in a CreateContainer.
pub fn security(request: &mut CreateContainerRequest) -> &mut LinuxContainerSecurityContext {
    config(request).linux.mut_or_insert_default().security_context.mut_or_insert_default()
}

/// StartContainer.
pub fn start(id: &str) -> StartContainerRequest {
    StartContainerRequest { container_id: id.into(), ..Default::default() }
}

/// StopContainer with a grace of `timeout` seconds.
pub fn stop(id: &str, timeout: i64) -> StopContainerRequest {
    StopContainerRequest { container_id: id.into(), timeout, ..Default::default() }
}

/// RemoveContainer.
pub fn remove(id: &str) -> RemoveContainerRequest {
    RemoveContainerRequest { container_id: id.into(), ..Default::default() }
}

/// ExecSync with a timeout in seconds, 0 for none.
pub fn exec(id: &str, timeout: i64) -> ExecSyncRequest {
    ExecSyncRequest { container_id: id.into(), cmd: vec!["/bin/true".into()], timeout, ..Default::default() }
}

/// StopPodSandbox.
pub fn stop_pod(id: &str) -> StopPodSandboxRequest {
    StopPodSandboxRequest { pod_sandbox_id: id.into(), ..Default::default() }
}

/// RemovePodSandbox.
pub fn remove_pod(id: &str) -> RemovePodSandboxRequest {
    RemovePodSandboxRequest { pod_sandbox_id: id.into(), ..Default::default() }
}
