//! Errors on their way out: the status code, once, and the log line, once.

use std::time::Duration;

use grpcio::{RpcStatus, RpcStatusCode};
use log::Level;

use crate::error::{Error, Kind, Result};

/// The message travels in a header, and clients bound the size of those.
const MESSAGE_BYTES: usize = 4096;

/// The status that the client sees.
pub(super) fn status(e: &Error) -> RpcStatus {
    let mut message = e.to_string();
    if message.len() > MESSAGE_BYTES {
        let mut end = MESSAGE_BYTES;
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        message.truncate(end);
        message.push('…');
    }
    RpcStatus::with_message(RpcStatusCode::from(i32::from(e.kind().code())), message)
}

/// Logs how a call ended.
pub(super) fn log<T>(rpc: &str, took: Duration, result: &Result<T>) {
    match result {
        Ok(_) => log::log!(level_of_success(rpc), "{rpc}: done in {took:.1?}"),
        Err(e) => log::log!(level_of_failure(e.kind()), "{rpc}: {e} ({:?}, {took:.1?})", e.kind()),
    }
}

/// What the kubelet asks every second is not worth a line.
fn level_of_success(rpc: &str) -> Level {
    let noise = rpc.starts_with("List")
        || rpc.ends_with("Status")
        || rpc.ends_with("Stats")
        || matches!(rpc, "Version" | "ImageFsInfo");
    if noise {
        Level::Trace
    } else {
        Level::Debug
    }
}

/// A refusal is the client's affair; what went wrong on this node is the operator's.
fn level_of_failure(kind: Kind) -> Level {
    match kind {
        Kind::Internal => Level::Error,
        Kind::Unknown | Kind::DeadlineExceeded | Kind::Aborted | Kind::ResourceExhausted | Kind::Unavailable => {
            Level::Warn
        }
        Kind::NotFound | Kind::Unimplemented | Kind::Canceled => Level::Debug,
        Kind::InvalidArgument | Kind::AlreadyExists | Kind::FailedPrecondition | Kind::PermissionDenied => Level::Info,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_is_the_error_and_nothing_else() {
        let status = status(&Error::new(Kind::Unknown, "RegistryUnavailable: no route"));
        assert_eq!(status.code(), RpcStatusCode::UNKNOWN);
        assert_eq!(status.message(), "RegistryUnavailable: no route");
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let long = format!("x{}", "é".repeat(MESSAGE_BYTES));
        let status = status(&Error::internal(long));
        assert!(status.message().len() <= MESSAGE_BYTES + '…'.len_utf8());
        assert!(status.message().ends_with("é…"));
    }

    #[test]
    fn the_lists_are_quieter_than_the_verbs() {
        assert_eq!(level_of_success("ListContainers"), Level::Trace);
        assert_eq!(level_of_success("PodSandboxStatus"), Level::Trace);
        assert_eq!(level_of_success("RunPodSandbox"), Level::Debug);
    }
}
