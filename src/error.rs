//! The one error type: its [`Kind`] is the gRPC code, its message says what we were doing and what went wrong.

use std::fmt;
use std::io::ErrorKind;

const OUT_OF_RANGE: u8 = 11;
const UNAUTHENTICATED: u8 = 16;

/// What kind of failure this is, numbered as the gRPC status codes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The client went away or cancelled.
    Canceled = 1,
    /// Anything that has no better name: a plugin that failed, a system call that did.
    Unknown = 2,
    /// The request can never succeed as it is.
    InvalidArgument = 3,
    /// The client's deadline, or one of our own, has passed.
    DeadlineExceeded = 4,
    /// There is no such object.
    NotFound = 5,
    /// The object exists already.
    AlreadyExists = 6,
    /// A limit of ours is reached; the same call may succeed later.
    ResourceExhausted = 8,
    /// The object is in the wrong state for this call.
    FailedPrecondition = 9,
    /// The operation was broken off; a retry may join or repeat it.
    Aborted = 10,
    /// We do not offer this.
    Unimplemented = 12,
    /// A bug: an invariant of ours does not hold.
    Internal = 13,
    /// Not now: containerd is away, or recovery is still running.
    Unavailable = 14,
    /// The caller may not do this.
    PermissionDenied = 7,
}

impl Kind {
    const ALL: [Kind; 13] = [
        Kind::Canceled,
        Kind::Unknown,
        Kind::InvalidArgument,
        Kind::DeadlineExceeded,
        Kind::NotFound,
        Kind::AlreadyExists,
        Kind::PermissionDenied,
        Kind::ResourceExhausted,
        Kind::FailedPrecondition,
        Kind::Aborted,
        Kind::Unimplemented,
        Kind::Internal,
        Kind::Unavailable,
    ];

    /// The status code on the wire, of gRPC and of ttrpc alike.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The kind of a status code. Codes that cricket never answers become their nearest kind.
    pub fn from_code(code: u8) -> Kind {
        match code {
            OUT_OF_RANGE => Kind::InvalidArgument,
            UNAUTHENTICATED => Kind::PermissionDenied,
            _ => Kind::ALL.into_iter().find(|kind| kind.code() == code).unwrap_or(Kind::Unknown),
        }
    }
}

/// A failure with its [`Kind`]. `Display` prints the message and, after a colon, its source.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The result of everything that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind`; `message` in lower case, without a full stop.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into(), source: None }
    }

    /// An error of `kind` caused by `source`, which `Display` appends.
    pub fn caused(
        kind: Kind,
        message: impl Into<String>,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Error { kind, message: message.into(), source: Some(Box::new(source)) }
    }

    /// Shorthand for the commonest refusals.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::InvalidArgument, message)
    }

    /// The named object does not exist.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, message)
    }

    /// The object is in the wrong state.
    pub fn precondition(message: impl Into<String>) -> Self {
        Self::new(Kind::FailedPrecondition, message)
    }

    /// An invariant of ours is broken.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Kind::Internal, message)
    }

    /// What kind of failure this is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The message without its source.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Prefixes what we were doing; the kind stays.
    #[must_use]
    pub fn context(self, doing: impl fmt::Display) -> Self {
        Error { message: format!("{doing}: {}", self.message), ..self }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|e| &**e as &(dyn std::error::Error + 'static))
    }
}

/// `.context("what we were doing")` on a `Result`.
pub trait Context<T> {
    /// Prefixes what we were doing; an [`Error`] keeps its kind, an I/O error gets one from its own kind.
    fn context<D: fmt::Display>(self, doing: D) -> Result<T>;
    /// As [`Context::context`], computed only on failure.
    fn with_context<D: fmt::Display>(self, doing: impl FnOnce() -> D) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for Result<T, E> {
    fn context<D: fmt::Display>(self, doing: D) -> Result<T> {
        self.map_err(|e| e.into().context(doing))
    }

    fn with_context<D: fmt::Display>(self, doing: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|e| e.into().context(doing()))
    }
}

impl From<std::io::Error> for Error {
    /// Keeps what the operating system said; a missing file on our side is never the caller's `NotFound`.
    fn from(e: std::io::Error) -> Self {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        let full = matches!(e.kind(), StorageFull | QuotaExceeded);
        Error::new(if full { Kind::ResourceExhausted } else { Kind::Unknown }, e.to_string())
    }
}

/// For removals: nothing there to remove is success.
pub trait Idempotent {
    /// Turns `NotFound` into `Ok(())`.
    fn or_gone(self) -> Result<()>;
}

impl<T> Idempotent for Result<T> {
    fn or_gone(self) -> Result<()> {
        match self {
            Ok(_) => Ok(()),
            Err(e) if e.kind() == Kind::NotFound => Ok(()),
            Err(e) => Err(e),
        }
    }
}

impl Idempotent for std::io::Result<()> {
    fn or_gone(self) -> Result<()> {
        match self {
            // A path through something that is no directory leads to nothing either.
            Err(e) if !matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Err(e.into()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn context_keeps_the_kind_and_display_appends_the_source() {
        let io = std::io::Error::other("disk on fire");
        let e = Error::caused(Kind::Unavailable, "read record", io).context("recover");
        assert_eq!(e.kind(), Kind::Unavailable);
        assert_eq!(e.to_string(), "recover: read record: disk on fire");
    }

    #[test]
    fn codes_there_and_back() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_code(kind.code()), kind);
        }
        assert_eq!(Kind::from_code(OUT_OF_RANGE), Kind::InvalidArgument);
        assert_eq!(Kind::from_code(UNAUTHENTICATED), Kind::PermissionDenied);
        assert_eq!([0, 15, 255].map(Kind::from_code), [Kind::Unknown; 3]);
    }

    #[test]
    fn gone_is_removed() {
        assert!(Err::<(), _>(Error::not_found("x")).or_gone().is_ok());
        assert!(Err::<(), _>(Error::invalid("x")).or_gone().is_err());
        assert!(Err::<(), _>(std::io::Error::from(std::io::ErrorKind::NotFound)).or_gone().is_ok());
    }
}
