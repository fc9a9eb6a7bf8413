//! The response body on its way to the caller (contract: gateway.md §10.6, §17.2; README D10).
//!
//! A frame goes on as soon as it is there and before the next is asked for; whoever is slower sets the pace. Before
//! each frame the revocation flag is looked at, and the same flag wakes the body while the upstream is silent. Whatever
//! ends a body other than its end is an error of the body: the connection then breaks off, and no caller takes a part
//! for the whole. The one exception is announced as such: a chunked HTTP/1.1 response that a revocation cuts ends in
//! order, with the trailer that says so ([`LastWords`]).

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use caracal_http::server::LastWords;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use crate::evidence::{Attempt, Outcome};
use crate::revocation::Watch;

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
    /// A response of known length took too long as a whole.
    #[error("the response took too long")]
    TooLong,
}

/// Time limits of one response.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// Silence of the upstream.
    pub(crate) idle: Duration,
    /// The whole of a response of known length.
    pub(crate) total: Option<Duration>,
}

type BodyError = Box<dyn Error + Send + Sync>;

/// An upstream's body, watched.
pub(crate) struct RelayBody {
    /// `None` once it ended or was cut: dropping it cancels the upstream.
    upstream: Option<Incoming>,
    watch: Watch,
    attempt: Attempt,
    idle: Duration,
    silence: Option<Pin<Box<Sleep>>>,
    silent_since_last_frame: bool,
    total: Option<Pin<Box<Sleep>>>,
    /// Whether the response's framing has room for a trailer.
    chunked: bool,
}

impl RelayBody {
    /// `chunked`: whether the response will be, on its way to the caller.
    pub(crate) fn new(upstream: Incoming, watch: Watch, attempt: Attempt, patience: Patience, chunked: bool) -> Self {
        Self {
            upstream: Some(upstream),
            watch,
            attempt,
            idle: patience.idle,
            silence: None,
            silent_since_last_frame: false,
            total: patience.total.map(|total| Box::pin(sleep_until(Instant::now() + total))),
            chunked,
        }
    }

    /// Ends the body early.
    fn cut(&mut self, why: CutShort) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.upstream = None;
        if why == CutShort::Revoked {
            self.attempt.interrupted();
        } else {
            self.attempt.end(Outcome::CopyFailed);
        }
        let in_order = why == CutShort::Revoked && self.chunked;
        Poll::Ready(Some(Err(if in_order { Box::new(REVOKED) } else { Box::new(why) })))
    }

    fn is_silent_for_too_long(&mut self, cx: &mut Context<'_>) -> bool {
        let idle = self.idle;
        let silence = self.silence.get_or_insert_with(|| Box::pin(sleep(idle)));
        if !self.silent_since_last_frame {
            self.silent_since_last_frame = true;
            silence.as_mut().reset(Instant::now() + idle);
        }
        silence.as_mut().poll(cx).is_ready()
    }
}

impl Body for RelayBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if this.upstream.is_some() && this.watch.poll_revoked(cx) {
            return this.cut(CutShort::Revoked);
        }
        if this.total.as_mut().is_some_and(|total| total.as_mut().poll(cx).is_ready()) {
            return this.cut(CutShort::TooLong);
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
                    this.attempt.end(Outcome::Executed);
                    return Poll::Ready(None);
                }
                Poll::Pending if this.is_silent_for_too_long(cx) => {
                    return this.cut(CutShort::Silent);
                }
                Poll::Pending => return Poll::Pending,
            };
            this.silent_since_last_frame = false;
            // Trailers of the upstream are dropped.
            if let Ok(data) = frame.into_data() {
                this.attempt.relayed(data.len());
                if this.upstream.as_ref().is_some_and(Incoming::is_end_stream) {
                    // A body of known length is not polled again behind its last byte.
                    this.attempt.end(Outcome::Executed);
                }
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.upstream.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.upstream.as_ref().map(Incoming::size_hint).unwrap_or_default()
    }
}
