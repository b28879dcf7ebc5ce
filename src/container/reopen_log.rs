//! ReopenContainerLog: after the kubelet has moved the log away.

use cricket_proto::runtime::{ReopenContainerLogRequest, ReopenContainerLogResponse};

use crate::call::Call;
use crate::container::streams;
use crate::error::{Context, Result};
use crate::runtime::Runtime;

/// Opens the log at its path anew and goes on there; no line is lost or torn.
///
/// # Errors
/// `NotFound`; `FailedPrecondition` unless it runs, and then no file is made.
pub fn reopen_log(rt: &Runtime, _: &Call, request: ReopenContainerLogRequest) -> Result<ReopenContainerLogResponse> {
    let container = rt.containers.get(&request.container_id)?;
    container.must_be_running()?;
    streams::reopen_log(rt, &container).with_context(|| format!("reopen log of container {}", container.id))?;
    Ok(ReopenContainerLogResponse::default())
}
