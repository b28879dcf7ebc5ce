//! A scripted HTTP server on loopback, for tests.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Received {
    pub method: String,
    pub path: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Received {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// What to answer.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Only so many bytes of the body are sent before the connection ends.
    pub cut: Option<usize>,
    /// The head is sent and nothing follows until the server ends.
    pub stall: bool,
    /// The connection serves the next request as well.
    pub keep: bool,
    /// The connection ends instead.
    pub hang_up: bool,
}

impl Answer {
    pub fn new(status: u16, body: &[u8]) -> Self {
        Answer { status, body: body.to_vec(), ..Answer::default() }
    }

    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub fn kept(self) -> Self {
        Answer { keep: true, ..self }
    }
}

/// The server; it ends when it is dropped.
pub struct Server {
    /// `127.0.0.1:PORT`.
    pub address: String,
    received: Arc<Mutex<Vec<Received>>>,
    connections: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
    released: Arc<AtomicBool>,
}

impl Server {
    pub fn start(script: impl Fn(&Received) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (received, over) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (connections, released) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (own, ended, script, freed) = (received.clone(), over.clone(), Arc::new(script), released.clone());
        let count = connections.clone();
        let accept = move || {
            for connection in listener.incoming() {
                if ended.load(Ordering::Acquire) {
                    return;
                }
                count.fetch_add(1, Ordering::Relaxed);
                let (own, script, freed) = (own.clone(), script.clone(), freed.clone());
                let serve = move || {
                    let stream = connection.unwrap();
                    let mut reader = BufReader::new(stream.try_clone().unwrap());
                    while serve(&stream, &mut reader, &own, &freed, &*script) {}
                };
                std::thread::Builder::new().name("answer".into()).spawn(serve).unwrap();
            }
        };
        std::thread::Builder::new().name("server".into()).spawn(accept).unwrap();
        Server { address, received, connections, over, released }
    }

    /// Ends the connections that stall; later ones stall no more.
    pub fn release(&self) {
        self.released.store(true, Ordering::Release);
    }

    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// How many connections there were.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        TcpStream::connect(&self.address).ok();
    }
}

/// One request. Returns whether the connection serves another.
fn serve(
    mut stream: &TcpStream,
    reader: &mut BufReader<TcpStream>,
    received: &Mutex<Vec<Received>>,
    released: &AtomicBool,
    script: &dyn Fn(&Received) -> Answer,
) -> bool {
    let mut line = String::new();
    if reader.read_line(&mut line).unwrap_or(0) == 0 {
        return false;
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next().unwrap(), words.next().unwrap());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").map_or(0, |length: &String| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let request = Received { method, path, headers, body: String::from_utf8(body).unwrap() };
    received.lock().unwrap().push(request.clone());
    let answer = script(&request);
    if answer.hang_up {
        return false;
    }
    let connection = if answer.keep { "keep-alive" } else { "close" };
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: {connection}\r\n", answer.status);
    if !answer.headers.iter().any(|(name, _)| name == "Content-Length") {
        head.push_str(&format!("Content-Length: {}\r\n", answer.body.len()));
    }
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    // The client may be gone.
    stream.write_all(format!("{head}\r\n").as_bytes()).ok();
    if answer.stall {
        // Until the client hangs up, or the test has seen enough.
        stream.set_read_timeout(Some(std::time::Duration::from_millis(20))).unwrap();
        while !released.load(Ordering::Acquire) && !matches!(stream.read(&mut [0]), Ok(0)) {}
        return false;
    }
    if request.method != "HEAD" {
        stream.write_all(&answer.body[..answer.cut.unwrap_or(answer.body.len())]).ok();
    }
    answer.keep
}
