//! Requests to one host: connections, redirects, and an end to all of it at once.

use std::io::{self, Read};
use std::time::Duration;

use ureq::config::{AutoHeaderValue, Config};
use ureq::http;
use ureq::tls::TlsConfig;
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{ConnectProxyConnector, Connector, RustlsConnector, TcpConnector};
use ureq::{Agent, Body, Proxy};

use super::failure::Failure;
use super::proxy::Proxies;
use super::secret::Secret;
use super::url::Url;
use crate::error::{Error, Kind, Result};
use crate::sync::Mutex;

/// Redirects in a row.
const MAX_REDIRECTS: usize = 10;
/// Making a connection, with TLS.
const CONNECT: Duration = Duration::from_secs(30);
/// Of a connection: one for each download is a few megabytes less than the library's own choice.
const BUFFER_BYTES: usize = 64 << 10;
/// Of an answer that explains an error.
const ERROR_BYTES: u64 = 64 << 10;
/// Of an answer that redirects, to be read only for what comes after it: a line of text, mostly.
const REDIRECT_BYTES: u64 = 4 << 10;

/// What a host may take its time for.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Until a connection stands.
    pub connect: Option<Duration>,
    /// Until the next byte.
    pub read: Duration,
}

/// A client of one host. It makes connections when it needs them and keeps them until it is dropped.
pub struct Http {
    tls: TlsConfig,
    proxies: Proxies,
    patience: Patience,
    agents: Mutex<Agents>,
}

#[derive(Default)]
struct Agents {
    /// By proxy: a redirect may lead to where another one is in charge.
    made: Vec<(Option<Secret>, Agent)>,
    closed: bool,
}

/// A request without its address.
#[derive(Clone, Debug, Default)]
pub struct Request<'a> {
    /// `GET` if empty.
    pub method: &'static str,
    /// Sent wherever a redirect leads.
    pub headers: Vec<(&'a str, String)>,
    /// Sent to the first server only.
    pub own_headers: &'a [(String, Secret)],
    /// `Authorization`; to the first server only.
    pub authorization: Option<Secret>,
    /// A form, to be posted. Redirects are not followed then.
    pub form: Option<Secret>,
}

/// What a server answered.
pub struct Response(http::Response<Body>);

impl Response {
    /// Its status.
    pub fn status(&self) -> u16 {
        self.0.status().as_u16()
    }

    /// A header, if it is there and is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.0.headers().get(name)?.to_str().ok()
    }

    /// All values of a header.
    pub fn headers<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.0.headers().get_all(name).iter().filter_map(|value| value.to_str().ok())
    }

    /// The length that it announces.
    pub fn length(&self) -> Option<u64> {
        self.header("content-length")?.parse().ok()
    }

    /// A whole body.
    ///
    /// # Errors
    /// A passing failure when the connection breaks, a lasting one over `max_bytes`.
    pub fn bytes(self, max_bytes: u64) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        let read = self.into_reader().take(max_bytes + 1).read_to_end(&mut bytes);
        read.map_err(|e| Failure::passing(format!("the connection broke: {e}")))?;
        match bytes.len() as u64 <= max_bytes {
            true => Ok(bytes),
            false => Err(Failure::lasting(Error::invalid(format!("the answer has more than {max_bytes} bytes")))),
        }
    }

    /// The body, byte by byte.
    pub fn into_reader(self) -> impl Read + Send + 'static {
        self.0.into_body().into_reader()
    }

    /// Nothing of its body is wanted. The connection serves the next request once the body was read, which is done if that is
    /// known to be little.
    fn dismiss(self) {
        if self.length().is_some_and(|length| length <= REDIRECT_BYTES) {
            // A connection that breaks serves nobody, which is all that there is to it.
            io::copy(&mut self.into_reader(), &mut io::sink()).ok();
        }
    }

    /// What it is, if it is no success.
    pub fn into_failure(self) -> Failure {
        let (status, retry_after) = (self.status(), self.header("retry-after").map(str::to_owned));
        let mut body = Vec::new();
        // What can be read of an explanation; there may be none.
        self.into_reader().take(ERROR_BYTES).read_to_end(&mut body).ok();
        Failure::of_status(status, retry_after.as_deref(), &body)
    }
}

/// The server has ended the connection, and said nothing.
fn has_ended(e: &ureq::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let ureq::Error::Io(e) = e else { return false };
    matches!(e.kind(), UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe)
}

impl Http {
    /// A client that has not connected yet.
    pub fn new(tls: TlsConfig, proxies: Proxies, patience: Patience) -> Self {
        Http { tls, proxies, patience, agents: Mutex::default() }
    }

    /// Breaks off every request, also those that wait for bytes; further ones are refused. Does not block.
    pub fn shutdown(&self) {
        let made = {
            let mut agents = self.agents.lock();
            agents.closed = true;
            std::mem::take(&mut agents.made)
        };
        made.into_iter().for_each(|(_, agent)| agent.shutdown());
    }

    /// Sends a request and follows redirects. Blocks until the head of the answer is there; any status but a redirect
    /// is an answer.
    ///
    /// # Errors
    /// A failure to get any answer.
    pub fn send(&self, url: &Url, request: &Request<'_>) -> Result<Response, Failure> {
        let mut at = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send_once(&at, request, at.same_origin(url))?;
            if request.form.is_some() || !matches!(response.status(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let location = response
                .header("location")
                .ok_or_else(|| Failure::lasting(Error::new(Kind::Unknown, "it redirects without saying where to")))?;
            let next = at.join(location).map_err(|e| Failure::lasting(e.context("it redirects")))?;
            if at.secure && !next.secure {
                let text = format!("it redirects to {}, which is not encrypted", next.authority);
                return Err(Failure::lasting(Error::new(Kind::Unknown, text)));
            }
            log::debug!("{} redirects to {}", at.authority, next.authority);
            response.dismiss();
            at = next;
        }
        Err(Failure::lasting(Error::new(Kind::Unknown, format!("more than {MAX_REDIRECTS} redirects"))))
    }

    /// `at_home`: this is the server that the request is for, not one that it redirects to. A server may end a connection that
    /// it has kept when it likes, so that is not what it has to say: it is asked again, on a new one.
    fn send_once(&self, url: &Url, request: &Request<'_>, at_home: bool) -> Result<Response, Failure> {
        let (proxy, agent) = self.agent(url)?;
        let method = if request.method.is_empty() { "GET" } else { request.method };
        let mut head = http::Request::builder().method(method).uri(url.to_string());
        for (name, value) in &request.headers {
            head = head.header(*name, value);
        }
        if at_home {
            for (name, value) in request.own_headers {
                head = head.header(name, value.reveal());
            }
            if let Some(authorization) = &request.authorization {
                head = head.header("authorization", authorization.reveal());
            }
        }
        let invalid = |e: http::Error| Failure::lasting(Error::invalid(e.to_string()));
        let answer = match &request.form {
            Some(form) => {
                let head = head.header("content-type", "application/x-www-form-urlencoded");
                agent.run(head.body(form.reveal()).map_err(invalid)?)
            }
            _ => {
                let request = head.body(()).map_err(invalid)?;
                match agent.run(request.clone()) {
                    Err(e) if has_ended(&e) => {
                        log::debug!("{}: a connection has ended: {e}", url.authority);
                        agent.run(agent.configure_request(request).max_idle_age(Duration::ZERO).build())
                    }
                    answer => answer,
                }
            }
        };
        answer.map(Response).map_err(|e| Failure::of_transport(&e, proxy.as_ref()))
    }

    fn agent(&self, url: &Url) -> Result<(Option<Secret>, Agent), Failure> {
        let proxy = self.proxies.for_server(url.secure, url.host(), url.port()).cloned();
        let mut agents = self.agents.lock();
        if agents.closed {
            return Err(Failure::lasting(Error::new(Kind::Canceled, "the pull has ended")));
        }
        if let Some((_, agent)) = agents.made.iter().find(|(of, _)| *of == proxy) {
            return Ok((proxy, agent.clone()));
        }
        let agent = self.new_agent(proxy.as_ref()).map_err(Failure::lasting)?;
        agents.made.push((proxy.clone(), agent.clone()));
        Ok((proxy, agent))
    }

    fn new_agent(&self, proxy: Option<&Secret>) -> Result<Agent> {
        let proxy = proxy.map(|url| Proxy::new(url.reveal())).transpose();
        let proxy = proxy.map_err(|_| Error::invalid("the proxy of the environment is no URL that can be used"))?;
        let config = Config::builder()
            .tls_config(self.tls.clone())
            .proxy(proxy)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("cricket/", env!("CARGO_PKG_VERSION")))
            .accept(AutoHeaderValue::None)
            .accept_encoding(AutoHeaderValue::None)
            .input_buffer_size(BUFFER_BYTES)
            .output_buffer_size(BUFFER_BYTES / 4)
            .timeout_connect(Some(self.patience.connect.unwrap_or(CONNECT)))
            .timeout_per_read(Some(self.patience.read))
            .timeout_per_write(Some(self.patience.read))
            .build();
        let connector =
            ().chain(ConnectProxyConnector::default()).chain(TcpConnector::default()).chain(RustlsConnector::default());
        Ok(Agent::with_parts(config, connector, DefaultResolver::default()))
    }
}
