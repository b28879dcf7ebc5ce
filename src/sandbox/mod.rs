//! Pod sandboxes: a verb a file. A sandbox is a set of pinned namespaces and a few files; only a pod that
//! shares its PID namespace needs a process.

mod events;
mod files;
mod interfaces;
mod list;
mod metrics;
mod network;
mod pins;
mod port_forward;
mod process;
mod quantity;
mod remove;
mod run;
mod save;
mod stats;
mod status;
mod stop;
mod sysctl;
mod teardown;
mod update;

pub use events::events;
pub use list::{list, stream};
pub use metrics::{list_metric_descriptors, list_metrics, stream_metrics};
pub use network::detach;
pub use port_forward::port_forward;
pub use process::{
    ended as process_ended, reconcile as reconcile_process, remove as remove_process, sweep as sweep_pause_roots,
    PROCESS_TYPE,
};
pub use remove::remove;
pub use run::run;
pub use stats::{list_stats, stats, stream_stats};
pub use status::status;
pub use stop::stop;
pub use teardown::{stands, teardown};
pub use update::update_resources;
