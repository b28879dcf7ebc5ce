//! Calls of the OCI runtime: started, left alone, and gone on with when they have ended. Nobody waits for one.

use std::fs::{self, File};
use std::io;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::Instant;

use super::cgroup::Cgroups;
use super::container::{self, Exit, State};
use super::messages::Mount;
use super::server::{Reply, Server, LOGGER, MEMORY};
use super::streams::{self, Held, Opened};
use super::wire::Message;
use crate::error::{Context, Error, Kind, Result};
use crate::sys::{reap, terminal};

/// What a call is for, and what is to be done after it.
#[derive(Debug)]
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
    /// What it is for.
    pub fn work(&self) -> &Work {
        &self.work
    }
}

/// A process on its way.
#[derive(Debug)]
pub struct Launch {
    /// When it is given up.
    pub deadline: Instant,
    reply: Reply,
    id: String,
    exec_id: String,
    rootfs: Vec<Mount>,
    given: Option<[std::process::Stdio; 3]>,
    held: Held,
    sink: Option<File>,
    /// Where the runtime sends the terminal.
    console: Option<(UnixListener, PathBuf)>,
    /// What the runtime reads and writes for this process only.
    files: Vec<PathBuf>,
    pid_file: PathBuf,
}

impl Launch {
    /// A container's first process, or an exec.
    pub fn new(reply: Reply, id: String, exec_id: String, deadline: Instant, rootfs: Vec<Mount>) -> Launch {
        Launch {
            deadline,
            reply,
            id,
            exec_id,
            rootfs,
            given: None,
            held: Held::default(),
            sink: None,
            console: None,
            files: Vec::new(),
            pid_file: PathBuf::new(),
        }
    }

    fn is_first(&self) -> bool {
        self.exec_id.is_empty()
    }

    fn clean(&self) {
        let console = self.console.iter().map(|(_, path)| path);
        // What the runtime did not come to write is not there.
        console.chain(&self.files).for_each(|file| drop(fs::remove_file(file)));
    }
}

impl Server {
    /// Goes on with a process at once, or when its logging program is ready.
    pub(super) fn launch_when_ready(&mut self, mut launch: Launch, opened: Opened) {
        launch.given = Some(opened.given);
        (launch.held, launch.sink) = (opened.held, opened.sink);
        let Some(ready) = opened.ready else { return self.launch(launch) };
        let token = self.token(LOGGER);
        match self.epoll.add(&ready, token).context("wait for the logging program") {
            Ok(()) => drop(self.launches.insert(token, (launch, ready))),
            Err(e) => self.launch_failed(launch, e),
        }
    }

    /// The logging program said that it is ready, or has ended: then the container will feel it.
    pub(super) fn logger_is_ready(&mut self, token: u64) {
        if let Some((launch, ready)) = self.launches.remove(&token) {
            self.epoll.remove(&ready).unwrap_or_else(|e| log::warn!("forget a logging program: {e}"));
            self.launch(launch);
        }
    }

    fn launch(&mut self, mut launch: Launch) {
        match self.try_launch(&mut launch) {
            Ok((pid, log)) => {
                let Launch { reply, deadline, ref id, .. } = launch;
                let id = id.clone();
                self.jobs.insert(pid, Job { deadline, work: Work::Launch(launch), reply, id, log, overdue: false });
            }
            Err(e) => self.launch_failed(launch, e),
        }
    }

    /// `create` or `exec` of the runtime.
    fn try_launch(&mut self, launch: &mut Launch) -> Result<(u32, PathBuf)> {
        let number = self.token(0);
        let console = self.socket.with_extension(format!("{number}.pty"));
        let gone = || Error::not_found(format!("container {} is gone", launch.id));
        let container = self.containers.get_mut(&launch.id).ok_or_else(gone)?;
        let bundle = container.bundle.clone();
        let log = bundle.join(format!("runtime-{number}.log"));
        let first = launch.is_first();
        let mut command = container.runc.command(&log, if first { "create" } else { "exec" })?;
        launch.files.push(log.clone());
        launch.pid_file = bundle.join(if first { "init.pid".to_owned() } else { format!("exec-{number}.pid") });
        let process = container.process(&launch.id, &launch.exec_id)?;
        let with_terminal = process.stdio.terminal;
        if first {
            command.arg("--bundle").arg(&bundle);
        } else {
            let spec = bundle.join(format!("exec-{number}.json"));
            launch.files.extend([spec.clone(), launch.pid_file.clone()]);
            fs::write(&spec, &process.spec).context("write the process down")?;
            command.arg("--process").arg(&spec).arg("--detach");
        }
        command.arg("--pid-file").arg(&launch.pid_file);
        if with_terminal {
            let listener = UnixListener::bind(&console).context("make a console socket")?;
            launch.console = Some((listener, console.clone()));
            command.arg("--console-socket").arg(&console);
        } else if let Some([stdin, stdout, stderr]) = launch.given.take() {
            command.stdin(stdin).stdout(stdout).stderr(stderr);
        }
        if first && container.options.no_pivot_root {
            command.arg("--no-pivot");
        }
        if first && container.options.no_new_keyring {
            command.arg("--no-new-keyring");
        }
        let pid = container.runc.spawn(command.arg(&launch.id))?;
        Ok((pid, log))
    }

    /// The process did not come to life: what it left is cleared away before that is told.
    fn launch_failed(&mut self, launch: Launch, e: Error) {
        launch.clean();
        let (reply, id) = (launch.reply, launch.id.clone());
        if !launch.is_first() {
            if let Ok(process) = self.container(&id).and_then(|c| c.process(&id, &launch.exec_id)) {
                process.state = State::Created;
            }
            return self.answer(reply, Err(e));
        }
        let Some(container) = self.containers.get(&id) else { return self.answer(reply, Err(e)) };
        // A runtime that could not even be started has left nothing.
        if !container.runc.state(&id).exists() {
            return self.undone(reply, &id, e);
        }
        if let Err((work, left)) = self.try_run(Work::Undo(e), reply, &id, &["--force"], Instant::now() + super::UNDO) {
            log::warn!("clean up after container {id}: {left}");
            let Work::Undo(e) = work else { return };
            self.undone(reply, &id, e);
        }
    }

    fn undone(&mut self, reply: Reply, id: &str, e: Error) {
        if let Some(container) = self.containers.remove(id) {
            container::unmount_root(&container.bundle);
        }
        self.answer(reply, Err(e));
    }

    /// Calls the runtime on a container as a whole.
    pub(super) fn run(&mut self, work: Work, reply: Reply, id: &str, words: &[&str], deadline: Instant) -> Result<()> {
        self.try_run(work, reply, id, words, deadline).map_err(|(_, e)| e)
    }

    fn try_run(
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
                self.jobs.insert(pid, Job { deadline, work, reply, id: id.to_owned(), log, overdue: false });
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
        if let Work::Launch(launch) = work {
            return match result.and_then(|()| self.launched(&launch)) {
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

    /// The runtime says that it made the process: its pid, and its terminal.
    fn launched(&mut self, launch: &Launch) -> Result<u32> {
        let text = fs::read_to_string(&launch.pid_file).context("read the pid that the runtime wrote")?;
        let pid = text.trim().parse().ok().filter(|pid: &u32| *pid > 0);
        let pid = pid.ok_or_else(|| Error::from(io::Error::other(format!("the runtime wrote the pid {text:?}"))))?;
        let Some((listener, _)) = &launch.console else { return Ok(pid) };
        let doing = "take the terminal from the runtime";
        // It has sent it, or never will.
        listener.set_nonblocking(true).context(doing)?;
        let (stream, _) = listener.accept().context(doing)?;
        stream.set_nonblocking(true).context(doing)?;
        let master = terminal::receive_descriptor(&stream).context(doing)?;
        terminal::set_nonblocking(&master).context(doing)?;
        let stdio = self.containers.get_mut(&launch.id).ok_or_else(|| Error::not_found("it is gone"))?;
        let stdio = stdio.process(&launch.id, &launch.exec_id)?.stdio.clone();
        let mut pumps = Vec::new();
        if let Some(sink) = &launch.sink {
            let (from, to) = (master.try_clone().context(doing)?, sink.try_clone().context(doing)?);
            pumps.push(self.start_pump(from, to)?);
        }
        if let Some(input) = streams::terminal_input(&stdio)? {
            pumps.push(self.start_pump(input, master.try_clone().context(doing)?)?);
        }
        let process = self.containers.get_mut(&launch.id).ok_or_else(|| Error::not_found("it is gone"))?;
        let process = process.process(&launch.id, &launch.exec_id)?;
        (process.terminal, process.pumps) = (Some(master), pumps);
        Ok(pid)
    }

    /// The process is there.
    fn alive(&mut self, launch: Launch, pid: u32) {
        launch.clean();
        let Launch { reply, id, exec_id, rootfs, held, .. } = launch;
        let number = self.token(MEMORY);
        let Some(container) = self.containers.get_mut(&id) else { return };
        let bundle = container.bundle.to_string_lossy().into_owned();
        let first = exec_id.is_empty();
        if first {
            container.busy = false;
            container.cgroups = Cgroups::of(pid);
            container.oom_kills = container.cgroups.oom_kills().unwrap_or(0);
            container.watch = container.cgroups.watch().filter(|w| self.epoll.add(w, number).is_ok()).map(|w| (w, number));
        }
        let Ok(process) = container.process(&id, &exec_id) else { return };
        (process.pid, process.held) = (pid, held);
        let event = Message::new().bytes(1, &id);
        if first {
            process.state = State::Created;
            let io = &process.stdio;
            let io = Message::new().bytes(1, &io.stdin).bytes(2, &io.stdout).bytes(3, &io.stderr);
            let io = io.number(4, u64::from(process.stdio.terminal));
            let mounts = rootfs.iter().map(|one| {
                let mount = Message::new().bytes(1, &one.kind).bytes(2, &one.source).bytes(3, &one.target);
                one.options.iter().fold(mount, |mount, option| mount.bytes(4, option))
            });
            let event = mounts.fold(event.bytes(2, bundle), |event, mount| event.message(3, mount));
            self.publish("/tasks/create", "TaskCreate", event.message(4, io).number(6, u64::from(pid)));
        } else {
            process.state = State::Running;
            process.spec = Vec::new();
            let event = event.bytes(2, &exec_id).number(3, u64::from(pid));
            self.publish("/tasks/exec-started", "TaskExecStarted", event);
        }
        self.answer(reply, Ok(Message::new().number(1, u64::from(pid))));
        if let Some(at) = self.unknown.iter().position(|(unknown, _)| *unknown == pid) {
            let (_, exit) = self.unknown.swap_remove(at);
            self.ended(pid, exit);
        }
        if first {
            self.serve_queue(&id);
        }
    }

    /// The container is gone.
    fn deleted(&mut self, reply: Reply, id: &str) {
        let Some(mut container) = self.containers.remove(id) else { return };
        container::unmount_root(&container.bundle);
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
        for (reply, _) in container.queue {
            self.answer(reply, Err(Error::not_found(format!("no container {id} here"))));
        }
    }

    /// What had to wait for the runtime comes now.
    fn serve_queue(&mut self, id: &str) {
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
