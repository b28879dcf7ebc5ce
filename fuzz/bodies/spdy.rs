//! Frames of a SPDY client.

use cricket::streaming::spdy::Spdy;

/// One input.
pub fn run(bytes: &[u8]) {
    crate::wire::run(|| Box::new(Spdy::default()), bytes);
}
