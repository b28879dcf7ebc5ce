//! Attach: hands out the URL of a container's streams.

use cricket_proto::runtime::{AttachRequest, AttachResponse};

use crate::call::Call;
use crate::container::exec::check_streams;
use crate::error::{Error, Result};
use crate::runtime::Runtime;
use crate::store::sessions::Session;

/// Does not block.
///
/// # Errors
/// `InvalidArgument` for streams that cannot be, and for a terminal where the container has none or the reverse;
/// `NotFound`; `FailedPrecondition` unless it runs; `ResourceExhausted` when too many sessions wait for their client.
pub fn attach(rt: &Runtime, _: &Call, mut request: AttachRequest) -> Result<AttachResponse> {
    check_streams(request.tty, request.stdin, request.stdout, request.stderr)?;
    let container = rt.containers.get(&request.container_id)?;
    container.must_be_running()?;
    if request.tty != container.config.tty {
        let has = if container.config.tty { "has a" } else { "has no" };
        return Err(Error::invalid(format!("container {} {has} terminal: attach must say the same", container.id)));
    }
    request.container_id = container.id.to_string();
    let url = rt.sessions.offer(Session::Attach(request))?;
    Ok(AttachResponse { url, ..Default::default() })
}
