//! What a container does now, and how it ended. What changes it is in `container`.

use cricket_proto::{records, runtime};

use crate::clock;
use crate::containerd::Exit;

/// Exit code of a container whose start failed.
const START_FAILED: i32 = 128;
/// Exit code of a container that ended unseen.
const UNSEEN: i32 = 255;

/// What a container does now. Times are nanoseconds since the epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerState {
    /// Whole, never started.
    Created,
    /// Its first process lives.
    Running {
        /// In the host's PID namespace.
        pid: u32,
        /// When it started.
        started_at: i64,
    },
    /// Its first process has ended, or could not be started.
    Exited(Ended),
    /// We cannot tell.
    Unknown,
}

/// How a container ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// 0 if it never started.
    pub started_at: i64,
    /// When it ended.
    pub finished_at: i64,
    /// Exit code; 128 + signal for a killed one.
    pub code: i32,
    /// `Completed`, `Error`, `OOMKilled`, `StartError`, `Unknown`.
    pub reason: String,
    /// For people.
    pub message: String,
}

impl Ended {
    /// Ended by itself or by a signal.
    pub fn exit(started_at: i64, exit: Exit, oom_killed: bool) -> Self {
        let reason = match (exit.code, oom_killed) {
            (0, _) => "Completed",
            (_, true) => "OOMKilled",
            (_, false) => "Error",
        };
        let code = i32::try_from(exit.code).unwrap_or(UNSEEN);
        // A shim that lost the time says 0, which would read as "never ended".
        let at = if exit.at > 0 { exit.at } else { clock::now() };
        Ended { started_at, finished_at: at.max(started_at), code, reason: reason.into(), message: String::new() }
    }

    /// As its record tells; `None` for that of a container that has not ended.
    pub fn of_record(record: &records::ContainerStatus) -> Option<Self> {
        (record.finished_at != 0).then(|| Ended {
            started_at: record.started_at,
            finished_at: record.finished_at,
            code: record.exit_code,
            reason: record.reason.clone(),
            message: record.message.clone(),
        })
    }

    /// Could not be started.
    pub fn start_error(at: i64, message: String) -> Self {
        Ended { started_at: 0, finished_at: at, code: START_FAILED, reason: "StartError".into(), message }
    }

    /// Ended while nobody looked.
    pub fn unseen(started_at: i64, at: i64) -> Self {
        Ended { started_at, finished_at: at, code: UNSEEN, reason: "Unknown".into(), message: String::new() }
    }
}

impl ContainerState {
    /// The CRI's name for it.
    pub fn cri(&self) -> runtime::ContainerState {
        match self {
            ContainerState::Created => runtime::ContainerState::CONTAINER_CREATED,
            ContainerState::Running { .. } => runtime::ContainerState::CONTAINER_RUNNING,
            ContainerState::Exited(_) => runtime::ContainerState::CONTAINER_EXITED,
            ContainerState::Unknown => runtime::ContainerState::CONTAINER_UNKNOWN,
        }
    }

    /// Whether a process may live in it.
    pub fn may_run(&self) -> bool {
        matches!(self, ContainerState::Running { .. } | ContainerState::Unknown)
    }

    /// The durable form; what is in memory only (a pid) is not in it.
    pub fn record(&self) -> records::ContainerStatus {
        match self {
            ContainerState::Created | ContainerState::Unknown => records::ContainerStatus::default(),
            ContainerState::Running { started_at, .. } => {
                records::ContainerStatus { started_at: *started_at, ..Default::default() }
            }
            ContainerState::Exited(ended) => records::ContainerStatus {
                started_at: ended.started_at,
                finished_at: ended.finished_at,
                exit_code: ended.code,
                reason: ended.reason.clone(),
                message: ended.message.clone(),
                ..Default::default()
            },
        }
    }
}
