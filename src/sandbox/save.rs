//! The record of a sandbox that stands.

use std::time::Duration;

use crate::call::Call;
use crate::error::Result;
use crate::runtime::Runtime;
use crate::store::record::{self, Durability};
use crate::store::Sandbox;

/// How long to wait for another who writes it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Writes the record as the sandbox is now; one writer at a time, so that the last one has what all before it changed.
pub fn save(rt: &Runtime, sandbox: &Sandbox) -> Result<()> {
    let turn = sandbox.turn(&Call::within(PATIENCE), "record")?;
    let written = record::write(&rt.layout.sandbox_record(&sandbox.id), &sandbox.record(), Durability::Memory);
    drop(turn);
    written
}
