//! Registries over HTTP: which servers to ask, what opens them, documents and blobs. Knows nothing of containerd.
//!
//! A [`Session`] is one pull's. Whatever it waits for, the cancellation of its call ends.

mod challenge;
mod credentials;
mod failure;
mod fetch;
mod host;
mod hosts;
mod http;
mod proxy;
mod secret;
mod session;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod tls;
mod token;
mod url;

pub use credentials::Credentials;
pub use fetch::{Blob, Found};
pub use session::{Options, Session};
