//! Pod sandboxes: a verb a file. A sandbox is a set of pinned namespaces and a few files; it has no process.

mod files;
mod list;
mod network;
mod pins;
mod port_forward;
mod quantity;
mod remove;
mod run;
mod status;
mod stop;
mod sysctl;
mod teardown;

pub use list::list;
pub use port_forward::port_forward;
pub use remove::remove;
pub use run::run;
pub use status::status;
pub use stop::stop;
pub use teardown::{stands, teardown};
