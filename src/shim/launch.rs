//! Processes on their way: streams opened, the runtime called, terminal and pid taken; or everything cleared away.

use std::fs::{self, File};
use std::io;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::Instant;

use super::cgroup::Cgroups;
use super::container::{self, State};
use super::jobs::{Job, Work};
use super::messages::Mount;
use super::output::Hosted;
use super::server::{Reply, Server, LOGGER};
use super::streams::{self, Held, Opened};
use super::wire::Message;
use crate::error::{Context, Error, Result};
use crate::stdio::Stdin;
use crate::sys::descriptors;
use crate::sys::terminal;

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
    hosted: Option<Hosted>,
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
            hosted: None,
            console: None,
            files: Vec::new(),
            pid_file: PathBuf::new(),
        }
    }

    /// Whether it is not an exec.
    pub(super) fn is_first(&self) -> bool {
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
        (launch.held, launch.sink, launch.hosted) = (opened.held, opened.sink, opened.hosted);
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
                self.jobs.insert(pid, Job::new(deadline, Work::Launch(launch), reply, id, log));
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
    pub(super) fn launch_failed(&mut self, launch: Launch, e: Error) {
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

    pub(super) fn undone(&mut self, reply: Reply, id: &str, e: Error) {
        let gone = self.containers.remove(id);
        if let Some(container) = &gone {
            container::unmount_root(&container.bundle);
            self.output_is_over(id);
        }
        self.answer(reply, Err(e));
        gone.into_iter().for_each(|container| self.refuse(id, container.queue));
    }

    /// The runtime says that it made the process: its pid, and its terminal.
    pub(super) fn launched(&mut self, launch: &mut Launch) -> Result<u32> {
        let text = fs::read_to_string(&launch.pid_file).context("read the pid that the runtime wrote")?;
        let pid = text.trim().parse().ok().filter(|pid: &u32| *pid > 0);
        let pid = pid.ok_or_else(|| Error::from(io::Error::other(format!("the runtime wrote the pid {text:?}"))))?;
        let Some((listener, _)) = &launch.console else {
            launch.hosted.take().map_or(Ok(()), |hosted| self.host(&launch.id, hosted))?;
            return Ok(pid);
        };
        let doing = "take the terminal from the runtime";
        // It has sent it, or never will.
        listener.set_nonblocking(true).context(doing)?;
        let (stream, _) = listener.accept().context(doing)?;
        stream.set_nonblocking(true).context(doing)?;
        let master = terminal::receive_descriptor(&stream).context(doing)?;
        descriptors::set_nonblocking(&master).context(doing)?;
        let stdio = self.containers.get_mut(&launch.id).ok_or_else(|| Error::not_found("it is gone"))?;
        let stdio = stdio.process(&launch.id, &launch.exec_id)?.stdio.clone();
        let mut pumps = Vec::new();
        if let Some(mut hosted) = launch.hosted.take() {
            hosted.streams[0] = Some(master.try_clone().context(doing)?);
            if streams::takes_input_here(&stdio) {
                hosted.stdin = Stdin::Open(master.try_clone().context(doing)?);
            }
            self.host(&launch.id, hosted)?;
        }
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
    pub(super) fn alive(&mut self, launch: Launch, pid: u32) {
        launch.clean();
        let Launch { reply, id, exec_id, rootfs, held, .. } = launch;
        let Some(container) = self.containers.get_mut(&id) else { return };
        let bundle = container.bundle.to_string_lossy().into_owned();
        let first = exec_id.is_empty();
        if first {
            container.busy = false;
            container.cgroups = Cgroups::of(pid);
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
            self.count_kills(&id);
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
}
