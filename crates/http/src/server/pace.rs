//! The time of one connection.
//!
//! Three states: a head is expected to come whole (from the opening on, or once its first byte is there), a request is
//! under way, or the connection is idle between two. The socket wrapper [`Paced`] sees the bytes, the service sees the
//! requests; both speak through the [`Pacer`]. All of it happens on the connection's own task.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{Either, Full};
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use super::Limits;

const HEAD: u64 = 0;
const BUSY: u64 = 1;
const IDLE: u64 = 2;
/// The state stands in the two low bits, above them the number of requests so far: two idle spells are not the same one.
const STATE: u64 = 3;

/// What a connection is waiting for. Relaxed order throughout: only one task looks.
#[derive(Clone)]
pub(super) struct Pacer(Arc<AtomicU64>);

impl Pacer {
    /// A new connection owes us a head.
    pub(super) fn new() -> Self {
        Self(Arc::new(AtomicU64::new(HEAD)))
    }

    /// A request is under way until the returned value is dropped.
    pub(super) fn begin(&self) -> Busy {
        let request = (self.now() | STATE).wrapping_add(1);
        self.0.store(request | BUSY, Ordering::Relaxed);
        Busy { pacer: self.clone(), request }
    }

    fn head_begins(&self) {
        let now = self.now();
        if now & STATE == IDLE {
            self.0.store((now & !STATE) | HEAD, Ordering::Relaxed);
        }
    }

    fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A request under way: from the call of the service until the last byte of its answer has been taken.
pub(super) struct Busy {
    pacer: Pacer,
    request: u64,
}

impl Drop for Busy {
    fn drop(&mut self) {
        // A pipelined request may have begun meanwhile; then the connection is not idle.
        if self.pacer.now() == self.request | BUSY {
            self.pacer.0.store(self.request | IDLE, Ordering::Relaxed);
        }
    }
}

pin_project! {
    /// The future answer to one request.
    pub(super) struct Answer<F> {
        #[pin]
        inner: Option<F>,
        refusal: Option<Response<Full<Bytes>>>,
        busy: Option<Busy>,
    }
}

impl<F> Answer<F> {
    pub(super) fn running(inner: F, busy: Busy) -> Self {
        Self { inner: Some(inner), refusal: None, busy: Some(busy) }
    }

    pub(super) fn refused(refusal: Response<Full<Bytes>>, busy: Busy) -> Self {
        Self { inner: None, refusal: Some(refusal), busy: Some(busy) }
    }
}

impl<F, B> Future for Answer<F>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
{
    type Output = Result<Response<Tracked<Either<Full<Bytes>, B>>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = match (this.refusal.take(), this.inner.as_pin_mut()) {
            (Some(refusal), _) => refusal.map(Either::Left),
            (None, Some(inner)) => match ready!(inner.poll(cx)) {
                Ok(response) => response.map(Either::Right),
                Err(never) => match never {},
            },
            // Polled after it was ready, which no caller does.
            (None, None) => return Poll::Pending,
        };
        let busy = this.busy.take();
        Poll::Ready(Ok(response.map(|body| Tracked { body, _busy: busy })))
    }
}

pin_project! {
    /// A body that keeps its request under way until it is dropped.
    pub(super) struct Tracked<B> {
        #[pin]
        body: B,
        _busy: Option<Busy>,
    }
}

impl<B: Body> Body for Tracked<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.project().body.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A socket that fails with `TimedOut` when its caller keeps it waiting too long.
pub(super) struct Paced {
    stream: TcpStream,
    pacer: Pacer,
    limits: Limits,
    read_timer: Pin<Box<Sleep>>,
    /// The state of the pacer for which the timer was set.
    read_armed_for: Option<u64>,
    write_timer: Option<Pin<Box<Sleep>>>,
    write_armed: bool,
}

impl Paced {
    pub(super) fn new(stream: TcpStream, pacer: Pacer, limits: Limits) -> Self {
        // The clock of the first head starts here and not with the first read.
        let read_timer = Box::pin(tokio::time::sleep(limits.head));
        let read_armed_for = Some(pacer.now());
        Self { stream, pacer, limits, read_timer, read_armed_for, write_timer: None, write_armed: false }
    }

    fn poll_read_timer(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let now = self.pacer.now();
        let patience = match now & STATE {
            HEAD => self.limits.head,
            IDLE => self.limits.idle,
            _ => return Poll::Pending,
        };
        if self.read_armed_for != Some(now) {
            self.read_armed_for = Some(now);
            self.read_timer.as_mut().reset(Instant::now() + patience);
        }
        self.read_timer.as_mut().poll(cx).map(|()| timed_out())
    }

    fn after_write<T>(&mut self, written: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.write_armed = false;
            return written;
        }
        let patience: Duration = self.limits.write_stall;
        let timer = self.write_timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        if !self.write_armed {
            self.write_armed = true;
            timer.as_mut().reset(Instant::now() + patience);
        }
        timer.as_mut().poll(cx).map(|()| Err(timed_out()))
    }
}

fn timed_out() -> io::Error {
    io::Error::from(io::ErrorKind::TimedOut)
}

impl AsyncRead for Paced {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.stream).poll_read(cx, buffer) {
            Poll::Ready(outcome) => {
                if buffer.filled().len() > before {
                    self.pacer.head_begins();
                }
                Poll::Ready(outcome)
            }
            Poll::Pending => self.poll_read_timer(cx).map(Err),
        }
    }
}

impl AsyncWrite for Paced {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.after_write(written, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.after_write(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
