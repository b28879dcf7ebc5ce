//! From a call on the wire to a verb on a worker thread, and back.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use futures_executor::block_on;
use grpcio::{
    GrpcSlice, Marshaller, Method, MethodType, RpcContext, RpcStatus, ServerStreamingSink, Service, ServiceBuilder,
    UnarySink, UnarySinkResult,
};

use super::answer::Outlet;
use super::status;
use super::State;
use crate::call::Call;
use crate::encoded::Encoded;
use crate::error::{Error, Kind, Result};
use crate::sys;
use crate::workers::Workers;

/// The table RPC → verb, under construction.
pub struct Table<S> {
    stage: Arc<Stage<S>>,
    builder: ServiceBuilder,
    served: HashSet<&'static str>,
}

/// What every call needs.
struct Stage<S> {
    state: Arc<S>,
    lanes: Arc<Lanes>,
}

/// The threads of the verbs. Those of one lane may all be taken for minutes, by graceful stops and by commands that run
/// on; the kubelet's lists must not wait behind them, or it takes the node for dead.
pub(super) struct Lanes {
    /// For verbs that answer from memory or soon, but not at once.
    pub quick: Workers,
    /// For verbs that may block.
    pub slow: Workers,
}

impl Lanes {
    /// Blocks until no call is in flight, or until `deadline`; returns whether none is.
    pub(super) fn drain(&self, deadline: Instant) -> bool {
        self.slow.drain(deadline) && self.quick.drain(deadline)
    }

    /// Calls under way.
    pub(super) fn in_flight(&self) -> usize {
        self.slow.in_flight() + self.quick.in_flight()
    }

    /// Refuses further calls and ends the idle threads.
    pub(super) fn close(&self) {
        self.slow.close();
        self.quick.close();
    }
}

impl<S: State> Table<S> {
    pub(super) fn new(state: Arc<S>, lanes: Arc<Lanes>) -> Self {
        let stage = Arc::new(Stage { state, lanes });
        Table { stage, builder: ServiceBuilder::new(), served: HashSet::new() }
    }

    /// `method` is answered by `verb`, on a worker thread. It may block.
    #[must_use]
    pub fn unary<Q, R>(self, method: &Method<Q, R>, verb: fn(&S, &Call, Q) -> Result<R>) -> Self
    where
        Q: Send + 'static,
        R: Send + 'static,
    {
        self.add(
            |lanes| &lanes.slow,
            method,
            move |state: &S, call: &Call, request: Q, _: &mut Outlet<R>| verb(state, call, request).map(Some),
        )
    }

    /// `method` is answered by `verb` from memory, on a worker thread that no blocking verb ever takes.
    #[must_use]
    pub fn quick<Q, R>(self, method: &Method<Q, R>, verb: fn(&S, &Call, Q) -> Result<R>) -> Self
    where
        Q: Send + 'static,
        R: Send + 'static,
    {
        self.add(
            |lanes| &lanes.quick,
            method,
            move |state: &S, call: &Call, request: Q, _: &mut Outlet<R>| verb(state, call, request).map(Some),
        )
    }

    /// `method` is answered by `verb` at once, on the gRPC thread: from memory, without a file or a peer. What the
    /// kubelet asks every second costs no thread then, and is never in the way of another call for long.
    #[must_use]
    pub fn instant<Q, R>(self, method: &Method<Q, R>, verb: fn(&S, &Call, Q) -> Result<R>) -> Self
    where
        Q: Send + 'static,
        R: Send + 'static,
    {
        self.instant_unless(|_| false, method, verb)
    }

    /// As [`Table::instant`], but for requests that may block: those are answered as by [`Table::quick`].
    #[must_use]
    pub fn instant_unless<Q, R>(
        mut self,
        blocks: fn(&Q) -> bool,
        method: &Method<Q, R>,
        verb: fn(&S, &Call, Q) -> Result<R>,
    ) -> Self
    where
        Q: Send + 'static,
        R: Send + 'static,
    {
        let stage = self.stage.clone();
        let rpc = rpc(method.name);
        self.served.insert(method.name);
        let handler = move |context: RpcContext<'_>, request: Q, sink: UnarySink<R>| {
            let call = sys::grpc_deadline::left(context.deadline()).map_or_else(Call::unbounded, Call::within);
            if !blocks(&request) {
                let result = judge(rpc, &*stage.state, &call, || verb(&stage.state, &call, request));
                let sent = tell(sink, result);
                context.spawn(async move { note(rpc, sent.await) });
                return;
            }
            match stage.lanes.quick.reserve() {
                Ok(seat) => {
                    let state = stage.state.clone();
                    seat.run(rpc, move || {
                        let result = judge(rpc, &*state, &call, || verb(&state, &call, request));
                        note(rpc, block_on(tell(sink, result)));
                    });
                }
                Err(e) => {
                    log::warn!("{rpc}: {e}");
                    let sent = tell(sink, Err(status::status(&e)));
                    context.spawn(async move { note(rpc, sent.await) });
                }
            }
        };
        self.builder = self.builder.add_unary_handler(method, handler);
        self
    }

    /// `method` is answered by what `verb` sends, on a worker thread that it keeps for as long as it runs.
    #[must_use]
    pub fn stream<Q, R>(self, method: &Method<Q, R>, verb: fn(&S, &Call, Q, &mut Outlet<R>) -> Result<()>) -> Self
    where
        Q: Send + 'static,
        R: Send + 'static,
    {
        self.add(
            |lanes| &lanes.slow,
            method,
            move |state: &S, call: &Call, request: Q, outlet: &mut Outlet<R>| {
                verb(state, call, request, outlet).map(|()| None)
            },
        )
    }

    /// Those of `paths` that no verb serves are answered `Unimplemented`, unary and streaming alike.
    #[must_use]
    pub fn rest(mut self, paths: &'static [&'static str]) -> Self {
        for path in paths {
            if !self.served.insert(path) {
                continue;
            }
            self.builder = self.builder.add_server_streaming_handler(
                &untyped(path),
                move |context: RpcContext<'_>, (): (), sink: ServerStreamingSink<()>| {
                    let refusal = Error::new(Kind::Unimplemented, format!("cricket does not implement {}", rpc(path)));
                    Outlet::new(sink, &Call::unbounded()).fail_later(&context, status::status(&refusal));
                },
            );
        }
        self
    }

    pub(super) fn build(self) -> Service {
        self.builder.build()
    }

    /// `run` may send answers and returns the last one.
    fn add<Q, R, F>(mut self, lane: fn(&Lanes) -> &Workers, method: &Method<Q, R>, run: F) -> Self
    where
        Q: Send + 'static,
        R: Send + 'static,
        F: Fn(&S, &Call, Q, &mut Outlet<R>) -> Result<Option<R>> + Copy + Send + 'static,
    {
        let stage = self.stage.clone();
        let rpc = rpc(method.name);
        self.served.insert(method.name);
        self.builder = self.builder.add_server_streaming_handler(
            method,
            move |context: RpcContext<'_>, request: Q, sink: ServerStreamingSink<R>| {
                // This is the one gRPC thread: it hands over and never blocks.
                let call = sys::grpc_deadline::left(context.deadline()).map_or_else(Call::unbounded, Call::within);
                let outlet = Outlet::new(sink, &call);
                match lane(&stage.lanes).reserve() {
                    Ok(seat) => {
                        let state = stage.state.clone();
                        seat.run(rpc, move || {
                            serve(rpc, &*state, &call, outlet, |outlet| run(&state, &call, request, outlet));
                        });
                    }
                    Err(e) => {
                        log::warn!("{rpc}: {e}");
                        outlet.fail_later(&context, status::status(&e));
                    }
                }
            },
        );
        self
    }
}

/// One call from first to last, on a worker thread.
fn serve<S: State, R>(
    rpc: &str,
    state: &S,
    call: &Call,
    mut outlet: Outlet<R>,
    run: impl FnOnce(&mut Outlet<R>) -> Result<Option<R>>,
) {
    match judge(rpc, state, call, || run(&mut outlet)) {
        Ok(last) => {
            if let Err(e) = outlet.finish(last) {
                log::error!("{rpc}: {e}");
            }
        }
        Err(status) => outlet.fail(status),
    }
}

/// Runs a verb, if it may run at all, and writes down how it ended.
fn judge<S: State, T>(rpc: &str, state: &S, call: &Call, run: impl FnOnce() -> Result<T>) -> Result<T, RpcStatus> {
    let started = Instant::now();
    let result = admit(state, call).and_then(|()| run());
    status::log(rpc, started.elapsed(), &result);
    result.map_err(|e| status::status(&e))
}

/// Sends the one answer of a call, or its refusal. It is on its way when the result is driven to its end.
fn tell<R>(sink: UnarySink<R>, result: Result<R, RpcStatus>) -> UnarySinkResult {
    match result {
        Ok(answer) => sink.success(answer),
        Err(status) => sink.fail(status),
    }
}

/// A client that is gone is nothing to tell of; an answer that cannot be written is.
fn note(rpc: &str, sent: grpcio::Result<()>) {
    if let Err(grpcio::Error::Codec(e)) = sent {
        log::error!("{rpc}: encode the answer: {e}");
    }
}

/// Whether the verb should run at all: its client may have gone while the call was queued.
fn admit(state: &impl State, call: &Call) -> Result<()> {
    call.check()?;
    match state.not_ready() {
        Some(why) => Err(Error::new(Kind::Unavailable, format!("cricket is not ready: {why}"))),
        None => Ok(()),
    }
}

/// `/runtime.v1.RuntimeService/Version` → `Version`.
fn rpc(path: &'static str) -> &'static str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

/// `method` with answers that are encoded already.
pub fn encoded<Q, R>(method: &Method<Q, R>) -> Method<Q, Encoded<R>> {
    Method {
        ty: method.ty,
        name: method.name,
        req_mar: Marshaller { ser: method.req_mar.ser, de: method.req_mar.de },
        resp_mar: Marshaller {
            ser: |answer: &Encoded<R>, wire| {
                *wire = GrpcSlice::from(answer.bytes());
                Ok(())
            },
            // The client's half, and this is the server.
            de: |_| Err(grpcio::Error::Codec("an encoded answer is not read again".into())),
        },
    }
}

/// A method whose messages nobody looks at.
fn untyped(path: &'static str) -> Method<(), ()> {
    Method {
        ty: MethodType::ServerStreaming,
        name: path,
        req_mar: Marshaller { ser: |(), _| Ok(()), de: |_| Ok(()) },
        resp_mar: Marshaller { ser: |(), _| Ok(()), de: |_| Ok(()) },
    }
}
