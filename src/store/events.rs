//! What happens to pods and containers, for clients that listen.

use std::collections::VecDeque;
use std::sync::Arc;

use cricket_proto::runtime::ContainerEventType;

use super::Sandbox;
use crate::call::Call;
use crate::error::{Error, Kind, Result};
use crate::sync::{Condvar, Mutex};

/// Each listener keeps a thread.
const MAX_LISTENERS: usize = 8;
/// What a listener may be behind; with more it has to list anyway.
const MAX_BEHIND: usize = 1000;

/// Something happened to a container, or to a pod sandbox.
#[derive(Clone, Debug)]
pub struct Event {
    /// Of the container, or of the sandbox.
    pub id: String,
    pub kind: ContainerEventType,
    /// Nanoseconds since the epoch.
    pub at: i64,
    /// The pod, which may be gone by now.
    pub sandbox: Arc<Sandbox>,
}

/// Those who listen.
#[derive(Debug, Default)]
pub struct Events {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    listeners: Vec<Arc<Queue>>,
    closed: bool,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<Event>,
    overrun: bool,
    closed: bool,
}

impl Events {
    /// Tells everybody who listens. Does not block.
    pub fn tell(&self, event: &Event) {
        let listeners = self.inner.lock().listeners.clone();
        for queue in listeners {
            queue.push(event.clone());
        }
    }

    /// Hears what happens from now on, until it is dropped.
    ///
    /// # Errors
    /// `ResourceExhausted` when too many listen; `Unavailable` after [`Events::close`].
    pub fn listen(&self) -> Result<Listener<'_>> {
        let mut inner = self.inner.lock();
        if inner.closed {
            return Err(Error::new(Kind::Unavailable, "cricket is about to end"));
        }
        if inner.listeners.len() >= MAX_LISTENERS {
            return Err(Error::new(Kind::ResourceExhausted, format!("{MAX_LISTENERS} clients get events already")));
        }
        let queue = Arc::new(Queue::default());
        inner.listeners.push(queue.clone());
        Ok(Listener { events: self, queue })
    }

    /// How many listen.
    pub fn listeners(&self) -> usize {
        self.inner.lock().listeners.len()
    }

    /// Nothing more will happen: listeners hear what they are behind, and then the end.
    pub fn close(&self) {
        let listeners = {
            let mut inner = self.inner.lock();
            inner.closed = true;
            std::mem::take(&mut inner.listeners)
        };
        listeners.iter().for_each(|queue| queue.change(|waiting| waiting.closed = true));
    }
}

impl Queue {
    fn push(&self, event: Event) {
        self.change(|waiting| match waiting.events.len() < MAX_BEHIND {
            true => waiting.events.push_back(event),
            false => waiting.overrun = true,
        });
    }

    fn change(&self, change: impl FnOnce(&mut Waiting)) {
        change(&mut self.waiting.lock());
        self.changed.notify_all();
    }
}

/// One who listens.
#[derive(Debug)]
pub struct Listener<'a> {
    events: &'a Events,
    queue: Arc<Queue>,
}

impl Listener<'_> {
    /// The next event, in the order in which they happened; `None` at the end. Blocks until there is one.
    ///
    /// # Errors
    /// What [`Call::check`] says when nobody waits any more; `ResourceExhausted` when it was too slow, and events are
    /// lost.
    pub fn next(&self, call: &Call) -> Result<Option<Event>> {
        let queue = self.queue.clone();
        let watch = call.on_cancel(move || queue.change(|_| ()));
        let mut waiting = self.queue.waiting.lock();
        let next = loop {
            if waiting.overrun {
                let message = format!("more than {MAX_BEHIND} events were not read in time: list, and listen again");
                break Err(Error::new(Kind::ResourceExhausted, message));
            }
            if let Some(event) = waiting.events.pop_front() {
                break Ok(Some(event));
            }
            if waiting.closed {
                break Ok(None);
            }
            if let Err(e) = call.check() {
                break Err(e);
            }
            waiting = self.queue.changed.wait_until(waiting, call.deadline());
        };
        drop(waiting);
        drop(watch);
        next
    }
}

impl Drop for Listener<'_> {
    fn drop(&mut self) {
        self.events.inner.lock().listeners.retain(|queue| !Arc::ptr_eq(queue, &self.queue));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cricket_proto::records;
    use std::time::Duration;

    fn event(n: i64) -> Event {
        let sandbox = Arc::new(Sandbox::ready(&records::Sandbox::default()));
        Event { id: n.to_string(), kind: ContainerEventType::CONTAINER_CREATED_EVENT, at: n, sandbox }
    }

    #[test]
    fn everybody_hears_everything_since_it_listens_and_then_the_end() {
        let events = Events::default();
        events.tell(&event(0));
        let first = events.listen().unwrap();
        events.tell(&event(1));
        let second = events.listen().unwrap();
        events.tell(&event(2));
        events.close();
        events.tell(&event(3));
        let call = Call::unbounded();
        let all = |l: &Listener<'_>| std::iter::from_fn(|| l.next(&call).unwrap()).map(|e| e.at).collect::<Vec<_>>();
        assert_eq!((all(&first), all(&second)), (vec![1, 2], vec![2]));
        assert_eq!(events.listen().map(drop).map_err(|e| e.kind()), Err(Kind::Unavailable));
    }

    #[test]
    fn a_wait_ends_with_its_client() {
        let events = Events::default();
        let listener = events.listen().unwrap();
        let late = listener.next(&Call::within(Duration::ZERO)).map(drop).map_err(|e| e.kind());
        assert_eq!(late, Err(Kind::DeadlineExceeded));
        let call = Call::unbounded();
        let ended = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| listener.next(&call).map(drop).map_err(|e| e.kind()));
            call.cancel();
            waiting.join().unwrap()
        });
        assert_eq!(ended, Err(Kind::Canceled));
        drop(listener);
        assert_eq!(events.listeners(), 0);
    }

    #[test]
    fn there_are_bounds() {
        let events = Events::default();
        let listener = events.listen().unwrap();
        let more: Vec<_> = std::iter::from_fn(|| events.listen().ok()).take(100).collect();
        assert_eq!(more.len(), MAX_LISTENERS - 1);
        (0..=MAX_BEHIND as i64).for_each(|n| events.tell(&event(n)));
        let lost = listener.next(&Call::unbounded()).map(drop).map_err(|e| e.kind());
        assert_eq!(lost, Err(Kind::ResourceExhausted));
    }
}
