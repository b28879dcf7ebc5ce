//! What a session is spoken over: a TCP connection, or TLS on one. Neither ever blocks.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;

use rustls::{ServerConfig, ServerConnection};

use crate::error::{Context, Error, Result};
use crate::sys::poll::{Place, Poll};

/// What TLS puts into one record at most.
const RECORD: usize = 16 << 10;

/// Our end of a connection.
pub enum Socket {
    /// As it is.
    Plain(TcpStream),
    /// Encrypted.
    Tls(Box<Tls>),
}

/// TLS, of which we are the server.
pub struct Tls {
    tcp: TcpStream,
    session: ServerConnection,
    /// So many bytes are decrypted and not read yet: poll does not know of them.
    waiting: usize,
}

impl Socket {
    /// A connection that was just accepted; with `tls`, its handshake is done along with the first reads.
    pub fn new(tcp: TcpStream, tls: Option<&Arc<ServerConfig>>) -> Result<Socket> {
        let doing = "prepare a streaming connection";
        tcp.set_nonblocking(true).context(doing)?;
        tcp.set_nodelay(true).context(doing)?;
        let Some(config) = tls else { return Ok(Socket::Plain(tcp)) };
        let refused = |e: rustls::Error| Error::internal(format!("begin TLS: {e}"));
        let session = ServerConnection::new(config.clone()).map_err(refused)?;
        Ok(Socket::Tls(Box::new(Tls { tcp, session, waiting: 0 })))
    }

    fn tcp(&self) -> &TcpStream {
        match self {
            Socket::Plain(tcp) => tcp,
            Socket::Tls(tls) => &tls.tcp,
        }
    }

    /// Waits for it, as [`Poll::add`] does; in any case until what is on its way out can go on.
    pub fn add_to(&self, poll: &mut Poll, read: bool, write: bool) -> Place {
        let at = poll.add(self.tcp(), read, write || self.has_unsent());
        if read && matches!(self, Socket::Tls(tls) if tls.waiting > 0) {
            poll.set_readable(at);
        }
        at
    }

    /// Something was written, and the other side has not taken it yet: [`Write::flush`] goes on with it.
    pub fn has_unsent(&self) -> bool {
        matches!(self, Socket::Tls(tls) if tls.session.wants_write())
    }

    /// Tells the other side that nothing more comes.
    pub fn end(&mut self) -> io::Result<()> {
        if let Socket::Tls(tls) = self {
            tls.session.send_close_notify();
            tls.push()?;
        }
        self.tcp().shutdown(Shutdown::Write)
    }
}

impl Tls {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.session.reader().read(into) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Ok(n) => {
                    self.waiting -= n.min(self.waiting);
                    return Ok(n);
                }
                Err(e) => return Err(e),
            }
            if self.session.read_tls(&mut self.tcp)? == 0 {
                return Ok(0);
            }
            match self.session.process_new_packets() {
                Ok(now) => self.waiting = now.plaintext_bytes_to_read(),
                Err(e) => {
                    // It is told why, if it can be.
                    self.push().ok();
                    return Err(io::Error::new(ErrorKind::InvalidData, e));
                }
            }
            // What the handshake has to answer.
            self.push()?;
        }
    }

    /// A record at a time, so that little is kept here of what the other side does not take.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push()?;
        if self.session.wants_write() {
            return Err(ErrorKind::WouldBlock.into());
        }
        let written = self.session.writer().write(&bytes[..bytes.len().min(RECORD)])?;
        self.push()?;
        Ok(written)
    }

    /// Sends what the other side takes now.
    fn push(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut self.tcp) {
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

impl Read for Socket {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Plain(tcp) => tcp.read(into),
            Socket::Tls(tls) => tls.read(into),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Plain(tcp) => tcp.write(bytes),
            Socket::Tls(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Socket::Plain(_) => Ok(()),
            Socket::Tls(tls) => tls.push(),
        }
    }
}
