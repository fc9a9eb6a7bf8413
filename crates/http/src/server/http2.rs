//! HTTP/2 connections.
//!
//! What HTTP/1 gets from the order of its bytes has to be kept here for many requests at once. A caller may open a stream
//! and give it no room to be answered in: then the library asks its body for nothing more, and nobody would notice that
//! the body has died, or what it holds. So each body runs on a task of its own, which gives up when nothing is taken of
//! it for too long, and takes the stream along ([`Runner`]). A connection without streams ends like one that is idle. And who drains the listener waits for the
//! streams of connections that were cut, because their bodies may have a last word for somebody else.
//!
//! Floods end in the library where it counts them: heads that go on for ever or unpack to too much, frames without data,
//! streams that are reset before they were looked at. The limits are said here, so that none of them changes with the
//! library. Questions that need an answer (`PING`, `SETTINGS`) it reads one at a time, so a caller who does not take the
//! answers meets the limit on writes. What it does not count are requests that are begun and taken back one by one,
//! each of which has cost a part of an answer ([`Tally`]).

use std::convert::Infallible;
use std::error::Error;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::timeout;
use tower::{Service, ServiceExt};

use super::pace::{Paced, Pacer};
use super::socket::Socket;
use super::{HeadFault, LINGER, Limits, MAX_HEAD_BYTES, OnHeadFault, PeerAddr, Tls, head_fault, refusal, stopped};
use crate::request_id::{FreshId, RequestId};

type BodyError = Box<dyn Error + Send + Sync>;

/// Requests at a time on one connection.
const STREAMS: u32 = 128;
/// Bytes of one stream that the library may hold in either direction: what bounds the memory a caller can tie up.
const WINDOW_BYTES: u32 = 64 * 1024;
/// The same for all streams of a connection, on their way in.
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// Bytes of one frame: the least that the protocol allows, and the measure of the library's limit on `CONTINUATION`.
const FRAME_BYTES: u32 = 16 * 1024;
/// What is kept of a caller's heads to read the next ones by: what the protocol begins with.
const HEADER_TABLE_BYTES: u32 = 4096;
/// Streams that wait to be looked at and have been reset meanwhile (CVE-2023-44487): they count as open no more, so that
/// nothing else bounds them.
const RESETS_UNSEEN: usize = 20;
/// Streams that we had to reset because of what a caller sent on them, over the life of a connection.
const FAULTS: usize = 256;
/// Requests that a caller may take back before their answers, over the life of a connection, if they are also more than
/// those it let us answer. People give up, and a proxy in front brings many of them; nobody gives up on most of what they ask.
pub(super) const TAKEN_BACK: usize = 256;
/// How often a silent caller is asked whether it is still there, and how long it may take to say so.
const PING: Duration = Duration::from_secs(30);
const PONG: Duration = Duration::from_secs(20);

/// Counts what is open, and tells when that changes.
#[derive(Default)]
pub(super) struct Open {
    count: AtomicUsize,
    changed: Notify,
}

impl Open {
    fn any(&self) -> bool {
        self.count.load(Ordering::Acquire) > 0
    }

    /// Waits until nothing is open.
    pub(super) async fn none(&self) {
        while self.any() {
            self.changed.notified().await;
        }
    }

    /// Ends when nothing was open for as long as `limit`.
    async fn idle_for(&self, limit: Duration) {
        loop {
            if self.any() {
                self.changed.notified().await;
            } else if timeout(limit, self.changed.notified()).await.is_err() {
                return;
            }
        }
    }
}

/// A stream, of its connection and of its listener.
struct Counted([Arc<Open>; 2]);

impl Counted {
    fn new(open: [Arc<Open>; 2]) -> Self {
        for one in &open {
            one.count.fetch_add(1, Ordering::AcqRel);
            one.changed.notify_one();
        }
        Self(open)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        for one in &self.0 {
            one.count.fetch_sub(1, Ordering::AcqRel);
            one.changed.notify_one();
        }
    }
}

/// What became of a connection's requests.
#[derive(Default)]
struct Tally {
    answered: AtomicUsize,
    taken_back: AtomicUsize,
    too_many: Notify,
}

/// A request that waits for its answer.
struct Asked {
    counted: Option<Counted>,
    tally: Arc<Tally>,
}

impl Asked {
    fn answered(mut self) -> Option<Counted> {
        self.tally.answered.fetch_add(1, Ordering::Relaxed);
        self.counted.take()
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if self.counted.is_none() {
            return;
        }
        let taken_back = self.tally.taken_back.fetch_add(1, Ordering::Relaxed) + 1;
        if taken_back > TAKEN_BACK && taken_back > self.tally.answered.load(Ordering::Relaxed) {
            self.tally.too_many.notify_one();
        }
    }
}

/// Runs the streams of a connection, each until it ends or is given up. Dropped, a stream is reset, also one that the library
/// would wait for.
#[derive(Clone, Default)]
struct Runner {
    /// What gives up the stream that comes next: a service is called, and then its stream is run, before the next is called.
    next: Arc<Mutex<Option<Arc<Notify>>>>,
}

impl Runner {
    fn next(&self) -> Arc<Notify> {
        let given_up = Arc::new(Notify::new());
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(given_up.clone());
        given_up
    }
}

impl<F> Executor<F> for Runner
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, stream: F) {
        let given_up = self.next.lock().unwrap_or_else(PoisonError::into_inner).take();
        tokio::spawn(async move {
            match given_up {
                Some(given_up) => tokio::select! {
                    biased;
                    _ = stream => {}
                    () = given_up.notified() => {}
                },
                None => drop(stream.await),
            }
        });
    }
}

/// Who is at the other end, and what names its requests.
pub(super) struct Caller {
    pub(super) peer: PeerAddr,
    pub(super) tls: bool,
    pub(super) fresh: FreshId,
    pub(super) on_head_fault: Option<OnHeadFault>,
}

/// Serves one connection until it ends, or until `stop` turns true and what is under way has been answered.
pub(super) async fn connection<S, B>(
    socket: Box<dyn Socket>,
    service: S,
    caller: Caller,
    limits: Limits,
    streams: Arc<Open>,
    mut stop: watch::Receiver<bool>,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BodyError>,
{
    let pacer = Pacer::new();
    // Only writes are timed by the socket; what a connection owes us is timed below.
    let _always_busy = pacer.begin(false, false);
    let open = Arc::new(Open::default());
    let (tally, runner) = (Arc::new(Tally::default()), Runner::default());
    let door = Door {
        service,
        caller: Arc::new(caller),
        open: [open.clone(), streams],
        tally: tally.clone(),
        runner: runner.clone(),
        stall: limits.write_stall,
    };
    let mut builder = http2::Builder::new(runner);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_pending_accept_reset_streams(RESETS_UNSEEN)
        .max_local_error_reset_streams(FAULTS)
        .max_frame_size(FRAME_BYTES)
        .header_table_size(HEADER_TABLE_BYTES)
        .max_header_list_size(u32::try_from(MAX_HEAD_BYTES).unwrap_or(u32::MAX))
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(usize::try_from(WINDOW_BYTES).unwrap_or(usize::MAX))
        .keep_alive_interval(PING)
        .keep_alive_timeout(PONG);
    let io = TokioIo::new(Paced::unframed(socket, pacer.clone(), limits));
    let mut serving = std::pin::pin!(builder.serve_connection(io, door));
    let ended = tokio::select! {
        ended = &mut serving => Some(ended),
        () = stopped(&mut stop) => None,
        () = open.idle_for(limits.idle) => None,
        () = tally.too_many.notified() => {
            // Not in order: that would take until the caller agrees, who could go on meanwhile.
            tracing::debug!("a caller took back most of what it asked");
            return;
        }
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            serving.as_mut().graceful_shutdown();
            // Who has nothing under way need not agree to the end.
            tokio::select! {
                ended = &mut serving => ended,
                () = open.idle_for(LINGER) => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

#[derive(Clone)]
struct Door<S> {
    service: S,
    caller: Arc<Caller>,
    open: [Arc<Open>; 2],
    tally: Arc<Tally>,
    runner: Runner,
    stall: Duration,
}

/// The library's own kind of service: it is called on the connection's task, right before its stream is run.
impl<S, B> hyper::service::Service<Request<Incoming>> for Door<S>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BodyError>,
{
    type Response = Response<Pumped>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let counted = Counted::new(self.open.clone());
        let (given_up, stall) = (self.runner.next(), self.stall);
        let id = RequestId::adopt(request.headers(), &self.caller.fresh);
        let fault = head_fault(&request).or_else(|| two_hosts(&request));
        if let Some(status) = fault {
            if let Some(hear) = &self.caller.on_head_fault {
                hear(HeadFault::of(status));
            }
            return Box::pin(async move {
                let response = refusal(status, &id);
                Ok(response.map(|body| Pumped::start(body, stall, Some(counted), given_up)))
            });
        }
        request.extensions_mut().insert(id);
        request.extensions_mut().insert(self.caller.peer);
        if self.caller.tls {
            request.extensions_mut().insert(Tls);
        }
        let asked = Asked { counted: Some(counted), tally: self.tally.clone() };
        let answer = self.service.clone().oneshot(request);
        Box::pin(async move {
            // Counted for as long as the answer is awaited, and then for as long as its body lives.
            let response = match answer.await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            let counted = asked.answered();
            Ok(response.map(|body| Pumped::start(body, stall, counted, given_up)))
        })
    }
}

/// A `Host` that is not the authority of the request, one that says who asks, or none at all (RFC 9113 §8.3.1).
fn two_hosts<B>(request: &Request<B>) -> Option<StatusCode> {
    let authority = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    let host = request.headers().get(HOST).map(|host| host.as_bytes());
    let one = match (authority, host) {
        (Some(authority), _) if authority.contains(&b'@') => false,
        (Some(authority), Some(host)) => authority.eq_ignore_ascii_case(host),
        (None, None) => false,
        _ => true,
    };
    (!one).then_some(StatusCode::BAD_REQUEST)
}

/// The caller took nothing of a response for too long.
#[derive(Debug, thiserror::Error)]
#[error("the caller takes nothing")]
struct Stalled;

/// What a body says next; `None` is the end in order.
type Said = Option<Result<Frame<Bytes>, BodyError>>;

/// A body that runs on a task of its own.
struct Pumped {
    frames: Option<mpsc::Receiver<Said>>,
    hint: SizeHint,
}

impl Pumped {
    fn start<B>(body: B, stall: Duration, counted: Option<Counted>, given_up: Arc<Notify>) -> Self
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BodyError>,
    {
        if body.is_end_stream() {
            return Self { frames: None, hint: SizeHint::with_exact(0) };
        }
        let hint = body.size_hint();
        let (into, frames) = mpsc::channel(1);
        tokio::spawn(async move {
            // Handed on is not taken: the library may hold the rest for want of room.
            let stalled = match pump(body, &into, stall).await {
                Ok(()) => timeout(stall, into.closed()).await.is_err(),
                Err(Stalled) => true,
            };
            // Behind the body, which may have had something to say about its end.
            drop(counted);
            if stalled {
                given_up.notify_one();
            }
        });
        Self { frames: Some(frames), hint }
    }
}

async fn pump<B>(body: B, into: &mpsc::Sender<Said>, stall: Duration) -> Result<(), Stalled>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BodyError>,
{
    let mut body = std::pin::pin!(body);
    loop {
        let frame = tokio::select! {
            frame = body.frame() => frame.map(|frame| frame.map_err(Into::into)),
            () = into.closed() => return Ok(()),
        };
        let is_last = !matches!(frame, Some(Ok(_)));
        match timeout(stall, into.send(frame)).await {
            Ok(Ok(())) if !is_last => {}
            Ok(_) => return Ok(()),
            // Told by the channel, too, which then closes without an end.
            Err(_) => return Err(Stalled),
        }
    }
}

impl Body for Pumped {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(frames) = &mut self.frames else { return Poll::Ready(None) };
        match ready!(frames.poll_recv(cx)) {
            Some(Some(frame)) => Poll::Ready(Some(frame)),
            Some(None) => {
                self.frames = None;
                Poll::Ready(None)
            }
            None => {
                self.frames = None;
                Poll::Ready(Some(Err(Box::new(Stalled))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.hint
    }
}
