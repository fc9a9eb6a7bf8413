//! The response body on its way to the caller (contract: gateway.md §10.6, §17.2; README D10).
//!
//! A frame goes on as soon as it is there and before the next is asked for; whoever is slower sets the pace. Before
//! each frame the revocation flag is looked at, and the same flag wakes the body while the upstream is silent. Whatever
//! ends a body other than its end is an error of the body: the connection then breaks off, and no caller takes a part
//! for the whole. The one exception is announced as such: a response that a revocation cuts ends in order, with the
//! trailer that says so, where its framing has room for one: behind the chunks of HTTP/1.1 ([`LastWords`]), and over HTTP/2
//! when no length was promised.
//!
//! A response that promises a length has to make progress, however long it is as a whole: a download of an hour passes,
//! and one that drips does not.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use caracal_http::server::LastWords;
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep};

use crate::egress;
use crate::evidence::{Attempt, EndedBy, Outcome};
use crate::grpc;
use crate::revocation::Watch;
use crate::upload::{Pulse, Upload, UploadFault};

/// What a chunked response says at its end when a revocation cut it.
const REVOKED: LastWords = LastWords { trailer: "X-Caracal-Revoked: true" };

/// Why a response broke off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CutShort {
    /// An anchor of the mandate was revoked.
    #[error("the mandate was revoked")]
    Revoked,
    /// The upstream broke off.
    #[error("the upstream broke off")]
    Upstream,
    /// The upstream was silent for too long.
    #[error("the upstream was silent for too long")]
    Silent,
    /// A response of known length made no progress worth the name.
    #[error("the response made too little progress")]
    TooSlow,
}

/// How a response can end that a revocation cuts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Not in order.
    BrokenOff,
    /// With a last chunk and a trailer.
    Chunked,
    /// With trailers of HTTP/2; those of gRPC say how a call ended, too.
    Trailers {
        /// Whether the call is one of gRPC.
        grpc: bool,
    },
}

/// Time limits of one response.
pub(crate) struct Patience {
    /// Silence of the upstream, or of both sides where they talk at the same time.
    pub(crate) idle: Duration,
    /// When something last moved; that of the upload, where both count.
    pub(crate) pulse: Arc<Pulse>,
    /// A response of known length: the time in which [`LEAST_PROGRESS`] has to come.
    pub(crate) progress: Option<Duration>,
}

/// Bytes that a response of known length has to bring in each of its windows of time, until it is whole.
pub(crate) const LEAST_PROGRESS: u64 = 64 * 1024;

type BodyError = Box<dyn Error + Send + Sync>;

/// An upstream's body, watched.
pub(crate) struct RelayBody {
    /// `None` once it ended or was cut: dropping it cancels the upstream.
    upstream: Option<Incoming>,
    watch: Watch,
    attempt: Attempt,
    /// What goes on upstream meanwhile ends with the response when that is cut.
    upload: Arc<Upload>,
    idle: Duration,
    pulse: Arc<Pulse>,
    silence: Option<Pin<Box<Sleep>>>,
    progress: Option<Progress>,
    ending: Ending,
}

struct Progress {
    window: Duration,
    ends: Pin<Box<Sleep>>,
    /// Bytes of this window.
    bytes: u64,
}

impl RelayBody {
    pub(crate) fn new(
        upstream: Incoming,
        watch: Watch,
        attempt: Attempt,
        upload: Arc<Upload>,
        patience: Patience,
        ending: Ending,
    ) -> Self {
        let Patience { idle, pulse, progress } = patience;
        // Silence counts from the head on.
        pulse.beat();
        let progress = progress.map(|window| Progress { window, ends: Box::pin(sleep(window)), bytes: 0 });
        Self { upstream: Some(upstream), watch, attempt, upload, idle, pulse, silence: None, progress, ending }
    }

    /// Ends the body early.
    fn cut(&mut self, why: CutShort) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.upstream = None;
        self.upload.cut();
        match why {
            CutShort::Revoked => self.attempt.interrupted(),
            // An upload that fails under a response takes it along, and its reason is the reason.
            CutShort::Upstream => self.failed(match self.upload.fault() {
                Some(UploadFault::TooSlow) => EndedBy::Silence,
                Some(UploadFault::TooLarge | UploadFault::BrokenOff | UploadFault::Malformed) => EndedBy::Caller,
                Some(UploadFault::Cut) | None => EndedBy::Upstream,
            }),
            CutShort::Silent => self.failed(EndedBy::Silence),
            CutShort::TooSlow => self.failed(EndedBy::Slowness),
        }
        Poll::Ready(Some(match (why, self.ending) {
            (CutShort::Revoked, Ending::Chunked) => Err(Box::new(REVOKED)),
            (CutShort::Revoked, Ending::Trailers { grpc }) => Ok(Frame::trailers(revoked(grpc))),
            _ => Err(Box::new(why)),
        }))
    }

    fn failed(&mut self, by: EndedBy) {
        self.attempt.ended_by(by);
        self.attempt.end(Outcome::CopyFailed);
    }

    /// Whether a window of time has passed without enough to show for it.
    fn is_too_slow(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(progress) = &mut self.progress else { return false };
        while progress.ends.as_mut().poll(cx).is_ready() {
            if progress.bytes < LEAST_PROGRESS {
                return true;
            }
            progress.bytes = 0;
            progress.ends.as_mut().reset(Instant::now() + progress.window);
        }
        false
    }

    fn is_silent_for_too_long(&mut self, cx: &mut Context<'_>) -> bool {
        let idle = self.idle;
        let timer = self.silence.get_or_insert_with(|| Box::pin(sleep(idle)));
        self.pulse.poll_silence(idle, timer.as_mut(), cx).is_ready()
    }

    /// The body has been relayed to its end.
    fn end(&mut self) {
        self.attempt.end(Outcome::Executed);
    }
}

/// A caller who goes away takes the rest of its upload with it.
impl Drop for RelayBody {
    fn drop(&mut self) {
        if self.attempt.caller().is_some() {
            self.upload.cut();
        }
    }
}

/// The trailers of a response that a revocation cuts. In gRPC a call without a status counts as broken, and might be tried
/// again; 16 is that of a caller who is not, or no longer, authenticated.
fn revoked(grpc: bool) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(3);
    trailers.insert("x-caracal-revoked", HeaderValue::from_static("true"));
    if grpc {
        grpc::put(&mut trailers, grpc::UNAUTHENTICATED, "session revoked");
    }
    trailers
}

impl Body for RelayBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if this.upstream.is_some() && this.watch.poll_revoked(cx) {
            return this.cut(CutShort::Revoked);
        }
        if this.is_too_slow(cx) {
            return this.cut(CutShort::TooSlow);
        }
        loop {
            let Some(upstream) = &mut this.upstream else { return Poll::Ready(None) };
            let frame = match Pin::new(upstream).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => frame,
                Poll::Ready(Some(Err(_))) => {
                    return this.cut(CutShort::Upstream);
                }
                Poll::Ready(None) => {
                    this.upstream = None;
                    this.end();
                    return Poll::Ready(None);
                }
                Poll::Pending if this.is_silent_for_too_long(cx) => {
                    return this.cut(CutShort::Silent);
                }
                Poll::Pending => return Poll::Pending,
            };
            this.pulse.beat();
            let data = match frame.into_data() {
                Ok(data) => data,
                Err(frame) => match frame.into_trailers() {
                    // Nothing comes behind them. Whether they are sent depends on what the caller's framing has room for.
                    Ok(trailers) => {
                        this.upstream = None;
                        this.end();
                        return Poll::Ready(Some(Ok(Frame::trailers(egress::trailers(&trailers)))));
                    }
                    Err(_) => continue,
                },
            };
            this.attempt.relayed(data.len());
            if let Some(progress) = &mut this.progress {
                progress.bytes += u64::try_from(data.len()).unwrap_or(0);
            }
            if this.upstream.as_ref().is_some_and(Incoming::is_end_stream) {
                // A body of known length is not polled again behind its last byte.
                this.end();
            }
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.upstream.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.upstream.as_ref().map(Incoming::size_hint).unwrap_or_default()
    }
}
