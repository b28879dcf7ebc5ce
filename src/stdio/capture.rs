//! The output of a command that somebody waits for, kept in memory up to a limit.

use std::sync::Arc;

use super::cri_log::Source;
use crate::sync::Mutex;

/// Output of an ExecSync: both streams, their total bounded. What exceeds the limit is dropped, so that the command
/// can go on.
#[derive(Debug)]
pub struct Capture(Mutex<Kept>);

#[derive(Debug)]
struct Kept {
    room: usize,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Capture {
    /// Room for `limit_bytes` of both streams together.
    pub fn new(limit_bytes: usize) -> Arc<Capture> {
        Arc::new(Capture(Mutex::new(Kept { room: limit_bytes, stdout: Vec::new(), stderr: Vec::new() })))
    }

    /// Moves out what was captured, stdout and stderr. Complete once `Hub::finish` has returned. Room that was used
    /// stays used.
    pub fn take(&self) -> (Vec<u8>, Vec<u8>) {
        let mut kept = self.0.lock();
        (std::mem::take(&mut kept.stdout), std::mem::take(&mut kept.stderr))
    }

    pub(super) fn append(&self, source: Source, bytes: &[u8]) {
        let mut kept = self.0.lock();
        let fits = &bytes[..bytes.len().min(kept.room)];
        kept.room -= fits.len();
        match source {
            Source::Stdout => kept.stdout.extend_from_slice(fits),
            Source::Stderr => kept.stderr.extend_from_slice(fits),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_for_both_streams_together() {
        let capture = Capture::new(6);
        capture.append(Source::Stdout, b"abc");
        capture.append(Source::Stderr, b"12");
        capture.append(Source::Stdout, b"def");
        capture.append(Source::Stderr, b"345");
        assert_eq!(capture.take(), (b"abcd".to_vec(), b"12".to_vec()));
        capture.append(Source::Stdout, b"g");
        assert_eq!(capture.take(), (Vec::new(), Vec::new()));
    }
}
