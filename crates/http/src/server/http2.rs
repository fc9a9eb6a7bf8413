//! HTTP/2 connections.
//!
//! What HTTP/1 gets from the order of its bytes has to be kept here for many requests at once. A caller may open a stream
//! and give it no room to be answered in: then the library asks its body for nothing more, and nobody would notice that
//! the body has died, or what it holds. So each body runs on a task of its own, which gives up when nothing is taken of
//! it for too long. A connection without streams ends like one that is idle. And who drains the listener waits for the
//! streams of connections that were cut, because their bodies may have a last word for somebody else.

use std::convert::Infallible;
use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::timeout;
use tower::Service;

use super::pace::{Paced, Pacer};
use super::socket::Socket;
use super::{LINGER, Limits, MAX_HEAD_BYTES, PeerAddr, Tls, head_fault, refusal, stopped};
use crate::request_id::{FreshId, RequestId};

type BodyError = Box<dyn Error + Send + Sync>;

/// Requests at a time on one connection.
const STREAMS: u32 = 128;
/// Bytes of one stream that the library may hold in either direction: what bounds the memory a caller can tie up.
const WINDOW_BYTES: u32 = 64 * 1024;
/// The same for all streams of a connection, on their way in.
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
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

/// Who is at the other end, and what names its requests.
pub(super) struct Caller {
    pub(super) peer: PeerAddr,
    pub(super) tls: bool,
    pub(super) fresh: FreshId,
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
    let door = Door { service, caller: Arc::new(caller), open: [open.clone(), streams], stall: limits.write_stall };
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(MAX_HEAD_BYTES).unwrap_or(u32::MAX))
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(usize::try_from(WINDOW_BYTES).unwrap_or(usize::MAX))
        .keep_alive_interval(PING)
        .keep_alive_timeout(PONG);
    let io = TokioIo::new(Paced::new(socket, pacer.clone(), limits));
    let mut serving = std::pin::pin!(builder.serve_connection(io, TowerToHyperService::new(door)));
    let ended = tokio::select! {
        ended = &mut serving => Some(ended),
        () = stopped(&mut stop) => None,
        () = open.idle_for(limits.idle) => None,
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
    stall: Duration,
}

impl<S, B> Service<Request<Incoming>> for Door<S>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BodyError>,
{
    type Response = Response<Pumped>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Incoming>) -> Self::Future {
        let counted = Counted::new(self.open.clone());
        let id = RequestId::adopt(request.headers(), &self.caller.fresh);
        let fault = head_fault(&request).or_else(|| two_hosts(&request));
        if let Some(status) = fault {
            let response = refusal(status, &id).map(|body| Pumped::start(body, self.stall, counted));
            return Box::pin(std::future::ready(Ok(response)));
        }
        request.extensions_mut().insert(id);
        request.extensions_mut().insert(self.caller.peer);
        if self.caller.tls {
            request.extensions_mut().insert(Tls);
        }
        let (answer, stall) = (self.service.call(request), self.stall);
        Box::pin(async move {
            // Counted for as long as the answer is awaited, and then for as long as its body lives.
            let response = match answer.await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            Ok(response.map(|body| Pumped::start(body, stall, counted)))
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
    fn start<B>(body: B, stall: Duration, counted: Counted) -> Self
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
            pump(body, &into, stall).await;
            // Behind the body, which may have had something to say about its end.
            drop(counted);
        });
        Self { frames: Some(frames), hint }
    }
}

async fn pump<B>(body: B, into: &mpsc::Sender<Said>, stall: Duration)
where
    B: Body<Data = Bytes>,
    B::Error: Into<BodyError>,
{
    let mut body = std::pin::pin!(body);
    loop {
        let frame = tokio::select! {
            frame = body.frame() => frame.map(|frame| frame.map_err(Into::into)),
            () = into.closed() => return,
        };
        let is_last = !matches!(frame, Some(Ok(_)));
        // An end that is not taken in time is told by the channel, which then closes without one.
        match timeout(stall, into.send(frame)).await {
            Ok(Ok(())) if !is_last => {}
            _ => return,
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
