//! Event streams of the fake.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::state::State;
use crate::containerd::{Event, EventStream, Next};
use crate::error::{Error, Kind, Result};
use crate::sync::{Condvar, Mutex};

#[derive(Default)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Default)]
struct Inner {
    events: VecDeque<Event>,
    broken: bool,
    cancelled: bool,
    woken: bool,
}

impl Queue {
    fn change(&self, change: impl FnOnce(&mut Inner)) {
        change(&mut self.inner.lock());
        self.changed.notify_all();
    }

    pub(super) fn break_off(&self) {
        self.change(|inner| inner.broken = true);
    }
}

impl State {
    pub(super) fn subscribe(&mut self) -> Box<dyn EventStream> {
        let queue = Arc::new(Queue::default());
        self.streams.push(Arc::clone(&queue));
        Box::new(Subscription(queue))
    }

    pub(super) fn publish(&mut self, event: &Event) {
        // A stream that only we still know has been dropped.
        self.streams.retain(|stream| Arc::strong_count(stream) > 1);
        for stream in &self.streams {
            stream.change(|inner| inner.events.push_back(event.clone()));
        }
    }
}

struct Subscription(Arc<Queue>);

impl EventStream for Subscription {
    fn next(&mut self, until: Option<Instant>) -> Result<Next> {
        let mut inner = self.0.inner.lock();
        loop {
            if inner.cancelled {
                return Ok(Next::Cancelled);
            }
            if inner.broken {
                return Err(Error::new(Kind::Unavailable, "event stream of the fake containerd is broken"));
            }
            if let Some(event) = inner.events.pop_front() {
                return Ok(Next::Event(event));
            }
            if std::mem::take(&mut inner.woken) || until.is_some_and(|at| at <= Instant::now()) {
                return Ok(Next::Nothing);
            }
            inner = self.0.changed.wait_until(inner, until);
        }
    }

    fn canceller(&self) -> Arc<dyn Fn() + Send + Sync> {
        let queue = Arc::clone(&self.0);
        Arc::new(move || queue.change(|inner| inner.cancelled = true))
    }

    fn waker(&self) -> Arc<dyn Fn() + Send + Sync> {
        let queue = Arc::downgrade(&self.0);
        Arc::new(move || {
            if let Some(queue) = queue.upgrade() {
                queue.change(|inner| inner.woken = true);
            }
        })
    }
}
