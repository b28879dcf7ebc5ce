//! Pod sandboxes: a verb a file. A sandbox is a set of pinned namespaces and a few files; only a pod that
//! shares its PID namespace needs a process.

mod files;
mod list;
mod network;
mod pins;
mod port_forward;
mod process;
mod quantity;
mod remove;
mod run;
mod status;
mod stop;
mod sysctl;
mod teardown;

pub use list::list;
pub use port_forward::port_forward;
pub use process::{
    ended as process_ended, reconcile as reconcile_process, remove as remove_process, sweep as sweep_pause_roots,
    PROCESS_TYPE,
};
pub use remove::remove;
pub use run::run;
pub use status::status;
pub use stop::stop;
pub use teardown::{stands, teardown};
