//! The calls of the task service. What needs the runtime goes on in `jobs`; the rest is answered here.

use std::time::{Duration, Instant};

use super::container::{Container, Process, State};
use super::frame::Request;
use super::jobs::Work;
use super::launch::Launch;
use super::messages::{self, any, Create, Exec, Options, Target};
use super::runc::Runc;
use super::server::{Reply, Server};
use super::wire::Message;
use super::{container, stats, streams, JOIN, SHIM};
use crate::error::{Context, Error, Kind, Result};
use crate::sys::{reap, terminal};

/// Both versions have the same methods and messages.
const SERVICES: [&str; 2] = ["containerd.task.v2.Task", "containerd.task.v3.Task"];
/// How long a call of the runtime may take when its caller sets no limit.
const PATIENCE: Duration = Duration::from_secs(300);
/// As a client's number.
const SIGKILL: u32 = 9;

/// An answer, or none yet.
pub type Answer = Result<Option<Message>>;

impl Server {
    /// Serves one call, now or later.
    pub(super) fn call(&mut self, reply: Reply, request: Request) {
        // The runtime is at work on the container as a whole, and this would put it to work once more.
        let must_wait = match request.method.as_str() {
            "Start" | "Delete" => Target::read(&request.payload).is_ok_and(|target| target.exec_id.is_empty()),
            "Pause" | "Resume" | "Update" | "Checkpoint" => true,
            _ => false,
        };
        if must_wait && SERVICES.contains(&request.service.as_str()) {
            let id = Target::container(&request.payload).unwrap_or_default();
            // One that is being made is not there for anybody, but for who takes it away: containerd does that when whoever
            // asked for it has left, and then forgets it.
            let there = request.method == "Delete";
            let busy = self.containers.get_mut(&id).filter(|c| c.busy && (there || c.first.state != State::Creating));
            if let Some(container) = busy {
                return container.queue.push_back((reply, request));
            }
        }
        match self.answer_to(reply, &request) {
            Ok(Some(message)) => self.answer(reply, Ok(message)),
            Ok(None) => {}
            Err(e) => self.answer(reply, Err(e)),
        }
    }

    fn answer_to(&mut self, reply: Reply, request: &Request) -> Answer {
        let Request { service, method, payload, timeout_nanos } = request;
        if service == SHIM && method == JOIN {
            self.pledge();
            return Ok(Some(Message::new().number(1, super::VERSION)));
        }
        if !SERVICES.contains(&service.as_str()) {
            return Err(Error::new(Kind::Unimplemented, format!("service {service} is not offered")));
        }
        let patience = if *timeout_nanos == 0 { PATIENCE } else { Duration::from_nanos(*timeout_nanos).min(PATIENCE) };
        let deadline = Instant::now() + patience;
        match method.as_str() {
            "Create" => self.create(reply, &Create::read(payload)?, deadline),
            "Start" => self.start(reply, &Target::read(payload)?, deadline),
            "Delete" => self.delete(reply, &Target::read(payload)?, deadline),
            "Exec" => self.exec(Exec::read(payload)?),
            "ResizePty" => self.resize(&Target::read(payload)?),
            "State" => self.state(&Target::read(payload)?),
            "Pause" => self.freeze(reply, payload, deadline, Work::Pause),
            "Resume" => self.freeze(reply, payload, deadline, Work::Resume),
            "Kill" => self.kill(&Target::read(payload)?),
            "Pids" => self.pids(&Target::container(payload)?),
            "CloseIO" => self.close_io(&Target::read(payload)?),
            "Checkpoint" => {
                let (id, path, flags) = messages::checkpoint(payload)?;
                self.checkpoint(reply, id, &path, &flags, deadline)
            }
            "Update" => {
                let (id, resources) = messages::update(payload)?;
                self.update(reply, id, &resources, deadline)
            }
            "Wait" => self.wait(reply, &Target::read(payload)?),
            "Stats" => {
                let id = Target::container(payload)?;
                let metrics = stats::metrics(&self.container(&id)?.cgroups);
                Ok(Some(Message::new().message(1, metrics)))
            }
            "Connect" => {
                let id = Target::container(payload)?;
                let pid = self.container(&id).map_or(0, |c| c.first.pid);
                let own = u64::from(std::process::id());
                Ok(Some(Message::new().number(1, own).number(2, u64::from(pid)).bytes(3, super::RELEASE)))
            }
            "Shutdown" => {
                // containerd says this after every container; others of the pod may live, or be on their way.
                if self.containers.is_empty() && self.pledges.is_empty() {
                    self.leave();
                }
                Ok(Some(Message::new()))
            }
            _ => Err(Error::new(Kind::Unimplemented, format!("method {method} is not offered"))),
        }
    }

    fn create(&mut self, reply: Reply, create: &Create, deadline: Instant) -> Answer {
        let id = &create.id;
        self.pledges.pop();
        if id.is_empty() || !create.bundle.starts_with('/') {
            return Err(Error::invalid("create needs an id and an absolute bundle"));
        }
        if self.containers.contains_key(id) {
            return Err(Error::new(Kind::AlreadyExists, format!("container {id} is here already")));
        }
        if !create.checkpoint.is_empty() {
            return Err(Error::new(Kind::Unimplemented, "starting from a checkpoint is not supported"));
        }
        let (kind, options) = any(&create.options)?;
        let options = Options::read(&kind, &options)?;
        let (bundle, runc) = (std::path::Path::new(&create.bundle), Runc::new(&options, &self.namespace));
        runc.note(bundle)?;
        container::mount_root(bundle, &create.rootfs)?;
        let owner = streams::Owner { namespace: &self.namespace, id, uid: options.io_uid, gid: options.io_gid };
        let opened = streams::open(&create.stdio, &owner).inspect_err(|_| container::unmount_root(bundle))?;
        let container = Container::new(bundle.to_owned(), runc, options, create.stdio.clone());
        self.containers.insert(id.clone(), container);
        let launch = Launch::new(reply, id.clone(), String::new(), deadline, create.rootfs.clone());
        self.launch_when_ready(launch, opened);
        Ok(None)
    }

    fn start(&mut self, reply: Reply, target: &Target, deadline: Instant) -> Answer {
        let id = target.id.clone();
        if target.exec_id.is_empty() {
            let container = self.container(&id)?;
            must_be(&container.first, State::Created, "start")?;
            self.run(Work::Start, reply, &id, &[], deadline)?;
            return Ok(None);
        }
        let namespace = self.namespace.clone();
        let container = self.container(&id)?;
        let (uid, gid) = (container.options.io_uid, container.options.io_gid);
        let running = matches!(container.first.state, State::Running | State::Paused) && container.first.lives();
        let process = container.process(&id, &target.exec_id)?;
        must_be(process, State::Created, "start")?;
        if !running {
            return Err(Error::precondition(format!("container {id} does not run")));
        }
        let owner = streams::Owner { namespace: &namespace, id: &id, uid, gid };
        let opened = streams::open(&process.stdio, &owner)?;
        if opened.hosted.is_some() {
            return Err(Error::new(Kind::Unimplemented, "the output of an exec is not written down by the shim"));
        }
        process.state = State::Creating;
        let launch = Launch::new(reply, id, target.exec_id.clone(), deadline, Vec::new());
        self.launch_when_ready(launch, opened);
        Ok(None)
    }

    fn delete(&mut self, reply: Reply, target: &Target, deadline: Instant) -> Answer {
        let Target { id, exec_id, .. } = target;
        let container = self.container(id)?;
        let process = container.process(id, exec_id)?;
        if !matches!(process.state, State::Created | State::Stopped) {
            return Err(Error::precondition(format!("delete: process {} of container {id} runs", process.pid)));
        }
        if exec_id.is_empty() {
            let force: &[&str] = if process.exit.is_none() { &["--force"] } else { &[] };
            self.run(Work::Delete, reply, id, force, deadline)?;
            return Ok(None);
        }
        let Some(exec) = container.execs.remove(exec_id) else { return Ok(None) };
        let exit = exec.exit.unwrap_or_else(|| container::Exit::now(0));
        exec.pumps.iter().for_each(|pump| self.end_pump(*pump));
        exec.waiting.iter().for_each(|waiting| self.answer(*waiting, Ok(exit.told())));
        Ok(Some(exit.deleted(exec.pid)))
    }

    fn exec(&mut self, exec: Exec) -> Answer {
        let Exec { id, exec_id, stdio, process } = exec;
        let container = self.container(&id)?;
        if exec_id.is_empty() || exec_id.contains('/') || exec_id.starts_with('.') {
            return Err(Error::invalid(format!("{exec_id:?} is no name of an exec")));
        }
        if container.execs.contains_key(&exec_id) || exec_id == id {
            return Err(Error::new(Kind::AlreadyExists, format!("container {id} has a process {exec_id} already")));
        }
        if !matches!(container.first.state, State::Running | State::Paused) || !container.first.lives() {
            return Err(Error::precondition(format!("container {id} does not run")));
        }
        container.execs.insert(exec_id.clone(), Process::new(State::Created, stdio, process));
        self.publish("/tasks/exec-added", "TaskExecAdded", Message::new().bytes(1, &id).bytes(2, &exec_id));
        Ok(Some(Message::new()))
    }

    fn resize(&mut self, target: &Target) -> Answer {
        let process = self.container(&target.id)?.process(&target.id, &target.exec_id)?;
        if let Some(master) = &process.terminal {
            let size = |n: u64| u16::try_from(n).unwrap_or(u16::MAX);
            terminal::resize(master, size(target.third), size(target.fourth)).context("resize the terminal")?;
        }
        Ok(Some(Message::new()))
    }

    fn state(&mut self, target: &Target) -> Answer {
        let Target { id, exec_id, .. } = target;
        let container = self.container(id)?;
        let bundle = container.bundle.to_string_lossy().into_owned();
        let process = container.process(id, exec_id)?;
        let name = if exec_id.is_empty() { id } else { exec_id };
        let answer = process.status(Message::new().bytes(1, name).bytes(2, bundle));
        Ok(Some(answer.bytes(11, exec_id)))
    }

    fn freeze(&mut self, reply: Reply, payload: &[u8], deadline: Instant, work: Work) -> Answer {
        let id = Target::container(payload)?;
        let container = self.container(&id)?;
        let (wanted, verb) = match work {
            Work::Pause => (State::Running, "pause"),
            _ => (State::Paused, "resume"),
        };
        must_be(&container.first, wanted, verb)?;
        self.run(work, reply, &id, &[], deadline)?;
        Ok(None)
    }

    fn kill(&mut self, target: &Target) -> Answer {
        let Target { id, exec_id, third, fourth } = target;
        let signal = u32::try_from(*third).map_err(|_| Error::invalid(format!("{third} is no signal")))?;
        let container = self.container(id)?;
        container.killed |= signal == SIGKILL && exec_id.is_empty();
        if *fourth != 0 && exec_id.is_empty() {
            let mut any = container.cgroups.kill_all(signal);
            if !any && container.first.lives() {
                any = reap::kill(i64::from(container.first.pid), signal).is_ok();
            }
            let none = || Error::not_found(format!("container {id} has no process any more"));
            return any.then(|| Some(Message::new())).ok_or_else(none);
        }
        let process = container.process(id, exec_id)?;
        if process.exit.is_some() {
            return Err(Error::not_found(format!("process {} of container {id} has ended", process.pid)));
        }
        if !process.lives() {
            return Err(Error::precondition(format!("process {exec_id} of container {id} is not started")));
        }
        reap::kill(i64::from(process.pid), signal).with_context(|| format!("send signal {signal}"))?;
        Ok(Some(Message::new()))
    }

    fn pids(&mut self, id: &str) -> Answer {
        let container = self.container(id)?;
        let mut pids = container.cgroups.pids();
        // A container that nobody seems to be in would be taken for one that nobody needs.
        if !pids.contains(&container.first.pid) {
            pids.insert(0, container.first.pid);
        }
        let answer = pids.into_iter().fold(Message::new(), |answer, pid| {
            let info = Message::new().number(1, u64::from(pid));
            let exec = container.execs.iter().find(|(_, exec)| exec.pid == pid);
            answer.message(
                1,
                match exec {
                    Some((name, _)) => {
                        let details = Message::new().bytes(1, name).done();
                        info.message(2, Message::new().bytes(1, "containerd.runc.v1.ProcessDetails").bytes(2, details))
                    }
                    None => info,
                },
            )
        });
        Ok(Some(answer))
    }

    fn close_io(&mut self, target: &Target) -> Answer {
        let process = self.container(&target.id)?.process(&target.id, &target.exec_id)?;
        if target.third != 0 {
            process.held.close_stdin();
        }
        Ok(Some(Message::new()))
    }

    fn checkpoint(&mut self, reply: Reply, id: String, path: &str, flags: &[&str], deadline: Instant) -> Answer {
        must_be(&self.container(&id)?.first, State::Running, "checkpoint")?;
        let mut words = vec!["--image-path", path];
        words.extend(flags);
        self.run(Work::Checkpoint(path.to_owned()), reply, &id, &words, deadline)?;
        Ok(None)
    }

    fn update(&mut self, reply: Reply, id: String, resources: &[u8], deadline: Instant) -> Answer {
        let container = self.container(&id)?;
        if !container.first.lives() {
            return Err(Error::precondition(format!("container {id} has ended")));
        }
        let file = container.bundle.join("cricket-resources.json");
        std::fs::write(&file, resources).context("write the resources down")?;
        let path = file.to_string_lossy().into_owned();
        let run = self.run(Work::Update, reply, &id, &["--resources", &path], deadline);
        run.inspect_err(|_| drop(std::fs::remove_file(&file)))?;
        Ok(None)
    }

    fn wait(&mut self, reply: Reply, target: &Target) -> Answer {
        let process = self.container(&target.id)?.process(&target.id, &target.exec_id)?;
        if let Some(exit) = process.exit {
            return Ok(Some(exit.told()));
        }
        process.waiting.push(reply);
        Ok(None)
    }
}

fn must_be(process: &Process, state: State, verb: &str) -> Result<()> {
    match process.state == state {
        true => Ok(()),
        false => Err(Error::precondition(format!("{verb}: the process is not {state:?} but {:?}", process.state))),
    }
}
