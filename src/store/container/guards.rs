//! Our work on a container in progress: each guard keeps others out until it is dropped.

use super::{Container, ContainerState, Ended};
use crate::containerd::Exit;

/// An exit that is being settled; dropping it without an outcome lets somebody else try.
#[derive(Debug)]
pub struct Settling<'a> {
    pub(super) container: &'a Container,
    pub(super) exit: Exit,
}

impl<'a> Settling<'a> {
    /// Whose exit.
    pub fn container(&self) -> &'a Container {
        self.container
    }

    /// As it was seen.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// It ended. Wakes everybody in [`Container::wait_exited`].
    pub fn exited(self, ended: Ended) {
        self.container.inner.lock().state = ContainerState::Exited(ended);
        self.container.changed.notify_all();
    }
}

impl Drop for Settling<'_> {
    fn drop(&mut self) {
        self.container.inner.lock().settling = false;
    }
}

/// A start in progress; dropping it without an outcome leaves the state as it was.
#[derive(Debug)]
pub struct Starting<'a> {
    pub(super) container: &'a Container,
}

impl<'a> Starting<'a> {
    /// It runs. An exit that was seen meanwhile comes back: the caller settles it.
    pub fn running(self, pid: u32, started_at: i64) -> Option<Settling<'a>> {
        let container = self.container;
        let early = {
            let mut inner = container.inner.lock();
            inner.state = ContainerState::Running { pid, started_at };
            // With the same hold of the lock: an exit that comes from now on is for whoever sees it.
            inner.starting = false;
            std::mem::take(&mut inner.early_exits)
        };
        drop(self);
        early.into_iter().find_map(|(pid, exit)| container.begin_settle(pid, exit))
    }

    /// It could not be started.
    pub fn failed(self, ended: Ended) {
        let mut inner = self.container.inner.lock();
        inner.state = ContainerState::Exited(ended);
        inner.early_exits.clear();
    }
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        self.container.inner.lock().starting = false;
        self.container.changed.notify_all();
    }
}

/// An update of its limits in progress; dropping it ends it.
#[derive(Debug)]
pub struct Updating<'a> {
    pub(super) container: &'a Container,
}

impl Drop for Updating<'_> {
    fn drop(&mut self) {
        self.container.inner.lock().updating = false;
    }
}

/// A removal in progress; dropping it allows another try.
#[derive(Debug)]
pub struct Removing<'a> {
    pub(super) container: &'a Container,
}

impl Drop for Removing<'_> {
    fn drop(&mut self) {
        self.container.inner.lock().removing = false;
    }
}
