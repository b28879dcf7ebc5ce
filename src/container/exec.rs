//! Exec: hands out the URL of a command in a container. The command begins when a client comes.

use cricket_proto::runtime::{ExecRequest, ExecResponse};

use crate::call::Call;
use crate::error::{Error, Result};
use crate::runtime::Runtime;
use crate::store::sessions::Session;

/// Does not block.
///
/// # Errors
/// `InvalidArgument` for an empty command and for streams that cannot be; `NotFound`; `FailedPrecondition` unless it runs;
/// `ResourceExhausted` when too many sessions wait for their client.
pub fn exec(rt: &Runtime, _: &Call, mut request: ExecRequest) -> Result<ExecResponse> {
    if request.cmd.is_empty() {
        return Err(Error::invalid("exec without a command"));
    }
    check_streams(request.tty, request.stdin, request.stdout, request.stderr)?;
    let container = rt.containers.get(&request.container_id)?;
    container.must_be_running()?;
    request.container_id = container.id.to_string();
    let url = rt.sessions.offer(Session::Exec(request))?;
    Ok(ExecResponse { url, ..Default::default() })
}

/// A terminal has no stream for errors, and a session without streams no sense.
pub(super) fn check_streams(tty: bool, stdin: bool, stdout: bool, stderr: bool) -> Result<()> {
    if tty && stderr {
        return Err(Error::invalid("tty and stderr exclude each other: a terminal has one output"));
    }
    if !(stdin || stdout || stderr) {
        return Err(Error::invalid("one of stdin, stdout and stderr must be asked for"));
    }
    Ok(())
}
