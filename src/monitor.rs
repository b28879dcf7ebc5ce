//! containerd's events become state changes. One thread; its connection lost, it reconnects and reconciles.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::call::Call;
use crate::container;
use crate::containerd::{Event, EventStream, Next, Plugin};
use crate::error::{Context, Error, Kind, Result};
use crate::host;
use crate::image;
use crate::recover;
use crate::runtime::Runtime;
use crate::sandbox;
use crate::sync::{Condvar, Mutex};
use crate::sys;
use crate::workers::Workers;

/// Pause between tries to reach containerd: doubles up to the second.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// How long one pass of recovery or reconciliation may take.
const PASS_BUDGET: Duration = Duration::from_secs(120);

/// containerd's name for this kind of plugin.
const SNAPSHOTTERS: &str = "io.containerd.snapshotter.v1";

/// The running monitor. [`Monitor::stop`] ends it.
pub struct Monitor {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    inner: Mutex<Inner>,
    stopped: Condvar,
}

#[derive(Default)]
struct Inner {
    stop: bool,
    cancel: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl Monitor {
    /// Starts the thread. It waits for containerd, recovers, and then makes the runtime ready.
    pub fn start(rt: Arc<Runtime>) -> Result<Monitor> {
        let shared = Arc::new(Shared::default());
        let own = shared.clone();
        let thread = std::thread::Builder::new().name("monitor".into()).spawn(move || own.run(&rt));
        Ok(Monitor { shared, thread: thread.context("start the monitor thread")? })
    }

    /// Ends the thread and waits for it.
    pub fn stop(self) {
        let cancel = {
            let mut inner = self.shared.inner.lock();
            inner.stop = true;
            inner.cancel.take()
        };
        self.shared.stopped.notify_all();
        if let Some(cancel) = cancel {
            cancel();
        }
        if self.thread.join().is_err() {
            log::error!("the monitor thread had panicked");
        }
    }
}

impl Shared {
    fn run(&self, rt: &Arc<Runtime>) {
        let mut pause = RETRY.0;
        let mut recovered = false;
        while !self.inner.lock().stop {
            if let Err(e) = self.session(rt, &mut recovered) {
                if rt.connected() {
                    pause = RETRY.0;
                }
                rt.set_connected(false);
                let e = match e.kind() {
                    Kind::Unavailable => {
                        e.context(format_args!("waiting for containerd at {}", rt.config.containerd.address.display()))
                    }
                    _ => e.context("recovery, which is tried again"),
                };
                rt.set_not_ready_because(&e);
                // The first time it is news; the same again is not.
                if pause == RETRY.0 {
                    log::warn!("{e}");
                }
                self.sleep(pause);
                pause = (pause * 2).min(RETRY.1);
            }
        }
    }

    /// One connection: subscribes, catches up, then handles events until the stream ends.
    fn session(&self, rt: &Arc<Runtime>, recovered: &mut bool) -> Result<()> {
        let call = Call::within(PASS_BUDGET);
        self.on_stop({
            let call = call.clone();
            Arc::new(move || call.cancel())
        });
        let own = rt.clone();
        // Beside the recovery: it takes as long as starting a program.
        hand_over(&rt.workers, "features", move || own.learn_features());
        let own = rt.clone();
        // So does this, and the first pods after a boot would wait for it.
        hand_over(&rt.workers, "apparmor", move || host::profiles::load_ahead(&own.host.facts));
        // It writes: what an earlier daemon asked containerd to write is written before it, so that we see all of it.
        rt.containerd.ensure_namespace(&call)?;
        let mut events = rt.containerd.subscribe()?;
        let snapshotters = rt.containerd.plugins(&call, SNAPSHOTTERS)?;
        rt.set_remapping(remapping(&snapshotters));
        rt.set_tasks_dir(container::tasks_dir(&snapshotters));
        image::load::refresh_all(&image::at(rt), &call)?;
        let first = !*recovered;
        if first {
            recover::recover(rt, &call)?;
            *recovered = true;
            let (sandboxes, containers) = (rt.sandboxes.list().len(), rt.containers.list().len());
            log::info!("recovered {sandboxes} pod sandboxes, {containers} containers");
        } else {
            log::info!("containerd answers again");
        }
        // Also after recovery: what was recovered from a list may have ended since.
        recover::reconcile(rt, &call)?;
        self.on_stop(events.canceller());
        rt.set_connected(true);
        rt.set_ready();
        if first {
            sys::malloc::give_back();
            if let Err(e) = sys::resident::give_back_program() {
                log::debug!("give back what only the start needed: {e}");
            }
        }
        handle_all(rt, &mut *events)
    }

    /// What ends the thread's current wait; at once if it is to stop already.
    fn on_stop(&self, cancel: Arc<dyn Fn() + Send + Sync>) {
        let mut inner = self.inner.lock();
        if inner.stop {
            drop(inner);
            cancel();
        } else {
            inner.cancel = Some(cancel);
        }
    }

    fn sleep(&self, pause: Duration) {
        let until = Some(Instant::now() + pause);
        let inner = self.inner.lock();
        if !inner.stop {
            drop(self.stopped.wait_until(inner, until));
        }
    }
}

/// Those of containerd's snapshotters that give files other owners.
fn remapping(plugins: &[Plugin]) -> BTreeSet<String> {
    let able = |p: &&Plugin| p.error.is_none() && p.capabilities.iter().any(|c| c == "remap-ids");
    plugins.iter().filter(able).map(|p| p.id.clone()).collect()
}

/// Handles events, and runs errands when their time has come, until the stream ends.
fn handle_all(rt: &Arc<Runtime>, events: &mut dyn EventStream) -> Result<()> {
    rt.later.on_add(events.waker());
    loop {
        for (errand, pause) in rt.later.due() {
            let own = rt.clone();
            hand_over(&rt.workers, "later", move || recover::errands::run(&own, errand, pause));
        }
        match events.next(rt.later.next()).map_err(|e: Error| e.context("containerd's event stream broke"))? {
            Next::Event(event) => handle(rt, event),
            Next::Nothing => {}
            Next::Cancelled => return Ok(()),
        }
    }
}

/// What calls containerd goes to the workers.
fn handle(rt: &Arc<Runtime>, event: Event) {
    match event {
        Event::TaskExit { id, exec_id: None, pid, exit } => {
            let own = rt.clone();
            let Some(container) = rt.containers.exact(&id) else {
                if let Some(sandbox) = rt.sandboxes.exact(&id) {
                    hand_over(&rt.workers, "exit", move || sandbox::process_ended(&own, &sandbox));
                }
                return;
            };
            hand_over(&rt.workers, "exit", move || {
                if let Some(settling) = container.begin_settle(pid, exit) {
                    container::settle(&own, settling);
                }
            });
        }
        Event::TaskExit { .. } => {}
        Event::TaskOom { id } => {
            if let Some(container) = rt.containers.exact(&id) {
                container.note_oom();
            }
        }
        Event::ImageChanged { name } => {
            let own = rt.clone();
            hand_over(&rt.refresher, "image", move || {
                if let Err(e) = image::load::refresh(&image::at(&own), &Call::within(PASS_BUDGET), &name) {
                    log::warn!("image {name} changed, but cannot be read: {e}");
                }
            });
        }
    }
}

/// Runs `work` on a thread of the pool, whose queue has no limit; if the machine has no memory for a thread, here.
fn hand_over(pool: &Workers, name: &'static str, work: impl FnOnce() + Send + 'static) {
    match pool.reserve() {
        Ok(seat) => seat.run(name, work),
        Err(e) => {
            log::warn!("{name}: {e}");
            work();
        }
    }
}
