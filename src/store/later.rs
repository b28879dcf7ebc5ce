//! What is to be done later, and again until it is done: the pause of each doubles from a second to five minutes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::sync::Mutex;

/// The pause before the second try, and the longest one.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

/// One thing that is to be done.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Errand {
    /// Remove what belongs to nothing.
    Sweep,
    /// Write down how this container ended, and end its task.
    Settle(String),
    /// Find out what this container does, which nobody could say.
    Ask(String),
}

/// The errands of a daemon, each once.
#[derive(Default)]
pub struct Later {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// When, and how long the pause before it was.
    errands: BTreeMap<Errand, (Instant, Duration)>,
    /// Tells whoever waits for the next one that there is an earlier one.
    wake: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl Later {
    /// To be done after the shortest pause, if it is not to be done already.
    pub fn add(&self, errand: Errand) {
        self.add_after(errand, PAUSES.0);
    }

    /// To be done after this pause, if it is not to be done already.
    pub fn add_after(&self, errand: Errand, pause: Duration) {
        let pause = pause.min(PAUSES.1);
        let wake = {
            let mut inner = self.inner.lock();
            inner.errands.entry(errand).or_insert_with(|| (Instant::now() + pause, pause));
            inner.wake.clone()
        };
        if let Some(wake) = wake {
            wake();
        }
    }

    /// Takes out what is due, each with the pause before the next try, should this one fail.
    pub fn due(&self) -> Vec<(Errand, Duration)> {
        let (now, mut due) = (Instant::now(), Vec::new());
        self.inner.lock().errands.retain(|errand, (at, pause)| {
            let waits = *at > now;
            if !waits {
                due.push((errand.clone(), *pause * 2));
            }
            waits
        });
        due
    }

    /// When the next one is due, if there is one.
    pub fn next(&self) -> Option<Instant> {
        self.inner.lock().errands.values().map(|(at, _)| *at).min()
    }

    /// What is to be called when one was added.
    pub fn on_add(&self, wake: Arc<dyn Fn() + Send + Sync>) {
        self.inner.lock().wake = Some(wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn task(id: &str) -> Errand {
        Errand::Settle(id.into())
    }

    #[test]
    fn each_once_and_no_earlier_than_it_is_due() {
        let later = Later::default();
        assert_eq!((later.next(), later.due()), (None, Vec::new()));
        later.add(task("a"));
        let first = later.next();
        later.add_after(task("a"), Duration::ZERO);
        assert_eq!((later.next(), later.due()), (first, Vec::new()), "it is to be done already");
        later.add_after(task("b"), Duration::ZERO);
        assert_eq!(later.due(), [(task("b"), Duration::ZERO)]);
        assert_eq!(later.next(), first);
    }

    #[test]
    fn the_pause_doubles_up_to_the_longest() {
        let later = Later::default();
        later.add_after(Errand::Sweep, PAUSES.1 * 3);
        assert!(later.next().is_some_and(|at| at <= Instant::now() + PAUSES.1));
        let later = Later::default();
        later.add_after(Errand::Sweep, Duration::from_nanos(1));
        std::thread::sleep(Duration::from_millis(1));
        assert_eq!(later.due(), [(Errand::Sweep, Duration::from_nanos(2))]);
    }

    #[test]
    fn whoever_waits_is_told_of_a_new_one() {
        let (later, told) = (Later::default(), Arc::new(AtomicUsize::new(0)));
        later.add(Errand::Sweep);
        let own = told.clone();
        later.on_add(Arc::new(move || {
            own.fetch_add(1, Ordering::Relaxed);
        }));
        later.add(task("a"));
        assert_eq!(told.load(Ordering::Relaxed), 1);
    }
}
