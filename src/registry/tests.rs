//! The client against scripted servers: who is asked for what, with which credentials, and when it gives up.

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use cricket_proto::runtime::AuthConfig;

use super::testing::{Answer, Received, Server};
use super::{Blob, Credentials, Options, Session};
use crate::call::Call;
use crate::error::{Kind, Result};
use crate::ids::random_hex;
use crate::reference::Reference;

const DIGEST: &str = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn options() -> Options {
    Options { dirs: Vec::new(), progress_timeout: Duration::from_secs(30) }
}

fn user() -> Credentials {
    let auth = AuthConfig { username: "me".into(), password: "geheim".into(), ..AuthConfig::default() };
    Credentials::from_request(&auth).unwrap()
}

fn session(server: &Server, credentials: &Credentials) -> Arc<Session> {
    open(&options(), server, credentials, &Call::unbounded())
}

fn open(options: &Options, server: &Server, credentials: &Credentials, call: &Call) -> Arc<Session> {
    let reference = reference(server);
    Arc::new(Session::open(options, &reference, credentials, call).unwrap())
}

fn reference(server: &Server) -> Reference {
    Reference::parse(&format!("{}/a/b:1", server.address)).unwrap()
}

/// A manifest's head.
fn known() -> Answer {
    Answer::new(200, b"{}").with("Docker-Content-Digest", DIGEST).with("Content-Type", INDEX)
}

fn digest_of(session: &Session, server: &Server) -> Result<Option<String>> {
    session.resolve(&reference(server), 100).map(|found| found.digest)
}

fn read(session: Arc<Session>, bytes: u64, offset: u64) -> (std::io::Result<Vec<u8>>, Option<Kind>) {
    let mut blob = Blob::new(session, DIGEST, bytes, offset);
    let mut all = Vec::new();
    let read = blob.read_to_end(&mut all).map(|_| all);
    (read, blob.failure().map(|e| e.kind()))
}

#[test]
fn a_head_is_enough_to_resolve() {
    let server = Server::start(|_| known());
    let found = session(&server, &Credentials::default()).resolve(&reference(&server), 100).unwrap();
    assert_eq!((found.media_type.as_str(), found.digest.as_deref(), found.size_bytes), (INDEX, Some(DIGEST), Some(2)));
    let received = server.received();
    assert_eq!((received[0].method.as_str(), received[0].path.as_str()), ("HEAD", "/v2/a/b/manifests/1"));
    assert!(received[0].header("accept").contains(INDEX));
    assert_eq!(received.len(), 1);
}

#[test]
fn without_a_digest_the_document_is_fetched() {
    let server = Server::start(|request| match request.method.as_str() {
        "HEAD" => Answer::new(405, b""),
        _ => Answer::new(200, b"{}").with("Content-Type", INDEX),
    });
    let asked = |max: u64| session(&server, &Credentials::default()).resolve(&reference(&server), max);
    assert_eq!(asked(100).unwrap().bytes.as_deref(), Some(&b"{}"[..]));
    assert_eq!(asked(1).unwrap_err().kind(), Kind::InvalidArgument);
}

#[test]
fn another_digest_than_asked_for_is_refused() {
    let server = Server::start(|_| Answer::new(200, b"{}").with("Docker-Content-Digest", DIGEST));
    let other = reference(&server).at_digest(&DIGEST.replace('9', "8")).unwrap();
    let e = session(&server, &Credentials::default()).resolve(&other, 100).unwrap_err();
    assert_eq!(e.kind(), Kind::InvalidArgument);
}

#[test]
fn basic_is_answered_when_asked_for_and_kept() {
    let server = Server::start(|request| match request.header("authorization") {
        "Basic bWU6Z2VoZWlt" => known(),
        _ => Answer::new(401, b"").with("WWW-Authenticate", "Basic realm=\"x\""),
    });
    let ours = session(&server, &user());
    digest_of(&ours, &server).unwrap();
    digest_of(&ours, &server).unwrap();
    let shown: Vec<bool> = server.received().iter().map(|r| !r.header("authorization").is_empty()).collect();
    assert_eq!(shown, [false, true, true]);
    let e = digest_of(&session(&server, &Credentials::default()), &server).unwrap_err();
    assert_eq!(e.kind(), Kind::PermissionDenied, "{e}");
}

/// A registry and its token server in one.
fn with_tokens(token: impl Fn(&Received) -> Answer + Send + Sync + 'static) -> Server {
    let count = AtomicUsize::new(0);
    Server::start(move |request| {
        if request.path.starts_with("/token") {
            return token(request);
        }
        let challenge = format!(
            "Bearer realm=\"http://{}/token?x=1\",service=\"reg\",scope=\"repository:a/b:pull\"",
            request.header("host")
        );
        // Each token is good for two requests.
        let expired = count.fetch_add(1, Ordering::Relaxed) % 3 == 0;
        match request.header("authorization").starts_with("Bearer good") && !expired {
            true => known(),
            false => Answer::new(401, b"").with("WWW-Authenticate", challenge),
        }
    })
}

#[test]
fn tokens_are_fetched_and_fetched_again() {
    let given = AtomicUsize::new(0);
    let server = with_tokens(move |_| {
        let n = given.fetch_add(1, Ordering::Relaxed);
        Answer::new(200, format!("{{\"access_token\":\"good{n}\"}}").as_bytes())
    });
    let ours = session(&server, &Credentials::default());
    for _ in 0..4 {
        digest_of(&ours, &server).unwrap();
    }
    let tokens: Vec<Received> = server.received().into_iter().filter(|r| r.path.starts_with("/token")).collect();
    assert_eq!(tokens.len(), 2, "one, and one more when it had expired");
    assert_eq!(tokens[0].path, "/token?x=1&service=reg&scope=repository%3Aa%2Fb%3Apull");
    assert_eq!((tokens[0].method.as_str(), tokens[0].header("authorization")), ("GET", ""));
}

#[test]
fn a_password_is_posted_and_if_that_is_not_known_shown() {
    let posted = with_tokens(|request| {
        assert_eq!(request.method, "POST");
        Answer::new(200, br#"{"token":"good"}"#)
    });
    digest_of(&session(&posted, &user()), &posted).unwrap();
    let form = posted.received().into_iter().find(|r| r.method == "POST").unwrap().body;
    for part in ["grant_type=password", "username=me", "password=geheim", "service=reg", "client_id=cricket"] {
        assert!(form.split('&').any(|p| p == part), "{part}: {form}");
    }
    let shown = with_tokens(|request| match (request.method.as_str(), request.header("authorization")) {
        ("GET", "Basic bWU6Z2VoZWlt") => Answer::new(200, br#"{"token":"good"}"#),
        _ => Answer::new(404, b""),
    });
    digest_of(&session(&shown, &user()), &shown).unwrap();
}

#[test]
fn an_identity_token_is_exchanged_and_a_registry_token_is_used() {
    let server = with_tokens(|request| {
        assert!(request.body.contains("grant_type=refresh_token&refresh_token=geheim"), "{}", request.body);
        Answer::new(200, br#"{"access_token":"good"}"#)
    });
    let of = |auth: AuthConfig| Credentials::from_request(&auth).unwrap();
    let identity = of(AuthConfig { identity_token: "geheim".into(), ..AuthConfig::default() });
    digest_of(&session(&server, &identity), &server).unwrap();
    let server = Server::start(|request| match request.header("authorization") {
        "Bearer geheim" => known(),
        _ => Answer::new(403, b""),
    });
    let registry = of(AuthConfig { registry_token: "geheim".into(), ..AuthConfig::default() });
    digest_of(&session(&server, &registry), &server).unwrap();
}

#[test]
fn who_never_has_enough_is_refused() {
    let count = Arc::new(AtomicUsize::new(0));
    let own = count.clone();
    let server = with_tokens(move |_| {
        let n = own.fetch_add(1, Ordering::Relaxed);
        Answer::new(200, format!("{{\"token\":\"bad{n}\"}}").as_bytes())
    });
    let e = digest_of(&session(&server, &Credentials::default()), &server).unwrap_err();
    assert_eq!(e.kind(), Kind::PermissionDenied, "{e}");
    assert!(count.load(Ordering::Relaxed) <= 2);
    let silent = with_tokens(|_| Answer::new(200, b"{}"));
    let e = digest_of(&session(&silent, &Credentials::default()), &silent).unwrap_err();
    assert!(e.to_string().contains("no token"), "{e}");
}

#[test]
fn a_redirect_sees_no_credentials() {
    let cdn = Server::start(|_| Answer::new(200, b"12345"));
    let to = cdn.address.clone();
    let server = Server::start(move |request| match request.header("authorization") {
        "" => Answer::new(401, b"").with("WWW-Authenticate", "Basic"),
        _ => Answer::new(307, b"").with("Location", format!("http://{to}/x?sig=1")),
    });
    assert_eq!(read(session(&server, &user()), 5, 0).0.unwrap(), b"12345");
    let received = cdn.received();
    assert_eq!((received[0].path.as_str(), received[0].header("authorization")), ("/x?sig=1", ""));
}

#[test]
fn redirects_have_an_end() {
    let server = Server::start(|_| Answer::new(302, b"").with("Location", "/again"));
    let e = digest_of(&session(&server, &Credentials::default()), &server).unwrap_err();
    assert!(e.to_string().contains("more than 10 redirects"), "{e}");
    assert_eq!(server.received().len(), 11);
}

#[test]
fn trouble_that_passes_is_waited_for() {
    let count = AtomicUsize::new(0);
    let server = Server::start(move |_| match count.fetch_add(1, Ordering::Relaxed) {
        0 => Answer::new(429, b"").with("Retry-After", "0"),
        1 => Answer::new(503, b"busy"),
        _ => known(),
    });
    assert_eq!(digest_of(&session(&server, &Credentials::default()), &server).unwrap().as_deref(), Some(DIGEST));
    let down = Server::start(|_| Answer::new(500, br#"{"errors":[{"code":"UNKNOWN","message":"ouch"}]}"#));
    let e = digest_of(&session(&down, &Credentials::default()), &down).unwrap_err();
    assert_eq!((e.kind(), down.received().len()), (Kind::Unavailable, 3), "{e}");
    assert!(e.to_string().contains(&down.address), "{e}");
    let gone = Server::start(|_| Answer::new(404, b""));
    let e = digest_of(&session(&gone, &Credentials::default()), &gone).unwrap_err();
    assert_eq!((e.kind(), gone.received().len()), (Kind::NotFound, 1), "{e}");
}

#[test]
fn nobody_there_is_unavailable() {
    let address = Server::start(|_| known()).address.clone();
    let reference = Reference::parse(&format!("{address}/a/b")).unwrap();
    let ours = Session::open(&options(), &reference, &Credentials::default(), &Call::unbounded()).unwrap();
    // The server of before may be a moment in going.
    let asked = || ours.resolve(&reference, 10).map(drop).map_err(|e| e.kind());
    let until = std::time::Instant::now() + Duration::from_secs(60);
    while asked() != Err(Kind::Unavailable) {
        assert!(std::time::Instant::now() < until);
    }
}

struct Dir(PathBuf);

impl Drop for Dir {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// `hosts.toml` for every registry.
fn hosts(text: &str) -> (Dir, Options) {
    let dir = std::env::temp_dir().join(format!("cricket-mirrors-{}", &random_hex().unwrap()[..12]));
    fs::create_dir_all(dir.join("_default")).unwrap();
    fs::write(dir.join("_default/hosts.toml"), text).unwrap();
    (Dir(dir.clone()), Options { dirs: vec![dir], ..options() })
}

#[test]
fn mirrors_are_asked_first_and_only_for_what_they_may() {
    let broken = Server::start(|_| Answer::new(500, b""));
    let pull_only = Server::start(|_| Answer::new(200, b"{}"));
    let server = Server::start(|_| known());
    let text = format!(
        "[host.\"http://{}\"]\n[host.\"http://{}\"]\ncapabilities = [\"pull\"]\n[host.\"http://{}\".header]\nx-key = \"k\"",
        broken.address, pull_only.address, pull_only.address
    );
    let (_dir, options) = hosts(&text);
    let ours = open(&options, &server, &Credentials::default(), &Call::unbounded());
    assert_eq!(digest_of(&ours, &server).unwrap().as_deref(), Some(DIGEST));
    assert_eq!(ours.document(true, DIGEST, 10).unwrap(), b"{}");
    let ns = format!("?ns={}", server.address);
    assert_eq!(broken.received()[0].path, format!("/v2/a/b/manifests/1{ns}"));
    let received = pull_only.received();
    assert_eq!((received.len(), received[0].header("x-key")), (1, "k"));
    assert_eq!(received[0].path, format!("/v2/a/b/manifests/{DIGEST}{ns}"));
    assert_eq!(server.received()[0].path, "/v2/a/b/manifests/1", "the registry itself is asked as itself");
}

/// Serves `bytes` with ranges, but at most `most` of them at a time.
fn in_pieces(bytes: &'static [u8], most: usize, ranges: bool) -> Server {
    Server::start(move |request| {
        let from = request.header("range").strip_prefix("bytes=").and_then(|r| r.strip_suffix('-')?.parse().ok());
        let answer = match from {
            Some(from) if ranges => {
                let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
                Answer::new(206, &bytes[from..]).with("Content-Range", range)
            }
            _ => Answer::new(200, bytes),
        };
        Answer { cut: Some(most.min(answer.body.len())), ..answer }
    })
}

#[test]
fn a_broken_download_goes_on_where_it_was() {
    let server = in_pieces(b"0123456789", 4, true);
    assert_eq!(read(session(&server, &Credentials::default()), 10, 0).0.unwrap(), b"0123456789");
    let ranges: Vec<String> = server.received().iter().map(|r| r.header("range").to_owned()).collect();
    assert_eq!(ranges, ["", "bytes=4-", "bytes=8-"]);
    assert_eq!(read(session(&server, &Credentials::default()), 10, 8).0.unwrap(), b"89");
    let without = in_pieces(b"0123456789", 10, false);
    assert_eq!(read(session(&without, &Credentials::default()), 10, 8).0.unwrap(), b"89", "read over");
}

#[test]
fn one_connection_serves_one_blob_after_the_other() {
    let server = Server::start(|request| match request.path.as_str() {
        "/elsewhere" if request.header("range") == "bytes=2-" => {
            Answer::new(206, b"cd").with("Content-Range", "bytes 2-3/4").kept()
        }
        "/elsewhere" => Answer::new(200, b"abcd").kept(),
        _ => Answer::new(307, b"it is elsewhere").with("Location", "/elsewhere").kept(),
    });
    let session = session(&server, &Credentials::default());
    for (offset, rest) in [(0, &b"abcd"[..]), (2, b"cd"), (0, b"abcd")] {
        let mut bytes = vec![0; rest.len()];
        // As who writes them to containerd reads them, who knows how many there are.
        Blob::new(session.clone(), DIGEST, 4, offset).read_exact(&mut bytes).unwrap();
        assert_eq!(bytes, rest);
    }
    assert_eq!((server.received().len(), server.connections()), (6, 1));
}

/// A server ends a connection when it likes, also when the next request is on its way to it.
#[test]
fn a_connection_that_has_ended_is_no_reason_to_ask_another_server() {
    let asked = AtomicUsize::new(0);
    let mirror = Server::start(move |_| match asked.fetch_add(1, Ordering::Relaxed) {
        1 => Answer { hang_up: true, ..Answer::default() },
        _ => Answer::new(200, b"abcd").kept(),
    });
    let server = Server::start(|_| Answer::new(404, b""));
    let (_dir, options) = hosts(&format!("[host.\"http://{}\"]", mirror.address));
    let ours = open(&options, &server, &Credentials::default(), &Call::unbounded());
    for _ in 0..2 {
        assert_eq!(read(ours.clone(), 4, 0).0.unwrap(), b"abcd");
    }
    assert_eq!((mirror.received().len(), mirror.connections(), server.connections()), (3, 2, 0));
}

#[test]
fn a_download_without_progress_is_given_up() {
    let server = in_pieces(b"0123456789", 0, true);
    let (read_, kind) = read(session(&server, &Credentials::default()), 10, 0);
    assert!(read_.is_err());
    assert_eq!((kind, server.received().len()), (Some(Kind::Unavailable), 6));
    let stalled = Server::start(|_| Answer { stall: true, ..Answer::new(200, b"0123456789") });
    let options = Options { progress_timeout: Duration::from_millis(200), ..options() };
    let ours = open(&options, &stalled, &Credentials::default(), &Call::unbounded());
    assert_eq!(read(ours, 10, 0).1, Some(Kind::Unavailable));
}

#[test]
fn another_size_than_promised_is_refused() {
    let server = Server::start(|_| Answer::new(200, b"123"));
    assert_eq!(read(session(&server, &Credentials::default()), 10, 0).1, Some(Kind::InvalidArgument));
}

#[test]
fn cancelling_ends_whatever_is_waited_for() {
    let stalled = Server::start(|_| Answer { stall: true, ..Answer::new(200, b"0123456789") });
    let call = Call::unbounded();
    let ours = open(&options(), &stalled, &Credentials::default(), &call);
    thread::scope(|scope| {
        let reading = scope.spawn(|| read(ours, 10, 0).1);
        while stalled.received().is_empty() {
            thread::yield_now();
        }
        call.cancel();
        assert_eq!(reading.join().unwrap(), Some(Kind::Canceled));
    });
}
