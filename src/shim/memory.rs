//! What the kernel kills for want of memory, and whose it was.

use std::path::Path;

use super::cgroup;
use super::container::Container;
use super::server::{Server, MEMORY};
use super::wire::Message;

/// 128 + SIGKILL, with which the kernel does it.
const KILLED: u32 = 137;

impl Server {
    /// A container is there: its kills are counted from now on.
    pub(super) fn count_kills(&mut self, id: &str) {
        let token = self.token(MEMORY);
        let Some(container) = self.containers.get_mut(id) else { return };
        container.oom_kills = container.cgroups.oom_kills().unwrap_or(0);
        container.watch = container.cgroups.watch().filter(|w| self.epoll.add(w, token).is_ok()).map(|w| (w, token));
        if let Some(parent) = container.cgroups.parent() {
            // What nobody here has told of is of others, or of some who are gone.
            self.unclaimed(&parent);
        }
    }

    /// A control group says that something happened to its memory.
    pub(super) fn memory_event(&mut self, token: u64) {
        let watched = |(_, c): &(&String, &Container)| c.watch.as_ref().is_some_and(|(_, t)| *t == token);
        if let Some(id) = self.containers.iter().find(watched).map(|(id, _)| id.clone()) {
            self.look_at_memory(&id);
        }
    }

    /// Tells of out-of-memory kills that are not told yet, of a container whose first process may have ended.
    pub(super) fn look_at_memory(&mut self, id: &str) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let Some((watch, _)) = &container.watch else { return };
        watch.clear();
        match container.cgroups.oom_kills() {
            Some(kills) if kills > container.oom_kills => {
                let parent = container.cgroups.parent();
                if let Some(claimed) = parent.and_then(|parent| self.claimed.get_mut(&parent)) {
                    *claimed += kills - container.oom_kills;
                }
                container.oom_kills = kills;
                self.tell_oom(id);
            }
            Some(_) => {}
            None => {
                self.epoll.remove(watch).unwrap_or_else(|e| log::warn!("stop watching memory: {e}"));
                container.watch = None;
            }
        }
    }

    /// The same at its end. systemd removes an empty scope at once, and the count in it: the group above has the kills of all
    /// below it, of those that are gone too.
    pub(super) fn last_look_at_memory(&mut self, id: &str) {
        self.look_at_memory(id);
        let Some(container) = self.containers.get(id).filter(|c| c.watch.is_none() && !c.killed) else { return };
        let killed = container.first.exit.is_some_and(|exit| exit.code == KILLED);
        if let Some(parent) = container.cgroups.parent().filter(|_| killed) {
            if self.unclaimed(&parent) > 0 {
                self.tell_oom(id);
            }
        }
    }

    /// How many processes the kernel killed below this group, and in none that can still be asked, since the last such
    /// question.
    fn unclaimed(&mut self, parent: &Path) -> u64 {
        // Before its children, which may count more meanwhile: that would be theirs.
        let Some(kills) = cgroup::kills_below(parent) else { return 0 };
        let siblings = self.containers.iter().filter(|(_, c)| c.cgroups.parent().is_some_and(|p| p == parent));
        let siblings: Vec<String> = siblings.map(|(id, _)| id.clone()).collect();
        siblings.iter().for_each(|id| self.look_at_memory(id));
        let claimed = self.claimed.entry(parent.to_owned()).or_insert(kills);
        let unclaimed = kills.saturating_sub(*claimed);
        *claimed += unclaimed;
        unclaimed
    }

    fn tell_oom(&mut self, id: &str) {
        self.publish("/tasks/oom", "TaskOOM", Message::new().bytes(1, id));
    }
}
