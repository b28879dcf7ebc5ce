//! StopContainer: asks, waits, kills.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cricket_proto::runtime::{StopContainerRequest, StopContainerResponse};

use crate::call::Call;
use crate::container::deaf::is_deaf;
use crate::container::exit::reconcile;
use crate::container::list::of_sandbox;
use crate::container::task::SIGKILL;
use crate::error::{Context, Error, Kind, Result};
use crate::ids::SandboxId;
use crate::runtime::Runtime;
use crate::store::Container;

/// When a stop signal that came too early is sent again.
const AGAIN: Duration = Duration::from_secs(1);
/// After a SIGKILL, how long to wait for the exit event before asking containerd.
const SUSPICION: Duration = Duration::from_secs(5);
/// How long a killed container may take to end where the client set no deadline.
const PATIENCE: Duration = Duration::from_secs(120);

/// Ends a container: its stop signal, then SIGKILL after `timeout` seconds. Blocks until it has ended. Idempotent; a
/// missing container is success. A second call while the first waits does not repeat the signal, but may kill sooner.
///
/// # Errors
/// `DeadlineExceeded` with the container as it is when the client's deadline comes first.
pub fn stop(rt: &Runtime, call: &Call, request: StopContainerRequest) -> Result<StopContainerResponse> {
    if let Some(container) = rt.containers.find(&request.container_id)? {
        let grace = Duration::from_secs(u64::try_from(request.timeout).unwrap_or(0));
        stop_container(rt, call, &container, grace).with_context(|| format!("stop container {}", container.id))?;
    }
    Ok(StopContainerResponse::default())
}

fn stop_container(rt: &Runtime, call: &Call, container: &Container, grace: Duration) -> Result<()> {
    container.wait_started(call.at_most(PATIENCE).deadline());
    call.check()?;
    if !container.state().may_run() {
        return Ok(());
    }
    if !grace.is_zero() {
        let patience = call.at_most(grace);
        if container.begin_signal() {
            let sent = ask(rt, call, container, &patience);
            if sent.is_err() {
                container.signal_failed();
            }
            sent?;
        }
        if container.wait_exited(patience.deadline()) {
            return Ok(());
        }
    }
    call.check()?;
    kill(rt, call, container)?;
    await_death(rt, call, container)
}

/// Sends the stop signal, so that it is heard: a container that is stopped right after its start has no handler yet, and
/// the kernel drops the signal. Blocks for [`AGAIN`] in that case, and for `patience` at most.
fn ask(rt: &Runtime, call: &Call, container: &Container, patience: &Call) -> Result<()> {
    let is_deaf = || container.must_be_running().is_ok_and(|pid| is_deaf(pid, container.stop_signal));
    let was_deaf = is_deaf();
    send(rt, call, container, container.stop_signal)?;
    if was_deaf && !container.wait_exited(patience.at_most(AGAIN).deadline()) && !is_deaf() {
        send(rt, call, container, container.stop_signal)?;
    }
    Ok(())
}

/// Kills every container of a pod and waits until all have ended; goes on after a failure and reports the first.
pub fn kill_all(rt: &Runtime, call: &Call, sandbox: &SandboxId) -> Result<()> {
    let running: Vec<Arc<Container>> = of_sandbox(rt, sandbox).into_iter().filter(|c| c.state().may_run()).collect();
    // All signals first: they die together.
    let first = |all: Result<()>, next: Result<()>| all.and(next);
    let sent = running.iter().map(|c| kill(rt, call, c).with_context(|| format!("kill container {}", c.id)));
    sent.fold(Ok(()), first)?;
    let ended = running.iter().map(|c| await_death(rt, call, c).with_context(|| format!("container {}", c.id)));
    ended.fold(Ok(()), first)
}

/// Sends SIGKILL.
pub fn kill(rt: &Runtime, call: &Call, container: &Container) -> Result<()> {
    send(rt, call, container, SIGKILL)
}

/// Sends a signal. If it finds nobody to take it we may have missed the exit; shims have many words for that.
fn send(rt: &Runtime, call: &Call, container: &Container, signal: u32) -> Result<()> {
    match rt.containerd.kill(call, container.id.as_str(), None, signal, false) {
        Ok(()) => Ok(()),
        Err(e) if matches!(e.kind(), Kind::Unavailable | Kind::DeadlineExceeded | Kind::Canceled) => Err(e),
        Err(e) => {
            reconcile(rt, call, container)?;
            if container.state().may_run() && e.kind() != Kind::NotFound {
                Err(e)
            } else {
                Ok(())
            }
        }
    }
    .with_context(|| format!("send signal {signal}"))
}

/// Blocks until a killed container has ended.
pub fn await_death(rt: &Runtime, call: &Call, container: &Container) -> Result<()> {
    let until = call.at_most(PATIENCE);
    while !container.wait_exited(earlier(until.deadline(), Instant::now() + SUSPICION)) {
        until.check().map_err(|e| match e.kind() {
            Kind::DeadlineExceeded => Error::new(Kind::DeadlineExceeded, "killed, but it has not ended in time"),
            _ => e,
        })?;
        reconcile(rt, &until, container)?;
    }
    Ok(())
}

fn earlier(a: Option<Instant>, b: Instant) -> Option<Instant> {
    Some(a.map_or(b, |a| a.min(b)))
}
