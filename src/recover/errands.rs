//! What could not be done at once, done later: see [`Errand`].

use std::time::Duration;

use super::orphans::{self, Orphan, Place};
use crate::call::Call;
use crate::container::{self, METADATA_TYPE};
use crate::containerd::Record;
use crate::error::{Error, Idempotent, Kind, Result};
use crate::ids::ContainerId;
use crate::runtime::Runtime;
use crate::store::later::Errand;
use crate::store::ContainerState;

/// What an earlier daemon had asked of containerd, and containerd does only now, is done by then: it gives itself a few
/// seconds for each step.
pub const SETTLED: Duration = Duration::from_secs(10);
/// How long one of them may take.
const BUDGET: Duration = Duration::from_secs(30);

/// Runs an errand. Blocks. If it fails it is to be run again after `pause`, and that is arranged.
pub fn run(rt: &Runtime, errand: Errand, pause: Duration) {
    let call = Call::within(BUDGET);
    let done = match &errand {
        Errand::Sweep => sweep(rt, &call),
        Errand::Settle(id) => settle(rt, &call, id),
        Errand::Ask(id) => ask(rt, &call, id),
    };
    if let Err(e) = done {
        log::info!("tried again in {pause:?}: {e}");
        rt.later.add_after(errand, pause);
    }
}

/// Removes what belongs to nothing while we serve: what is being made is known by its id before there is anything of it.
fn sweep(rt: &Runtime, call: &Call) -> Result<()> {
    let known = |id: &str| rt.containers.knows(id) || rt.sandboxes.knows(id);
    let mut late = Vec::new();
    let found = orphans::find(&Place::of(rt), call, || {
        let records = rt.containerd.containers(call, &[])?.into_iter();
        // Asked after all the listing: what was made or begun meanwhile is known by now.
        let unknown = |r: &Record| r.extensions.contains_key(METADATA_TYPE) && !known(&r.id);
        let (unknown, whole): (Vec<Record>, Vec<Record>) = records.partition(unknown);
        late = unknown;
        Ok(whole)
    })?;
    let mut failed = None;
    for record in late {
        let id = &record.id;
        let gone = if container::was_removing(rt, &ContainerId::from_record(id)) {
            super::recover_container(rt, call, &record, None)
        } else {
            log::info!("removing the containerd record {id}: an earlier cricket had asked for it");
            rt.containerd.delete_container(call, id).or_gone()
        };
        failed = gone.err().or(failed);
    }
    let orphans: Vec<Orphan> = found.into_iter().filter(|orphan| !orphan.id().is_some_and(known)).collect();
    orphans::remove_all(rt, call, &orphans).and(failed.map_or(Ok(()), Err))
}

/// The end of a container on disk, and then nothing of its task in containerd. One that has not ended is left alone.
///
/// # Errors
/// If it cannot be written down, and then its task stays; or if that does not go.
pub fn settle(rt: &Runtime, call: &Call, id: &str) -> Result<()> {
    // Removed meanwhile, and its task with it.
    let Some(container) = rt.containers.exact(id) else { return Ok(()) };
    let ContainerState::Exited(ended) = container.state() else { return Ok(()) };
    container::write_end(rt, &container.id, &ended)?;
    let gone = container::destroy(&*rt.containerd, call, id, None);
    gone.map_err(|e| e.context(format_args!("end the task of container {id}, which has ended")))
}

fn ask(rt: &Runtime, call: &Call, id: &str) -> Result<()> {
    let Some(container) = rt.containers.exact(id).filter(|c| c.state() == ContainerState::Unknown) else {
        return Ok(());
    };
    let record = match rt.containerd.container(call, id) {
        Err(e) if e.kind() == Kind::NotFound => return Ok(()),
        record => record?,
    };
    let task = match rt.containerd.task(call, id, None) {
        Err(e) if e.kind() == Kind::NotFound => None,
        task => Some(task?),
    };
    match super::state::of(rt, call, &container.id, task.as_ref()).1? {
        ContainerState::Unknown => Err(Error::new(Kind::Unavailable, format!("container {id}: its shim cannot say"))),
        state => {
            if container.found(state) {
                log::info!("container {id} is known again: {:?}", container.state().cri());
                super::take_up(rt, &container, &record.runtime);
            }
            Ok(())
        }
    }
}
