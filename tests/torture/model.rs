//! What was acknowledged to a client, and whether an answer agrees with it.

use std::path::PathBuf;

use cricket_proto::runtime::{ContainerState, ContainerStatus, PodSandboxConfig, PodSandboxState, PodSandboxStatus};

use crate::logs::{self, Program, Tail};
use crate::schedule::Fault;

/// Exit code of a process that was killed.
const KILLED: i32 = 137;
/// Exit code of one that was told to stop before it had a handler; in a PID namespace of its own it would not have ended.
const TERMINATED: i32 = 143;
/// Exit code of one that was told to stop while the runtime's own program, which has a handler, had not yet become the
/// container's: Go's raises the signal anew, which the first process of a PID namespace ignores, and ends with this.
const UNBORN: i32 = 2;
/// Exit code of a container whose end nobody saw.
const UNSEEN: i32 = 255;

/// A pod sandbox that is there.
pub struct Pod {
    pub config: PodSandboxConfig,
    pub id: String,
    pub created_at: i64,
    pub ip: String,
    /// Its first process is the sandbox's: the containers share a PID namespace.
    pub process: bool,
    pub ready: bool,
    pub containers: Vec<Container>,
}

/// A container that is there.
pub struct Container {
    pub id: String,
    pub name: String,
    pub created_at: i64,
    pub program: Program,
    pub log: PathBuf,
    pub life: Life,
    /// The shim that wrote its log may have been killed.
    pub torn: bool,
}

/// What it does, as it was last acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Life {
    Created,
    Running { started_at: i64 },
    Ended(Ended),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    pub started_at: i64,
    pub finished_at: i64,
    pub code: i32,
    pub reason: String,
}

impl Ended {
    fn of(status: &ContainerStatus) -> Ended {
        Ended {
            started_at: status.started_at,
            finished_at: status.finished_at,
            code: status.exit_code,
            reason: status.reason.clone(),
        }
    }
}

/// `Err` with both when they differ.
fn same<T: PartialEq + std::fmt::Debug>(what: &str, is: T, was: T) -> Result<(), String> {
    if is == was {
        return Ok(());
    }
    Err(format!("{what} is {is:?} and was {was:?}"))
}

impl Pod {
    /// Takes in what its status says.
    pub fn agree(&mut self, status: &PodSandboxStatus, fault: Option<Fault>) -> Result<(), String> {
        same("id", &status.id, &self.id)?;
        same("metadata", &status.metadata, &self.config.metadata)?;
        same("created_at", status.created_at, self.created_at)?;
        let ready = status.state == PodSandboxState::SANDBOX_READY.into();
        if self.ready && !ready && self.process && fault == Some(Fault::ShimDies) {
            self.ready = false;
        }
        same("READY", ready, self.ready)?;
        if ready {
            same("IP", &status.network.ip, &self.ip)?;
        }
        Ok(())
    }

    /// Whether a list may say this of it.
    pub fn may_be(&self, state: PodSandboxState, created_at: i64, fault: Option<Fault>) -> Result<(), String> {
        same("created_at", created_at, self.created_at)?;
        let ready = state == PodSandboxState::SANDBOX_READY;
        if self.ready && self.process && fault == Some(Fault::ShimDies) {
            return Ok(());
        }
        same("READY", ready, self.ready)
    }
}

impl Container {
    /// Takes in what its status says.
    pub fn agree(&mut self, status: &ContainerStatus, fault: Option<Fault>) -> Result<(), String> {
        same("id", &*status.id, &*self.id)?;
        same("name", &*status.metadata.name, &*self.name)?;
        same("created_at", status.created_at, self.created_at)?;
        let state = status.state.enum_value_or_default();
        match (&self.life, state) {
            (Life::Created, ContainerState::CONTAINER_CREATED) => Ok(()),
            (Life::Running { started_at }, ContainerState::CONTAINER_RUNNING) => {
                same("started_at", status.started_at, *started_at)
            }
            (Life::Running { started_at }, ContainerState::CONTAINER_EXITED) => {
                same("started_at", status.started_at, *started_at)?;
                let ended = Ended::of(status);
                self.may_end_so(&ended, fault)?;
                self.life = Life::Ended(ended);
                Ok(())
            }
            (Life::Ended(was), ContainerState::CONTAINER_EXITED) => same("its end", &Ended::of(status), was),
            (was, is) => Err(format!("it is {is:?} and was {was:?}")),
        }
    }

    /// Whether it may have ended so without having been asked to.
    fn may_end_so(&mut self, ended: &Ended, fault: Option<Fault>) -> Result<(), String> {
        if ended.finished_at < ended.started_at {
            return Err(format!("it ended before it started: {ended:?}"));
        }
        if fault == Some(Fault::ShimDies) && matches!(ended.code, KILLED | UNSEEN) {
            self.torn = true;
            return Ok(());
        }
        match self.program {
            Program::Ends(code) if code == ended.code => {
                same("reason", &*ended.reason, if code == 0 { "Completed" } else { "Error" })
            }
            _ => Err(format!("it ended so: {ended:?}")),
        }
    }

    /// Takes in the end that it was asked for.
    pub fn stopped(&mut self, status: &ContainerStatus, asked: bool, fault: Option<Fault>) -> Result<(), String> {
        let ended = Ended::of(status);
        let killed =
            (ended.code == KILLED || (asked && matches!(ended.code, TERMINATED | UNBORN))) && ended.reason == "Error";
        let by_itself = asked && self.program == Program::Counts && ended.code == logs::POLITE;
        match &self.life {
            Life::Running { started_at } if status.state == ContainerState::CONTAINER_EXITED.into() => {
                same("started_at", ended.started_at, *started_at)?;
                if !(killed || by_itself) {
                    self.may_end_so(&ended, fault)?;
                }
                self.life = Life::Ended(ended);
                Ok(())
            }
            _ => self.agree(status, fault),
        }
    }

    /// Whether a list may say this of it.
    pub fn may_be(&self, state: ContainerState, created_at: i64, fault: Option<Fault>) -> Result<(), String> {
        same("created_at", created_at, self.created_at)?;
        let may = match (&self.life, state) {
            (Life::Created, ContainerState::CONTAINER_CREATED)
            | (Life::Running { .. }, ContainerState::CONTAINER_RUNNING)
            | (Life::Ended(_), ContainerState::CONTAINER_EXITED) => true,
            (Life::Running { .. }, ContainerState::CONTAINER_EXITED) => {
                matches!(self.program, Program::Ends(_)) || fault == Some(Fault::ShimDies)
            }
            _ => false,
        };
        if may {
            return Ok(());
        }
        Err(format!("it is {state:?} and was {:?}", self.life))
    }

    /// Whether its log has every line once.
    pub fn check_log(&self, fault: Option<Fault>) -> Result<usize, String> {
        let tail = match &self.life {
            Life::Created => return Ok(0),
            // Its start failed: it may have said something or nothing, or there is no log at all.
            Life::Ended(ended) if ended.started_at == 0 && !self.log.exists() => return Ok(0),
            _ if self.torn || fault == Some(Fault::ShimDies) => Tail::Torn,
            Life::Ended(ended) if ended.started_at != 0 && !matches!(ended.code, KILLED | TERMINATED | UNBORN) => {
                Tail::LastWords
            }
            _ => Tail::Open,
        };
        logs::check(&self.log, tail)
    }
}
