//! The threads that verbs run on: made when calls come, gone when they are over, bounded in number.
//!
//! ```text
//! work in flight ≤ limit                 one more is refused
//! threads        = min(in flight, bound), at least `kept` once made; the rest of the work waits
//! ```

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use crate::error::{Error, Kind, Result};
use crate::sync::{Condvar, Mutex};
use crate::sys;

/// Only touched pages cost memory; verbs are shallow, and the C core has threads of its own.
const STACK_BYTES: usize = 256 << 10;
/// The name of a thread without work.
const IDLE: &str = "worker";

type Work = Box<dyn FnOnce() + Send>;

/// How large a pool may grow.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Threads at the same time.
    pub bound: usize,
    /// Threads that stay when there is nothing to do.
    pub kept: usize,
    /// Work that may be queued or running; more is refused.
    pub limit: usize,
}

/// A bounded pool of worker threads.
pub struct Workers {
    size: Size,
    shared: Arc<Shared>,
}

struct Shared {
    kept: usize,
    inner: Mutex<Inner>,
    /// Work was queued, or threads have become superfluous.
    work: Condvar,
    /// A call or a thread has ended.
    ended: Condvar,
}

#[derive(Default)]
struct Inner {
    queue: VecDeque<Queued>,
    /// Seats taken: work reserved, queued or running.
    in_flight: usize,
    threads: usize,
    closed: bool,
}

/// A place in the pool for one call; given back when its work has ended, or when dropped unused.
pub struct Seat(Arc<Shared>);

struct Queued {
    name: &'static str,
    work: Work,
    seat: Seat,
}

/// Threads of [`each`].
const AT_ONCE: usize = 8;

/// Does `act` for each of `items`, on several threads named `name` that end with it. Blocks until all are done.
///
/// # Errors
/// One of those of `act`; the others are done nevertheless.
pub fn each<T: Sync>(name: &str, items: &[T], act: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(None));
    let work = || {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(e) = act(item) {
                failed.lock().get_or_insert(e);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..AT_ONCE.min(items.len()) {
            let builder = thread::Builder::new().name(name.to_owned()).stack_size(STACK_BYTES);
            if let Err(e) = builder.spawn_scoped(scope, work) {
                log::warn!("start a thread of {name}: {e}");
            }
        }
        work();
    });
    let failed = failed.lock().take();
    failed.map_or(Ok(()), Err)
}

impl Workers {
    /// A pool without threads yet.
    pub fn new(size: Size) -> Workers {
        let (inner, work, ended) = (Mutex::default(), Condvar::new(), Condvar::new());
        Workers { size, shared: Arc::new(Shared { kept: size.kept, inner, work, ended }) }
    }

    /// A place for one call. Starts a thread if it needs one, but never waits for one.
    ///
    /// # Errors
    /// `ResourceExhausted` when all are taken, `Unavailable` after [`Workers::close`].
    pub fn reserve(&self) -> Result<Seat> {
        let (seat, start) = {
            let mut inner = self.shared.inner.lock();
            if inner.closed {
                return Err(Error::new(Kind::Unavailable, "cricket is shutting down"));
            }
            if inner.in_flight >= self.size.limit {
                return Err(busy("too many calls at the same time"));
            }
            inner.in_flight += 1;
            let start = inner.threads < inner.in_flight.min(self.size.bound);
            inner.threads += usize::from(start);
            (Seat(self.shared.clone()), start)
        };
        if start {
            self.start_thread()?;
        }
        Ok(seat)
    }

    fn start_thread(&self) -> Result<()> {
        let shared = self.shared.clone();
        let started = thread::Builder::new().name(IDLE.into()).stack_size(STACK_BYTES).spawn(move || shared.run());
        let Err(e) = started else { return Ok(()) };
        log::warn!("start a worker thread: {e}");
        let mut inner = self.shared.inner.lock();
        inner.threads -= 1;
        match inner.threads {
            0 => Err(busy("no worker thread can be started")),
            // Another one will get to it.
            _ => Ok(()),
        }
    }

    /// Queues `work` on a thread named `name`. Does not block.
    ///
    /// # Errors
    /// As [`Workers::reserve`].
    pub fn submit(&self, name: &'static str, work: impl FnOnce() + Send + 'static) -> Result<()> {
        self.reserve().map(|seat| seat.run(name, work))
    }

    /// Calls that have a place now.
    pub fn in_flight(&self) -> usize {
        self.shared.inner.lock().in_flight
    }

    /// Blocks until no call is in flight, or until `deadline`; returns whether none is.
    pub fn drain(&self, deadline: Instant) -> bool {
        self.wait(deadline, |inner| inner.in_flight == 0)
    }

    /// Refuses further calls and ends the idle threads.
    pub fn close(&self) {
        self.shared.inner.lock().closed = true;
        self.shared.work.notify_all();
    }

    fn wait(&self, deadline: Instant, until: impl Fn(&Inner) -> bool) -> bool {
        let mut inner = self.shared.inner.lock();
        while !until(&inner) && Instant::now() < deadline {
            inner = self.shared.ended.wait_until(inner, Some(deadline));
        }
        until(&inner)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.close();
    }
}

impl Seat {
    /// Queues `work` for the next free thread, which is named `name` meanwhile. Does not block.
    pub fn run(self, name: &'static str, work: impl FnOnce() + Send + 'static) {
        let shared = self.0.clone();
        shared.inner.lock().queue.push_back(Queued { name, work: Box::new(work), seat: self });
        shared.work.notify_one();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let superfluous = {
            let mut inner = self.0.inner.lock();
            inner.in_flight -= 1;
            inner.threads > inner.in_flight.max(self.0.kept)
        };
        self.0.ended.notify_all();
        // The seat may have been dropped unused while a thread waits for its work.
        if superfluous {
            self.0.work.notify_one();
        }
    }
}

impl Shared {
    /// The life of a worker.
    fn run(&self) {
        while let Some(Queued { name, work, seat }) = self.next() {
            sys::thread::set_name(name);
            work();
            sys::thread::set_name(IDLE);
            drop(seat);
        }
    }

    /// Blocks for work; `None` when this thread is one too many.
    fn next(&self) -> Option<Queued> {
        let mut inner = self.inner.lock();
        loop {
            if let Some(queued) = inner.queue.pop_front() {
                return Some(queued);
            }
            let kept = if inner.closed { 0 } else { self.kept };
            if inner.threads > inner.in_flight.max(kept) {
                inner.threads -= 1;
                let last = inner.threads == 0;
                drop(inner);
                self.ended.notify_all();
                if last {
                    sys::malloc::give_back();
                }
                return None;
            }
            inner = self.work.wait(inner);
        }
    }
}

fn busy(why: &str) -> Error {
    Error::new(Kind::ResourceExhausted, format!("{why}; try again"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    /// Far more than anything here takes; only a failing test waits for it.
    fn patience() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    fn pool(bound: usize) -> Workers {
        Workers::new(Size { bound, kept: 2, limit: 2 * bound })
    }

    /// Work that blocks until the returned sender is dropped.
    fn blocker(workers: &Workers) -> mpsc::Sender<()> {
        let (gate, wait) = mpsc::channel::<()>();
        workers.reserve().expect("a place").run("Blocker", move || wait.recv().unwrap_or(()));
        gate
    }

    #[test]
    fn threads_are_made_on_demand_up_to_the_bound_and_end_again() {
        let workers = pool(4);
        let gates: Vec<_> = (0..8).map(|_| blocker(&workers)).collect();
        assert_eq!(workers.shared.inner.lock().threads, 4);
        assert_eq!(workers.reserve().map(drop).map_err(|e| e.kind()), Err(Kind::ResourceExhausted));
        drop(gates);
        assert!(workers.drain(patience()));
        assert!(workers.wait(patience(), |inner| inner.threads == 2));
        workers.close();
        assert!(workers.wait(patience(), |inner| inner.threads == 0));
        assert_eq!(workers.reserve().map(drop).map_err(|e| e.kind()), Err(Kind::Unavailable));
    }

    #[test]
    fn each_is_done_once_also_after_a_failure_and_some_at_the_same_time() {
        let (done, meet) = (Mutex::new(Vec::new()), std::sync::Barrier::new(3));
        let items: Vec<usize> = (0..30).collect();
        let result = each("test", &items, |item| {
            if *item < 3 {
                meet.wait();
            }
            done.lock().push(*item);
            match item {
                7 => Err(Error::invalid("seven")),
                _ => Ok(()),
            }
        });
        assert_eq!(result.map_err(|e| e.to_string()), Err("seven".to_owned()));
        let mut done = done.lock().clone();
        done.sort_unstable();
        assert_eq!(done, items);
        each::<u8>("test", &[], |_| Err(Error::invalid("nothing"))).unwrap();
    }

    #[test]
    fn one_at_a_time_needs_one_thread() {
        let workers = pool(4);
        for _ in 0..10 {
            workers.reserve().expect("a place").run("Quick", || ());
            assert!(workers.drain(patience()));
        }
        assert_eq!(workers.shared.inner.lock().threads, 1);
    }

    #[test]
    fn a_place_that_is_not_used_is_given_back() {
        let workers = pool(1);
        for _ in 0..5 {
            drop(workers.reserve().expect("a place"));
        }
        assert_eq!(workers.in_flight(), 0);
        let nothing_kept = Workers::new(Size { bound: 1, kept: 0, limit: 1 });
        let seat = nothing_kept.reserve().expect("a place");
        assert_eq!(nothing_kept.shared.inner.lock().threads, 1);
        drop(seat);
        assert!(nothing_kept.wait(patience(), |inner| inner.threads == 0), "its thread ends");
    }

    #[test]
    fn draining_gives_up_at_its_deadline() {
        let workers = pool(1);
        let gate = blocker(&workers);
        assert!(!workers.drain(Instant::now()));
        drop(gate);
        assert!(workers.drain(patience()));
    }
}
