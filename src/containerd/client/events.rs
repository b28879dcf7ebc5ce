//! The event stream.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use cricket_proto::events::{PublishRequest, SubscribeRequest};
use cricket_proto::images::{ImageCreate, ImageDelete, ImageUpdate};
use cricket_proto::methods::events;
use cricket_proto::task_events::{TaskExit, TaskOOM};
use cricket_proto::types::Envelope;
use futures_util::task::AtomicWaker;
use futures_util::Stream;
use grpcio::ClientSStreamReceiver;
use protobuf::Message;

use super::convert::any_out;
use super::Client;
use crate::call::Call;
use crate::containerd::{time, Event, EventStream, Exit, Next, NAMESPACE};
use crate::error::{Error, Kind, Result};
use crate::ids::ContainerId;

/// Our own event, by which a new subscription shows that it is live.
const MARKER: &str = "/cricket/subscribed";
/// How long a marker may take before the next one is sent, and all of them together.
const MARKER_PATIENCE: Duration = Duration::from_millis(100);
const SUBSCRIBE_BUDGET: Duration = Duration::from_secs(10);

/// Returns once events arrive: containerd does not say when a subscription has begun, so we send events to ourselves
/// until one comes back. A list read after that misses nothing.
pub(super) fn subscribe(client: &Client) -> Result<Box<dyn EventStream>> {
    let filters =
        ["topic==\"/tasks/exit\"", "topic==\"/tasks/oom\"", "topic~=\"^/images/\"", "topic==\"/cricket/subscribed\""];
    let filters = filters.iter().map(|topic| format!("{topic},namespace==\"{NAMESPACE}\"")).collect();
    let request = SubscribeRequest { filters, ..SubscribeRequest::default() };
    let receiver = client
        .peer
        .rpc()
        .server_streaming(&events::SUBSCRIBE, &request, client.options(&Call::unbounded())?)
        .map_err(|e| client.error(e))?;
    let mut stream =
        Subscription { receiver, early: VecDeque::new(), signals: Arc::default(), peer: client.peer.name().to_owned() };

    let name = ContainerId::random()?.to_string();
    let marker = PublishRequest {
        topic: MARKER.to_owned(),
        event: any_out("cricket/subscribed", name.as_bytes()),
        ..PublishRequest::default()
    };
    let budget = Call::within(SUBSCRIBE_BUDGET);
    loop {
        client.quick(&budget, &events::PUBLISH, &marker)?;
        let patience = Instant::now() + MARKER_PATIENCE;
        while let Some(envelope) = stream.envelope(Some(patience))? {
            if envelope.topic == MARKER && envelope.event.value == name.as_bytes() {
                return Ok(Box::new(stream));
            }
            stream.early.extend(decode(&envelope)?);
        }
    }
}

/// What other threads want of the one that waits.
#[derive(Default)]
struct Signals {
    cancelled: AtomicBool,
    woken: AtomicBool,
    blocked: AtomicWaker,
}

impl Signals {
    fn send(&self, signal: &AtomicBool) {
        signal.store(true, Ordering::Release);
        self.blocked.wake();
    }
}

struct Subscription {
    receiver: ClientSStreamReceiver<Envelope>,
    /// What came before the marker.
    early: VecDeque<Event>,
    signals: Arc<Signals>,
    peer: String,
}

impl EventStream for Subscription {
    fn next(&mut self, until: Option<Instant>) -> Result<Next> {
        if let Some(event) = self.early.pop_front() {
            return Ok(Next::Event(event));
        }
        while let Some(envelope) = self.envelope(until)? {
            if let Some(event) = decode(&envelope)? {
                return Ok(Next::Event(event));
            }
        }
        Ok(if self.signals.cancelled.load(Ordering::Acquire) { Next::Cancelled } else { Next::Nothing })
    }

    fn canceller(&self) -> Arc<dyn Fn() + Send + Sync> {
        let signals = Arc::clone(&self.signals);
        Arc::new(move || signals.send(&signals.cancelled))
    }

    fn waker(&self) -> Arc<dyn Fn() + Send + Sync> {
        let signals = Arc::clone(&self.signals);
        Arc::new(move || signals.send(&signals.woken))
    }
}

impl Subscription {
    /// The next envelope; `None` when cancelled or woken, or when `until` has passed.
    fn envelope(&mut self, until: Option<Instant>) -> Result<Option<Envelope>> {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        loop {
            self.signals.blocked.register(&waker);
            if self.signals.cancelled.load(Ordering::Acquire) || self.signals.woken.swap(false, Ordering::AcqRel) {
                return Ok(None);
            }
            match Pin::new(&mut self.receiver).poll_next(&mut Context::from_waker(&waker)) {
                Poll::Ready(Some(Ok(envelope))) => return Ok(Some(envelope)),
                Poll::Ready(Some(Err(e))) => return Err(self.broken(&e)),
                Poll::Ready(None) => return Err(self.broken(&"containerd closed it")),
                Poll::Pending => {}
            }
            match until.map(|at| at.saturating_duration_since(Instant::now())) {
                None => thread::park(),
                Some(Duration::ZERO) => return Ok(None),
                Some(left) => thread::park_timeout(left),
            }
        }
    }

    /// Whatever code it ended with: the stream is gone and has to be made again.
    fn broken(&self, why: &dyn std::fmt::Display) -> Error {
        Error::new(Kind::Unavailable, format!("event stream of {}: {why}", self.peer))
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.receiver.cancel();
    }
}

/// Wakes the thread that polls.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// An envelope as our event; `None` for what does not concern us.
fn decode(envelope: &Envelope) -> Result<Option<Event>> {
    if envelope.namespace != NAMESPACE {
        return Ok(None);
    }
    // Go's names come bare or as a URL, depending on who published.
    let name = envelope.event.type_url.rsplit('/').next().unwrap_or_default();
    let bytes = &envelope.event.value;
    let event = match name {
        "containerd.events.TaskExit" => {
            let exit: TaskExit = parse(name, bytes)?;
            let first = exit.id.is_empty() || exit.id == exit.container_id;
            Event::TaskExit {
                exec_id: (!first).then_some(exit.id),
                id: exit.container_id,
                pid: exit.pid,
                exit: Exit { code: exit.exit_status, at: time::nanos(&exit.exited_at) },
            }
        }
        "containerd.events.TaskOOM" => Event::TaskOom { id: parse::<TaskOOM>(name, bytes)?.container_id },
        "containerd.services.images.v1.ImageCreate" => changed(parse::<ImageCreate>(name, bytes)?.name),
        "containerd.services.images.v1.ImageUpdate" => changed(parse::<ImageUpdate>(name, bytes)?.name),
        "containerd.services.images.v1.ImageDelete" => changed(parse::<ImageDelete>(name, bytes)?.name),
        _ => return Ok(None),
    };
    Ok(Some(event))
}

fn changed(name: String) -> Event {
    Event::ImageChanged { name }
}

fn parse<M: Message>(name: &str, bytes: &[u8]) -> Result<M> {
    M::parse_from_bytes(bytes).map_err(|e| Error::internal(format!("decode event {name}: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(type_url: &str, message: &impl Message) -> Envelope {
        let value = message.write_to_bytes().expect("in memory");
        Envelope { namespace: NAMESPACE.into(), event: any_out(type_url, &value), ..Envelope::default() }
    }

    #[test]
    fn an_exit_of_the_first_process_and_of_an_exec() {
        let mut exit =
            TaskExit { container_id: "c".into(), id: "c".into(), pid: 7, exit_status: 137, ..TaskExit::new() };
        let first = decode(&envelope("containerd.events.TaskExit", &exit)).expect("decodes").expect("ours");
        let of = |exec_id| Event::TaskExit { id: "c".into(), exec_id, pid: 7, exit: Exit { code: 137, at: 0 } };
        assert_eq!(first, of(None));
        exit.id = "e".into();
        let exec = decode(&envelope("type.googleapis.com/containerd.events.TaskExit", &exit)).expect("decodes");
        assert_eq!(exec, Some(of(Some("e".into()))));
    }

    #[test]
    fn images_and_strangers() {
        let image = ImageDelete { name: "i".into(), ..ImageDelete::new() };
        let ours = envelope("containerd.services.images.v1.ImageDelete", &image);
        assert_eq!(decode(&ours).expect("decodes"), Some(Event::ImageChanged { name: "i".into() }));
        let strange = Envelope { namespace: "moby".into(), ..ours.clone() };
        assert_eq!(decode(&strange).expect("decodes"), None);
        assert_eq!(decode(&envelope("containerd.events.TaskStart", &image)).expect("decodes"), None);
        let torn = Envelope { event: any_out("containerd.events.TaskOOM", &[0xff]), ..ours };
        assert_eq!(decode(&torn).map_err(|e| e.kind()), Err(Kind::Internal));
    }
}
