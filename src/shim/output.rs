//! Output without the daemon: a container whose streams are `cricket://` is logged, and attached to, right here.
//!
//! ```text
//! cricket://<directory of the streams>?log=<path>&line=<bytes of a line>&v=<version>
//! ```
//! as standard output, and as standard input if the container takes any. Without `log` the output goes to those who
//! attach, and nowhere else. What is said over the socket in the directory is in `stdio`.

use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::server::{Server, OUTPUT};
use super::streams::decoded;
use crate::error::{Context, Error, Kind, Result};
use crate::stdio::{open_log, Door, Feed, LogFile, Output, Relay, Stdin};

/// Of what is asked for.
const VERSION: &str = "1";
/// After so long without output the buffers are given back.
const REST: Duration = Duration::from_secs(1);

/// What such a text asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    dir: PathBuf,
    log: Option<PathBuf>,
    line_bytes: usize,
}

/// The streams of a process that is about to start: its output is read here.
#[derive(Debug)]
pub struct Hosted {
    wanted: Wanted,
    output: Output,
    /// Without a terminal: the reading ends.
    pub streams: [Option<File>; 2],
    /// The way to its input.
    pub stdin: Stdin,
}

impl Wanted {
    /// Reads what follows `cricket://`.
    ///
    /// # Errors
    /// `InvalidArgument`; `Unimplemented` for what a later version asks for.
    pub fn read(path: &str, query: &str) -> Result<Wanted> {
        let mut wanted = Wanted { dir: decoded(path).into(), log: None, line_bytes: 0 };
        for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match key {
                "log" => wanted.log = Some(decoded(value).into()),
                "line" => wanted.line_bytes = value.parse().unwrap_or(0),
                "v" if value != VERSION => {
                    let why = format!("streams of version {value} are asked for; this shim has version {VERSION}");
                    return Err(Error::new(Kind::Unimplemented, why));
                }
                _ => {}
            }
        }
        if wanted.line_bytes == 0 || !wanted.dir.is_absolute() {
            return Err(Error::invalid(format!("cricket://{path}?{query} names no directory or no length of a line")));
        }
        Ok(wanted)
    }

    /// Opens the log.
    pub fn open(self) -> Result<Hosted> {
        let output = match &self.log {
            Some(path) => Output::Log(LogFile::new(path.clone(), open_log(path)?)),
            None => Output::Discard,
        };
        Ok(Hosted { wanted: self, output, streams: [None, None], stdin: Stdin::Closed })
    }
}

impl Server {
    /// Begins to relay.
    pub(super) fn host(&mut self, id: &str, hosted: Hosted) -> Result<()> {
        let Hosted { wanted, output, streams, stdin } = hosted;
        if self.relay.is_none() {
            let relay = Relay::new(wanted.line_bytes).context("make an epoll")?;
            self.epoll.add(&relay, OUTPUT).context("watch output")?;
            self.relay = Some(relay);
        }
        let door = Some(Door::open(&wanted.dir, stdin)?);
        match &mut self.relay {
            Some(relay) => relay.open(id, Feed { streams, output, door }),
            None => Ok(()),
        }
    }

    /// There is output, or somebody at a door.
    pub(super) fn output_is_ready(&mut self) {
        let Some(relay) = &mut self.relay else { return };
        if let Err(e) = relay.turn(false) {
            log::error!("wait for container output: {e}");
        }
        // Kept until they have ended: see `output_ends` and `output_is_over`.
        drop(relay.take_finished());
        self.rest_at = Some(Instant::now() + REST);
    }

    /// Nobody will write any more but who does already: what is there is written down, and the rest as it comes.
    pub(super) fn output_ends(&mut self, id: &str) {
        if let Some(relay) = &mut self.relay {
            relay.finish(id);
        }
        self.rest_at = self.relay.as_ref().map(|_| Instant::now() + REST);
    }

    /// The container goes away: what is there is written down, and no more.
    pub(super) fn output_is_over(&mut self, id: &str) {
        if let Some(relay) = &mut self.relay {
            relay.give_up(id);
        }
        self.rest_at = self.relay.as_ref().map(|_| Instant::now() + REST);
    }

    /// Gives the buffers back when there was no output for a while.
    pub(super) fn rest(&mut self) {
        if self.rest_at.is_some_and(|at| at <= Instant::now()) {
            self.rest_at = None;
            self.relay.iter_mut().for_each(Relay::rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_read() {
        let wanted = Wanted::read("/run/c%20x/io", "log=%2Fvar%2Flog%2F0.log&line=16384&v=1&later=x").expect("whole");
        assert_eq!(wanted.dir, PathBuf::from("/run/c x/io"));
        assert_eq!((wanted.log, wanted.line_bytes), (Some("/var/log/0.log".into()), 16384));
        assert_eq!(Wanted::read("/d", "line=1&v=1").expect("no log").log, None);
        assert_eq!(Wanted::read("/d", "line=1&v=2").expect_err("later").kind(), Kind::Unimplemented);
        for (path, query) in [("d", "line=1&v=1"), ("/d", "v=1"), ("/d", "line=x&v=1"), ("", "")] {
            assert_eq!(Wanted::read(path, query).expect_err(query).kind(), Kind::InvalidArgument);
        }
    }
}
