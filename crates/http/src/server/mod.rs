//! One listener: accept, pace, serve, drain.
//!
//! A caller that opens connections and says nothing, sends a head byte by byte, keeps a connection for ever or never
//! reads its answer must not cost anybody else their service (assurance T08). So connections are counted, a head has a
//! deadline and a size, an idle connection has a limit, and a write that moves nothing is given up; `pace` keeps the
//! time. Bodies are timed by whoever reads them ([`crate::body`]).
//!
//! A connection is taken back from the HTTP library before it closes. Closing on bytes that nobody read resets it, and
//! the caller may lose the answer it was just given; so what it still sends is taken in for a moment. A body may end
//! with [`LastWords`], which the library would not write. And where only the end of the connection says where a body
//! ends, a body that failed must not end in order.
//!
//! On the way down the listener closes first, idle connections end at once, requests under way get the grace period, and
//! what is then left is cut. The caller learns which of the two it was.

mod head;
mod http2;
mod message;
mod pace;
mod socket;
mod tls;

use std::convert::Infallible;
use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequestParts;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode, Version};
use http_body::Body;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tower::Service;

use self::pace::{Paced, Pacer, Tracked};
use self::socket::Ahead;
use crate::limits::Source;
use crate::problem::Problem;
use crate::request_id::{self, FreshId, RequestId};

pub use self::socket::{Socket, TakenOver, Takeover};
pub use self::tls::{ServerTls, ServerTlsError};

/// Largest request head, in bytes: 16 KiB and the 4 KiB of slack that the contract's listeners grant.
pub const MAX_HEAD_BYTES: usize = 20 * 1024;

/// What the parser may buffer while a head is incomplete. Larger than [`MAX_HEAD_BYTES`], so that an oversized head is
/// normally refused by us, with a request id, and not by the parser without one.
const PARSE_BUFFER_BYTES: usize = 32 * 1024;

/// How long to wait after a failed accept: usually we are out of file descriptors, and trying at once only burns time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How every connection of HTTP/2 begins; no method of HTTP/1 does.
const HTTP2_PREFACE: &[u8] = b"PRI ";

/// The answer to what is no HTTP/1 at all.
const MISREAD: &[u8] = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// For how long, and how much, is taken in of what a caller still sends after its answer.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1024 * 1024;

/// The error of a body that ends early and yet in order: what was sent of it is followed by the last chunk and this
/// trailer, whether or not the caller said `TE: trailers`, without which the library writes none. Then the connection
/// closes.
///
/// Only for chunked responses to HTTP/1.1. If the caller has not taken all that was sent before, the connection just
/// breaks off, which nobody takes for an end either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body ends early, with the trailer `{trailer}`")]
pub struct LastWords {
    /// One field line without its line end.
    pub trailer: &'static str,
}

/// Bounds of one listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// From a connection's opening, or from the first byte of a later request, to the end of the head.
    pub head: Duration,
    /// Between two requests on one connection.
    pub idle: Duration,
    /// A write during which the caller takes nothing.
    pub write_stall: Duration,
    /// Connections at a time. Further callers wait in the system's backlog.
    pub max_connections: usize,
    /// How long requests under way may take after a stop.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(5),
            idle: Duration::from_secs(60),
            write_stall: Duration::from_secs(60),
            max_connections: 8_192,
            grace: Duration::from_secs(15),
        }
    }
}

/// The socket address of the caller, an extension of every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerAddr(pub SocketAddr);

impl PeerAddr {
    /// The address without its port.
    pub fn ip(self) -> IpAddr {
        self.0.ip().to_canonical()
    }

    /// What limits are keyed by.
    pub fn source(self) -> Source {
        Source::from(self.0.ip())
    }
}

/// Missing only when a router is served without [`serve`], which is answered as an internal error.
impl<S: Sync> FromRequestParts<S> for PeerAddr {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        parts.extensions.get::<Self>().copied().ok_or_else(Problem::internal)
    }
}

/// How a listener ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Every request under way was answered.
    Drained,
    /// The grace period ran out.
    Cut {
        /// Connections that were cut.
        open: usize,
    },
}

/// What a listener speaks below HTTP.
#[derive(Clone, Default)]
pub struct Transport {
    /// Behind TLS, with HTTP/2 for callers that ask for it by ALPN.
    pub tls: Option<Arc<ServerTls>>,
    /// In the clear, callers may begin with the preface of HTTP/2: for a proxy in front that is known to do so.
    pub cleartext_http2: bool,
    /// Hears of each head that is refused before the service could see it.
    pub on_head_fault: Option<OnHeadFault>,
}

/// What was wrong with a head that the service never saw. One that is cut off, or never comes, is none of these, nor is what
/// HTTP/2 refuses below its requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadFault {
    /// It is no head, or one that two readers could take for different ones.
    Malformed,
    /// It is larger than any head may be.
    TooLarge,
}

impl HeadFault {
    /// Its name where it is counted.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Malformed => "malformed_head",
            Self::TooLarge => "head_too_large",
        }
    }

    fn of(status: StatusCode) -> Self {
        if status == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE { Self::TooLarge } else { Self::Malformed }
    }
}

/// Who is told of heads that are refused.
pub type OnHeadFault = Arc<dyn Fn(HeadFault) + Send + Sync>;

/// An extension of requests that came over TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tls;

/// Serves HTTP/1 in the clear: [`serve_over`] with the default [`Transport`].
pub async fn serve<S, B>(
    listener: TcpListener,
    service: S,
    fresh: FreshId,
    limits: Limits,
    stop: watch::Receiver<bool>,
) -> Ended
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    serve_over(listener, service, fresh, limits, Transport::default(), stop).await
}

/// Serves HTTP on `listener` until `stop` turns true (or its sender is gone), then drains and says how it ended.
///
/// `service` is anything from a router behind its [`Face`](crate::Face) to a `tower::service_fn`; requests carry
/// [`RequestId`] and [`PeerAddr`] as extensions, and [`Tls`] where it is so. Heads that the parser lets through but RFC
/// 9112 does not (no `Host`, or several; a bare line feed; a length beside chunks, or two of them), oversized ones, and
/// bodies in any transfer coding but `chunked` alone never reach it, wherever on a connection they come. A response may
/// take the connection over: see [`Takeover`].
pub async fn serve_over<S, B>(
    listener: TcpListener,
    service: S,
    fresh: FreshId,
    limits: Limits,
    transport: Transport,
    mut stop: watch::Receiver<bool>,
) -> Ended
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let slots = Arc::new(Semaphore::new(limits.max_connections.clamp(1, Semaphore::MAX_PERMITS)));
    let streams = Arc::new(http2::Open::default());
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stopped(&mut stop) => break,
            accepted = accept(&listener, &slots) => accepted,
        };
        while connections.try_join_next().is_some() {}
        let Some((stream, peer, slot)) = accepted else { continue };
        let caller = http2::Caller {
            peer: PeerAddr(peer),
            tls: transport.tls.is_some(),
            fresh: fresh.clone(),
            on_head_fault: transport.on_head_fault.clone(),
        };
        let (service, transport) = (service.clone(), transport.clone());
        let (streams, stop) = (streams.clone(), stop.clone());
        connections.spawn(async move {
            let begun = timeout(limits.head, Box::pin(begin(stream, &transport))).await;
            match begun.unwrap_or(None) {
                // Boxed like the beginning: large, and every other connection would keep the room for it.
                Some((socket, true)) => {
                    Box::pin(http2::connection(socket, service, caller, limits, streams, stop)).await;
                }
                Some((socket, false)) => {
                    let http2::Caller { peer, tls, fresh, on_head_fault } = caller;
                    let door = Door { service, fresh, peer, tls, pacer: Pacer::new(), on_head_fault };
                    connection(socket, door, limits, stop).await;
                }
                None => {}
            }
            drop(slot);
        });
    }
    // Closed before draining: new callers are refused and can go elsewhere instead of waiting for nothing.
    drop(listener);
    let drained = timeout(limits.grace, async { while connections.join_next().await.is_some() {} }).await;
    let ended = match drained {
        Ok(()) => Ended::Drained,
        Err(_) => {
            let open = connections.len();
            connections.shutdown().await;
            Ended::Cut { open }
        }
    };
    // What ran on tasks of its own has lost its connection by now, and is about to notice.
    let _ = timeout(LINGER, streams.none()).await;
    ended
}

/// Serves one connection of HTTP/1 that is open already, to its end: what [`serve`] does with each of its own.
pub async fn serve_socket<S, B>(
    socket: Box<dyn Socket>,
    peer: PeerAddr,
    service: S,
    fresh: FreshId,
    limits: Limits,
    stop: watch::Receiver<bool>,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    connection(
        socket,
        Door { service, fresh, peer, tls: false, pacer: Pacer::new(), on_head_fault: None },
        limits,
        stop,
    )
    .await;
}

/// Finds out what a connection speaks: its socket, and whether that is HTTP/2. `None` when it is not meant for us.
async fn begin(mut stream: TcpStream, transport: &Transport) -> Option<(Box<dyn Socket>, bool)> {
    if let Some(tls) = &transport.tls {
        return match tls.accept(stream).await {
            Ok((stream, http2)) => Some((Box::new(stream), http2)),
            Err(error) => {
                // Scanners and callers that trust us not: their business.
                tracing::debug!(%error, "a handshake failed");
                None
            }
        };
    }
    if !transport.cleartext_http2 {
        return Some((Box::new(stream), false));
    }
    let mut ahead = Vec::with_capacity(HTTP2_PREFACE.len());
    while ahead.len() < HTTP2_PREFACE.len() && HTTP2_PREFACE.starts_with(&ahead) {
        let mut rest = [0; HTTP2_PREFACE.len()];
        let wanted = HTTP2_PREFACE.len() - ahead.len();
        let read = stream.read(rest.get_mut(..wanted)?).await.ok().filter(|read| *read > 0)?;
        ahead.extend_from_slice(rest.get(..read)?);
    }
    let http2 = ahead == HTTP2_PREFACE;
    Some((Box::new(Ahead::new(Bytes::from(ahead), Box::new(stream))), http2))
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that nobody is left who could ever stop us: stop.
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let slot = slots.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => {
            // Answers are written in one piece; waiting for more would only delay them. A socket that refuses the option
            // is one that is already gone.
            let _ = stream.set_nodelay(true);
            Some((stream, peer, slot))
        }
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

async fn connection<S, B>(stream: Box<dyn Socket>, door: Door<S>, limits: Limits, mut stop: watch::Receiver<bool>)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let (pacer, on_head_fault) = (door.pacer.clone(), door.on_head_fault.clone());
    // In a block of its own, so that room for the library's part and for what comes after it is not kept side by side: there
    // is one of these for every connection.
    let (misread, too_large, stopping, read_buf, mut paced) = {
        let io = TokioIo::new(Paced::new(stream, pacer.clone(), limits));
        let mut builder = http1::Builder::new();
        // The parser's own head timer also runs between requests and would end every idle connection; `Paced` tells the two
        // apart.
        builder.header_read_timeout(None).max_buf_size(PARSE_BUFFER_BYTES);
        let mut serving = builder.serve_connection(io, TowerToHyperService::new(door));
        let ended = tokio::select! {
            ended = &mut serving => Some(ended),
            () = stopped(&mut stop) => None,
        };
        let stopping = ended.is_none();
        let ended = match ended {
            Some(ended) => ended,
            None => {
                Pin::new(&mut serving).graceful_shutdown();
                (&mut serving).await
            }
        };
        let misread = ended.as_ref().is_err_and(hyper::Error::is_parse);
        let too_large = ended.as_ref().is_err_and(hyper::Error::is_parse_too_large);
        if let Err(error) = ended {
            // Callers go away all the time; what they sent is theirs to log.
            tracing::debug!(%error, "a connection ended early");
        }
        // The library has sent everything by now, or failed; it closes nothing itself: see `Paced`.
        let parts = serving.into_parts();
        (misread, too_large, stopping, parts.read_buf, parts.io.into_inner())
    };
    if let Some(talk) = pacer.takeover().and_then(Takeover::take) {
        // What the caller has sent behind its request is already the other protocol's, what is left of its body is not.
        // Without the whole request and the whole response there is nothing to go on with, and dropping it says so.
        if !stopping && paced.has_sent_everything() && paced.is_between() && read_buf.is_empty() {
            let (stream, ahead) = paced.into_parts();
            let socket = Box::new(Ahead::new(ahead, stream));
            talk(TakenOver { socket, stop }).await;
        }
        return;
    }
    // It has no word for what we would not let it read. The answer before may be one that ends with its connection, and
    // then this would be taken for a part of it.
    let unread = paced.is_ambiguous() && paced.has_sent_everything();
    let may_answer = paced.has_sent_nothing() || (unread && !pacer.ends_with_connection());
    if may_answer && (misread || unread) {
        let _ = timeout(LINGER, paced.stream().write_all(MISREAD)).await;
    }
    let refused = misread || paced.is_ambiguous();
    if let Some(hear) = on_head_fault.filter(|_| refused) {
        hear(if too_large { HeadFault::TooLarge } else { HeadFault::Malformed });
    }
    Box::pin(part(paced, &pacer, stopping, refused)).await;
}

/// Says the last word on a connection and closes it.
async fn part(paced: Paced, pacer: &Pacer, stopping: bool, refused: bool) {
    let words = pacer.last_words().filter(|_| paced.has_sent_everything());
    let mut stream = paced.into_stream();
    if pacer.must_break_off() {
        // Dropped like this, the connection is reset: closed in order, a part would pass for the whole.
        stream.break_off();
        return;
    }
    if let Some(LastWords { trailer }) = words {
        let _ = timeout(LINGER, stream.write_all(format!("0\r\n{trailer}\r\n\r\n").as_bytes())).await;
    }
    let _ = stream.shutdown().await;
    // Who is idle when we stop owes us nothing more.
    if (pacer.may_be_sending() || refused) && !(stopping && pacer.is_idle()) {
        let _ = timeout(LINGER, drain(stream.as_mut())).await;
    }
}

async fn drain(stream: &mut dyn Socket) {
    let mut left = LINGER_BYTES;
    let mut buffer = [0; 4096];
    while let Ok(read) = stream.read(&mut buffer).await {
        if read == 0 || read > left {
            return;
        }
        left -= read;
    }
}

/// Stands before the service on one connection: names the request, checks its head, and tells the pacer when it is
/// under way.
#[derive(Clone)]
struct Door<S> {
    service: S,
    fresh: FreshId,
    peer: PeerAddr,
    tls: bool,
    pacer: Pacer,
    on_head_fault: Option<OnHeadFault>,
}

impl<S, B> Service<Request<Incoming>> for Door<S>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
{
    type Response = Response<Tracked<Either<Full<Bytes>, B>>>;
    type Error = Infallible;
    type Future = pace::Answer<S::Future>;

    fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Incoming>) -> Self::Future {
        let ends_with_connection = request.version() < Version::HTTP_11;
        let busy = self.pacer.begin(!request.body().is_end_stream(), ends_with_connection);
        let id = RequestId::adopt(request.headers(), &self.fresh);
        let unlooked = (!self.pacer.was_looked_at()).then_some(StatusCode::BAD_REQUEST);
        if let Some(status) = unlooked.or_else(|| head_fault(&request)) {
            if let Some(hear) = &self.on_head_fault {
                hear(HeadFault::of(status));
            }
            return pace::Answer::refused(refusal(status, &id), busy);
        }
        request.extensions_mut().insert(id);
        request.extensions_mut().insert(self.peer);
        if self.tls {
            request.extensions_mut().insert(Tls);
        }
        pace::Answer::running(self.service.call(request), busy)
    }
}

/// What is wrong with a head that could be parsed.
fn head_fault<B>(request: &Request<B>) -> Option<StatusCode> {
    let headers = request.headers();
    let target = request.uri();
    let lines: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    let path = target.path_and_query().map_or(1, |path| path.as_str().len());
    let line = request.method().as_str().len() + path + target.authority().map_or(0, |host| host.as_str().len()) + 12;
    if line + lines > MAX_HEAD_BYTES {
        return Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }
    let hosts = headers.get_all(HOST).iter().count();
    let hosts_wanted = if request.version() == Version::HTTP_11 { hosts == 1 } else { hosts <= 1 };
    // The parser takes off the chunks and leaves any coding under them to whoever reads the body, who does not expect it.
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let framed_once = match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => coding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    };
    // Over HTTP/2 the first of several counts; whoever reads the head behind us may count another.
    let measured_once = headers.get_all(CONTENT_LENGTH).iter().count() <= 1;
    (!hosts_wanted || !framed_once || !measured_once).then_some(StatusCode::BAD_REQUEST)
}

fn refusal(status: StatusCode, id: &RequestId) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{status}\n"))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(request_id::HEADER, id.to_header());
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

#[cfg(test)]
mod pipelining_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod transport_tests;
