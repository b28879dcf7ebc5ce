//! A pull's talk with the servers of one repository: each in its turn, again when that may help, until cancelled.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::credentials::Credentials;
use super::failure::{pause, Failure};
use super::host::Host;
use super::hosts::{hosts_of, HostConfig};
use super::http::Response;
use crate::call::{Call, Watch};
use crate::error::{Error, Kind, Result};
use crate::reference::Reference;
use crate::sync::{Condvar, Mutex};

/// Longest wait for the next byte; then the connection is made again, which helps where it was forgotten on the way.
const READ: Duration = Duration::from_secs(60);
/// Tries of a request.
const TRIES: u32 = 3;

/// What holds for every pull.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where `hosts.toml` files are searched.
    pub dirs: Vec<PathBuf>,
    /// A download without a byte for so long is given up; zero is for ever.
    pub progress_timeout: Duration,
}

/// The servers of one repository. Its connections end with it.
pub struct Session {
    repository: String,
    inner: Arc<Inner>,
    call: Call,
    progress_timeout: Option<Duration>,
    _watch: Watch,
}

struct Inner {
    hosts: Vec<Host>,
    over: Mutex<bool>,
    ended: Condvar,
}

impl Inner {
    fn end(&self) {
        *self.over.lock() = true;
        self.ended.notify_all();
        self.hosts.iter().for_each(Host::shutdown);
    }
}

impl Session {
    /// Reads `hosts.toml` and certificates; connects to nobody yet. When `call` is cancelled, every request of it is
    /// broken off.
    ///
    /// # Errors
    /// `InvalidArgument` for files that cannot be read as what they should be.
    pub fn open(options: &Options, reference: &Reference, credentials: &Credentials, call: &Call) -> Result<Self> {
        let progress_timeout = Some(options.progress_timeout).filter(|timeout| !timeout.is_zero());
        let read = progress_timeout.map_or(READ, |timeout| timeout.min(READ));
        let (registry, repository) = (reference.domain(), reference.path());
        let host = |config: HostConfig| {
            let pass = credentials.for_host(&config.base.authority).clone();
            Host::new(config, (registry, repository), &pass, read)
        };
        let hosts = hosts_of(registry, &options.dirs)?.into_iter().map(host).collect::<Result<Vec<_>>>()?;
        let inner = Arc::new(Inner { hosts, over: Mutex::new(false), ended: Condvar::new() });
        let own = inner.clone();
        let watch = call.on_cancel(move || own.end());
        Ok(Session { repository: repository.to_owned(), inner, call: call.clone(), progress_timeout, _watch: watch })
    }

    /// Breaks off every request; what waits for one gets an error. Does not block.
    pub fn end(&self) {
        self.inner.end();
    }

    pub(super) fn progress_timeout(&self) -> Option<Duration> {
        self.progress_timeout
    }

    /// Asks each server that may be asked, in order, for `path` in the repository, until one has an answer that
    /// `accept` takes; all again if what went wrong may pass.
    pub(super) fn ask<T>(
        &self,
        may: fn(&HostConfig) -> bool,
        path: &str,
        method: &'static str,
        headers: &[(&str, String)],
        accept: impl Fn(Response) -> Result<T, Failure>,
    ) -> Result<T> {
        let path = format!("{}/{path}", self.repository);
        for n in 1.. {
            let mut failures = Vec::new();
            for host in self.inner.hosts.iter().filter(|host| may(&host.config)) {
                self.check()?;
                match host.ask(&path, method, headers).and_then(&accept) {
                    Ok(answer) => return Ok(answer),
                    Err(failure) => {
                        log::debug!("{} of {path}: {}", host.name(), failure.error);
                        failures.push((host.name(), failure));
                    }
                }
            }
            self.check()?;
            // The last one is the registry itself: what it says counts.
            let Some((_, last)) = failures.last() else {
                return Err(Error::precondition("hosts.toml leaves no server that may be asked for this"));
            };
            if !last.is_passing() || n == TRIES {
                return Err(verdict(failures));
            }
            self.wait(pause(n, last.wait, chance()))?;
        }
        unreachable!("the range has no end")
    }

    /// Blocks for a pause.
    ///
    /// # Errors
    /// `Canceled` or `DeadlineExceeded`, as soon as that is so.
    pub(super) fn wait(&self, pause: Duration) -> Result<()> {
        let until = Instant::now() + pause;
        let until = self.call.deadline().map_or(until, |deadline| deadline.min(until));
        let mut over = self.inner.over.lock();
        while !*over && Instant::now() < until {
            over = self.inner.ended.wait_until(over, Some(until));
        }
        drop(over);
        self.check()
    }

    /// Fails once the pull is over.
    pub(super) fn check(&self) -> Result<()> {
        self.call.check()?;
        match *self.inner.over.lock() {
            true => Err(Error::new(Kind::Canceled, "the pull has ended")),
            false => Ok(()),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.end();
    }
}

/// One error from what each server said. Its kind is that of the last.
fn verdict(failures: Vec<(&str, Failure)>) -> Error {
    let kind = failures.last().map_or(Kind::Unknown, |(_, failure)| failure.error.kind());
    let each: Vec<String> = failures.iter().map(|(host, failure)| format!("{host}: {}", failure.error)).collect();
    Error::new(kind, each.join("; "))
}

/// A number that differs between nodes that were all told to pull at the same moment.
pub(super) fn chance() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::from(now.subsec_nanos()) ^ u64::from(std::process::id())
}
