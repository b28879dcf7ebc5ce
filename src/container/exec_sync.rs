//! ExecSync: a command in a running container, its output and exit code. Exec probes end here.

use std::fs;
use std::time::{Duration, Instant};

use cricket_proto::runtime::{ExecSyncRequest, ExecSyncResponse};
use serde_json::Value;

use crate::call::Call;
use crate::cgroup;
use crate::container::streams::{wire, Fifos};
use crate::container::task;
use crate::containerd::NewExec;
use crate::error::{Context, Error, Idempotent, Kind, Result};
use crate::ids::ContainerId;
use crate::oci;
use crate::rollback::Rollback;
use crate::runtime::Runtime;
use crate::stdio::{Capture, Sink};
use crate::store::Container;

/// Both outputs together; the kubelet's client takes 16 MiB an answer.
const MAX_OUTPUT: usize = 15 << 20;
/// How long a killed command may take to end, and its output to be closed.
const END_BUDGET: Duration = Duration::from_secs(10);
/// How long grandchildren may hold the output of a command that has ended.
const DRAIN_BUDGET: Duration = Duration::from_secs(2);

/// Runs a command to its end. Blocks; an exit code other than 0 is a success of the call. Output beyond the cap is
/// dropped while the command goes on.
///
/// # Errors
/// `InvalidArgument` for an empty command; `NotFound`; `FailedPrecondition` unless it runs; `DeadlineExceeded` past
/// `timeout` seconds (0: none), with the command killed.
pub fn exec_sync(rt: &Runtime, call: &Call, request: ExecSyncRequest) -> Result<ExecSyncResponse> {
    if request.cmd.is_empty() {
        return Err(Error::invalid("exec without a command"));
    }
    let container = rt.containers.get(&request.container_id)?;
    container.must_be_running()?;
    let timeout = u64::try_from(request.timeout).ok().filter(|t| *t > 0).map(Duration::from_secs);
    run(rt, call, &container, &request.cmd, timeout).with_context(|| format!("exec in container {}", container.id))
}

fn run(
    rt: &Runtime,
    call: &Call,
    container: &Container,
    command: &[String],
    timeout: Option<Duration>,
) -> Result<ExecSyncResponse> {
    cgroup::expect_move();
    let (id, exec_id) = (container.id.as_str(), ContainerId::random()?);
    let process = process(&rt.containerd.container(call, id)?.spec, command, false)?;
    let dir = rt.layout.container_state(&container.id).join("exec").join(&exec_id);
    let exec_id = exec_id.as_str();
    let output = Capture::new(MAX_OUTPUT);

    // Everything pushed here is right after success too: an exec leaves nothing behind.
    let mut clean = Rollback::new();
    clean.push("exec directory", || fs::remove_dir_all(&dir).or_gone());
    let fifos = Fifos::make(&dir, false, false)?;
    rt.hub.open(exec_id, fifos.outputs(Sink::Capture(output.clone())))?;
    clean.push("exec output", || {
        rt.hub.close(exec_id);
        Ok(())
    });
    clean.push("exec process", || task::destroy(&*rt.containerd, &Call::within(END_BUDGET), id, Some(exec_id)));
    let exec = NewExec {
        id: id.to_owned(),
        exec_id: exec_id.to_owned(),
        process,
        stdin: String::new(),
        stdout: wire(fifos.stdout.as_ref()),
        stderr: wire(fifos.stderr.as_ref()),
        terminal: false,
    };
    rt.containerd.exec(call, &exec)?;
    rt.containerd.start_task(call, id, Some(exec_id))?;
    let bound = timeout.map_or_else(|| call.clone(), |t| call.at_most(t));
    let exit = rt.containerd.wait_task(&bound, id, Some(exec_id)).map_err(|e| match (e.kind(), timeout) {
        (Kind::DeadlineExceeded, Some(t)) => {
            Error::new(Kind::DeadlineExceeded, format!("command timed out after {} s", t.as_secs()))
        }
        _ => e,
    })?;
    // The shim closes the output when the process is deleted.
    rt.containerd.delete_task(&Call::undo(), id, Some(exec_id)).or_gone()?;
    rt.hub.finish(exec_id, Instant::now() + DRAIN_BUDGET)?;
    let (stdout, stderr) = output.take();
    let exit_code = i32::try_from(exit.code).unwrap_or(i32::MAX);
    Ok(ExecSyncResponse { stdout, stderr, exit_code, ..Default::default() })
}

/// The container's own process with another command line and maybe another terminal.
pub(super) fn process(spec: &[u8], command: &[String], tty: bool) -> Result<Vec<u8>> {
    let damaged = |e| Error::caused(Kind::Internal, "the container's spec is damaged", e);
    let spec: Value = serde_json::from_slice(spec).map_err(damaged)?;
    serde_json::to_vec(&oci::process::exec(spec, command, tty)?).map_err(damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_spec_is_told() {
        for spec in [&b"{"[..], b"{}"] {
            assert_eq!(process(spec, &["x".into()], false).map_err(|e| e.kind()), Err(Kind::Internal));
        }
    }
}
