//! A command in a running container whose streams somebody holds: what an Exec session runs.

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::call::Call;
use crate::container::exec_sync::process;
use crate::container::streams::{wire, Fifos};
use crate::container::task;
use crate::containerd::{Exit, NewExec};
use crate::error::{Context, Idempotent, Result};
use crate::ids::ContainerId;
use crate::runtime::Runtime;
use crate::stdio;
use crate::store::Container;
use crate::sys::{fifo, session};

/// How long making and starting it may take.
const START_BUDGET: Duration = Duration::from_secs(120);
/// How long the shim may take to open the command's input after it has said that the command runs.
const READER_BUDGET: Duration = Duration::from_secs(5);
/// How long a killed command may take to end, before containerd is asked to kill it.
const DEATH_BUDGET: Duration = Duration::from_secs(5);
/// How long that and all the rest of its end may take.
const END_BUDGET: Duration = Duration::from_secs(20);
/// How long the shim may take to close its streams.
const DELETE_BUDGET: Duration = Duration::from_secs(10);

/// Which streams a command has besides its output.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    /// It gets input.
    pub stdin: bool,
    /// It gets a terminal, and so no stream for errors.
    pub tty: bool,
}

/// Our ends of its streams; nothing done with them blocks.
#[derive(Debug, Default)]
pub struct Pipes {
    /// Where its input is written.
    pub stdin: Option<File>,
    /// Where its output is read.
    pub stdout: Option<File>,
    /// Where its errors are read.
    pub stderr: Option<File>,
}

/// A started command. Dropping it kills what still runs of it, and blocks for that; nothing of it is left then.
pub struct Command {
    rt: Arc<Runtime>,
    container: ContainerId,
    id: ContainerId,
    dir: PathBuf,
    waiting: Call,
    /// As containerd tells it, and that of the container's first process.
    pids: OnceLock<(u32, u32)>,
    /// Nothing of it is left in containerd.
    deleted: AtomicBool,
}

impl Command {
    /// Starts it. Blocks.
    ///
    /// # Errors
    /// What containerd says; then nothing of it is left.
    pub fn start(
        rt: &Arc<Runtime>,
        container: &Container,
        argv: &[String],
        wanted: Wanted,
    ) -> Result<(Command, Pipes)> {
        let call = Call::within(START_BUDGET);
        let (id, owner) = (ContainerId::random()?, container.id.as_str());
        let process = process(&rt.containerd.container(&call, owner)?.spec, argv, wanted.tty)?;
        let dir = rt.layout.container_state(&container.id).join("exec").join(&id);
        // From here on its drop is the undo.
        let waiting = Call::unbounded();
        let command = Command {
            rt: rt.clone(),
            container: container.id.clone(),
            id,
            dir,
            waiting,
            pids: OnceLock::new(),
            deleted: AtomicBool::new(false),
        };
        // Output that nobody wants too: the shim of containerd 1.6 does not start without it.
        let fifos = Fifos::make(&command.dir, wanted.stdin, wanted.tty)?;
        let reader = |path: &Option<PathBuf>| path.as_deref().map(fifo::open_reader).transpose();
        let mut pipes = Pipes { stdin: None, stdout: reader(&fifos.stdout)?, stderr: reader(&fifos.stderr)? };
        let exec = NewExec {
            id: owner.to_owned(),
            exec_id: command.id.to_string(),
            process,
            stdin: wire(fifos.stdin.as_ref()),
            stdout: wire(fifos.stdout.as_ref()),
            stderr: wire(fifos.stderr.as_ref()),
            terminal: wanted.tty,
        };
        rt.containerd.exec(&call, &exec)?;
        let pid = rt.containerd.start_task(&call, owner, Some(command.id.as_str()))?;
        if let Ok(first) = container.must_be_running() {
            command.pids.get_or_init(|| (pid, first));
        }
        let stdin = fifos.stdin.as_deref().map(|path| fifo::await_reader(path, READER_BUDGET));
        pipes.stdin = stdin.transpose()?.flatten();
        // Fewer turns for the same bytes.
        for pipe in [&pipes.stdin, &pipes.stdout, &pipes.stderr].into_iter().flatten() {
            stdio::enlarge_pipe(pipe, format_args!("of exec {}", command.id));
        }
        Ok((command, pipes))
    }

    /// Blocks until it ends, or [`Command::stop_waiting`].
    pub fn wait(&self) -> Result<Exit> {
        self.rt.containerd.wait_task(&self.waiting, self.container.as_str(), Some(self.id.as_str()))
    }

    /// Ends [`Command::wait`] on another thread.
    pub fn stop_waiting(&self) {
        self.waiting.cancel();
    }

    /// There is no more input: to be called when our end is closed. Blocks for a moment.
    pub fn close_stdin(&self) {
        let call = Call::within(END_BUDGET);
        let closed = self.rt.containerd.close_stdin(&call, self.container.as_str(), Some(self.id.as_str()));
        if let Err(e) = closed.or_gone() {
            log::debug!("close stdin of exec {} in container {}: {e}", self.id, self.container);
        }
    }

    /// The size of its terminal. Blocks for a moment.
    pub fn resize(&self, width: u32, height: u32) {
        let (owner, id) = (self.container.as_str(), Some(self.id.as_str()));
        if let Err(e) = self.rt.containerd.resize_pty(&Call::within(END_BUDGET), owner, id, width, height).or_gone() {
            log::debug!("resize the terminal of exec {} in container {}: {e}", self.id, self.container);
        }
    }

    /// Kills what still runs of it, with what it started, and deletes it. Blocks. Idempotent.
    pub fn end(&self) {
        if self.deleted.load(Ordering::Acquire) {
            return;
        }
        let (containerd, owner, id) = (&*self.rt.containerd, self.container.as_str(), Some(self.id.as_str()));
        let call = Call::within(END_BUDGET);
        // containerd would kill the first process alone. Where we see no processes of containers, so be it.
        match self.pids.get().map(|(pid, first)| session::kill(*pid, *first)) {
            // Its end first: to delete what still runs is refused.
            Some(Ok(())) => {
                if let Err(e) = containerd.wait_task(&call.at_most(DEATH_BUDGET), owner, id).or_gone() {
                    log::debug!("wait for the end of exec {} in container {owner}: {e}", self.id);
                }
            }
            Some(Err(e)) => log::debug!("end exec {} in container {owner}: {e}", self.id),
            None => {}
        }
        match task::destroy(containerd, &call, owner, id) {
            Ok(()) => self.deleted.store(true, Ordering::Release),
            Err(e) => log::warn!("end exec {} in container {owner}: {e}", self.id),
        }
    }

    /// Deletes it, once it has ended: the shim closes its ends of the streams, whoever else holds them. Idempotent.
    pub fn delete(&self) -> Result<()> {
        let call = Call::within(DELETE_BUDGET);
        let deleted = self.rt.containerd.delete_task(&call, self.container.as_str(), Some(self.id.as_str()));
        deleted.or_gone().with_context(|| format!("delete exec {}", self.id))?;
        self.deleted.store(true, Ordering::Release);
        Ok(())
    }
}

impl Drop for Command {
    fn drop(&mut self) {
        self.end();
        if let Err(e) = fs::remove_dir_all(&self.dir).or_gone() {
            log::warn!("remove {}: {e}", self.dir.display());
        }
    }
}
