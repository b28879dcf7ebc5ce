//! A proxy on the way to a registry that does to each request what the test says.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(60);
/// Of a request or an answer before its body.
const HEAD_BYTES: usize = 64 << 10;

/// What goes wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection ends without an answer.
    Drop,
    /// The connection ends after so many bytes of the body.
    Cut(u64),
    /// Nothing follows so many bytes of the body until the client has enough of it.
    Stall(u64),
    /// One bit of the byte at this place of the body is another.
    Flip(u64),
    /// This status and these lines of a head instead of what the registry would say.
    Status(u16, String),
}

/// A request as the proxy sees it.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    pub path: String,
    /// Where the client wants the body to begin.
    pub from: Option<u64>,
    /// Names in lower case, as they came.
    pub head: String,
    /// How often the same was asked for before.
    pub before: usize,
    /// What was done to it.
    pub fault: Option<Fault>,
}

impl Asked {
    fn new(head: &[u8]) -> Option<Asked> {
        let text = String::from_utf8_lossy(head);
        let (first, headers) = text.split_once("\r\n")?;
        let mut words = first.split(' ');
        let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
        let named = |line: &str| line.split_once(':').map(|(name, value)| format!("{}:{value}", name.to_lowercase()));
        let lines: Vec<String> = headers.lines().filter_map(named).collect();
        let range = lines.iter().find_map(|line| line.strip_prefix("range: bytes="));
        let from = range.and_then(|range| range.trim_end_matches('-').parse().ok());
        Some(Asked { method, path, from, head: lines.join("\n"), before: 0, fault: None })
    }

    pub fn is_blob(&self) -> bool {
        self.path.contains("/blobs/")
    }
}

type Script = dyn Fn(&Asked) -> Option<Fault> + Send + Sync;

/// The proxy; it lives as long as the process.
pub struct Proxy {
    /// `127.0.0.1:PORT`.
    pub address: String,
    shared: Arc<Shared>,
}

struct Shared {
    to: String,
    script: Box<Script>,
    asked: Mutex<Vec<Asked>>,
    count: Mutex<HashMap<(String, String), usize>>,
}

impl Proxy {
    /// One before the registry at `to`. Each connection is for one request.
    pub fn start(to: &str, script: impl Fn(&Asked) -> Option<Fault> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        let shared =
            Shared { to: to.to_owned(), script: Box::new(script), asked: Mutex::default(), count: Mutex::default() };
        let shared = Arc::new(shared);
        let own = shared.clone();
        let accept = move || {
            for client in listener.incoming().flatten() {
                let own = own.clone();
                // Either side may go away whenever it likes.
                let serve = move || drop(own.serve(&client));
                std::thread::Builder::new().name("proxied".into()).spawn(serve).expect("a thread");
            }
        };
        std::thread::Builder::new().name("proxy".into()).spawn(accept).expect("a thread");
        Proxy { address, shared }
    }

    /// All requests so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().expect("no thread panics with it").clone()
    }

    /// How many of them went wrong.
    pub fn faults(&self) -> usize {
        self.asked().iter().filter(|asked| asked.fault.is_some()).count()
    }
}

impl Shared {
    fn serve(&self, client: &TcpStream) -> io::Result<()> {
        let head = read_head(client)?;
        let Some(mut asked) = Asked::new(&head) else { return Ok(()) };
        {
            let mut count = self.count.lock().expect("no thread panics with it");
            let before = count.entry((asked.method.clone(), asked.path.clone())).or_default();
            asked.before = *before;
            *before += 1;
        }
        asked.fault = (self.script)(&asked);
        let fault = asked.fault.clone();
        self.asked.lock().expect("no thread panics with it").push(asked);
        match &fault {
            Some(Fault::Drop) => return client.shutdown(Shutdown::Both),
            Some(Fault::Status(status, lines)) => {
                let head = format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: 0\r\n{lines}\r\n");
                return (&*client).write_all(head.as_bytes());
            }
            _ => {}
        }
        let server = TcpStream::connect(&self.to)?;
        // One request a connection, so that the answer ends where the connection does.
        let line = head.windows(2).position(|two| two == b"\r\n").unwrap_or_default() + 2;
        (&server).write_all(&[&head[..line], b"Connection: close\r\n", &head[line..]].concat())?;
        (&*client).write_all(&read_head(&server)?)?;
        match fault {
            Some(Fault::Cut(bytes)) => drop(io::copy(&mut (&server).take(bytes), &mut &*client)?),
            Some(Fault::Stall(bytes)) => {
                io::copy(&mut (&server).take(bytes), &mut &*client)?;
                until_it_hangs_up(client)?;
            }
            Some(Fault::Flip(at)) => {
                io::copy(&mut (&server).take(at), &mut &*client)?;
                let mut byte = [0];
                (&server).read_exact(&mut byte)?;
                (&*client).write_all(&[byte[0] ^ 1])?;
                io::copy(&mut &server, &mut &*client)?;
            }
            _ => drop(io::copy(&mut &server, &mut &*client)?),
        }
        client.shutdown(Shutdown::Both)
    }
}

/// Up to the empty line, byte by byte: what follows is the body's.
fn read_head(mut from: &TcpStream) -> io::Result<Vec<u8>> {
    from.set_read_timeout(Some(PATIENCE))?;
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == HEAD_BYTES || from.read(&mut byte)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        head.push(byte[0]);
    }
    Ok(head)
}

fn until_it_hangs_up(mut client: &TcpStream) -> io::Result<()> {
    client.set_read_timeout(Some(Duration::from_millis(20)))?;
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE && !matches!(client.read(&mut [0]), Ok(0)) {}
    Ok(())
}
