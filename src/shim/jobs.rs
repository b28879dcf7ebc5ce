//! Calls of the OCI runtime: started, left alone, and gone on with when they have ended. Nobody waits for one.

use std::collections::VecDeque;
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use super::container::{self, Exit, State};
use super::frame::Request;
use super::launch::Launch;
use super::server::{Reply, Server};
use super::wire::Message;
use crate::error::{Error, Kind, Result};
use crate::sys::reap;

/// What a call is for, and what is to be done after it.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there are as many as calls of the runtime that run, which is few")]
pub enum Work {
    /// The container, or an exec, comes to life.
    Launch(Launch),
    /// What a failed creation left goes away; then the failure is told.
    Undo(Error),
    /// The first process of a created container runs.
    Start,
    /// The container goes away.
    Delete,
    /// It is frozen.
    Pause,
    /// It is thawed.
    Resume,
    /// It has new limits.
    Update,
    /// It was written to this directory.
    Checkpoint(String),
}

/// A call of the runtime that has not ended.
#[derive(Debug)]
pub struct Job {
    /// When it is killed.
    pub deadline: Instant,
    work: Work,
    reply: Reply,
    id: String,
    log: PathBuf,
    overdue: bool,
}

impl Job {
    /// A call that has just begun.
    pub fn new(deadline: Instant, work: Work, reply: Reply, id: String, log: PathBuf) -> Job {
        Job { deadline, work, reply, id, log, overdue: false }
    }

    /// What it is for.
    pub fn work(&self) -> &Work {
        &self.work
    }
}

impl Server {
    /// Calls the runtime on a container as a whole.
    pub(super) fn run(&mut self, work: Work, reply: Reply, id: &str, words: &[&str], deadline: Instant) -> Result<()> {
        self.try_run(work, reply, id, words, deadline).map_err(|(_, e)| e)
    }

    #[allow(clippy::result_large_err, reason = "a refusal gives the work back, to be done in another way")]
    pub(super) fn try_run(
        &mut self,
        work: Work,
        reply: Reply,
        id: &str,
        words: &[&str],
        deadline: Instant,
    ) -> Result<(), (Work, Error)> {
        let number = self.token(0);
        let Some(container) = self.containers.get_mut(id) else {
            return Err((work, Error::not_found(format!("container {id} is gone"))));
        };
        let log = container.bundle.join(format!("runtime-{number}.log"));
        let command = container.runc.command(&log, verb(&work));
        let spawned = command.and_then(|mut command| container.runc.spawn(command.args(words).arg(id)));
        match spawned {
            Ok(pid) => {
                container.busy = true;
                container.starting = matches!(work, Work::Start);
                self.jobs.insert(pid, Job::new(deadline, work, reply, id.to_owned(), log));
                Ok(())
            }
            Err(e) => {
                fs::remove_file(&log).ok();
                Err((work, e))
            }
        }
    }

    /// Kills what takes too long. What becomes of it is the same as of any other failure.
    pub(super) fn end_overdue(&mut self) {
        let now = Instant::now();
        for (pid, job) in self.jobs.iter_mut().filter(|(_, job)| !job.overdue && job.deadline <= now) {
            log::warn!("{} of container {} takes too long and is killed", verb(&job.work), job.id);
            job.overdue = true;
            job.deadline = now + super::UNDO;
            reap::kill(-i64::from(*pid), 9).unwrap_or_else(|e| log::warn!("kill process group {pid}: {e}"));
        }
        let late: Vec<u64> =
            self.launches.iter().filter(|(_, (launch, _))| launch.deadline <= now).map(|(token, _)| *token).collect();
        for token in late {
            if let Some((launch, ready)) = self.launches.remove(&token) {
                self.epoll.remove(&ready).ok();
                self.launch_failed(launch, Error::new(Kind::DeadlineExceeded, "the logging program is not ready"));
            }
        }
    }

    /// A call of the runtime has ended.
    pub(super) fn finish(&mut self, job: Job, code: u32) {
        let Job { work, reply, id, log, overdue, .. } = job;
        let Some(container) = self.containers.get_mut(&id) else {
            fs::remove_file(&log).ok();
            return self.answer(reply, Err(Error::not_found(format!("container {id} is gone"))));
        };
        let gone = matches!(work, Work::Delete | Work::Undo(_)) && !container.runc.state(&id).exists();
        let result = match (code, overdue) {
            (0, _) => Ok(()),
            // It was not there, which is what we wanted.
            _ if gone => Ok(()),
            (_, true) => {
                let e = container.runc.failure(verb(&work), code, &log);
                Err(Error::new(Kind::DeadlineExceeded, format!("it was killed, since it took too long: {e}")))
            }
            _ => Err(container.runc.failure(verb(&work), code, &log)),
        };
        fs::remove_file(&log).ok();
        if let Work::Launch(mut launch) = work {
            return match result.and_then(|()| self.launched(&mut launch)) {
                Ok(pid) => self.alive(launch, pid),
                Err(e) => self.launch_failed(launch, e),
            };
        }
        (container.busy, container.starting) = (false, false);
        match work {
            Work::Undo(e) => {
                result.unwrap_or_else(|left| log::warn!("clean up after container {id}: {left}"));
                return self.undone(reply, &id, e);
            }
            Work::Delete if result.is_ok() => return self.deleted(reply, &id),
            Work::Update => drop(fs::remove_file(container.bundle.join("cricket-resources.json"))),
            _ => {}
        }
        let pid = u64::from(container.first.pid);
        let answer = result.map(|()| self.done(&work, &id, pid));
        self.answer(reply, answer);
        self.settle(&id);
        self.serve_queue(&id);
    }

    /// What a success means.
    fn done(&mut self, work: &Work, id: &str, pid: u64) -> Message {
        let event = Message::new().bytes(1, id);
        let mut become_ = |state| self.containers.get_mut(id).into_iter().for_each(|c| c.first.state = state);
        match work {
            Work::Start => {
                become_(State::Running);
                self.publish("/tasks/start", "TaskStart", event.number(2, pid));
                return Message::new().number(1, pid);
            }
            Work::Pause => {
                become_(State::Paused);
                self.publish("/tasks/paused", "TaskPaused", event);
            }
            Work::Resume => {
                become_(State::Running);
                self.publish("/tasks/resumed", "TaskResumed", event);
            }
            Work::Checkpoint(path) => {
                self.publish("/tasks/checkpointed", "TaskCheckpointed", event.bytes(2, path));
            }
            Work::Launch(_) | Work::Undo(_) | Work::Delete | Work::Update => {}
        }
        Message::new()
    }

    /// The container is gone.
    fn deleted(&mut self, reply: Reply, id: &str) {
        let Some(mut container) = self.containers.remove(id) else { return };
        container::unmount_root(&container.bundle);
        self.output_is_over(id);
        if let Some((watch, _)) = &container.watch {
            self.epoll.remove(watch).unwrap_or_else(|e| log::warn!("stop watching memory: {e}"));
        }
        let pid = container.first.pid;
        let unseen = container.first.exit.is_none();
        let exit = container.early_exit.or(container.first.exit).unwrap_or_else(|| Exit::now(137));
        for (_, process) in container.processes() {
            let told = process.exit.unwrap_or(exit);
            std::mem::take(&mut process.pumps).into_iter().for_each(|pump| self.end_pump(pump));
            std::mem::take(&mut process.waiting).into_iter().for_each(|w| self.answer(w, Ok(told.told())));
        }
        if unseen {
            self.publish_exit(id, "", pid, exit);
        }
        let event = Message::new().bytes(1, id).number(2, u64::from(pid)).number(3, u64::from(exit.code));
        let event = event.message(4, super::messages::timestamp(exit.at));
        self.publish("/tasks/delete", "TaskDelete", event);
        self.answer(reply, Ok(exit.deleted(pid)));
        self.refuse(id, container.queue);
    }

    /// What waited for a container that is gone.
    pub(super) fn refuse(&mut self, id: &str, queue: VecDeque<(Reply, Request)>) {
        for (reply, _) in queue {
            self.answer(reply, Err(Error::not_found(format!("no container {id} here"))));
        }
    }

    /// What had to wait for the runtime comes now.
    pub(super) fn serve_queue(&mut self, id: &str) {
        while let Some(container) = self.containers.get_mut(id).filter(|c| !c.busy) {
            let Some((reply, request)) = container.queue.pop_front() else { return };
            self.call(reply, request);
        }
    }
}

fn verb(work: &Work) -> &'static str {
    match work {
        Work::Launch(launch) if launch.is_first() => "create",
        Work::Launch(_) => "exec",
        Work::Undo(_) | Work::Delete => "delete",
        Work::Start => "start",
        Work::Pause => "pause",
        Work::Resume => "resume",
        Work::Update => "update",
        Work::Checkpoint(_) => "checkpoint",
    }
}
