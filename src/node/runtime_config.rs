//! RuntimeConfig and UpdateRuntimeConfig: what kubelet and runtime must agree on.

use cricket_proto::runtime::{
    CgroupDriver, LinuxRuntimeConfiguration, RuntimeConfigRequest, RuntimeConfigResponse, UpdateRuntimeConfigRequest,
    UpdateRuntimeConfigResponse,
};
use protobuf::MessageField;

use crate::call::Call;
use crate::error::Result;
use crate::runtime::Runtime;

/// Who makes cgroups: the kubelet uses the same.
pub fn runtime_config(rt: &Runtime, _: &Call, _: RuntimeConfigRequest) -> Result<RuntimeConfigResponse> {
    let handler = rt.handler("")?;
    let driver = if rt.systemd_cgroup(handler) { CgroupDriver::SYSTEMD } else { CgroupDriver::CGROUPFS };
    let linux = LinuxRuntimeConfiguration { cgroup_driver: driver.into(), ..Default::default() };
    Ok(RuntimeConfigResponse { linux: MessageField::some(linux), ..Default::default() })
}

/// The kubelet tells the node's pod CIDR. CNI configurations come from their own add-ons, so there is nothing to do.
pub fn update_runtime_config(
    _: &Runtime,
    _: &Call,
    request: UpdateRuntimeConfigRequest,
) -> Result<UpdateRuntimeConfigResponse> {
    log::debug!("pod CIDR {:?}: left to the CNI configuration", request.runtime_config.network_config.pod_cidr);
    Ok(UpdateRuntimeConfigResponse::default())
}
