//! A container's own streams in a session.

use std::time::Instant;

use cricket_proto::runtime::AttachRequest;

use super::buffer::Moved;
use super::remote::{Client, Process};
use super::status::Outcome;
use super::Shared;
use crate::error::{Error, Kind, Result};
use crate::sys::poll::Poll;

/// Attached to a container.
pub struct Attached;

impl Attached {
    /// Attaches to the container of a request.
    pub(super) fn start(_: &Shared, request: &AttachRequest) -> Result<Attached> {
        Err(Error::new(Kind::Unimplemented, format!("attach to container {} is not possible yet", request.container_id)))
    }
}

impl Process for Attached {
    fn watch(&mut self, _: &mut Poll, _: bool, _: bool) {}
    fn output(&mut self, _: &Poll, _: &mut Client<'_>) -> Result<()> {
        Ok(())
    }
    fn input(&mut self, _: &[u8]) -> Moved {
        Moved::End
    }
    fn end_input(&mut self) {}
    fn resize(&mut self, _: u32, _: u32) {}
    fn outcome(&mut self) -> Option<Outcome> {
        None
    }
    fn deadline(&self) -> Option<Instant> {
        None
    }
    fn outlives_client(&self) -> bool {
        false
    }
}
