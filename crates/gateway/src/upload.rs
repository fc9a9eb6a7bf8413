//! The request body on its way upstream (contract: gateway.md §15.5, §16).
//!
//! It is never held: each frame goes on as it comes, at the pace of whichever side is slower. On the way it is counted
//! against the limit and timed against the whole request's deadline. What went wrong is remembered beside the body,
//! because the HTTP client only reports that something did.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
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
            _ => None,
        }
    }

    fn failed(&self, fault: UploadFault) -> UploadFault {
        let code = match fault {
            UploadFault::TooLarge => 1,
            UploadFault::TooSlow => 2,
            UploadFault::BrokenOff => 3,
            UploadFault::Malformed => 4,
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
    deadline: Pin<Box<Sleep>>,
    upload: Arc<Upload>,
}

impl UploadBody {
    /// At most `limit` bytes, complete before `deadline`. The receiver hears when nothing more is to be sent.
    pub(crate) fn new(body: Incoming, limit: u64, deadline: Instant) -> (Self, Arc<Upload>, oneshot::Receiver<()>) {
        let (done, finished) = oneshot::channel();
        let upload = Arc::new(Upload { fault: AtomicU8::new(0), done: Mutex::new(Some(done)) });
        let at_end = body.is_end_stream();
        let deadline = Box::pin(sleep_until(deadline));
        let this = Self { body, left: limit, deadline, upload: upload.clone() };
        if at_end {
            this.upload.done();
        }
        (this, upload, finished)
    }
}

impl Body for UploadBody {
    type Data = Bytes;
    type Error = UploadFault;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadFault>>> {
        loop {
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
                ready!(self.deadline.as_mut().poll(cx));
                return Poll::Ready(Some(Err(self.upload.failed(UploadFault::TooSlow))));
            };
            let data = match frame.map(|frame| frame.map(Frame::into_data)) {
                None => {
                    self.upload.done();
                    return Poll::Ready(None);
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(self.upload.failed(UploadFault::of(&error))))),
                // Trailers of the request are dropped.
                Some(Ok(Err(_trailers))) => continue,
                Some(Ok(Ok(data))) => data,
            };
            let Some(left) = self.left.checked_sub(u64::try_from(data.len()).unwrap_or(u64::MAX)) else {
                return Poll::Ready(Some(Err(self.upload.failed(UploadFault::TooLarge))));
            };
            self.left = left;
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
