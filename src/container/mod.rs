//! Containers: a verb a file.

mod attach;
mod command;
mod create;
mod declared;
mod exec;
mod exec_sync;
mod exit;
mod list;
mod remove;
mod reopen_log;
mod start;
mod stats;
mod status;
mod stop;
mod streams;
mod task;
mod update;
mod volume;

pub use attach::attach;
pub use command::{Command, Pipes, Wanted};
pub use create::{create, runtime_options, METADATA_TYPE, OWN_SNAPSHOT};
pub use exec::exec;
pub use exec_sync::exec_sync;
pub use exit::{reconcile, record_end, settle};
pub use list::{list, of_sandbox};
pub use remove::{remove, remove_container};
pub use reopen_log::reopen_log;
pub use start::start;
pub use stats::{list_stats, stats};
pub use status::status;
pub use stop::{kill_all, stop};
pub use streams::{io_dir, reattach};
pub use task::destroy;
pub use update::{recorded as recorded_resources, update_resources};
pub use volume::{unmount_images, IMAGE_VOLUME};
