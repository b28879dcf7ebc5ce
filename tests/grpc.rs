//! The wire: a real server on a unix socket, a real client, and verbs made for the test behind it.
// Verbs own their request, whether they need to or not.
#![allow(clippy::needless_pass_by_value)]

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{mpsc, Arc};
use std::thread;
use std::time::{Duration, Instant};

use cricket::call::Call;
use cricket::error::{Error, Kind, Result};
use cricket::server::{Options, Outlet, Server, State, Table};
use cricket::sync::{Condvar, Mutex};
use cricket_proto::methods::{image_service, runtime_service as rpc};
use cricket_proto::runtime::*;
use futures_executor::block_on;
use futures_util::future::join_all;
use futures_util::StreamExt;
use grpcio::{CallOption, Channel, ChannelBuilder, Client, EnvBuilder, Method, MethodType, RpcStatusCode};

/// Only a failing test waits this long.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the test verbs share.
#[derive(Default)]
struct Stage {
    recovering: AtomicBool,
    /// Closed by default: `hold` calls block until it opens.
    open: Mutex<bool>,
    opened: Condvar,
    /// Calls that entered `hold`.
    held: AtomicUsize,
    /// How a call that waited on its frame ended.
    endings: Mutex<Vec<Kind>>,
    threads: Mutex<HashSet<String>>,
}

impl State for Stage {
    fn not_ready(&self) -> Option<String> {
        self.recovering.load(Ordering::Acquire).then(|| "containerd does not answer".to_owned())
    }
}

impl Stage {
    fn open(&self) {
        *self.open.lock() = true;
        self.opened.notify_all();
    }

    /// Waits until `condition` holds; fails the test if it never does.
    fn until(&self, what: &str, condition: impl Fn(&Stage) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition(self) {
            assert!(Instant::now() < deadline, "{what} did not happen");
            thread::sleep(Duration::from_millis(2));
        }
    }
}

fn version(_: &Stage, call: &Call, request: VersionRequest) -> Result<VersionResponse> {
    call.check()?;
    Ok(VersionResponse { version: request.version, runtime_name: "cricket".into(), ..Default::default() })
}

/// Fails with the kind that the container id names.
fn fail(_: &Stage, _: &Call, request: StartContainerRequest) -> Result<StartContainerResponse> {
    let kind = KINDS.iter().map(|(kind, _)| *kind).find(|kind| format!("{kind:?}") == request.container_id);
    Err(Error::new(kind.unwrap_or(Kind::Internal), "RegistryUnavailable: x"))
}

/// Blocks until the stage opens.
fn hold(stage: &Stage, _: &Call, _: StopContainerRequest) -> Result<StopContainerResponse> {
    stage.held.fetch_add(1, Ordering::AcqRel);
    let mut open = stage.open.lock();
    while !*open {
        open = stage.opened.wait(open);
    }
    Ok(StopContainerResponse::default())
}

/// Waits on its call alone: for cancellation or the deadline.
fn wait(stage: &Stage, call: &Call, _: ExecSyncRequest) -> Result<ExecSyncResponse> {
    stage.held.fetch_add(1, Ordering::AcqRel);
    let e = loop {
        match call.check() {
            Err(e) => break e,
            Ok(()) => thread::sleep(Duration::from_millis(1)),
        }
    };
    stage.endings.lock().push(e.kind());
    Err(e)
}

/// Says on which thread it ran.
fn work(stage: &Stage, _: &Call, _: ImageFsInfoRequest) -> Result<ImageFsInfoResponse> {
    let me = fs::read_link("/proc/thread-self").expect("proc is mounted");
    stage.threads.lock().insert(me.to_string_lossy().into_owned());
    assert_eq!(fs::read_to_string("/proc/thread-self/comm").expect("proc is mounted").trim_end(), "ImageFsInfo");
    Ok(ImageFsInfoResponse::default())
}

/// An answer as long as asked for.
fn grow(_: &Stage, _: &Call, request: ExecRequest) -> Result<ExecResponse> {
    let length = request.container_id.parse().unwrap_or(request.container_id.len());
    Ok(ExecResponse { url: "x".repeat(length), ..Default::default() })
}

/// Three answers, then an end or an error.
fn stream(_: &Stage, _: &Call, request: GetEventsRequest, out: &mut Outlet<ContainerEventResponse>) -> Result<()> {
    for n in 0..3 {
        out.send(ContainerEventResponse { created_at: n, ..Default::default() })?;
    }
    match request.special_fields.unknown_fields().iter().next() {
        Some(_) => Err(Error::new(Kind::Aborted, "half way")),
        None => Ok(()),
    }
}

/// Sends until the client has enough.
fn flood(
    stage: &Stage,
    _: &Call,
    _: StreamContainersRequest,
    out: &mut Outlet<StreamContainersResponse>,
) -> Result<()> {
    loop {
        if let Err(e) = out.send(StreamContainersResponse::default()) {
            stage.endings.lock().push(e.kind());
            return Err(e);
        }
    }
}

/// Says on which thread it ran.
fn at_once(_: &Stage, call: &Call, request: ContainerStatusRequest) -> Result<ContainerStatusResponse> {
    call.check()?;
    if request.container_id == "missing" {
        return Err(Error::not_found("container missing"));
    }
    let thread = fs::read_to_string("/proc/thread-self/comm").expect("proc is mounted").trim_end().to_owned();
    let padding = "x".repeat(request.container_id.parse().unwrap_or(0));
    let info = [("thread".to_owned(), thread), ("padding".to_owned(), padding)].into();
    Ok(ContainerStatusResponse { info, ..Default::default() })
}

fn table(table: Table<Stage>) -> Table<Stage> {
    table
        .instant(&rpc::VERSION, version)
        .instant_unless(|request| request.verbose, &rpc::CONTAINER_STATUS, at_once)
        .unary(&rpc::START_CONTAINER, fail)
        .unary(&rpc::STOP_CONTAINER, hold)
        .unary(&rpc::EXEC_SYNC, wait)
        .unary(&rpc::EXEC, grow)
        .quick(&image_service::IMAGE_FS_INFO, work)
        .stream(&rpc::GET_CONTAINER_EVENTS, stream)
        .stream(&rpc::STREAM_CONTAINERS, flood)
        .rest(rpc::ALL)
        .rest(image_service::ALL)
}

/// A server in a folder of its own.
struct Node {
    stage: Arc<Stage>,
    server: Option<Server>,
    folder: PathBuf,
}

impl Node {
    fn start(name: &str) -> Node {
        Node::with_calls(name, 128)
    }

    fn with_calls(name: &str, max_calls: usize) -> Node {
        let folder = std::env::temp_dir().join(format!("cricket grpc%20?#{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).expect("a temp folder");
        let mut node = Node { stage: Arc::default(), server: None, folder };
        node.server = Some(node.serve(max_calls).expect("starts"));
        node
    }

    fn serve(&self, max_calls: usize) -> Result<Server> {
        Server::start(self.stage.clone(), &self.socket(), &Options { max_calls }, table)
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("c").join("cricket.sock")
    }

    fn connect(&self) -> Client {
        Client::new(self.channel(16 << 20))
    }

    /// A connection of its own each: without that, the C core shares them.
    fn channel(&self, receive_bytes: i32) -> Channel {
        let environment = Arc::new(EnvBuilder::new().cq_count(1).build());
        // A short relative path: the folder's name is odd on purpose, and clients escape it each in their own way.
        let link = std::env::temp_dir().join(format!("cricket-grpc-{:x}", rand()));
        std::os::unix::fs::symlink(self.folder.join("c"), &link).expect("a link");
        let channel = ChannelBuilder::new(environment)
            .use_local_subchannel_pool(true)
            .max_receive_message_len(receive_bytes)
            .max_send_message_len(-1)
            .connect(&format!("unix:{}/cricket.sock", link.display()));
        assert!(block_on(channel.wait_for_connected(PATIENCE)), "connects");
        fs::remove_file(&link).expect("ours");
        channel
    }

    fn stop(&mut self) -> bool {
        self.server.take().expect("running").shutdown(PATIENCE)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stage.open();
        if let Some(server) = self.server.take() {
            server.shutdown(Duration::from_secs(5));
        }
        fs::remove_dir_all(&self.folder).ok();
    }
}

#[test]
fn what_is_in_memory_is_answered_on_the_grpc_thread_and_what_may_block_is_not() {
    let node = Node::start("instant");
    let client = node.connect();
    let thread = |id: &str, verbose: bool| {
        let request = ContainerStatusRequest { container_id: id.into(), verbose, ..Default::default() };
        ask(&client, &rpc::CONTAINER_STATUS, &request)
            .map(|answer| (answer.info["thread"].clone(), answer.info["padding"].len()))
    };
    // Longer than any buffer on the way.
    for length in [0, 4_000_000] {
        assert_eq!(thread(&length.to_string(), false), Ok(("grpc-0".into(), length)));
        assert_eq!(thread(&length.to_string(), true), Ok(("ContainerStatus".into(), length)));
    }
    for verbose in [false, true] {
        assert_eq!(thread("missing", verbose), Err((RpcStatusCode::NOT_FOUND, "container missing".into())));
    }
    assert!(thread("1", false).is_ok(), "it goes on");
    node.stage.recovering.store(true, Ordering::Release);
    assert_eq!(thread("1", false).map_err(|(code, _)| code), Err(RpcStatusCode::UNAVAILABLE));
}

fn rand() -> u64 {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    u64::from(std::process::id()) << 16 | NEXT.fetch_add(1, Ordering::Relaxed) as u64
}

fn ask<Q, R: Unpin>(client: &Client, method: &Method<Q, R>, request: &Q) -> Result<R, (RpcStatusCode, String)> {
    ask_within(client, method, request, PATIENCE)
}

fn ask_within<Q, R: Unpin>(
    client: &Client,
    method: &Method<Q, R>,
    request: &Q,
    timeout: Duration,
) -> Result<R, (RpcStatusCode, String)> {
    client.unary_call(method, request, CallOption::default().timeout(timeout)).map_err(refused)
}

fn refused(e: grpcio::Error) -> (RpcStatusCode, String) {
    match e {
        grpcio::Error::RpcFailure(status) | grpcio::Error::RpcFinished(Some(status)) => {
            (status.code(), status.message().to_owned())
        }
        e => panic!("not a status: {e}"),
    }
}

const KINDS: &[(Kind, RpcStatusCode)] = &[
    (Kind::Canceled, RpcStatusCode::CANCELLED),
    (Kind::Unknown, RpcStatusCode::UNKNOWN),
    (Kind::InvalidArgument, RpcStatusCode::INVALID_ARGUMENT),
    (Kind::DeadlineExceeded, RpcStatusCode::DEADLINE_EXCEEDED),
    (Kind::NotFound, RpcStatusCode::NOT_FOUND),
    (Kind::AlreadyExists, RpcStatusCode::ALREADY_EXISTS),
    (Kind::ResourceExhausted, RpcStatusCode::RESOURCE_EXHAUSTED),
    (Kind::FailedPrecondition, RpcStatusCode::FAILED_PRECONDITION),
    (Kind::Aborted, RpcStatusCode::ABORTED),
    (Kind::Unimplemented, RpcStatusCode::UNIMPLEMENTED),
    (Kind::Internal, RpcStatusCode::INTERNAL),
    (Kind::Unavailable, RpcStatusCode::UNAVAILABLE),
    (Kind::PermissionDenied, RpcStatusCode::PERMISSION_DENIED),
];

#[test]
fn answers_and_kinds_arrive_as_they_are() {
    let node = Node::start("codes");
    let client = node.connect();
    let answer = ask(&client, &rpc::VERSION, &VersionRequest { version: "v1".into(), ..Default::default() });
    assert_eq!(answer.map(|a| (a.version, a.runtime_name)), Ok(("v1".into(), "cricket".into())));
    for (kind, code) in KINDS {
        let request = StartContainerRequest { container_id: format!("{kind:?}"), ..Default::default() };
        let answer = ask(&client, &rpc::START_CONTAINER, &request).map(drop);
        assert_eq!(answer, Err((*code, "RegistryUnavailable: x".to_owned())));
    }
}

#[test]
fn a_passed_deadline_is_seen_on_both_sides() {
    let node = Node::start("deadline");
    let client = node.connect();
    let answer = ask_within(&client, &rpc::EXEC_SYNC, &ExecSyncRequest::default(), Duration::from_millis(150));
    assert_eq!(answer.map(drop).map_err(|(code, _)| code), Err(RpcStatusCode::DEADLINE_EXCEEDED));
    node.stage.until("the end of the verb", |s| !s.endings.lock().is_empty());
    assert_eq!(*node.stage.endings.lock(), [Kind::DeadlineExceeded]);
}

#[test]
fn a_client_that_cancels_or_dies_cancels_the_verb() {
    let node = Node::start("cancel");
    let client = node.connect();
    let call = client.unary_call_async(&rpc::EXEC_SYNC, &ExecSyncRequest::default(), CallOption::default());
    let mut call = call.expect("sent");
    node.stage.until("the verb", |s| s.held.load(Ordering::Acquire) == 1);
    call.cancel();
    node.stage.until("the end of the verb", |s| s.endings.lock().len() == 1);

    let call = client.unary_call_async(&rpc::EXEC_SYNC, &ExecSyncRequest::default(), CallOption::default());
    node.stage.until("the verb", |s| s.held.load(Ordering::Acquire) == 2);
    drop((call, client));
    node.stage.until("the end of the verb", |s| s.endings.lock().len() == 2);
    assert_eq!(*node.stage.endings.lock(), [Kind::Canceled, Kind::Canceled]);
}

#[test]
fn a_thousand_callers_share_few_workers_which_end_again() {
    let node = Node::with_calls("thousand", 16);
    let client = node.connect();
    let calls: Vec<_> = (0..1000)
        .map(|_| {
            let option = CallOption::default().timeout(PATIENCE);
            client.unary_call_async(&image_service::IMAGE_FS_INFO, &ImageFsInfoRequest::default(), option)
        })
        .collect::<grpcio::Result<_>>()
        .expect("sent");
    for answer in block_on(join_all(calls)) {
        answer.expect("answered");
    }
    let threads = node.stage.threads.lock().clone();
    let alive = |_: &Stage| threads.iter().filter(|t| Path::new("/proc").join(t).exists()).count() <= 2;
    node.stage.until("the end of idle workers", alive);
}

#[test]
fn too_many_calls_are_refused_at_once_and_the_others_are_served() {
    let node = Node::with_calls("many", 8);
    let client = node.connect();
    let request = StopContainerRequest::default();
    let held: Vec<_> = (0..16)
        .map(|_| client.unary_call_async(&rpc::STOP_CONTAINER, &request, CallOption::default()))
        .collect::<grpcio::Result<_>>()
        .expect("sent");
    node.stage.until("eight running verbs", |s| s.held.load(Ordering::Acquire) == 8);
    let refusal = loop {
        // Until the last of the sixteen has arrived, a call may still find room, and then waits.
        let soon = Duration::from_millis(200);
        match ask_within(&client, &rpc::EXEC, &ExecRequest::default(), soon).map(drop).expect_err("no room") {
            (RpcStatusCode::DEADLINE_EXCEEDED, _) => {}
            refusal => break refusal,
        }
    };
    assert_eq!(refusal.0, RpcStatusCode::RESOURCE_EXHAUSTED);
    assert!(refusal.1.ends_with("try again"), "{}", refusal.1);
    let answer = ask(&client, &rpc::VERSION, &VersionRequest::default());
    assert!(answer.is_ok(), "what answers from memory waits for none of them, on the same connection");
    node.stage.open();
    for answer in block_on(join_all(held)) {
        answer.expect("answered");
    }
    assert!(ask(&client, &rpc::EXEC, &ExecRequest::default()).is_ok());
}

#[test]
fn until_it_is_ready_every_call_is_unavailable() {
    let node = Node::start("ready");
    let client = node.connect();
    node.stage.recovering.store(true, Ordering::Release);
    let expected = (RpcStatusCode::UNAVAILABLE, "cricket is not ready: containerd does not answer".to_owned());
    assert_eq!(ask(&client, &rpc::VERSION, &VersionRequest::default()).map(drop), Err(expected.clone()));
    assert_eq!(ask(&client, &rpc::START_CONTAINER, &StartContainerRequest::default()).map(drop), Err(expected));
    node.stage.recovering.store(false, Ordering::Release);
    assert!(ask(&client, &rpc::VERSION, &VersionRequest::default()).is_ok());
}

#[test]
fn what_has_no_verb_is_unimplemented_by_name() {
    let node = Node::start("unimplemented");
    let client = node.connect();
    let (code, message) = ask(&client, &rpc::STATUS, &StatusRequest::default()).map(drop).expect_err("no verb");
    assert_eq!((code, message.as_str()), (RpcStatusCode::UNIMPLEMENTED, "cricket does not implement Status"));
    let mut stream = client
        .server_streaming(&rpc::STREAM_POD_SANDBOXES, &StreamPodSandboxesRequest::default(), CallOption::default())
        .expect("sent");
    let first = block_on(stream.next()).expect("a status").map(drop).map_err(refused);
    assert_eq!(first.map_err(|(code, _)| code), Err(RpcStatusCode::UNIMPLEMENTED));
    let unknown = Method::<VersionRequest, VersionResponse> {
        ty: MethodType::Unary,
        name: "/runtime.v1alpha2.RuntimeService/Version",
        req_mar: rpc::VERSION.req_mar,
        resp_mar: rpc::VERSION.resp_mar,
    };
    let answer = ask(&client, &unknown, &VersionRequest::default()).map(drop);
    assert_eq!(answer.map_err(|(code, _)| code), Err(RpcStatusCode::UNIMPLEMENTED));
}

#[test]
fn every_rpc_of_the_cri_is_known() {
    assert_eq!((rpc::ALL.len(), image_service::ALL.len()), (35, 6));
}

#[test]
fn a_stream_sends_all_and_then_its_status() {
    let node = Node::start("stream");
    let client = node.connect();
    let items = |request: &GetEventsRequest| {
        let stream = client.server_streaming(&rpc::GET_CONTAINER_EVENTS, request, CallOption::default());
        let times = stream.expect("sent").map(|item| item.map(|e| e.created_at).map_err(refused));
        block_on(times.collect::<Vec<_>>())
    };
    let mut request = GetEventsRequest::default();
    assert_eq!(items(&request), [Ok(0), Ok(1), Ok(2)]);
    // grpcio's client lets a bad status overtake the answers before it.
    request.special_fields.mut_unknown_fields().add_varint(100, 1);
    let errors: Vec<_> = items(&request).into_iter().filter_map(Result::err).collect();
    assert_eq!(errors, [(RpcStatusCode::ABORTED, "half way".to_owned())]);
}

#[test]
fn a_stream_ends_when_its_client_goes() {
    let node = Node::start("flood");
    let client = node.connect();
    let mut stream = client
        .server_streaming(&rpc::STREAM_CONTAINERS, &StreamContainersRequest::default(), CallOption::default())
        .expect("sent");
    assert!(block_on(stream.next()).expect("an item").is_ok());
    drop(stream);
    node.stage.until("the end of the verb", |s| *s.endings.lock() == [Kind::Canceled]);
}

#[test]
fn ten_mebibytes_pass_both_ways_and_seventeen_do_not() {
    let node = Node::start("big");
    let client = Client::new(node.channel(-1));
    let request = |id: String| ExecRequest { container_id: id, ..Default::default() };
    let answer = ask(&client, &rpc::EXEC, &request("x".repeat(10 << 20))).expect("fits");
    assert_eq!(answer.url.len(), 10 << 20);
    for too_big in ["x".repeat(17 << 20), (17 << 20).to_string()] {
        let answer = ask(&client, &rpc::EXEC, &request(too_big)).map(drop);
        assert_eq!(answer.map_err(|(code, _)| code), Err(RpcStatusCode::RESOURCE_EXHAUSTED));
    }
    assert!(ask(&client, &rpc::VERSION, &VersionRequest::default()).is_ok());
}

#[test]
fn the_socket_is_for_root_and_its_group_and_goes_with_us() {
    let mut node = Node::start("mode");
    let meta = fs::metadata(node.socket()).expect("there");
    assert!(meta.file_type().is_socket());
    assert_eq!(meta.permissions().mode() & 0o777, 0o660);
    let folder = fs::metadata(node.folder.join("c")).expect("there");
    assert_eq!(folder.permissions().mode() & 0o777, 0o711);
    assert!(node.stop());
    assert!(!node.socket().exists());
}

#[test]
fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let mut node = Node::start("stale");
    let e = node.serve(8).map(drop).expect_err("the lock is held");
    assert_eq!(e.kind(), Kind::FailedPrecondition);
    assert!(e.to_string().contains("another cricket") && e.to_string().contains("cricket.sock"), "{e}");
    assert!(ask(&node.connect(), &rpc::VERSION, &VersionRequest::default()).is_ok(), "the first goes on");
    node.stop();

    let stranger = UnixListener::bind(node.socket()).expect("free");
    let e = node.serve(8).map(drop).expect_err("somebody answers");
    assert_eq!(e.kind(), Kind::FailedPrecondition);
    assert!(UnixStream::connect(node.socket()).is_ok(), "the stranger goes on");
    drop(stranger);
    node.server = Some(node.serve(8).expect("the stranger left a stale socket"));
    assert!(ask(&node.connect(), &rpc::VERSION, &VersionRequest::default()).is_ok());
    node.stop();

    fs::write(node.socket(), "").expect("free");
    assert_eq!(node.serve(8).map(drop).map_err(|e| e.kind()), Err(Kind::FailedPrecondition));
}

#[test]
fn a_socket_of_somebody_else_is_left_alone_at_shutdown() {
    let mut node = Node::start("foreign");
    fs::remove_file(node.socket()).expect("there");
    let _stranger = UnixListener::bind(node.socket()).expect("free");
    assert!(node.stop());
    assert!(UnixStream::connect(node.socket()).is_ok());
}

#[test]
fn shutdown_lets_calls_finish_and_takes_no_new_ones() {
    let mut node = Node::start("shutdown");
    let client = node.connect();
    let held = client.unary_call_async(&rpc::STOP_CONTAINER, &StopContainerRequest::default(), CallOption::default());
    node.stage.until("the verb", |s| s.held.load(Ordering::Acquire) == 1);
    let server = node.server.take().expect("running");
    let (done, finished) = mpsc::channel();
    let stop = thread::Builder::new().spawn(move || done.send(server.shutdown(PATIENCE)));
    node.stage.until("the end of the socket", |_| !node.folder.join("c/cricket.sock").exists());
    assert!(UnixStream::connect(node.socket()).is_err());
    node.stage.open();
    assert!(block_on(held.expect("sent")).is_ok(), "the call in flight is answered");
    assert_eq!(finished.recv_timeout(PATIENCE), Ok(true));
    assert!(stop.expect("started").join().expect("no panic").is_ok());
}

#[test]
fn shutdown_cancels_what_does_not_finish_in_time() {
    let mut node = Node::start("grace");
    let client = node.connect();
    let call = client.unary_call_async(&rpc::EXEC_SYNC, &ExecSyncRequest::default(), CallOption::default());
    node.stage.until("the verb", |s| s.held.load(Ordering::Acquire) == 1);
    assert!(!node.server.take().expect("running").shutdown(Duration::from_millis(10)));
    assert_eq!(*node.stage.endings.lock(), [Kind::Canceled]);
    assert!(block_on(call.expect("sent")).is_err());
}

#[test]
fn an_idle_client_does_not_hold_up_a_shutdown() {
    let mut node = Node::start("idle");
    let client = node.connect();
    assert!(ask(&client, &rpc::VERSION, &VersionRequest::default()).is_ok());
    let started = Instant::now();
    assert!(node.stop());
    assert!(started.elapsed() < PATIENCE / 2);
}
