//! The port, open while somebody may come, and the way of a connection to its session.

use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::buffer::{Buffer, Moved};
use super::http::{self, Refusal, Request, MAX_REQUEST};
use super::link::{Link, INCOMING};
use super::socket::Socket;
use super::{forward, remote, tls, upgrade, Shared};
use rustls::ServerConfig;

use crate::error::{Context, Error, Kind, Result};
use crate::store::sessions::Session;
use crate::sys::poll::Poll;

/// How long a client may take to send its request.
const REQUEST_BUDGET: Duration = Duration::from_secs(10);
/// The accepting thread does little.
const STACK_BYTES: usize = 128 << 10;

/// Whether the port is open.
#[derive(Default)]
pub(super) struct Gate {
    at: Option<SocketAddr>,
    stopped: bool,
}

impl Shared {
    /// Opens the port if it is closed; returns the URL's beginning.
    pub(super) fn open_gate(self: &Arc<Self>) -> Result<String> {
        let mut gate = self.gate.lock();
        if gate.stopped {
            return Err(Error::new(Kind::Unavailable, "cricket is shutting down"));
        }
        let at = match gate.at {
            Some(at) => at,
            None => {
                let wanted = SocketAddr::new(self.rt.config.streaming.address, self.rt.config.streaming.port);
                let doing = || format!("open the streaming port at {wanted}");
                // Read anew each time: a certificate is renewed without a restart.
                let tls = self.rt.config.streaming.certificate.as_ref().map(tls::config_of).transpose()?;
                let listener = TcpListener::bind(wanted).with_context(doing)?;
                listener.set_nonblocking(true).with_context(doing)?;
                let at = listener.local_addr().with_context(doing)?;
                let shared = self.clone();
                std::thread::Builder::new()
                    .name("streaming".into())
                    .stack_size(STACK_BYTES)
                    .spawn(move || shared.accept_all(listener, tls))
                    .with_context(doing)?;
                gate.at = Some(at);
                at
            }
        };
        let scheme = if self.rt.config.streaming.certificate.is_some() { "https" } else { "http" };
        Ok(format!("{scheme}://{at}"))
    }

    /// Closes the port for good, and waits for its thread.
    pub(super) fn close(&self, deadline: Instant) -> bool {
        let mut gate = self.gate.lock();
        gate.stopped = true;
        while gate.at.is_some() && Instant::now() < deadline {
            gate = self.closed.wait_until(gate, Some(deadline));
        }
        gate.at.is_none()
    }

    /// The life of the accepting thread.
    fn accept_all(self: Arc<Self>, listener: TcpListener, tls: Option<Arc<ServerConfig>>) {
        let mut poll = Poll::new();
        loop {
            let until = self.rt.sessions.open_until();
            poll.clear();
            let stop = poll.add(&self.stop, true, false);
            let coming = poll.add(&listener, true, false);
            let failed = poll.wait(until).is_err();
            let over = failed || poll.readable(stop);
            if !over && poll.readable(coming) {
                accept_some(&self, &listener, tls.as_ref());
            }
            let mut gate = self.gate.lock();
            // Under the lock: whoever got a token before sees the port closed and opens it anew.
            if over || self.rt.sessions.open_until().is_none_or(|until| until <= Instant::now()) {
                gate.at = None;
                drop(listener);
                self.closed.notify_all();
                return;
            }
        }
    }
}

fn accept_some(shared: &Arc<Shared>, listener: &TcpListener, tls: Option<&Arc<ServerConfig>>) {
    loop {
        match listener.accept() {
            Ok((socket, _)) => admit(shared, socket, tls),
            Err(e) if e.kind() == ErrorKind::WouldBlock => return,
            // A client that went away while it waited; a lack of descriptors passes when a session ends.
            Err(e) => {
                log::debug!("accept a streaming client: {e}");
                return;
            }
        }
    }
}

fn admit(shared: &Arc<Shared>, socket: TcpStream, tls: Option<&Arc<ServerConfig>>) {
    match shared.sessions.reserve() {
        Ok(seat) => {
            let (own, tls) = (shared.clone(), tls.cloned());
            seat.run("session", move || {
                if let Err(e) = Socket::new(socket, tls.as_ref()).and_then(|socket| serve(&own, socket)) {
                    log::debug!("streaming: {e}");
                }
            });
        }
        Err(e) => {
            log::warn!("a streaming client is sent away: {e}");
            // Behind TLS it could not be told without a handshake, for which there is no thread.
            if tls.is_none() {
                refuse(socket, &Refusal::new("503 Service Unavailable", e.to_string()));
            }
        }
    }
}

/// Tells a client why not. It fits into any socket's buffer; a client that is gone does not care.
fn refuse(mut socket: TcpStream, refusal: &Refusal) {
    socket.set_nonblocking(true).and_then(|()| socket.write_all(&refusal.answer())).ok();
}

/// One connection from its request to its end.
fn serve(shared: &Arc<Shared>, mut socket: Socket) -> Result<()> {
    let mut input = Buffer::new(INCOMING);
    let judged = match read_request(shared, &mut socket, &mut input)? {
        Ok(request) => begin(shared, &request),
        Err(refusal) => Err(refusal),
    };
    let start = match judged {
        Ok(start) => start,
        Err(refusal) => {
            log::debug!("streaming: {}: {}", refusal.status, refusal.why);
            // What it still sends must not turn our answer into a reset.
            let link = Link::for_refusal(socket, input, &refusal.answer());
            link.close(&shared.stop);
            return Ok(());
        }
    };
    match start {
        Start::Remote(session, agreed, version) => {
            let link = Link::new(socket, input, agreed);
            crate::sys::thread::set_name(if matches!(session, Session::Exec(_)) { "exec" } else { "attach" });
            remote::serve(shared, link, version, session)
        }
        Start::Forward(request, agreed) => {
            crate::sys::thread::set_name("port-forward");
            let opening = agreed.opening;
            forward::serve(shared, Link::new(socket, input, agreed), opening, &request)
        }
    }
}

enum Start {
    Remote(Session, upgrade::Agreed, upgrade::Version),
    Forward(cricket_proto::runtime::PortForwardRequest, upgrade::Agreed),
}

/// Which session a request begins, and on what.
fn begin(shared: &Shared, request: &Request) -> Result<Start, Refusal> {
    let session = shared.rt.sessions.take(&request.path);
    match session.ok_or_else(|| Refusal::new("404 Not Found", "there is no such session, or it was begun already"))? {
        Session::PortForward(ports) => {
            let agreed = upgrade::forward(request)?;
            // Two channels a port, and a channel is a byte.
            match agreed.opening == upgrade::Opening::Fixed && !(1..=127).contains(&ports.port.len()) {
                true => Err(Refusal::bad("over a WebSocket, PortForward must name from 1 to 127 ports")),
                false => Ok(Start::Forward(ports, agreed)),
            }
        }
        session => upgrade::remote_command(request).map(|(agreed, version)| Start::Remote(session, agreed, version)),
    }
}

/// Reads the request; what follows it stays in the buffer.
fn read_request(shared: &Shared, socket: &mut Socket, input: &mut Buffer) -> Result<Result<Request, Refusal>> {
    let deadline = Instant::now() + REQUEST_BUDGET;
    let mut poll = Poll::new();
    loop {
        poll.clear();
        let stop = poll.add(&shared.stop, true, false);
        let at = socket.add_to(&mut poll, true, false);
        poll.wait(Some(deadline)).context("wait for a request")?;
        if poll.readable(stop) {
            return Err(Error::new(Kind::Unavailable, "cricket is shutting down"));
        }
        if poll.writable(at) {
            socket.flush().context("answer a handshake")?;
        }
        if !poll.readable(at) {
            if Instant::now() >= deadline {
                return Ok(Err(Refusal::new("408 Request Timeout", "the request did not come in time")));
            }
            continue;
        }
        if input.fill(socket).context("read a request")? == Moved::End {
            return Err(Error::new(Kind::Canceled, "the client went away before its request"));
        }
        match http::length(input.data()) {
            Some(length) if length <= MAX_REQUEST => {
                let request = Request::read(&input.data()[..length]);
                input.consume(length);
                return Ok(request);
            }
            None if input.data().len() < MAX_REQUEST => {}
            _ => return Ok(Err(Refusal::new("431 Request Header Fields Too Large", "the request is too long"))),
        }
    }
}
