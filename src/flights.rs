//! Requests that are carried out once for all who send them at the same time.
//!
//! ```text
//! the first of its key     takes off, and does the work on its own thread
//! an equal one meanwhile   comes aboard, and gets what came of it
//! another one meanwhile    is refused while somebody waits for the first, else waits until it is undone
//! all have left            the work is cancelled: it ends at its next step, and what it made is undone
//! ```

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use crate::call::{Call, Watch};
use crate::error::{Error, Kind, Result};
use crate::sync::{Condvar, Mutex};

/// What is under way, by key `K`: the request `Q`, and what will come of it, `T`.
pub struct Flights<K, Q, T>(Mutex<HashMap<K, Arc<Flight<Q, T>>>>);

struct Flight<Q, T> {
    request: Arc<Q>,
    /// That of the work: with the deadline of who began it, cancelled when the last one leaves.
    call: Call,
    state: Mutex<State<T>>,
    landed: Condvar,
}

struct State<T> {
    aboard: usize,
    /// `None` inside when the work panicked.
    outcome: Option<Option<Outcome<T>>>,
}

type Outcome<T> = Result<T, (Kind, String)>;

/// How a request stands to what is under way.
enum Boarding<Q, T> {
    First(Arc<Flight<Q, T>>, Passenger<Q, T>),
    Aboard(Arc<Flight<Q, T>>, Passenger<Q, T>),
    /// Nobody waits for it any more.
    Abandoned(Arc<Flight<Q, T>>),
    Refused,
}

/// One that waits for a flight, until it is dropped or its call is cancelled.
struct Passenger<Q, T> {
    seat: Arc<Seat<Q, T>>,
    _cancelled: Watch,
}

struct Seat<Q, T> {
    flight: Arc<Flight<Q, T>>,
    left: AtomicBool,
}

impl<K, Q, T> Default for Flights<K, Q, T> {
    fn default() -> Self {
        Flights(Mutex::default())
    }
}

impl<K, Q, T> Flights<K, Q, T>
where
    K: Clone + Eq + Hash,
    Q: PartialEq + Send + Sync + 'static,
    T: Clone + Send + 'static,
{
    /// Does `work`, unless somebody is at the same `request`: then blocks for what comes of that. `work` is given the
    /// call to ask at its steps, which outlives the own one as long as others wait. Should its time be up before that
    /// of those others, one of them does it again.
    ///
    /// # Errors
    /// Those of `work`; `AlreadyExists` if somebody waits for another request of this key; `Canceled` or
    /// `DeadlineExceeded` of the own call.
    pub fn join(&self, call: &Call, key: &K, request: Q, work: impl Fn(&Call, &Q) -> Result<T>) -> Result<T> {
        let request = Arc::new(request);
        loop {
            call.check()?;
            match self.board(call, key, &request) {
                Boarding::First(flight, passenger) => {
                    let mut landing = Landing { flights: self, key, flight: &flight, outcome: None };
                    let done = work(&flight.call, &request);
                    landing.outcome = Some(match &done {
                        Ok(done) => Ok(done.clone()),
                        Err(e) => Err((e.kind(), e.to_string())),
                    });
                    drop(landing);
                    drop(passenger);
                    return done;
                }
                Boarding::Aboard(flight, _passenger) => match flight.wait(call)? {
                    Some(Ok(done)) => return Ok(done),
                    Some(Err((kind, message))) if flight.call.check().is_ok() => return Err(Error::new(kind, message)),
                    _ => {}
                },
                Boarding::Abandoned(flight) => drop(flight.wait(call)?),
                Boarding::Refused => {
                    let message =
                        "a different request for the same is under way: wait for its end, or use another attempt";
                    return Err(Error::new(Kind::AlreadyExists, message));
                }
            }
        }
    }

    fn board(&self, call: &Call, key: &K, request: &Arc<Q>) -> Boarding<Q, T> {
        let (flight, first) = {
            let mut flights = self.0.lock();
            match flights.get(key) {
                Some(flight) if !flight.is_boarded() => return Boarding::Abandoned(flight.clone()),
                Some(flight) if flight.request != *request => return Boarding::Refused,
                Some(flight) => (flight.clone(), false),
                None => {
                    let state = Mutex::new(State { aboard: 1, outcome: None });
                    let (request, call) = (request.clone(), call.apart());
                    let flight = Arc::new(Flight { request, call, state, landed: Condvar::new() });
                    flights.insert(key.clone(), flight.clone());
                    (flight, true)
                }
            }
        };
        // It may have been left by all since, and then it is not come aboard of.
        if !first && !flight.come_aboard() {
            return Boarding::Abandoned(flight);
        }
        let seat = Arc::new(Seat { flight: flight.clone(), left: AtomicBool::new(false) });
        let own = seat.clone();
        let passenger = Passenger { seat, _cancelled: call.on_cancel(move || own.leave()) };
        match first {
            true => Boarding::First(flight, passenger),
            false => Boarding::Aboard(flight, passenger),
        }
    }
}

impl<Q, T: Clone> Flight<Q, T> {
    /// Whether anybody waits for it who can get something.
    fn is_boarded(&self) -> bool {
        self.state.lock().aboard > 0 && self.call.check().is_ok()
    }

    fn come_aboard(&self) -> bool {
        let mut state = self.state.lock();
        let boarded = state.aboard > 0;
        state.aboard += usize::from(boarded);
        boarded
    }

    /// Blocks until it has landed.
    fn wait(self: &Arc<Self>, call: &Call) -> Result<Option<Outcome<T>>>
    where
        Q: Send + Sync + 'static,
        T: Send + 'static,
    {
        let own = self.clone();
        let _watch = call.on_cancel(move || {
            // With the lock, or it may come between our look and our sleep.
            drop(own.state.lock());
            own.landed.notify_all();
        });
        let mut state = self.state.lock();
        loop {
            if let Some(outcome) = &state.outcome {
                return Ok(outcome.clone());
            }
            call.check()?;
            state = self.landed.wait_until(state, call.deadline());
        }
    }
}

impl<Q, T> Seat<Q, T> {
    fn leave(&self) {
        if self.left.swap(true, Ordering::AcqRel) {
            return;
        }
        let nobody_waits = {
            let mut state = self.flight.state.lock();
            state.aboard -= 1;
            state.aboard == 0 && state.outcome.is_none()
        };
        if nobody_waits {
            self.flight.call.cancel();
        }
    }
}

impl<Q, T> Drop for Passenger<Q, T> {
    fn drop(&mut self) {
        self.seat.leave();
    }
}

/// Ends a flight, also when the work panics.
struct Landing<'a, K: Eq + Hash, Q, T> {
    flights: &'a Flights<K, Q, T>,
    key: &'a K,
    flight: &'a Flight<Q, T>,
    outcome: Option<Outcome<T>>,
}

impl<K: Eq + Hash, Q, T> Drop for Landing<'_, K, Q, T> {
    fn drop(&mut self) {
        self.flights.0.lock().remove(self.key);
        self.flight.state.lock().outcome = Some(self.outcome.take());
        self.flight.landed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc::{self, Receiver, Sender};
    use std::thread;
    use std::time::Duration;

    type Numbers = Flights<u8, u8, usize>;

    /// Work that tells when it begins, and goes on when it is told to.
    struct Gate {
        begun: Sender<()>,
        begins: Mutex<Receiver<()>>,
        go: Sender<()>,
        told: Mutex<Receiver<()>>,
        times: AtomicUsize,
    }

    impl Gate {
        fn new() -> Gate {
            let ((begun, begins), (go, told)) = (mpsc::channel(), mpsc::channel());
            Gate { begun, begins: Mutex::new(begins), go, told: Mutex::new(told), times: AtomicUsize::new(0) }
        }

        fn work(&self, call: &Call) -> Result<usize> {
            self.begun.send(()).unwrap();
            self.told.lock().recv().unwrap();
            call.check()?;
            Ok(self.times.fetch_add(1, Ordering::Relaxed))
        }

        fn wait_begun(&self) {
            self.begins.lock().recv().unwrap();
        }

        fn go(&self) {
            self.go.send(()).unwrap();
        }
    }

    fn aboard(flights: &Numbers) -> usize {
        let flight = flights.0.lock().get(&1).cloned();
        flight.map_or(0, |flight| flight.state.lock().aboard)
    }

    fn until_aboard(flights: &Numbers, count: usize) {
        while aboard(flights) != count {
            thread::yield_now();
        }
    }

    #[test]
    fn the_second_gets_what_the_first_got() {
        let (flights, gate) = (Numbers::default(), Gate::new());
        thread::scope(|scope| {
            let first = scope.spawn(|| flights.join(&Call::unbounded(), &1, 5, |call, _| gate.work(call)));
            gate.wait_begun();
            let second = scope.spawn(|| flights.join(&Call::unbounded(), &1, 5, |_, _| panic!("somebody is at it")));
            until_aboard(&flights, 2);
            gate.go();
            assert_eq!((first.join().unwrap().unwrap(), second.join().unwrap().unwrap()), (0, 0));
        });
        assert_eq!(flights.join(&Call::unbounded(), &1, 6, |_, _| Ok(7)).unwrap(), 7, "it has landed");
    }

    #[test]
    fn the_second_gets_its_failure_too() {
        let (flights, gate) = (Numbers::default(), Gate::new());
        let work = |call: &Call, _: &u8| gate.work(call).and(Err(Error::invalid("so it is")));
        thread::scope(|scope| {
            let first = scope.spawn(|| flights.join(&Call::unbounded(), &1, 5, work));
            gate.wait_begun();
            let second = scope.spawn(|| flights.join(&Call::unbounded(), &1, 5, |_, _| panic!("somebody is at it")));
            until_aboard(&flights, 2);
            gate.go();
            for waiting in [first, second] {
                assert_eq!(waiting.join().unwrap().map_err(|e| e.to_string()), Err("so it is".to_owned()));
            }
        });
    }

    #[test]
    fn another_request_is_refused_while_somebody_waits_for_the_first() {
        let (flights, gate) = (Numbers::default(), Gate::new());
        thread::scope(|scope| {
            let first = scope.spawn(|| flights.join(&Call::unbounded(), &1, 5, |call, _| gate.work(call)));
            gate.wait_begun();
            let other = flights.join(&Call::unbounded(), &1, 6, |_, _| panic!("another is at it"));
            assert_eq!(other.map_err(|e| e.kind()), Err(Kind::AlreadyExists));
            gate.go();
            first.join().unwrap().unwrap();
        });
    }

    #[test]
    fn the_work_goes_on_for_the_second_when_the_first_leaves() {
        let (flights, gate, call) = (Numbers::default(), Gate::new(), Call::unbounded());
        thread::scope(|scope| {
            let first = scope.spawn(|| flights.join(&call, &1, 5, |call, _| gate.work(call)));
            gate.wait_begun();
            let second = scope.spawn(|| flights.join(&Call::unbounded(), &1, 5, |_, _| panic!("somebody is at it")));
            until_aboard(&flights, 2);
            call.cancel();
            gate.go();
            assert_eq!(second.join().unwrap().unwrap(), 0);
            first.join().unwrap().unwrap();
        });
    }

    #[test]
    fn what_nobody_waits_for_is_cancelled_and_a_retry_waits_for_its_end() {
        let (flights, gate, call) = (Numbers::default(), Gate::new(), Call::unbounded());
        thread::scope(|scope| {
            let first = scope.spawn(|| flights.join(&call, &1, 5, |call, _| gate.work(call)));
            gate.wait_begun();
            call.cancel();
            assert_eq!(aboard(&flights), 0);
            // Of other content even: it comes after the first, whose undo is not through.
            let retry = scope.spawn(|| flights.join(&Call::unbounded(), &1, 6, |call, _| gate.work(call)));
            let impatient = flights.join(&Call::within(Duration::ZERO), &1, 5, |_, _| panic!("not yet"));
            assert_eq!(impatient.map_err(|e| e.kind()), Err(Kind::DeadlineExceeded));
            gate.go();
            assert_eq!(first.join().unwrap().map_err(|e| e.kind()), Err(Kind::Canceled));
            gate.wait_begun();
            gate.go();
            assert_eq!(retry.join().unwrap().unwrap(), 0);
        });
    }

    #[test]
    fn who_waits_can_be_cancelled_and_the_work_goes_on() {
        let (flights, gate, call) = (Numbers::default(), Gate::new(), Call::unbounded());
        thread::scope(|scope| {
            let first = scope.spawn(|| flights.join(&Call::unbounded(), &1, 5, |call, _| gate.work(call)));
            gate.wait_begun();
            let second = scope.spawn(|| flights.join(&call, &1, 5, |_, _| panic!("somebody is at it")));
            until_aboard(&flights, 2);
            call.cancel();
            assert_eq!(second.join().unwrap().map_err(|e| e.kind()), Err(Kind::Canceled));
            assert_eq!(aboard(&flights), 1);
            gate.go();
            first.join().unwrap().unwrap();
        });
    }

    #[test]
    fn one_of_those_with_more_time_does_again_what_ran_out_of_it() {
        let flights = Numbers::default();
        let state = Mutex::new(State { aboard: 1, outcome: None });
        let call = Call::within(Duration::from_millis(20));
        let flight = Arc::new(Flight { request: Arc::new(5), call: call.clone(), state, landed: Condvar::new() });
        flights.0.lock().insert(1, flight.clone());
        thread::scope(|scope| {
            let second = scope.spawn(|| flights.join(&Call::unbounded(), &1, 5, |_, _| Ok(9)));
            while call.check().is_ok() {
                thread::yield_now();
            }
            let late = Some(Err((Kind::DeadlineExceeded, String::new())));
            drop(Landing { flights: &flights, key: &1, flight: &flight, outcome: late });
            assert_eq!(second.join().unwrap().unwrap(), 9);
        });
    }
}
