//! A container in memory, and its state machine.
//!
//! ```text
//!  CREATED ──start──▶ RUNNING ──exit──▶ EXITED
//!     │                                   ▲
//!     └──────── start failed (128) ───────┘
//!  UNKNOWN (its record or its task cannot be read) ──stop, remove──▶ EXITED
//! ```
//! "Being started" and "being removed" are not states of the container but of our work on it: a verb begins them and
//! gets a guard, or is refused. Verbs never queue behind each other.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Instant;

use cricket_proto::records;
use cricket_proto::runtime::{self, ContainerConfig, LinuxContainerResources};

use crate::cgroup::Meter;
use crate::containerd::{Any, Exit, Mount};
use crate::encoded;
use crate::error::{Error, Result};
use crate::ids::{ContainerId, SandboxId};
use crate::sync::{Condvar, Mutex};

pub use super::container_state::{ContainerState, Ended};
pub use guards::{Removing, Settling, Starting, Updating};

mod guards;

/// What its task is made of.
#[derive(Debug)]
pub struct Parts {
    /// containerd's name for the shim.
    pub runtime: String,
    /// What the shim is told.
    pub options: Option<Any>,
    /// How its root filesystem is mounted.
    pub rootfs: Vec<Mount>,
}

/// What we are doing to it, beside what it does.
#[derive(Debug)]
struct Inner {
    state: ContainerState,
    starting: bool,
    removing: bool,
    updating: bool,
    settling: bool,
    /// The stop signal was sent; a second StopContainer does not repeat it.
    signalled: bool,
    oom: bool,
    /// Counts the kernel's out-of-memory kills while the task exists.
    oom_file: Option<PathBuf>,
    /// Exits that were seen while the start verb still ran, and of which process each was.
    early_exits: Vec<(u32, Exit)>,
    /// An earlier daemon ended while it was starting it.
    cut_short: bool,
    /// Known since this daemon created it, until it is started.
    parts: Option<Box<Parts>>,
    /// Its limits since they were updated; until then those of its configuration count.
    resources: Option<LinuxContainerResources>,
}

/// A container: identity never changes, only its state does.
#[derive(Debug)]
pub struct Container {
    /// 64 hex digits.
    pub id: ContainerId,
    /// The pod it belongs to.
    pub sandbox_id: SandboxId,
    /// As in the request, unaltered.
    pub config: ContainerConfig,
    /// Config digest of its image.
    pub image_id: String,
    /// Where its output goes; none: discarded.
    pub log_path: Option<PathBuf>,
    /// The signal that asks it to stop.
    pub stop_signal: u32,
    /// Nanoseconds since the epoch.
    pub created_at: i64,
    /// uid, gid and supplemental groups of its first process.
    pub user: (i64, i64, Vec<i64>),
    /// Its counters, while it runs.
    pub meter: Meter,
    listed: OnceLock<Box<[u8]>>,
    inner: Mutex<Inner>,
    changed: Condvar,
}

impl Container {
    /// A container as its record tells, in `state`.
    pub fn from_record(id: &str, record: &records::Container, state: ContainerState) -> Self {
        Container {
            id: ContainerId::from_record(id),
            sandbox_id: SandboxId::from_record(&record.sandbox_id),
            config: record.config.clone().unwrap_or_default(),
            image_id: record.image_id.clone(),
            log_path: Some(&record.log_path).filter(|p| !p.is_empty()).map(PathBuf::from),
            stop_signal: record.stop_signal,
            created_at: record.created_at,
            user: (record.uid, record.gid, record.supplemental_groups.clone()),
            meter: Meter::default(),
            listed: OnceLock::new(),
            inner: Mutex::new(Inner {
                state,
                starting: false,
                removing: false,
                updating: false,
                settling: false,
                signalled: false,
                oom: false,
                oom_file: None,
                early_exits: Vec::new(),
                cut_short: false,
                parts: None,
                resources: None,
            }),
            changed: Condvar::new(),
        }
    }

    /// The element of ListContainers that tells of it, encoded, but for its state.
    pub fn listed(&self) -> &[u8] {
        self.listed.get_or_init(|| {
            encoded::encode(&runtime::Container {
                id: self.id.to_string(),
                pod_sandbox_id: self.sandbox_id.to_string(),
                metadata: self.config.metadata.clone(),
                image: self.config.image.clone(),
                image_ref: self.image_id.clone(),
                image_id: self.image_id.clone(),
                created_at: self.created_at,
                labels: self.config.labels.clone(),
                annotations: self.config.annotations.clone(),
                ..Default::default()
            })
        })
    }

    /// What it does now.
    pub fn state(&self) -> ContainerState {
        self.inner.lock().state.clone()
    }

    /// The pid of its running first process.
    ///
    /// # Errors
    /// `FailedPrecondition` unless it is running.
    pub fn must_be_running(&self) -> Result<u32> {
        match &self.inner.lock().state {
            ContainerState::Running { pid, .. } => Ok(*pid),
            other => Err(self.refusal(other)),
        }
    }

    fn refusal(&self, state: &ContainerState) -> Error {
        let state = match state {
            ContainerState::Created => "has not been started",
            ContainerState::Running { .. } => "is running",
            ContainerState::Exited(_) => "has exited",
            ContainerState::Unknown => "is in an unknown state: stop or remove it",
        };
        Error::precondition(format!("container {} {state}", self.id))
    }

    /// It was created, and nobody has done anything with it since.
    pub fn is_untouched(&self) -> bool {
        let inner = self.inner.lock();
        let busy = inner.starting || inner.removing || inner.updating;
        inner.state == ContainerState::Created && !busy && inner.resources.is_none()
    }

    /// Keeps what its task will be made of.
    pub fn keep_parts(&self, parts: Parts) {
        self.inner.lock().parts = Some(Box::new(parts));
    }

    /// The same, once: a start is the last that needs it. None if another daemon has created it.
    pub fn take_parts(&self) -> Option<Box<Parts>> {
        self.inner.lock().parts.take()
    }

    /// Begins a start: from CREATED, once, and not while it is being removed.
    pub fn begin_start(&self) -> Result<Starting<'_>> {
        let mut inner = self.inner.lock();
        match &inner.state {
            _ if inner.removing => Err(Error::precondition(format!("container {} is being removed", self.id))),
            _ if inner.starting => Err(Error::precondition(format!("container {} is being started", self.id))),
            _ if inner.updating => Err(Error::precondition(format!("container {} is being updated", self.id))),
            ContainerState::Created => {
                inner.starting = true;
                Ok(Starting { container: self })
            }
            other => Err(self.refusal(other)),
        }
    }

    /// Begins a removal: once, and not during a start.
    pub fn begin_remove(&self) -> Result<Removing<'_>> {
        let mut inner = self.inner.lock();
        if inner.starting {
            return Err(Error::precondition(format!("container {} is being started: try again", self.id)));
        }
        if std::mem::replace(&mut inner.removing, true) {
            return Err(Error::precondition(format!("container {} is being removed already", self.id)));
        }
        Ok(Removing { container: self })
    }

    /// Begins an update of its limits: once, and not during a start or a removal.
    pub fn begin_update(&self) -> Result<Updating<'_>> {
        let mut inner = self.inner.lock();
        let busy = match (&inner.state, inner.starting, inner.removing, inner.updating) {
            (ContainerState::Unknown, ..) => return Err(self.refusal(&ContainerState::Unknown)),
            (_, true, ..) => "started",
            (_, _, true, _) => "removed",
            (_, _, _, true) => "updated",
            _ => {
                inner.updating = true;
                return Ok(Updating { container: self });
            }
        };
        Err(Error::precondition(format!("container {} is being {busy}: try again", self.id)))
    }

    /// An earlier daemon ended while it was starting it: containerd may be at work on that yet.
    pub fn was_cut_short(&self) -> bool {
        self.inner.lock().cut_short
    }

    /// See [`Container::was_cut_short`].
    pub fn set_cut_short(&self) {
        self.inner.lock().cut_short = true;
    }

    /// What it may use now.
    pub fn resources(&self) -> LinuxContainerResources {
        let updated = self.inner.lock().resources.clone();
        updated.unwrap_or_else(|| self.config.linux.resources.clone().unwrap_or_default())
    }

    /// See [`Container::resources`].
    pub fn set_resources(&self, resources: LinuxContainerResources) {
        self.inner.lock().resources = Some(resources);
    }

    /// An exit of its first process was seen, which was `pid` (0: nobody knows). Whoever gets the guard settles it: nobody
    /// else will. `None`: it is settled, being settled, or the start verb will take it up when it is through; or it is of
    /// a process that an earlier daemon had asked for.
    pub fn begin_settle(&self, pid: u32, exit: Exit) -> Option<Settling<'_>> {
        let mut inner = self.inner.lock();
        if inner.starting {
            inner.early_exits.push((pid, exit));
            return None;
        }
        let own = match inner.state {
            ContainerState::Running { pid: own, .. } => is_same(own, pid),
            _ => true,
        };
        let free = own && inner.state.may_run() && !std::mem::replace(&mut inner.settling, true);
        // Not then_some: a guard that is not handed out must not be made, for its drop takes the lock.
        free.then(|| Settling { container: self, exit })
    }

    /// Nobody could say what it does, and now it is known. Whether that is news: it may have ended or be on its way out.
    pub fn found(&self, state: ContainerState) -> bool {
        let news = {
            let mut inner = self.inner.lock();
            let news = inner.state == ContainerState::Unknown && !inner.removing && !inner.settling;
            if news {
                inner.state = state;
            }
            news
        };
        self.changed.notify_all();
        news
    }

    /// The kernel killed something in it for want of memory.
    pub fn note_oom(&self) {
        self.inner.lock().oom = true;
    }

    /// Whether the kernel killed something in it for want of memory.
    pub fn saw_oom(&self) -> bool {
        self.inner.lock().oom
    }

    /// Where the kernel counts its out-of-memory kills, while the task exists.
    pub fn oom_file(&self) -> Option<PathBuf> {
        self.inner.lock().oom_file.clone()
    }

    /// See [`Container::oom_file`].
    pub fn set_oom_file(&self, file: Option<PathBuf>) {
        self.inner.lock().oom_file = file;
    }

    /// Whether the caller is the first to send the stop signal.
    pub fn begin_signal(&self) -> bool {
        !std::mem::replace(&mut self.inner.lock().signalled, true)
    }

    /// The stop signal did not reach it: the next stop sends it again.
    pub fn signal_failed(&self) {
        self.inner.lock().signalled = false;
    }

    /// Blocks while a start is in progress, or until `deadline` (none: for ever).
    pub fn wait_started(&self, deadline: Option<Instant>) {
        let mut inner = self.inner.lock();
        while inner.starting && deadline.is_none_or(|d| d > Instant::now()) {
            inner = self.changed.wait_until(inner, deadline);
        }
    }

    /// Blocks until no process lives in it, or until `deadline` (none: for ever). Tells which.
    pub fn wait_exited(&self, deadline: Option<Instant>) -> bool {
        let mut inner = self.inner.lock();
        while inner.state.may_run() {
            if deadline.is_some_and(|d| d <= Instant::now()) {
                return false;
            }
            inner = self.changed.wait_until(inner, deadline);
        }
        true
    }
}

/// Whether an exit of one process is that of the other; 0 may be any.
fn is_same(own: u32, other: u32) -> bool {
    own == other || own == 0 || other == 0
}

/// The name that is reserved for a container: `name_pod_namespace_uid_attempt`.
///
/// # Errors
/// `InvalidArgument` if the configuration has no metadata or no name.
pub fn reserved_name(config: &ContainerConfig, sandbox: &runtime::PodSandboxMetadata) -> Result<String> {
    let metadata = config.metadata.as_ref().ok_or_else(|| Error::invalid("container config has no metadata"))?;
    if metadata.name.is_empty() {
        return Err(Error::invalid("container metadata has no name"));
    }
    Ok(format!("{}_{}_{}_{}_{}", metadata.name, sandbox.name, sandbox.namespace, sandbox.uid, metadata.attempt))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    const EXIT: Exit = Exit { code: 3, at: 9 };

    fn in_state(state: ContainerState) -> Container {
        Container::from_record("c", &records::Container::default(), state)
    }

    fn states() -> [ContainerState; 4] {
        let running = ContainerState::Running { pid: 7, started_at: 1 };
        [ContainerState::Created, running, ContainerState::Exited(Ended::default()), ContainerState::Unknown]
    }

    #[test]
    fn only_a_created_container_starts() {
        for state in states() {
            let may = state == ContainerState::Created;
            let container = in_state(state);
            let begun = container.begin_start();
            assert_eq!(begun.is_ok(), may);
            if let Err(e) = begun {
                assert_eq!(e.kind(), Kind::FailedPrecondition);
            }
        }
    }

    #[test]
    fn only_what_was_unknown_can_be_found_out() {
        for state in states() {
            let container = in_state(state.clone());
            let found = ContainerState::Running { pid: 9, started_at: 2 };
            assert_eq!(container.found(found.clone()), state == ContainerState::Unknown);
            assert_eq!(container.state() == found, state == ContainerState::Unknown);
        }
        let container = in_state(ContainerState::Unknown);
        let removing = container.begin_remove().unwrap();
        assert!(!container.found(ContainerState::Created), "it is being killed");
        drop(removing);
    }

    #[test]
    fn an_exit_is_settled_once_and_only_where_a_process_may_live() {
        for state in states() {
            let may = state.may_run();
            let container = in_state(state);
            let settling = container.begin_settle(7, EXIT);
            assert_eq!(settling.is_some(), may);
            assert!(container.begin_settle(7, EXIT).is_none(), "twice");
            drop(settling);
            assert_eq!(container.begin_settle(7, EXIT).is_some(), may, "given up");
        }
    }

    #[test]
    fn an_exit_during_the_start_goes_to_the_starter() {
        let container = in_state(ContainerState::Created);
        let starting = container.begin_start().unwrap();
        assert_eq!(container.begin_start().map_err(|e| e.kind()).err(), Some(Kind::FailedPrecondition));
        assert_eq!(container.begin_remove().map_err(|e| e.kind()).err(), Some(Kind::FailedPrecondition));
        assert!(container.begin_settle(7, EXIT).is_none());
        let settling = starting.running(7, 1).unwrap();
        assert_eq!(settling.exit(), EXIT);
        assert!(container.begin_settle(7, EXIT).is_none(), "the starter settles it");
        settling.exited(Ended::exit(1, EXIT, false));
        assert!(container.wait_exited(None));
    }

    #[test]
    fn an_exit_at_the_very_end_of_a_start_is_settled_by_one_of_the_two() {
        for _ in 0..2000 {
            let container = in_state(ContainerState::Created);
            let starting = container.begin_start().unwrap();
            let settles = std::thread::scope(|scope| {
                let seen = scope.spawn(|| container.begin_settle(7, EXIT));
                let taken_up = starting.running(7, 1);
                [taken_up, seen.join().unwrap()].into_iter().flatten().count()
            });
            assert_eq!(settles, 1);
        }
    }

    #[test]
    fn an_exit_of_an_earlier_process_does_not_hide_that_of_the_own() {
        let container = in_state(ContainerState::Created);
        let starting = container.begin_start().unwrap();
        for pid in [6, 7, 8] {
            assert!(container.begin_settle(pid, EXIT).is_none());
        }
        assert!(starting.running(7, 1).is_some());
    }

    #[test]
    fn an_exit_of_another_process_is_none_of_ours() {
        let container = in_state(ContainerState::Running { pid: 7, started_at: 1 });
        assert!(container.begin_settle(6, EXIT).is_none());
        assert!(container.begin_settle(0, EXIT).is_some(), "nobody knows whose it is");
        let container = in_state(ContainerState::Created);
        let starting = container.begin_start().unwrap();
        assert!(container.begin_settle(6, EXIT).is_none());
        assert!(starting.running(7, 1).is_none());
        assert!(container.begin_settle(7, EXIT).is_some(), "its own is yet to come");
    }

    #[test]
    fn a_dropped_start_or_removal_can_be_tried_again() {
        let container = in_state(ContainerState::Created);
        drop(container.begin_start().unwrap());
        let removing = container.begin_remove().unwrap();
        assert!(container.begin_start().is_err() && container.begin_remove().is_err());
        drop(removing);
        container.begin_start().unwrap().failed(Ended::start_error(5, "no".into()));
        assert!(matches!(container.state(), ContainerState::Exited(e) if e.code == 128 && e.reason == "StartError"));
    }

    #[test]
    fn reasons() {
        let reason = |code, oom| Ended::exit(1, Exit { code, at: 2 }, oom).reason;
        assert_eq!(reason(0, true), "Completed");
        assert_eq!(reason(137, true), "OOMKilled");
        assert_eq!(reason(137, false), "Error");
        assert_eq!(Ended::unseen(1, 2).code, 255);
    }

    #[test]
    fn waiting_is_bounded() {
        let container = in_state(ContainerState::Running { pid: 7, started_at: 1 });
        assert!(!container.wait_exited(Some(Instant::now())));
    }
}
