//! The layers of one pull, fetched by threads that all pulls share.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::Arc;

use super::origin::{self, Aside, Both, FromRegistry, Kept, Remote, Room};
use super::{Known, Puller, Report, Step};
use crate::call::{Call, Watch};
use crate::containerd::{Containerd, Content, Descriptor, Labels};
use crate::error::{Context, Error, Result};
use crate::image::resolve::{Layer, Resolved};
use crate::image::run::Runs;
use crate::image::stage::{leave, Staged, Stager};
use crate::registry::Session;
use crate::store::pulls::Pulls;
use crate::sync::{Condvar, Mutex};

/// Of short layers that wait for those below them so much is kept in memory; more is read from containerd again.
const KEPT_BYTES: u64 = 1 << 20;

/// Layers on their way.
pub(super) struct Job {
    shared: Arc<Shared>,
    _watch: Watch,
}

struct Shared {
    containerd: Arc<dyn Containerd>,
    pulls: Arc<Pulls>,
    session: Arc<Session>,
    call: Call,
    labels: Labels,
    report: Report,
    wrote: Arc<AtomicBool>,
    layers: Vec<Layer>,
    stager: Option<Stager>,
    runs: Runs,
    /// For what is kept in memory.
    room: Room,
    known: Known,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// By layer: it is here.
    here: Vec<bool>,
    /// By layer: it is here and unpacked, and waits for those below.
    staged: HashMap<usize, Staged>,
    /// By layer: it is here, and waits for those below to be unpacked with them.
    kept: HashMap<usize, Kept>,
    running: usize,
    /// What is still queued does nothing any more.
    over: bool,
    failed: Option<Error>,
}

impl Job {
    /// Queues all layers but those that `known` says are not needed. Does not block.
    pub(super) fn start(
        puller: &Puller<'_>,
        (call, session): (Call, Arc<Session>),
        image: &Resolved,
        labels: &Labels,
        known: Known,
        wrote: Arc<AtomicBool>,
    ) -> Self {
        let here = (0..image.layers.len()).map(|n| n < known.skipped).collect();
        let shared = Arc::new(Shared {
            containerd: puller.containerd.clone(),
            pulls: puller.pulls.clone(),
            session,
            call,
            labels: labels.clone(),
            report: puller.report.clone(),
            wrote,
            layers: image.layers.clone(),
            stager: Stager::new(
                &puller.containerd,
                puller.snapshotter,
                puller.unpacker.as_deref(),
                known.chain.clone(),
            ),
            runs: Runs::new(puller.snapshotter, puller.unpacker.as_deref(), &image.layers),
            room: Room::new(KEPT_BYTES),
            known,
            state: Mutex::new(State { here, ..State::default() }),
            changed: Condvar::new(),
        });
        for n in shared.known.skipped..image.layers.len() {
            let own = shared.clone();
            if let Err(e) = puller.pulls.fetchers.submit("fetch", move || own.run(n)) {
                shared.fail(e);
            }
        }
        let own = Arc::downgrade(&shared);
        let watch = shared.call.on_cancel(move || {
            if let Some(shared) = own.upgrade() {
                // With the lock, or it may come between a waiter's look and its sleep.
                drop(shared.state.lock());
                shared.changed.notify_all();
            }
        });
        Job { shared, _watch: watch }
    }

    /// What there was of the image before it began.
    pub(super) fn known(&self) -> &Known {
        &self.shared.known
    }

    /// Blocks until a layer is here.
    ///
    /// # Errors
    /// As soon as any layer cannot be had; [`Job::end`] knows why.
    pub(super) fn await_layer(&self, n: usize) -> Result<()> {
        let mut state = self.shared.state.lock();
        loop {
            if state.here.get(n) == Some(&true) {
                return Ok(());
            }
            self.shared.call.check()?;
            state = self.shared.changed.wait_until(state, self.shared.call.deadline());
        }
    }

    /// Which layers are unpacked together.
    pub(super) fn runs(&self) -> &Runs {
        &self.shared.runs
    }

    /// All bytes of a layer that is here and [shares](Runs::shares) a snapshot. Blocks for containerd if they were not kept.
    pub(super) fn take_bytes(&self, n: usize) -> Result<Vec<u8>> {
        let layer = self.shared.layers.get(n).ok_or_else(|| Error::internal(format!("there is no layer {n}")))?;
        let Descriptor { digest, size_bytes, .. } = &layer.descriptor;
        let kept = self.shared.state.lock().kept.remove(&n);
        // Others may have brought the rest of it.
        if let Some(bytes) = kept.map(Kept::into_bytes).filter(|bytes| bytes.len() as u64 == *size_bytes) {
            return Ok(bytes);
        }
        self.shared.containerd.read_content(&self.shared.call, digest, *size_bytes)
    }

    /// Nothing is done with a layer.
    pub(super) fn let_go(&self, n: usize) {
        let kept = self.shared.state.lock().kept.remove(&n);
        drop(kept);
    }

    /// What was unpacked of a layer that is here.
    pub(super) fn take_staged(&self, n: usize) -> Option<Staged> {
        self.shared.state.lock().staged.remove(&n)
    }

    /// Ends it and returns what made a layer fail. Blocks until no thread works for it; unless all went well, they are
    /// broken off.
    pub(super) fn end(self, well: bool) -> Option<Error> {
        // What they say of being broken off is no news.
        let broken = if well { None } else { self.shared.state.lock().failed.take() };
        if !well {
            self.shared.call.cancel();
        }
        let mut state = self.shared.state.lock();
        state.over = true;
        while state.running > 0 {
            state = self.shared.changed.wait(state);
        }
        let failed = broken.or_else(|| state.failed.take().filter(|_| well));
        let unused = (std::mem::take(&mut state.staged), std::mem::take(&mut state.kept));
        drop(state);
        drop(unused);
        if let Some(stager) = &self.shared.stager {
            stager.end();
        }
        failed
    }
}

impl Shared {
    /// One layer, on a thread of the pool.
    fn run(&self, n: usize) {
        let Some(layer) = self.layers.get(n) else { return };
        {
            let mut state = self.state.lock();
            if state.over || self.call.check().is_err() {
                return;
            }
            state.running += 1;
        }
        // Also when it panics.
        let _running = Running(self);
        match self.fetch(n, layer).with_context(|| format!("layer {}", layer.descriptor.digest)) {
            Ok(aside) => {
                (self.report)(Step::Fetched { layer: n });
                let (mut staged, mut kept) = (None, None);
                match aside {
                    Some(Aside::Unpacking(staging)) => staged = staging.finish(&self.call, layer),
                    Some(Aside::Kept(bytes)) => kept = Some((n, bytes)),
                    None => {}
                }
                let mut state = self.state.lock();
                state.staged.extend(staged.map(|staged| (n, staged)));
                state.kept.extend(kept);
                if let Some(here) = state.here.get_mut(n) {
                    *here = true;
                }
            }
            Err(e) => self.fail(e),
        }
    }

    /// Fetches a layer, and unpacks it meanwhile if that is worth it, or keeps it to be unpacked with others.
    fn fetch(&self, n: usize, layer: &Layer) -> Result<Option<Aside>> {
        let Descriptor { digest, size_bytes, .. } = &layer.descriptor;
        // Whatever waits in it is woken by itself.
        let (call, _watch) = self.call.branch();
        let _turn = self.pulls.blobs.take(&call, digest)?;
        let may_be_there = self.known.may_have(digest) || self.pulls.written.lock().contains(digest);
        let content = Content { digest: digest.clone(), size_bytes: *size_bytes, labels: self.labels.clone() };
        let (session, report) = (self.session.clone(), self.report.clone());
        let from = (session, self.pulls.clone(), call.clone());
        let mut source = Remote::new(from, layer.descriptor.clone(), n, report, self.wrote.clone());
        // The name that containerd's own tools use: what one of them has begun is gone on with.
        let reference = format!("layer-{digest}");
        let begin = &|| self.begin(n, layer);
        let mut both = Both { remote: &mut source, layer, begin, aside: None, may_be_there };
        let written = origin::write(&*self.containerd, &call, &reference, &content, &mut both);
        let aside = both.aside;
        match source.failure() {
            Some(e) => Err(e).for_registry()?,
            None => written?,
        }
        self.pulls.written.lock().insert(digest.clone());
        Ok(aside)
    }

    /// Begins to unpack a layer of which nothing is here yet, or to keep it. That goes on when it is fetched.
    fn begin(&self, n: usize, layer: &Layer) -> Option<Aside> {
        if self.runs.shares(n) {
            return self.room.take(layer.descriptor.size_bytes).map(Aside::Kept);
        }
        let begun = self.stager.as_ref()?.begin(&self.call, layer, n);
        begun.map_err(|e| leave(layer, &e)).ok().flatten().map(Aside::Unpacking)
    }

    /// The first failure ends all.
    fn fail(&self, e: Error) {
        {
            let mut state = self.state.lock();
            state.failed.get_or_insert(e);
        }
        self.call.cancel();
        self.changed.notify_all();
    }
}

/// A thread at work.
struct Running<'a>(&'a Shared);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.state.lock().running -= 1;
        self.0.changed.notify_all();
    }
}
