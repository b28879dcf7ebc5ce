//! Documents and blobs from a registry. A blob is read as one stream, however often the connection breaks.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Instant;

use super::failure::{pause, Failure};
use super::http::Response;
use super::session::{chance, Session};
use crate::error::{Context, Error, Kind, Result};
use crate::reference::Reference;

/// Breaks of a download without a byte in between.
const BREAKS: u32 = 6;
/// What a manifest or an index may be.
const MANIFESTS: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// What a reference stands for at this moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Its media type; "" if the registry does not say.
    pub media_type: String,
    /// Its digest. Without one there are `bytes`.
    pub digest: Option<String>,
    /// Its size, if known.
    pub size_bytes: Option<u64>,
    /// The document, if the registry could not say what it is without sending it.
    pub bytes: Option<Vec<u8>>,
}

impl Session {
    /// Asks what a reference stands for. Blocks.
    ///
    /// # Errors
    /// `NotFound`; `PermissionDenied`; `Unavailable` when no server can be asked now.
    pub fn resolve(&self, reference: &Reference, max_bytes: u64) -> Result<Found> {
        let version = reference.digest().or(reference.tag()).unwrap_or_default();
        let path = format!("manifests/{version}");
        let by_digest = reference.digest();
        let headers = [("accept", MANIFESTS.join(", "))];
        let asked = self.ask(
            |host| host.resolve,
            &path,
            "HEAD",
            &headers,
            |response| match response.status() {
                200 => Ok(Some(head(&response))),
                // Some servers do not know HEAD.
                400 | 405 | 501 => Ok(None),
                _ => Err(response.into_failure()),
            },
        )?;
        if let Some(found) = asked.filter(|found| found.digest.is_some() && found.size_bytes.is_some()) {
            return checked(found, by_digest);
        }
        let found = self.ask(
            |host| host.resolve,
            &path,
            "GET",
            &headers,
            |response| match response.status() {
                200 => {
                    let found = head(&response);
                    let bytes = response.bytes(max_bytes)?;
                    Ok(Found { size_bytes: Some(bytes.len() as u64), bytes: Some(bytes), ..found })
                }
                _ => Err(response.into_failure()),
            },
        )?;
        checked(found, by_digest)
    }

    /// A whole document: a manifest or index, or a small blob. Blocks. Its digest is for the caller to check.
    ///
    /// # Errors
    /// As [`Session::resolve`]; `InvalidArgument` over `max_bytes`.
    pub fn document(&self, is_manifest: bool, digest: &str, max_bytes: u64) -> Result<Vec<u8>> {
        let (path, accept) = match is_manifest {
            true => (format!("manifests/{digest}"), MANIFESTS.join(", ")),
            false => (format!("blobs/{digest}"), "*/*".to_owned()),
        };
        self.ask(
            |host| host.pull,
            &path,
            "GET",
            &[("accept", accept)],
            |response| match response.status() {
                200 => response.bytes(max_bytes),
                _ => Err(response.into_failure()),
            },
        )
    }
}

/// What the head of an answer says of a document.
fn head(response: &Response) -> Found {
    let media_type = response.header("content-type").unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim();
    Found {
        media_type: if MANIFESTS.contains(&media_type) { media_type.to_owned() } else { String::new() },
        digest: response.header("docker-content-digest").map(str::to_owned),
        size_bytes: response.length(),
        bytes: None,
    }
}

/// A registry that is asked for a digest cannot have another one to say.
fn checked(found: Found, asked: Option<&str>) -> Result<Found> {
    match (&found.digest, asked) {
        (Some(digest), Some(asked)) if digest != asked => {
            Err(Error::invalid(format!("asked for {asked}, the registry has {digest}")))
        }
        (_, Some(asked)) => Ok(Found { digest: Some(asked.to_owned()), ..found }),
        _ => Ok(found),
    }
}

/// A blob, read from the registry. When the connection breaks it goes on where it was, at whichever server has it.
pub struct Blob {
    session: Arc<Session>,
    digest: String,
    size_bytes: u64,
    offset: u64,
    body: Option<Body>,
    breaks: u32,
    progress_at: Instant,
    failed: Option<Error>,
}

impl Blob {
    /// The blob from `offset` on. Asks for it when it is first read.
    pub fn new(session: Arc<Session>, digest: &str, size_bytes: u64, offset: u64) -> Self {
        Blob {
            session,
            digest: digest.to_owned(),
            size_bytes,
            offset,
            body: None,
            breaks: 0,
            progress_at: Instant::now(),
            failed: None,
        }
    }

    /// What made a read fail; an `io::Error` cannot carry its kind.
    pub fn failure(&mut self) -> Option<Error> {
        self.failed.take()
    }

    fn fill(&mut self, into: &mut [u8]) -> Result<usize> {
        // What whoever reads did meanwhile is not the server's silence.
        self.progress_at = Instant::now();
        while self.offset < self.size_bytes && !into.is_empty() {
            self.session.check()?;
            let body = match &mut self.body {
                Some(body) => body,
                None => self.body.insert(self.session.open_blob(&self.digest, self.size_bytes, self.offset)?),
            };
            let left = usize::try_from(self.size_bytes - self.offset).unwrap_or(usize::MAX);
            let room = into.len().min(left);
            let why = match body.bytes.read(&mut into[..room]) {
                Ok(0) => "it ended too soon".to_owned(),
                Ok(n) => {
                    self.offset += n as u64;
                    self.breaks = 0;
                    if self.offset == self.size_bytes {
                        self.body.take().into_iter().for_each(Body::finish);
                    }
                    return Ok(n);
                }
                Err(e) => e.to_string(),
            };
            self.body = None;
            self.break_off(&why)?;
        }
        Ok(0)
    }

    /// Waits before the next attempt; fails if that was the last.
    fn break_off(&mut self, why: &str) -> Result<()> {
        self.session.check()?;
        self.breaks += 1;
        let silence = self.progress_at.elapsed();
        log::debug!("blob {}: the connection broke at byte {}: {why}", self.digest, self.offset);
        if self.breaks >= BREAKS || self.session.progress_timeout().is_some_and(|timeout| silence >= timeout) {
            let text = format!("no byte in {silence:.0?} after {} of {}: {why}", self.offset, self.size_bytes);
            return Err(Error::new(Kind::Unavailable, text));
        }
        self.session.wait(pause(self.breaks, None, chance()))
    }
}

/// An answer whose bytes are a blob's, or the end of one.
struct Body {
    bytes: Box<dyn Read + Send>,
    /// It announced just the length that is wanted: behind the last byte there is nothing to wait for.
    is_measured: bool,
}

impl Body {
    /// `bytes` are wanted of it.
    fn of(response: Response, bytes: u64) -> Self {
        let is_measured = response.length() == Some(bytes) && response.header("transfer-encoding").is_none();
        Body { is_measured, bytes: Box::new(response.into_reader()) }
    }

    /// All of it was read. Its connection serves the next request once its end was seen; one that is closed with each blob
    /// costs a handshake for each.
    fn finish(mut self) {
        if self.is_measured {
            // There is no more; if there is, the connection is closed.
            self.bytes.read_exact(&mut [0]).ok();
        }
    }
}

impl Read for Blob {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.fill(into).map_err(|e| {
            let text = e.to_string();
            self.failed = Some(e);
            io::Error::other(text)
        })
    }
}

impl Session {
    /// A reader of what follows the first `offset` bytes of a blob.
    fn open_blob(&self, digest: &str, size_bytes: u64, offset: u64) -> Result<Body> {
        let mut headers = vec![("accept", "application/vnd.oci.image.layer.v1.tar, */*".to_owned())];
        if offset > 0 {
            headers.push(("range", format!("bytes={offset}-")));
        }
        self.ask(
            |host| host.pull,
            &format!("blobs/{digest}"),
            "GET",
            &headers,
            |response| match response.status() {
                206 if offset > 0 => match range_start(response.header("content-range")) {
                    Some(start) if start == offset => Ok(Body::of(response, size_bytes - offset)),
                    _ => {
                        Err(Failure::lasting(Error::new(Kind::Unknown, "it sent another range than it was asked for")))
                    }
                },
                200 => {
                    if let Some(length) = response.length().filter(|length| *length != size_bytes) {
                        let text = format!("it has {length} bytes, the manifest says {size_bytes}");
                        return Err(Failure::lasting(Error::invalid(text)));
                    }
                    let mut body = Body::of(response, size_bytes);
                    // It does not know ranges: what we have is read once more.
                    let broken = |e: io::Error| Failure::passing(format!("the connection broke: {e}"));
                    io::copy(&mut body.bytes.by_ref().take(offset), &mut io::sink()).map_err(broken)?;
                    Ok(body)
                }
                _ => Err(response.into_failure()),
            },
        )
        .with_context(|| format!("blob {digest}"))
    }
}

/// Where `bytes 5-9/10` starts.
fn range_start(header: Option<&str>) -> Option<u64> {
    header?.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}
