//! A pod sandbox in memory.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use cricket_proto::records;
use cricket_proto::runtime::{LinuxContainerResources, NamespaceOption, PodSandbox, PodSandboxConfig};
use protobuf::MessageField;

use crate::call::Call;
use crate::cgroup::Meter;
use crate::encoded;
use crate::error::{Error, Result};
use crate::ids::SandboxId;
use crate::layout::Layout;
use crate::oci::facts::Namespaces;
use crate::sync::{Condvar, Mutex};

/// Whether a sandbox can take containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SandboxState {
    /// Namespaces and network stand.
    Ready,
    /// Stopped, or lost in a reboot. Stop runs again to finish what it could not; only removal follows.
    NotReady,
}

/// A pod sandbox: identity never changes, only its state does.
#[derive(Debug)]
pub struct Sandbox {
    /// 64 hex digits.
    pub id: SandboxId,
    /// As in the request, unaltered.
    pub config: PodSandboxConfig,
    /// As in the request; empty means the default one.
    pub runtime_handler: String,
    /// Nanoseconds since the epoch.
    pub created_at: i64,
    /// Pinned network namespace; none with the host's network.
    pub netns: Option<PathBuf>,
    /// Addresses, the primary one first; none with the host's network.
    pub ips: Vec<IpAddr>,
    /// It has a process: a record and a task in containerd, named like it.
    pub process: bool,
    /// The counters of its control group.
    pub meter: Meter,
    listed: OnceLock<Box<[u8]>>,
    inner: Mutex<Inner>,
    changed: Condvar,
}

/// What changes.
#[derive(Debug)]
struct Inner {
    state: SandboxState,
    /// Of its process, while it is known to live.
    pid: Option<u32>,
    /// Containers that are being created or started in it.
    joining: usize,
    /// What is being made for all its containers, by name.
    making: HashSet<String>,
    /// What the pod as a whole may use since that was updated: overhead, resources.
    limits: [Option<LinuxContainerResources>; 2],
    /// A stop or a removal of it was asked for: nothing joins any more. It is told to be not ready only when that would
    /// outlive us: what was seen once must not be otherwise after a restart.
    closing: bool,
    /// It is being stopped or removed.
    ending: bool,
    /// Everything it held on the machine was given back.
    down: bool,
}

impl Inner {
    fn is_open(&self) -> bool {
        self.state == SandboxState::Ready && !self.closing
    }
}

impl Sandbox {
    /// A sandbox that stands.
    pub fn ready(record: &records::Sandbox) -> Self {
        Sandbox::from_record(record, SandboxState::Ready)
    }

    /// A sandbox as its record tells, in `state`.
    pub fn from_record(record: &records::Sandbox, state: SandboxState) -> Self {
        Sandbox {
            id: SandboxId::from_record(&record.id),
            config: record.config.clone().unwrap_or_default(),
            runtime_handler: record.runtime_handler.clone(),
            created_at: record.created_at,
            netns: Some(&record.netns_path).filter(|p| !p.is_empty()).map(PathBuf::from),
            ips: record.ips.iter().filter_map(|ip| ip.parse().ok()).collect(),
            process: record.process,
            meter: Meter::default(),
            listed: OnceLock::new(),
            inner: Mutex::new(Inner {
                state,
                pid: None,
                joining: 0,
                making: HashSet::new(),
                limits: [record.overhead.clone().into_option(), record.resources.clone().into_option()],
                closing: false,
                ending: false,
                down: false,
            }),
            changed: Condvar::new(),
        }
    }

    /// The element of ListPodSandbox that tells of it, encoded, but for its state.
    pub fn listed(&self) -> &[u8] {
        self.listed.get_or_init(|| {
            encoded::encode(&PodSandbox {
                id: self.id.to_string(),
                metadata: self.config.metadata.clone(),
                created_at: self.created_at,
                labels: self.config.labels.clone(),
                annotations: self.config.annotations.clone(),
                runtime_handler: self.runtime_handler.clone(),
                ..Default::default()
            })
        })
    }

    /// The record that brings it back after a restart.
    pub fn record(&self) -> records::Sandbox {
        let phase = match self.is_open() {
            true => records::sandbox::Phase::READY,
            false => records::sandbox::Phase::NOT_READY,
        };
        let [overhead, resources] = self.inner.lock().limits.clone();
        records::Sandbox {
            id: self.id.to_string(),
            phase: phase.into(),
            config: MessageField::some(self.config.clone()),
            runtime_handler: self.runtime_handler.clone(),
            created_at: self.created_at,
            netns_path: self.netns.as_deref().map(Path::to_string_lossy).unwrap_or_default().into_owned(),
            ips: self.ips.iter().map(IpAddr::to_string).collect(),
            process: self.process,
            overhead: overhead.into(),
            resources: resources.into(),
            ..Default::default()
        }
    }

    /// What the pod as a whole may use: overhead and resources, as created or as last updated.
    pub fn limits(&self) -> [Option<LinuxContainerResources>; 2] {
        let linux = &self.config.linux;
        let created = [&linux.overhead, &linux.resources].map(|r| r.clone().into_option());
        let [overhead, resources] = self.inner.lock().limits.clone();
        let [old_overhead, old_resources] = created;
        [overhead.or(old_overhead), resources.or(old_resources)]
    }

    /// See [`Sandbox::limits`]; what is absent stays as it is.
    pub fn set_limits(&self, limits: [Option<LinuxContainerResources>; 2]) {
        let mut inner = self.inner.lock();
        for (now, new) in inner.limits.iter_mut().zip(limits) {
            *now = new.or(now.take());
        }
    }

    /// What it is told to be.
    pub fn state(&self) -> SandboxState {
        self.inner.lock().state
    }

    /// Whether it can take containers: it is ready, and nobody has asked for its end.
    pub fn is_open(&self) -> bool {
        self.inner.lock().is_open()
    }

    /// A container is being created or started in it: until the guard is dropped, a stop waits.
    ///
    /// # Errors
    /// `FailedPrecondition` unless it is ready.
    pub fn join(&self) -> Result<Joining<'_>> {
        let mut inner = self.inner.lock();
        if !inner.is_open() {
            return Err(Error::precondition(format!("pod sandbox {} is not ready", self.id)));
        }
        inner.joining += 1;
        Ok(Joining { sandbox: self })
    }

    /// The turn to make something for all its containers, `name`, or to find that it is there. Blocks while another has
    /// the turn.
    ///
    /// # Errors
    /// What [`Call::check`] says when that takes too long.
    pub fn turn(&self, call: &Call, name: &str) -> Result<Turn<'_>> {
        let mut inner = self.inner.lock();
        while !inner.making.insert(name.to_owned()) {
            call.check()?;
            inner = self.changed.wait_until(inner, call.deadline());
        }
        Ok(Turn { sandbox: self, name: name.to_owned() })
    }

    /// Begins to stop or remove it: from now on nothing joins. Blocks until what is joining has joined, and another end
    /// in progress is over.
    ///
    /// # Errors
    /// What [`Call::check`] says when that takes too long; it stays not ready.
    pub fn begin_end(&self, call: &Call) -> Result<Ending<'_>> {
        let mut inner = self.inner.lock();
        inner.closing = true;
        while inner.joining > 0 || inner.ending {
            if let Err(e) = call.check() {
                inner.state = SandboxState::NotReady;
                return Err(e);
            }
            inner = self.changed.wait_until(inner, call.deadline());
        }
        inner.ending = true;
        let was_ready = inner.state == SandboxState::Ready;
        Ok(Ending { sandbox: self, was_ready })
    }

    /// It is not ready any more. Tells whether it was; not where its end is under way, which sees to that.
    pub fn lose(&self) -> bool {
        let mut inner = self.inner.lock();
        inner.pid = None;
        if inner.closing {
            return false;
        }
        std::mem::replace(&mut inner.state, SandboxState::NotReady) == SandboxState::Ready
    }

    /// The pid of its process, if it has one that is known to live.
    pub fn pid(&self) -> Option<u32> {
        self.inner.lock().pid
    }

    /// See [`Sandbox::pid`].
    pub fn set_pid(&self, pid: u32) {
        self.inner.lock().pid = Some(pid);
    }

    /// Where its namespaces are pinned.
    pub fn pins(&self, layout: &Layout) -> Namespaces {
        layout.pins(&self.id, &self.namespaces(), self.process)
    }

    /// The namespace options of the request; absent ones are the CRI's defaults.
    pub fn namespaces(&self) -> NamespaceOption {
        namespace_options(&self.config)
    }
}

/// A container on its way into a sandbox.
#[derive(Debug)]
pub struct Joining<'a> {
    sandbox: &'a Sandbox,
}

impl Drop for Joining<'_> {
    fn drop(&mut self) {
        self.sandbox.inner.lock().joining -= 1;
        self.sandbox.changed.notify_all();
    }
}

/// See [`Sandbox::turn`]. Dropping it lets the next one have it.
#[derive(Debug)]
pub struct Turn<'a> {
    sandbox: &'a Sandbox,
    name: String,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.sandbox.inner.lock().making.remove(&self.name);
        self.sandbox.changed.notify_all();
    }
}

/// The end of a sandbox in progress; only one at a time.
#[derive(Debug)]
pub struct Ending<'a> {
    sandbox: &'a Sandbox,
    /// It was ready until now.
    pub was_ready: bool,
}

impl Ending<'_> {
    /// A restart would find it not ready: from now on it is.
    pub fn set_not_ready(&self) {
        self.sandbox.inner.lock().state = SandboxState::NotReady;
    }

    /// Whether an earlier end gave everything back.
    pub fn is_down(&self) -> bool {
        self.sandbox.inner.lock().down
    }

    /// Everything it held on the machine was given back.
    pub fn set_down(&self) {
        let mut inner = self.sandbox.inner.lock();
        inner.down = true;
        inner.state = SandboxState::NotReady;
    }
}

impl Drop for Ending<'_> {
    /// Also of an end that failed: it is not ready, for nothing joins any more.
    fn drop(&mut self) {
        let mut inner = self.sandbox.inner.lock();
        inner.state = SandboxState::NotReady;
        inner.ending = false;
        drop(inner);
        self.sandbox.changed.notify_all();
    }
}

/// The namespace options of a sandbox configuration; absent ones are the CRI's defaults.
pub fn namespace_options(config: &PodSandboxConfig) -> NamespaceOption {
    config.linux.security_context.namespace_options.clone().unwrap_or_default()
}

/// The name that is reserved for a sandbox: `name_namespace_uid_attempt`.
///
/// # Errors
/// `InvalidArgument` if the configuration has no metadata, or lacks name, namespace or uid.
pub fn reserved_name(config: &PodSandboxConfig) -> Result<String> {
    let metadata = config.metadata.as_ref().ok_or_else(|| Error::invalid("pod sandbox config has no metadata"))?;
    for (field, value) in [("name", &metadata.name), ("namespace", &metadata.namespace), ("uid", &metadata.uid)] {
        if value.is_empty() {
            return Err(Error::invalid(format!("pod sandbox metadata has no {field}")));
        }
    }
    Ok(format!("{}_{}_{}_{}", metadata.name, metadata.namespace, metadata.uid, metadata.attempt))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use std::time::Duration;

    #[test]
    fn an_end_waits_for_what_joins_and_lets_nothing_more_in() {
        let sandbox = Sandbox::ready(&records::Sandbox::default());
        let joined = sandbox.join().unwrap();
        let late = sandbox.begin_end(&Call::within(Duration::ZERO));
        assert_eq!(late.map(drop).map_err(|e| e.kind()), Err(Kind::DeadlineExceeded));
        assert_eq!(sandbox.join().map(drop).map_err(|e| e.kind()), Err(Kind::FailedPrecondition));
        std::thread::scope(|scope| {
            let end = scope.spawn(|| sandbox.begin_end(&Call::unbounded()).map(|e| e.was_ready));
            drop(joined);
            assert!(!end.join().unwrap().unwrap(), "the first try had made it not ready");
        });
    }

    #[test]
    fn it_is_ready_until_a_restart_would_find_it_otherwise() {
        let of = || Sandbox::ready(&records::Sandbox::default());
        let (written, down, failed) = (of(), of(), of());
        for (sandbox, is_down) in [(&written, false), (&down, true)] {
            let ending = sandbox.begin_end(&Call::unbounded()).unwrap();
            assert_eq!((sandbox.state(), sandbox.is_open()), (SandboxState::Ready, false));
            assert_eq!(sandbox.record().phase, records::sandbox::Phase::NOT_READY.into(), "as it is to be written");
            assert!(!sandbox.lose(), "its end sees to it");
            assert_eq!(sandbox.state(), SandboxState::Ready);
            if is_down {
                ending.set_down();
            } else {
                ending.set_not_ready();
            }
            assert_eq!(sandbox.state(), SandboxState::NotReady);
        }
        drop(failed.begin_end(&Call::unbounded()).unwrap());
        assert_eq!(failed.state(), SandboxState::NotReady);
    }

    #[test]
    fn one_turn_at_a_time_for_each_name() {
        let sandbox = Sandbox::ready(&records::Sandbox::default());
        let now = || Call::within(Duration::ZERO);
        let first = sandbox.turn(&now(), "a").unwrap();
        sandbox.turn(&now(), "b").unwrap();
        assert_eq!(sandbox.turn(&now(), "a").map(drop).map_err(|e| e.kind()), Err(Kind::DeadlineExceeded));
        std::thread::scope(|scope| {
            let next = scope.spawn(|| sandbox.turn(&Call::unbounded(), "a").map(drop));
            drop(first);
            next.join().unwrap().unwrap();
        });
    }

    #[test]
    fn one_end_at_a_time() {
        let sandbox = Sandbox::ready(&records::Sandbox::default());
        let first = sandbox.begin_end(&Call::unbounded()).unwrap();
        assert!(first.was_ready && !first.is_down());
        assert!(sandbox.begin_end(&Call::within(Duration::ZERO)).is_err());
        first.set_down();
        drop(first);
        assert!(sandbox.begin_end(&Call::unbounded()).unwrap().is_down());
    }
}
