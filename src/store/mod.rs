//! What the daemon remembers: sandboxes, containers and images in memory, their records on disk.
//!
//! Plain `Mutex<HashMap>` stores. No method blocks, calls out, or runs caller code while the lock is held.

pub mod container;
mod container_state;
pub mod events;
pub mod fs_usage;
pub mod image;
pub mod index;
pub mod later;
pub mod pulls;
pub mod record;
pub mod sandbox;
pub mod sessions;

pub use container::{Container, ContainerState};
pub use index::{Reservation, Store};
pub use sandbox::{Sandbox, SandboxState};
