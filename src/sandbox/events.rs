//! GetContainerEvents: what happens to pods and containers, as it happens.

use cricket_proto::runtime::{ContainerEventResponse, GetEventsRequest};
use protobuf::MessageField;

use super::status::describe;
use crate::call::Call;
use crate::container;
use crate::error::Result;
use crate::runtime::Runtime;
use crate::store::events::Event;

/// Sends every event from now on, each with the pod as it is then. Runs until the client goes or the daemon ends.
///
/// # Errors
/// `ResourceExhausted` when too many listen, or when the client reads too slowly; those of `send`.
pub fn events(
    rt: &Runtime,
    call: &Call,
    _: GetEventsRequest,
    send: &mut dyn FnMut(ContainerEventResponse) -> Result<()>,
) -> Result<()> {
    let listener = rt.events.listen()?;
    while let Some(event) = listener.next(call)? {
        send(message(rt, event))?;
    }
    Ok(())
}

fn message(rt: &Runtime, event: Event) -> ContainerEventResponse {
    let containers = container::of_sandbox(rt, &event.sandbox.id);
    ContainerEventResponse {
        container_id: event.id,
        container_event_type: event.kind.into(),
        created_at: event.at,
        pod_sandbox_status: MessageField::some(describe(&event.sandbox)),
        containers_statuses: containers.iter().map(|c| container::describe(rt, c)).collect(),
        ..Default::default()
    }
}
