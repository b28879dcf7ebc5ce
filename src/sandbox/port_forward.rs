//! PortForward: hands out the URL of a pod sandbox's ports.

use cricket_proto::runtime::{PortForwardRequest, PortForwardResponse};

use crate::call::Call;
use crate::error::{Error, Result};
use crate::runtime::Runtime;
use crate::store::sessions::Session;
use crate::store::SandboxState;

/// Does not block.
///
/// # Errors
/// `InvalidArgument` for a port that cannot be; `NotFound`; `FailedPrecondition` unless the sandbox is ready;
/// `ResourceExhausted` when too many sessions wait for their client.
pub fn port_forward(rt: &Runtime, _: &Call, mut request: PortForwardRequest) -> Result<PortForwardResponse> {
    if let Some(port) = request.port.iter().find(|port| !(1..=65535).contains(*port)) {
        return Err(Error::invalid(format!("port {port} is not from 1 to 65535")));
    }
    let sandbox = rt.sandboxes.get(&request.pod_sandbox_id)?;
    if sandbox.state() != SandboxState::Ready {
        return Err(Error::precondition(format!("pod sandbox {} is not ready", sandbox.id)));
    }
    request.pod_sandbox_id = sandbox.id.to_string();
    let url = rt.sessions.offer(Session::PortForward(request))?;
    Ok(PortForwardResponse { url, ..Default::default() })
}
