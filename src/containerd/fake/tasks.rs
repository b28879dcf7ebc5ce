//! Tasks and execs of the fake: states without processes.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use super::state::{check_identifier, State};
use crate::containerd::{time, Event, Exit, NewExec, NewTask, Task, TaskState};
use crate::error::{Error, Kind, Result};
use crate::sys::fifo;

const SIGKILL: u32 = 9;
/// Signals that end nothing by default: the probe, SIGCHLD, SIGCONT, SIGWINCH.
const HARMLESS: [u32; 4] = [0, 17, 18, 28];
/// Above every pid the kernel gives out, so that nobody mistakes one for a process.
const FIRST_PID: u32 = 1 << 23;

pub(super) struct FakeTask {
    pub(super) first: Task,
    pub(super) execs: BTreeMap<String, Task>,
    /// The reading ends of what execs are given, which a shim holds as long as it knows them.
    inputs: BTreeMap<String, File>,
}

impl State {
    pub(super) fn create_task(&mut self, new: &NewTask) -> Result<u32> {
        let record = self.container(&new.id)?;
        let snapshot = (record.snapshotter.clone(), record.snapshot_key.clone());
        if !new.rootfs.is_empty() && !snapshot.1.is_empty() && !self.snapshots.contains_key(&snapshot) {
            return Err(Error::new(
                Kind::Unknown,
                format!("mount the root filesystem: snapshot {} is gone", snapshot.1),
            ));
        }
        if self.tasks.contains_key(&new.id) {
            return Err(Error::new(Kind::AlreadyExists, format!("task {:?} already exists", new.id)));
        }
        let first = Task {
            id: new.id.clone(),
            pid: self.task_pid.unwrap_or_else(|| self.next_pid()),
            state: TaskState::Created,
            exit: Exit::default(),
            stdin: new.stdin.clone(),
            stdout: new.stdout.clone(),
            stderr: new.stderr.clone(),
            terminal: new.terminal,
        };
        let pid = first.pid;
        self.tasks.insert(new.id.clone(), FakeTask { first, execs: BTreeMap::new(), inputs: BTreeMap::new() });
        Ok(pid)
    }

    pub(super) fn start_task(&mut self, id: &str, exec_id: Option<&str>) -> Result<u32> {
        self.container(id)?;
        let next_pid = self.next_pid();
        let exec_code = self.exec_code;
        let process = self.process_mut(id, exec_id)?;
        if process.state != TaskState::Created {
            return Err(wrong_state("start", process.state));
        }
        if exec_id.is_some() {
            process.pid = next_pid;
        }
        process.state = TaskState::Running;
        let (pid, stdin) = (process.pid, process.stdin.clone());
        // Paths of no FIFO are those of tests that look at calls alone.
        if let (Some(exec_id), Ok(input)) = (exec_id, fifo::open_reader(Path::new(&stdin))) {
            self.tasks.get_mut(id).and_then(|task| task.inputs.insert(exec_id.to_owned(), input));
        }
        if let (Some(exec_id), Some(code)) = (exec_id, exec_code) {
            self.end(id, Some(exec_id), code)?;
        }
        Ok(pid)
    }

    pub(super) fn delete_task(&mut self, id: &str, exec_id: Option<&str>) -> Result<Exit> {
        let process = self.process(id, exec_id)?;
        let exit = process.exit;
        if matches!(process.state, TaskState::Running | TaskState::Paused) {
            return Err(wrong_state("delete", process.state));
        }
        match exec_id {
            None => drop(self.tasks.remove(id)),
            Some(exec_id) => {
                if let Some(task) = self.tasks.get_mut(id) {
                    task.execs.remove(exec_id);
                    task.inputs.remove(exec_id);
                }
            }
        }
        Ok(exit)
    }

    /// containerd looks for the record before the task: without it no call reaches the task.
    pub(super) fn process(&self, id: &str, exec_id: Option<&str>) -> Result<&Task> {
        self.container(id)?;
        let found = self.tasks.get(id).and_then(|task| match exec_id {
            None => Some(&task.first),
            Some(exec_id) => task.execs.get(exec_id),
        });
        found.ok_or_else(|| no_process(id, exec_id))
    }

    fn process_mut(&mut self, id: &str, exec_id: Option<&str>) -> Result<&mut Task> {
        let found = self.tasks.get_mut(id).and_then(|task| match exec_id {
            None => Some(&mut task.first),
            Some(exec_id) => task.execs.get_mut(exec_id),
        });
        found.ok_or_else(|| no_process(id, exec_id))
    }

    pub(super) fn kill(&mut self, id: &str, exec_id: Option<&str>, signal: u32, all: bool) -> Result<()> {
        match self.process(id, exec_id)?.state {
            TaskState::Stopped | TaskState::Unknown => return Err(Error::not_found("process already finished")),
            TaskState::Created if exec_id.is_some() => {
                return Err(Error::precondition("the exec has not been started"));
            }
            TaskState::Created | TaskState::Running | TaskState::Paused => {}
        }
        let survives = HARMLESS.contains(&signal) || self.ignored_signals.contains(&signal);
        if survives && signal != SIGKILL {
            return Ok(());
        }
        // Signalled all at once, or the first process alone: with that the others die as well.
        let target = if all { None } else { exec_id };
        self.end(id, target, 128 + signal)
    }

    pub(super) fn exec(&mut self, new: &NewExec) -> Result<()> {
        self.container(&new.id)?;
        check_identifier(&new.exec_id)?;
        let task = self.tasks.get_mut(&new.id).ok_or_else(|| no_process(&new.id, None))?;
        if task.first.state == TaskState::Stopped {
            return Err(wrong_state("exec in", task.first.state));
        }
        if task.execs.contains_key(&new.exec_id) {
            return Err(Error::new(Kind::AlreadyExists, format!("exec {:?} already exists", new.exec_id)));
        }
        let process = Task {
            id: new.id.clone(),
            pid: 0,
            state: TaskState::Created,
            exit: Exit::default(),
            stdin: new.stdin.clone(),
            stdout: new.stdout.clone(),
            stderr: new.stderr.clone(),
            terminal: new.terminal,
        };
        task.execs.insert(new.exec_id.clone(), process);
        Ok(())
    }

    pub(super) fn update_task(&mut self, id: &str, resources: &[u8]) -> Result<()> {
        let process = self.process(id, None)?;
        if process.state == TaskState::Stopped {
            return Err(wrong_state("update", process.state));
        }
        serde_json::from_slice::<oci_spec::runtime::LinuxResources>(resources)
            .map(drop)
            .map_err(|e| Error::caused(Kind::Unknown, "linux resources", e))
    }

    /// How a process ended; `None` while it has not.
    pub(super) fn exit_of(&self, id: &str, exec_id: Option<&str>) -> Result<Option<Exit>> {
        let process = self.process(id, exec_id)?;
        Ok((process.state == TaskState::Stopped).then_some(process.exit))
    }

    /// Ends a process and says so; with the first one the kernel kills the rest of the container.
    pub(super) fn end(&mut self, id: &str, exec_id: Option<&str>, code: u32) -> Result<()> {
        if exec_id.is_none() {
            let execs = self.tasks.get(id).map(|task| &task.execs).ok_or_else(|| no_process(id, None))?;
            let running: Vec<String> =
                execs.iter().filter(|(_, exec)| exec.state == TaskState::Running).map(|(id, _)| id.clone()).collect();
            for exec in running {
                self.end(id, Some(&exec), 128 + SIGKILL)?;
            }
        }
        let process = self.process_mut(id, exec_id)?;
        if process.state == TaskState::Stopped {
            return Err(Error::not_found("process already finished"));
        }
        process.state = TaskState::Stopped;
        process.exit = Exit { code, at: time::now() };
        let event = Event::TaskExit {
            id: id.to_owned(),
            exec_id: exec_id.map(str::to_owned),
            pid: process.pid,
            exit: process.exit,
        };
        self.publish(&event);
        Ok(())
    }

    fn next_pid(&mut self) -> u32 {
        self.pids += 1;
        FIRST_PID + self.pids
    }
}

/// `Unknown`, as of most shims, although a code for this exists.
fn wrong_state(what: &str, state: TaskState) -> Error {
    Error::new(Kind::Unknown, format!("cannot {what} a process that is {state:?}"))
}

fn no_process(id: &str, exec_id: Option<&str>) -> Error {
    Error::not_found(match exec_id {
        None => format!("no running task found: task {id} not found"),
        Some(exec_id) => format!("process does not exist: exec {exec_id} of task {id} not found"),
    })
}
