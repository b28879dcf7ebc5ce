//! How long a shim lives: for its containers, for its callers, and a while for what was announced.

use std::fs;
use std::time::{Duration, Instant};

use super::server::Server;

/// A shim without containers and callers ends after this time: nobody will ever call it again.
const ALONE: Duration = Duration::from_secs(30);
/// How long it stays for a container that was announced.
const PLEDGE: Duration = Duration::from_secs(60);
/// How long the last events may take.
const FAREWELL: Duration = Duration::from_secs(5);

impl Server {
    /// Nobody calls, and nothing is left that somebody may want to know of.
    fn is_alone(&self) -> bool {
        self.is_left_alone() && self.containers.values().all(|container| container.is_forgotten())
    }

    /// Nobody calls, and nothing lives. containerd may be away, and ask for the ends of our containers when it is back.
    fn is_left_alone(&self) -> bool {
        self.callers.is_empty() && !self.has_living()
    }

    /// Whether to end now.
    pub(super) fn is_over(&mut self) -> bool {
        let (now, alone) = (Instant::now(), self.is_alone());
        // Also while there are ends to be asked for: containerd may take a bundle away at any time, and does not say so.
        if !alone {
            self.alone_since = now;
        }
        self.pledges.retain(|until| *until > now);
        if self.leaving.is_none() && alone && self.pledges.is_empty() && now >= self.alone_since + ALONE {
            self.leave();
        }
        if self.told_to_end && !self.has_living() {
            self.leave();
        }
        let told = self.publisher.is_idle() && self.callers.values().all(|caller| caller.unsent.is_empty());
        self.leaving.is_some_and(|until| told || now >= until)
    }

    /// Ends soon. From now on nobody can reach us any more: who tries makes a new shim.
    pub(super) fn leave(&mut self) {
        if self.leaving.is_none() {
            self.leaving = Some(Instant::now() + FAREWELL);
            fs::remove_file(&self.socket).unwrap_or_else(|e| log::warn!("remove {}: {e}", self.socket.display()));
            self.epoll.remove(&self.listener).unwrap_or_else(|e| log::warn!("stop listening: {e}"));
        }
    }

    /// A container was announced: we stay for it.
    pub(super) fn pledge(&mut self) {
        self.pledges.push(Instant::now() + PLEDGE);
    }

    /// When something has to happen without anybody calling.
    pub(super) fn next_tick(&self) -> Option<Instant> {
        let overdue = self.jobs.values().map(|job| job.deadline);
        let loggers = self.launches.values().map(|(launch, _)| launch.deadline);
        let lonely = (self.leaving.is_none() && self.is_left_alone())
            .then(|| self.pledges.iter().copied().fold(self.alone_since + ALONE, Instant::max));
        overdue
            .chain(loggers)
            .chain(self.publisher.next_tick())
            .chain(self.rest_at)
            .chain(self.leaving)
            .chain(lonely)
            .min()
    }
}
