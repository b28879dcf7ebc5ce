//! Tasks and their execs.

use cricket_proto::methods::tasks;
use cricket_proto::task::{Process, Status};
use cricket_proto::tasks::{
    CloseIORequest, CreateTaskRequest, DeleteProcessRequest, DeleteTaskRequest, ExecProcessRequest, GetRequest,
    KillRequest, ListTasksRequest, ResizePtyRequest, StartRequest, UpdateTaskRequest, WaitRequest,
};

use super::convert::{any_out, mount_out};
use super::Client;
use crate::call::Call;
use crate::containerd::{time, Exit, NewExec, NewTask, Task, TaskState};
use crate::error::Result;

/// The names by which shims know the OCI types they are given.
const PROCESS: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";
const LINUX_RESOURCES: &str = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";

pub(super) fn create(client: &Client, call: &Call, task: &NewTask) -> Result<u32> {
    let request = CreateTaskRequest {
        container_id: task.id.clone(),
        rootfs: task.rootfs.iter().map(mount_out).collect(),
        stdin: task.stdin.clone(),
        stdout: task.stdout.clone(),
        stderr: task.stderr.clone(),
        terminal: task.terminal,
        options: task.options.as_ref().map(|o| any_out(&o.type_url, &o.value)).unwrap_or_default(),
        ..CreateTaskRequest::default()
    };
    client.quick(call, &tasks::CREATE, &request).map(|answer| answer.pid)
}

pub(super) fn start(client: &Client, call: &Call, id: &str, exec_id: Option<&str>) -> Result<u32> {
    let request = StartRequest { container_id: id.to_owned(), exec_id: wire_exec(exec_id), ..StartRequest::default() };
    client.quick(call, &tasks::START, &request).map(|answer| answer.pid)
}

pub(super) fn delete(client: &Client, call: &Call, id: &str, exec_id: Option<&str>) -> Result<Exit> {
    let container_id = id.to_owned();
    let answer = match exec_id {
        None => {
            let request = DeleteTaskRequest { container_id, ..DeleteTaskRequest::default() };
            client.quick(call, &tasks::DELETE, &request)?
        }
        Some(exec_id) => {
            let exec_id = exec_id.to_owned();
            let request = DeleteProcessRequest { container_id, exec_id, ..DeleteProcessRequest::default() };
            client.quick(call, &tasks::DELETE_PROCESS, &request)?
        }
    };
    Ok(Exit { code: answer.exit_status, at: time::nanos(&answer.exited_at) })
}

pub(super) fn get(client: &Client, call: &Call, id: &str, exec_id: Option<&str>) -> Result<Task> {
    let request = GetRequest { container_id: id.to_owned(), exec_id: wire_exec(exec_id), ..GetRequest::default() };
    let answer = client.quick(call, &tasks::GET, &request)?;
    // Of an exec, containerd gives the exec's id here.
    Ok(Task { id: id.to_owned(), ..ours(answer.process.unwrap_or_default()) })
}

pub(super) fn list(client: &Client, call: &Call) -> Result<Vec<Task>> {
    let answer = client.quick(call, &tasks::LIST, &ListTasksRequest::new())?;
    Ok(answer.tasks.into_iter().map(ours).collect())
}

pub(super) fn kill(
    client: &Client,
    call: &Call,
    id: &str,
    exec_id: Option<&str>,
    signal: u32,
    all: bool,
) -> Result<()> {
    let request =
        KillRequest { container_id: id.to_owned(), exec_id: wire_exec(exec_id), signal, all, ..KillRequest::default() };
    client.quick(call, &tasks::KILL, &request).map(drop)
}

pub(super) fn exec(client: &Client, call: &Call, exec: &NewExec) -> Result<()> {
    let request = ExecProcessRequest {
        container_id: exec.id.clone(),
        exec_id: exec.exec_id.clone(),
        spec: any_out(PROCESS, &exec.process),
        stdin: exec.stdin.clone(),
        stdout: exec.stdout.clone(),
        stderr: exec.stderr.clone(),
        terminal: exec.terminal,
        ..ExecProcessRequest::default()
    };
    client.quick(call, &tasks::EXEC, &request).map(drop)
}

pub(super) fn resize_pty(
    client: &Client,
    call: &Call,
    id: &str,
    exec_id: Option<&str>,
    width: u32,
    height: u32,
) -> Result<()> {
    let request = ResizePtyRequest {
        container_id: id.to_owned(),
        exec_id: wire_exec(exec_id),
        width,
        height,
        ..ResizePtyRequest::default()
    };
    client.quick(call, &tasks::RESIZE_PTY, &request).map(drop)
}

pub(super) fn close_stdin(client: &Client, call: &Call, id: &str, exec_id: Option<&str>) -> Result<()> {
    let request = CloseIORequest {
        container_id: id.to_owned(),
        exec_id: wire_exec(exec_id),
        stdin: true,
        ..CloseIORequest::default()
    };
    client.quick(call, &tasks::CLOSE_IO, &request).map(drop)
}

pub(super) fn update(client: &Client, call: &Call, id: &str, resources: &[u8]) -> Result<()> {
    let request = UpdateTaskRequest {
        container_id: id.to_owned(),
        resources: any_out(LINUX_RESOURCES, resources),
        ..UpdateTaskRequest::default()
    };
    client.quick(call, &tasks::UPDATE, &request).map(drop)
}

pub(super) fn wait(client: &Client, call: &Call, id: &str, exec_id: Option<&str>) -> Result<Exit> {
    let request = WaitRequest { container_id: id.to_owned(), exec_id: wire_exec(exec_id), ..WaitRequest::default() };
    let answer = client.slow(call, &tasks::WAIT, &request)?;
    Ok(Exit { code: answer.exit_status, at: time::nanos(&answer.exited_at) })
}

/// On the wire the container's first process is the exec without a name.
fn wire_exec(exec_id: Option<&str>) -> String {
    exec_id.unwrap_or_default().to_owned()
}

fn ours(process: Process) -> Task {
    let state = match process.status.enum_value_or_default() {
        Status::CREATED => TaskState::Created,
        Status::RUNNING => TaskState::Running,
        Status::STOPPED => TaskState::Stopped,
        Status::PAUSED | Status::PAUSING => TaskState::Paused,
        Status::UNKNOWN => TaskState::Unknown,
    };
    Task {
        exit: Exit { code: process.exit_status, at: time::nanos(&process.exited_at) },
        id: process.id,
        pid: process.pid,
        state,
        stdin: process.stdin,
        stdout: process.stdout,
        stderr: process.stderr,
        terminal: process.terminal,
    }
}
