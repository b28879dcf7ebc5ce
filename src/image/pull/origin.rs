//! What comes from a registry and goes to containerd, and errors that say which of the two it was.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{most_bytes, Report, Step};
use crate::call::Call;
use crate::containerd::{Containerd, Content, Descriptor, Source};
use crate::error::{Error, Kind, Result};
use crate::image::resolve::{Blobs, Layer};
use crate::image::stage::{leave, Staging};
use crate::reference::Reference;
use crate::registry::{Blob, Session};
use crate::store::pulls::{Pulls, Slot};
use crate::sync::{Condvar, Mutex};

/// The kubelet shows a message that begins so as what it is.
const UNAVAILABLE: &str = "RegistryUnavailable: ";
/// Another program writes the same blob: how long to wait between looks, and for how long.
const LOCKED: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(300));

/// Marks errors of a registry.
pub(super) trait FromRegistry {
    /// Unavailable is the registry then, not containerd.
    fn for_registry(self) -> Self;
}

impl<T> FromRegistry for Result<T> {
    fn for_registry(self) -> Self {
        self.map_err(|e| match e.kind() {
            Kind::Unavailable => Error::new(Kind::Unknown, format!("{UNAVAILABLE}{e}")),
            _ => e,
        })
    }
}

/// Whether it was the registry that could not be reached.
pub(super) fn is_unavailable(e: &Error) -> bool {
    e.kind() == Kind::Unknown && e.message().contains(UNAVAILABLE)
}

/// The error that the client sees: what was to be pulled, and the word for the kubelet first.
pub(super) fn surface(e: Error, reference: &Reference) -> Error {
    let doing = format!("pull image {reference}");
    match is_unavailable(&e) {
        true => Error::new(Kind::Unknown, format!("{UNAVAILABLE}{doing}: {}", e.to_string().replace(UNAVAILABLE, ""))),
        false => e.context(doing),
    }
}

/// Documents from containerd if it has them, else from the registry.
pub(super) struct Origin<'a> {
    pub(super) containerd: &'a dyn Containerd,
    pub(super) call: &'a Call,
    pub(super) session: &'a Session,
    /// One that is known already.
    pub(super) first: Option<(String, Vec<u8>)>,
}

impl Blobs for Origin<'_> {
    fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let Descriptor { digest, media_type, .. } = descriptor;
        if let Some((_, bytes)) = self.first.as_ref().filter(|(known, _)| known == digest) {
            return Ok(bytes.clone());
        }
        let is_manifest = media_type.is_empty() || media_type.contains("manifest") || media_type.contains("index");
        let most = most_bytes(is_manifest);
        match self.containerd.read_content(self.call, digest, most) {
            Err(e) if e.kind() == Kind::NotFound => self.session.document(is_manifest, digest, most).for_registry(),
            read => read,
        }
    }
}

/// A layer on its way from the registry.
pub(super) struct Remote {
    session: Arc<Session>,
    pulls: Arc<Pulls>,
    call: Call,
    layer: Descriptor,
    number: usize,
    report: Report,
    wrote: Arc<AtomicBool>,
    blob: Option<Blob>,
    /// From when it is asked for until all of it has come.
    slot: Option<Slot>,
}

impl Remote {
    pub(super) fn new(
        (session, pulls, call): (Arc<Session>, Arc<Pulls>, Call),
        layer: Descriptor,
        number: usize,
        report: Report,
        wrote: Arc<AtomicBool>,
    ) -> Self {
        Remote { session, pulls, call, layer, number, report, wrote, blob: None, slot: None }
    }

    /// What made reading fail.
    pub(super) fn failure(&mut self) -> Option<Error> {
        self.blob.as_mut().and_then(Blob::failure)
    }
}

impl Source for Remote {
    fn after(&mut self, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        if offset > 0 {
            log::debug!("blob {}: goes on at byte {offset}", self.layer.digest);
        }
        if self.slot.is_none() {
            self.slot = Some(self.pulls.downloads.take(&self.call).map_err(io::Error::other)?);
        }
        let blob = Blob::new(self.session.clone(), &self.layer.digest, self.layer.size_bytes, offset);
        Ok(Box::new(Counting {
            blob: self.blob.insert(blob),
            bytes: offset,
            size_bytes: self.layer.size_bytes,
            layer: self.number,
            report: &self.report,
            wrote: &self.wrote,
            slot: &mut self.slot,
        }))
    }
}

struct Counting<'a> {
    blob: &'a mut Blob,
    bytes: u64,
    size_bytes: u64,
    layer: usize,
    report: &'a Report,
    wrote: &'a AtomicBool,
    slot: &'a mut Option<Slot>,
}

impl Read for Counting<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.blob.read(into)?;
        if n > 0 {
            self.bytes += n as u64;
            self.wrote.store(true, Ordering::Release);
            (self.report)(Step::Fetching { layer: self.layer, bytes: self.bytes });
            if self.bytes >= self.size_bytes {
                // The next one may come.
                *self.slot = None;
            }
        }
        Ok(n)
    }
}

/// Where a layer goes besides containerd.
pub(super) enum Aside {
    /// To who unpacks it meanwhile.
    Unpacking(Staging),
    /// Into memory: it is short, and will be unpacked with others.
    Kept(Kept),
}

/// What is kept in memory, and the room for it.
pub(super) struct Kept {
    bytes: Vec<u8>,
    room: Room,
    taken: u64,
}

impl Kept {
    pub(super) fn into_bytes(mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.room.0.fetch_add(self.taken, Ordering::Relaxed);
    }
}

/// How many bytes may still be kept.
#[derive(Clone)]
pub(super) struct Room(Arc<AtomicU64>);

impl Room {
    pub(super) fn new(bytes: u64) -> Self {
        Room(Arc::new(AtomicU64::new(bytes)))
    }

    /// A place for so many bytes, if there is room.
    pub(super) fn take(&self, bytes: u64) -> Option<Kept> {
        let left = |room: u64| room.checked_sub(bytes);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left).ok()?;
        let capacity = usize::try_from(bytes).unwrap_or_default();
        Some(Kept { bytes: Vec::with_capacity(capacity), room: self.clone(), taken: bytes })
    }
}

impl Aside {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        match self {
            Aside::Unpacking(staging) => staging.write(bytes),
            Aside::Kept(kept) => {
                kept.bytes.extend_from_slice(bytes);
                Ok(())
            }
        }
    }
}

/// A layer that goes to two: to who asked for it, and aside.
pub(super) struct Both<'a> {
    pub(super) remote: &'a mut Remote,
    pub(super) layer: &'a Layer,
    /// Begins with what is aside.
    pub(super) begin: &'a dyn Fn() -> Option<Aside>,
    pub(super) aside: Option<Aside>,
    pub(super) may_be_there: bool,
}

impl Source for Both<'_> {
    fn after(&mut self, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        // Who has to ask for it again asks containerd first.
        self.may_be_there = true;
        self.aside = None;
        // What an earlier attempt has left in containerd cannot be had from there yet.
        let begin = (offset == 0).then_some(self.begin);
        Ok(Box::new(Forked { from: self.remote.after(offset)?, layer: self.layer, begin, aside: &mut self.aside }))
    }

    fn may_be_there(&self) -> bool {
        self.may_be_there
    }
}

struct Forked<'a> {
    from: Box<dyn Read + 'a>,
    layer: &'a Layer,
    begin: Option<&'a dyn Fn() -> Option<Aside>>,
    aside: &'a mut Option<Aside>,
}

impl Read for Forked<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.from.read(into)?;
        // Once the registry has answered: others prepare for it meanwhile.
        if let Some(begin) = self.begin.take_if(|_| n > 0) {
            *self.aside = begin();
        }
        if let Some(Err(e)) = self.aside.as_mut().map(|aside| aside.write(&into[..n])) {
            leave(self.layer, &e);
            *self.aside = None;
        }
        Ok(n)
    }
}

/// Writes a blob, waiting for another program that writes the same one.
pub(super) fn write(
    containerd: &dyn Containerd,
    call: &Call,
    reference: &str,
    content: &Content,
    from: &mut dyn Source,
) -> Result<()> {
    let begun = Instant::now();
    loop {
        match containerd.write_content(call, reference, content, from) {
            Err(e) if is_locked(&e) && begun.elapsed() < LOCKED.1 => {
                log::debug!("{reference}: another program writes it: {e}");
                pause(call, LOCKED.0)?;
            }
            Err(e) if e.kind() == Kind::FailedPrecondition => {
                return Err(Error::invalid(format!("what was fetched is not what it should be: {e}")));
            }
            written => return written,
        }
    }
}

fn is_locked(e: &Error) -> bool {
    e.kind() == Kind::Unavailable && e.message().contains("locked")
}

/// Blocks so long, or until the call is over.
fn pause(call: &Call, pause: Duration) -> Result<()> {
    let bell = Arc::new((Mutex::new(false), Condvar::new()));
    let own = bell.clone();
    let _watch = call.on_cancel(move || {
        *own.0.lock() = true;
        own.1.notify_all();
    });
    let until = Instant::now() + pause;
    let until = call.deadline().map_or(until, |deadline| deadline.min(until));
    let mut rung = bell.0.lock();
    while !*rung && Instant::now() < until {
        rung = bell.1.wait_until(rung, Some(until));
    }
    drop(rung);
    call.check()
}
