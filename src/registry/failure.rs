//! A request that failed: whether to try again, and what to say.

use std::time::Duration;

use serde::Deserialize;

use super::secret::Secret;
use crate::error::{Error, Kind};

/// Longest that a server may make us wait by `Retry-After`.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// The first pause between tries; it doubles, and half of it is chance.
const PAUSE: Duration = Duration::from_millis(500);
/// Longer explanations are cut.
const TEXT_BYTES: usize = 256;

/// Why a request to one server did not do.
#[derive(Debug)]
pub struct Failure {
    /// What went wrong. `Unavailable` if it may be different the next time.
    pub error: Error,
    /// How long the server wants us to wait.
    pub wait: Option<Duration>,
}

impl Failure {
    /// Another try may help.
    pub fn passing(what: impl Into<String>) -> Self {
        Failure { error: Error::new(Kind::Unavailable, what), wait: None }
    }

    /// Another try would end in the same way.
    pub fn lasting(error: Error) -> Self {
        Failure { error, wait: None }
    }

    /// Whether to try again.
    pub fn is_passing(&self) -> bool {
        self.error.kind() == Kind::Unavailable
    }

    /// From an answer that is none: its status, `Retry-After`, and the beginning of its body.
    pub fn of_status(status: u16, retry_after: Option<&str>, body: &[u8]) -> Self {
        let why = explanation(body);
        let text = |what: &str| match why.is_empty() {
            true => format!("{what} ({status})"),
            false => format!("{what} ({status}): {why}"),
        };
        let (kind, text) = match status {
            401 => (Kind::PermissionDenied, text("it wants other credentials")),
            403 => (Kind::PermissionDenied, text("access is denied")),
            404 => (Kind::NotFound, text("it has no such thing")),
            429 => (Kind::Unavailable, text("too many requests")),
            408 | 500..=599 => (Kind::Unavailable, text("it is in trouble")),
            _ => (Kind::Unknown, text("it answered")),
        };
        let seconds = retry_after.and_then(|value| value.trim().parse().ok()).map(Duration::from_secs);
        Failure { error: Error::new(kind, text), wait: seconds.map(|wait| wait.min(LONGEST_WAIT)) }
    }

    /// From the HTTP library. `secret` is what may be in its messages and must not come out.
    pub fn of_transport(e: &ureq::Error, secret: Option<&Secret>) -> Self {
        let text = match e {
            ureq::Error::Timeout(_) => "it did not answer in time".to_owned(),
            ureq::Error::HostNotFound => "its name cannot be resolved".to_owned(),
            other => other.to_string(),
        };
        let text = match secret {
            Some(secret) => text.replace(secret.reveal(), "***"),
            None => text,
        };
        match e {
            ureq::Error::Http(_) | ureq::Error::BadUri(_) | ureq::Error::InvalidProxyUrl => {
                Failure::lasting(Error::invalid(text))
            }
            _ => Failure::passing(text),
        }
    }
}

/// How long to wait before try `n`, the first being 1. `chance` is any number.
pub fn pause(n: u32, wait: Option<Duration>, chance: u64) -> Duration {
    let full = PAUSE * 2u32.pow(n.saturating_sub(1).min(5));
    let half = full / 2;
    let jitter = half.mul_f64((chance % 1000) as f64 / 1000.0);
    wait.unwrap_or_default().max(half + jitter)
}

#[derive(Deserialize)]
struct Errors {
    errors: Vec<OneError>,
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct OneError {
    code: String,
    message: String,
}

/// What a registry says in the body of an error; what is not a registry's error is shown as far as it is text.
fn explanation(body: &[u8]) -> String {
    let errors: Option<Errors> = serde_json::from_slice(body).ok();
    let text = match errors {
        Some(errors) => {
            let each = |e: &OneError| format!("{} {}", e.code, e.message).trim().to_owned();
            errors.errors.iter().map(each).collect::<Vec<_>>().join(", ")
        }
        None => String::from_utf8_lossy(body).lines().next().unwrap_or_default().trim().to_owned(),
    };
    let mut shown: String = text.chars().filter(|c| !c.is_control()).collect();
    let mut end = TEXT_BYTES.min(shown.len());
    while !shown.is_char_boundary(end) {
        end -= 1;
    }
    shown.truncate(end);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_whether_to_try_again() {
        for (status, kind) in [
            (401, Kind::PermissionDenied),
            (403, Kind::PermissionDenied),
            (404, Kind::NotFound),
            (418, Kind::Unknown),
            (429, Kind::Unavailable),
            (500, Kind::Unavailable),
            (503, Kind::Unavailable),
        ] {
            let failure = Failure::of_status(status, Some("3"), b"");
            assert_eq!((failure.error.kind(), failure.is_passing()), (kind, kind == Kind::Unavailable), "{status}");
            assert_eq!(failure.wait, Some(Duration::from_secs(3)));
        }
        assert_eq!(Failure::of_status(429, Some("99999"), b"").wait, Some(LONGEST_WAIT));
        assert_eq!(Failure::of_status(429, Some("Wed, 21 Oct 2015 07:28:00 GMT"), b"").wait, None);
    }

    #[test]
    fn the_registrys_words_are_kept_and_bounded() {
        let body = br#"{"errors":[{"code":"DENIED","message":"not\nyours"},{"code":"X"}]}"#;
        assert_eq!(explanation(body), "DENIED notyours, X");
        assert_eq!(explanation(b"<html>\nmore"), "<html>");
        assert!(explanation("ä".repeat(1000).as_bytes()).len() <= TEXT_BYTES);
    }

    #[test]
    fn pauses_grow_and_honour_the_server() {
        assert_eq!(pause(1, None, 0), PAUSE / 2);
        assert!(pause(2, None, 999) > pause(1, None, 999));
        assert_eq!(pause(1, Some(Duration::from_secs(9)), 5), Duration::from_secs(9));
        assert!(pause(60, None, 999) <= PAUSE * 32);
    }
}
