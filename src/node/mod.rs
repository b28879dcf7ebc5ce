//! What the runtime says of itself and its node: a verb a file.

mod runtime_config;
mod status;
mod version;

pub use runtime_config::{runtime_config, update_runtime_config};
pub use status::status;
pub use version::version;
