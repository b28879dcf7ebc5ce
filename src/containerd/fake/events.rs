//! Event streams of the fake.

use std::collections::VecDeque;
use std::sync::Arc;

use super::state::State;
use crate::containerd::{Event, EventStream};
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
    fn next(&mut self) -> Result<Option<Event>> {
        let mut inner = self.0.inner.lock();
        loop {
            if inner.cancelled {
                return Ok(None);
            }
            if inner.broken {
                return Err(Error::new(Kind::Unavailable, "event stream of the fake containerd is broken"));
            }
            if let Some(event) = inner.events.pop_front() {
                return Ok(Some(event));
            }
            inner = self.0.changed.wait(inner);
        }
    }

    fn canceller(&self) -> Arc<dyn Fn() + Send + Sync> {
        let queue = Arc::clone(&self.0);
        Arc::new(move || queue.change(|inner| inner.cancelled = true))
    }
}
