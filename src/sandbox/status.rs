//! PodSandboxStatus: from memory.

use std::collections::HashMap;

use cricket_proto::runtime::{
    LinuxContainerResources, LinuxPodSandboxStatus, Namespace, PodIP, PodSandboxNetworkStatus, PodSandboxState,
    PodSandboxStatus, PodSandboxStatusRequest, PodSandboxStatusResponse,
};
use protobuf::MessageField;
use serde_json::{json, Value};

use crate::call::Call;
use crate::error::Result;
use crate::runtime::Runtime;
use crate::store::{Sandbox, SandboxState};

/// The status of a sandbox; verbose adds `info`, a JSON text for people. Never leaves the process.
///
/// # Errors
/// `NotFound`.
pub fn status(rt: &Runtime, _: &Call, request: PodSandboxStatusRequest) -> Result<PodSandboxStatusResponse> {
    let sandbox = rt.sandboxes.get(&request.pod_sandbox_id)?;
    let info = if request.verbose { info(rt, &sandbox) } else { HashMap::new() };
    Ok(PodSandboxStatusResponse { status: MessageField::some(describe(&sandbox)), info, ..Default::default() })
}

/// Its status.
pub(super) fn describe(sandbox: &Sandbox) -> PodSandboxStatus {
    let ready = sandbox.state() == SandboxState::Ready;
    // A sandbox that stopped has given its addresses back.
    let mut ips = sandbox.ips.iter().filter(|_| ready).map(ToString::to_string);
    let network = PodSandboxNetworkStatus {
        ip: ips.next().unwrap_or_default(),
        additional_ips: ips.map(|ip| PodIP { ip, ..Default::default() }).collect(),
        ..Default::default()
    };
    let namespaces = Namespace { options: MessageField::some(sandbox.namespaces()), ..Default::default() };
    PodSandboxStatus {
        id: sandbox.id.to_string(),
        metadata: sandbox.config.metadata.clone(),
        state: cri_state(sandbox).into(),
        created_at: sandbox.created_at,
        network: MessageField::some(network),
        linux: MessageField::some(LinuxPodSandboxStatus {
            namespaces: MessageField::some(namespaces),
            ..Default::default()
        }),
        labels: sandbox.config.labels.clone(),
        annotations: sandbox.config.annotations.clone(),
        runtime_handler: sandbox.runtime_handler.clone(),
        ..Default::default()
    }
}

/// The CRI's name for a sandbox's state.
pub fn cri_state(sandbox: &Sandbox) -> PodSandboxState {
    match sandbox.state() {
        SandboxState::Ready => PodSandboxState::SANDBOX_READY,
        SandboxState::NotReady => PodSandboxState::SANDBOX_NOTREADY,
    }
}

fn info(rt: &Runtime, sandbox: &Sandbox) -> HashMap<String, String> {
    let [overhead, resources] = sandbox.limits();
    let info = json!({
        "pid": sandbox.pid().unwrap_or(0),
        "netNamespace": sandbox.netns,
        "netNamespaceClosed": sandbox.state() == SandboxState::NotReady,
        "runtimeHandler": sandbox.runtime_handler,
        "cgroupParent": sandbox.config.linux.cgroup_parent,
        "logDirectory": sandbox.config.log_directory,
        "overhead": limits(&overhead),
        "resources": limits(&resources),
        "sysctls": sandbox.config.linux.sysctls,
        "record": rt.layout.sandbox_record(&sandbox.id),
    });
    HashMap::from([("info".to_owned(), info.to_string())])
}

/// What people look for first; all of it is in the kubelet's own status.
fn limits(resources: &Option<LinuxContainerResources>) -> Option<Value> {
    resources.as_ref().map(|r| {
        json!({
            "cpuPeriod": r.cpu_period,
            "cpuQuota": r.cpu_quota,
            "cpuShares": r.cpu_shares,
            "memoryLimitInBytes": r.memory_limit_in_bytes,
            "memorySwapLimitInBytes": r.memory_swap_limit_in_bytes,
        })
    })
}
