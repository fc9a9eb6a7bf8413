//! The request body on its way upstream (contract: gateway.md §15.5, §16).
//!
//! It is never held: each frame goes on as it comes, at the pace of whichever side is slower. On the way it is counted
//! against the limit and timed: against the whole request's deadline, or, where a call is a conversation (gRPC), by the
//! silence in both directions. What went wrong is remembered beside the body,
//! because the HTTP client only reports that something did.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http::HeaderName;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, sleep_until};

/// Why a body did not reach its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UploadFault {
    /// More bytes than allowed.
    #[error("request body too large")]
    TooLarge,
    /// Not complete before the request's deadline.
    #[error("request body was not received in time")]
    TooSlow,
    /// The caller broke it off.
    #[error("request body broke off")]
    BrokenOff,
    /// Its chunks are none.
    #[error("request body is not framed as it says")]
    Malformed,
    /// The call is over; what is still being sent for it goes nowhere.
    #[error("the call was cut")]
    Cut,
}

/// When something last moved in a call, in either direction.
pub(crate) struct Pulse {
    begun: Instant,
    /// Milliseconds since then.
    last: AtomicU64,
}

impl Pulse {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { begun: Instant::now(), last: AtomicU64::new(0) })
    }

    /// Something moves.
    pub(crate) fn beat(&self) {
        let now = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.fetch_max(now, Ordering::Relaxed);
    }

    /// Until when nothing need move, when silence may last `idle`.
    pub(crate) fn patience(&self, idle: Duration) -> Instant {
        // A millisecond more: the last beat was rounded down.
        self.begun + Duration::from_millis(self.last.load(Ordering::Relaxed) + 1) + idle
    }

    /// Ready when nothing has moved for `idle`. `timer` serves this alone.
    pub(crate) fn poll_silence(&self, idle: Duration, timer: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<()> {
        let mut timer = timer;
        loop {
            let until = self.patience(idle);
            if timer.deadline() != until {
                timer.as_mut().reset(until);
            }
            ready!(timer.as_mut().poll(cx));
            if self.patience(idle) <= Instant::now() {
                return Poll::Ready(());
            }
        }
    }
}

/// How long an upload may take.
pub(crate) enum Timing {
    /// Complete by then.
    Deadline(Instant),
    /// For as long as the call lives: nothing may be still in both directions for longer than this.
    Alive(Arc<Pulse>, Duration),
}

impl UploadFault {
    /// What a failing read of the body means.
    fn of(error: &hyper::Error) -> Self {
        let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
        match cause {
            Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => Self::Malformed,
            _ => Self::BrokenOff,
        }
    }
}

/// What is known of an upload from outside.
pub(crate) struct Upload {
    fault: AtomicU8,
    /// Bytes that went on.
    passed: AtomicU64,
    cut: AtomicBool,
    waker: AtomicWaker,
    done: Mutex<Option<oneshot::Sender<()>>>,
}

impl Upload {
    /// Why the body did not reach its end, if it did not.
    pub(crate) fn fault(&self) -> Option<UploadFault> {
        match self.fault.load(Ordering::Acquire) {
            1 => Some(UploadFault::TooLarge),
            2 => Some(UploadFault::TooSlow),
            3 => Some(UploadFault::BrokenOff),
            4 => Some(UploadFault::Malformed),
            5 => Some(UploadFault::Cut),
            _ => None,
        }
    }

    /// Bytes of the body that went on so far.
    pub(crate) fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    /// Lets no further byte pass.
    pub(crate) fn cut(&self) {
        self.cut.store(true, Ordering::Release);
        self.waker.wake();
    }

    fn failed(&self, fault: UploadFault) -> UploadFault {
        let code = match fault {
            UploadFault::TooLarge => 1,
            UploadFault::TooSlow => 2,
            UploadFault::BrokenOff => 3,
            UploadFault::Malformed => 4,
            UploadFault::Cut => 5,
        };
        // The first one is the cause.
        let _ = self.fault.compare_exchange(0, code, Ordering::AcqRel, Ordering::Acquire);
        fault
    }

    fn done(&self) {
        if let Some(done) = self.done.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = done.send(());
        }
    }
}

/// A request body under its limits.
pub(crate) struct UploadBody {
    body: Incoming,
    left: u64,
    timing: Timing,
    timer: Pin<Box<Sleep>>,
    /// The name of the credential, where fields behind the body go on.
    trailers: Option<HeaderName>,
    upload: Arc<Upload>,
}

impl UploadBody {
    /// At most `limit` bytes, in time, and what comes behind them if `trailers` names the credential. The receiver hears when nothing more is to be sent.
    pub(crate) fn new(
        body: Incoming,
        limit: u64,
        timing: Timing,
        trailers: Option<HeaderName>,
    ) -> (Self, Arc<Upload>, oneshot::Receiver<()>) {
        let (done, finished) = oneshot::channel();
        let upload = Arc::new(Upload {
            fault: AtomicU8::new(0),
            passed: AtomicU64::new(0),
            cut: AtomicBool::new(false),
            waker: AtomicWaker::new(),
            done: Mutex::new(Some(done)),
        });
        let at_end = body.is_end_stream();
        let until = match &timing {
            Timing::Deadline(deadline) => *deadline,
            Timing::Alive(pulse, idle) => pulse.patience(*idle),
        };
        let this =
            Self { body, left: limit, timing, timer: Box::pin(sleep_until(until)), trailers, upload: upload.clone() };
        if at_end {
            this.upload.done();
        }
        (this, upload, finished)
    }

    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &self.timing {
            Timing::Deadline(_) => self.timer.as_mut().poll(cx),
            Timing::Alive(pulse, idle) => pulse.poll_silence(*idle, self.timer.as_mut(), cx),
        }
    }
}

impl Body for UploadBody {
    type Data = Bytes;
    type Error = UploadFault;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadFault>>> {
        // Registered before looking: a cut in between wakes.
        self.upload.waker.register(cx.waker());
        if self.upload.cut.load(Ordering::Acquire) {
            return Poll::Ready(Some(Err(self.upload.failed(UploadFault::Cut))));
        }
        loop {
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
                ready!(self.poll_late(cx));
                return Poll::Ready(Some(Err(self.upload.failed(UploadFault::TooSlow))));
            };
            let data = match frame.map(|frame| frame.map(Frame::into_data)) {
                None => {
                    self.upload.done();
                    return Poll::Ready(None);
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(self.upload.failed(UploadFault::of(&error))))),
                Some(Ok(Err(frame))) => match (frame.into_trailers(), &self.trailers) {
                    (Ok(trailers), Some(credential)) => {
                        let passed = crate::egress::request::trailers(&trailers, credential);
                        self.upload.done();
                        return Poll::Ready(Some(Ok(Frame::trailers(passed))));
                    }
                    _ => continue,
                },
                Some(Ok(Ok(data))) => data,
            };
            let Some(left) = self.left.checked_sub(u64::try_from(data.len()).unwrap_or(u64::MAX)) else {
                return Poll::Ready(Some(Err(self.upload.failed(UploadFault::TooLarge))));
            };
            self.left = left;
            self.upload.passed.fetch_add(u64::try_from(data.len()).unwrap_or(0), Ordering::Relaxed);
            if let Timing::Alive(pulse, _) = &self.timing {
                pulse.beat();
            }
            if self.body.is_end_stream() {
                // A body of known length is not polled again behind its last byte.
                self.upload.done();
            }
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A client that no longer wants the body will not read the rest of it either.
impl Drop for UploadBody {
    fn drop(&mut self) {
        self.upload.done();
    }
}
