//! Children that ended: calls of the runtime, processes of containers, and orphans that are nobody's.

use super::container::{Container, Exit, State};
use super::jobs::Work;
use super::messages::timestamp;
use super::server::Server;
use super::streams::Held;
use super::wire::Message;
use crate::sys::reap;

impl Server {
    /// Takes every child that has ended.
    pub(super) fn reap(&mut self) {
        while let Some((pid, code)) = reap::next_ended() {
            match self.jobs.remove(&pid) {
                Some(job) => self.finish(job, code),
                None => self.ended(pid, Exit::now(code)),
            }
            // Only while the runtime is making processes can one end before we know it.
            if !self.jobs.values().any(|job| matches!(job.work(), Work::Launch(_))) {
                self.unknown = Vec::new();
            }
        }
    }

    /// Whether there is a process that we look after, or one on its way.
    pub(super) fn has_living(&self) -> bool {
        let lives = |c: &Container| c.first.lives() || c.execs.values().any(|exec| exec.lives());
        !self.jobs.is_empty() || !self.launches.is_empty() || self.containers.values().any(lives)
    }

    /// A process that is no call of the runtime has ended.
    pub(super) fn ended(&mut self, pid: u32, exit: Exit) {
        let found = self.containers.iter_mut().find_map(|(id, container)| {
            let (exec, process) = container.processes().find(|(_, p)| p.pid == pid && p.exit.is_none())?;
            let exec = exec.to_owned();
            if exec.is_empty() {
                container.early_exit = Some(exit);
            } else {
                process.state = State::Stopped;
                process.exit = Some(exit);
            }
            Some((id.clone(), exec))
        });
        match found {
            None => self.unknown.push((pid, exit)),
            Some((id, exec)) if exec.is_empty() => {
                if let Some(container) = self.containers.get(&id).filter(|c| c.shares_pids) {
                    container.cgroups.kill_all(9);
                }
                self.settle(&id);
            }
            Some((id, exec)) => self.tell_end(&id, &exec, pid, exit),
        }
    }

    /// The first process has ended: told now, unless its start is not told yet.
    pub(super) fn settle(&mut self, id: &str) {
        let Some(container) = self.containers.get_mut(id).filter(|c| !c.starting) else { return };
        let Some(exit) = container.early_exit.take() else { return };
        container.first.state = State::Stopped;
        container.first.exit = Some(exit);
        let pid = container.first.pid;
        self.last_look_at_memory(id);
        self.tell_end(id, "", pid, exit);
    }

    fn tell_end(&mut self, id: &str, exec: &str, pid: u32, exit: Exit) {
        let Ok(process) = self.container(id).and_then(|container| container.process(id, exec)) else { return };
        process.held = Held::default();
        process.terminal = None;
        let (waiting, pumps) = (std::mem::take(&mut process.waiting), std::mem::take(&mut process.pumps));
        pumps.into_iter().for_each(|pump| self.end_pump(pump));
        if exec.is_empty() {
            self.output_ends(id);
        }
        self.publish_exit(id, exec, pid, exit);
        waiting.into_iter().for_each(|reply| self.answer(reply, Ok(exit.told())));
    }

    pub(super) fn publish_exit(&mut self, id: &str, exec: &str, pid: u32, exit: Exit) {
        let name = if exec.is_empty() { id } else { exec };
        let event = Message::new().bytes(1, id).bytes(2, name).number(3, u64::from(pid));
        let event = event.number(4, u64::from(exit.code)).message(5, timestamp(exit.at));
        self.publish("/tasks/exit", "TaskExit", event);
    }
}
