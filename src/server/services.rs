//! The table RPC → verb.

use cricket_proto::methods::{image_service, runtime_service};

use super::{State, Table};

/// Both services of the CRI. What has no verb is answered `Unimplemented`.
pub fn cri<S: State>(table: Table<S>) -> Table<S> {
    table.rest(runtime_service::ALL).rest(image_service::ALL)
}
