//! The time of one connection.
//!
//! Three states: a head is expected to come whole (from the opening on, or once its first byte is there), a request is
//! under way, or the connection is idle between two. The socket wrapper [`Paced`] sees the bytes, the service sees the
//! requests; both speak through the [`Pacer`], which also knows how the two sides part. All of it happens on the
//! connection's own task.
//!
//! The parser gets the bytes of one message at a time. What the caller sends ahead of its answer is kept back until the
//! request before is done, so that every head, whatever it comes behind, is looked at and timed like the first.

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::{Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{Either, Full};
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::head::Ambiguous;
use super::message::Messages;
use super::socket::{Socket, Takeover};
use super::{LastWords, Limits};

type BodyError = Box<dyn Error + Send + Sync>;

const HEAD: u64 = 0;
const BUSY: u64 = 1;
const IDLE: u64 = 2;
/// The state stands in the two low bits, above them the number of requests so far: two idle spells are not the same one.
const STATE: u64 = 3;

/// What a connection is waiting for, and how it is to part. Relaxed order throughout: only one task looks.
#[derive(Clone)]
pub(super) struct Pacer(Arc<State>);

struct State {
    phase: AtomicU64,
    /// The latest request has a body. Whether all of it was read only its reader knows.
    has_body: AtomicBool,
    /// The end of its response may be the end of the connection.
    ends_with_connection: AtomicBool,
    last_words: OnceLock<LastWords>,
    /// Who takes the connection over.
    takeover: OnceLock<Takeover>,
    /// The body of a response failed, and was not going to say why.
    failed: AtomicBool,
    /// How many heads were looked at to their end.
    heads: AtomicU64,
    /// Has bytes of the next request for when the present one is done.
    keeper: Mutex<Option<Waker>>,
}

impl Pacer {
    /// A new connection owes us a head.
    pub(super) fn new() -> Self {
        let no = || AtomicBool::new(false);
        Self(Arc::new(State {
            phase: AtomicU64::new(HEAD),
            has_body: no(),
            ends_with_connection: no(),
            last_words: OnceLock::new(),
            takeover: OnceLock::new(),
            failed: no(),
            heads: AtomicU64::new(0),
            keeper: Mutex::new(None),
        }))
    }

    /// A request is under way until the returned value is dropped.
    pub(super) fn begin(&self, has_body: bool, ends_with_connection: bool) -> Busy {
        let request = (self.now() | STATE).wrapping_add(1);
        self.set(request | BUSY);
        self.0.has_body.store(has_body, Ordering::Relaxed);
        self.0.ends_with_connection.store(ends_with_connection, Ordering::Relaxed);
        Busy { pacer: self.clone(), request }
    }

    /// Whether the head of the latest request is the latest that was looked at. Whatever the parser takes for a head, no
    /// other is served.
    pub(super) fn was_looked_at(&self) -> bool {
        self.0.heads.load(Ordering::Relaxed) == self.requests()
    }

    /// Whether the end of the latest response may be the end of the connection.
    pub(super) fn ends_with_connection(&self) -> bool {
        self.0.ends_with_connection.load(Ordering::Relaxed)
    }

    /// Whether the caller may be sending something that nobody has read.
    pub(super) fn may_be_sending(&self) -> bool {
        self.0.has_body.load(Ordering::Relaxed)
    }

    /// Whether the connection is between two requests.
    pub(super) fn is_idle(&self) -> bool {
        self.now() & STATE == IDLE
    }

    /// What a body said when it ended.
    pub(super) fn last_words(&self) -> Option<LastWords> {
        self.0.last_words.get().copied()
    }

    /// Who takes the connection over, once its last response was sent.
    pub(super) fn takeover(&self) -> Option<&Takeover> {
        self.0.takeover.get()
    }

    /// Whether the connection must not end in order, because then a body that failed would.
    pub(super) fn must_break_off(&self) -> bool {
        self.0.failed.load(Ordering::Relaxed) && self.ends_with_connection()
    }

    fn body_failed(&self, error: &BodyError) {
        match error.downcast_ref::<LastWords>() {
            Some(words) => drop(self.0.last_words.set(*words)),
            None => self.0.failed.store(true, Ordering::Relaxed),
        }
    }

    fn head_begins(&self) {
        let now = self.now();
        if now & STATE == IDLE {
            self.set((now & !STATE) | HEAD);
        }
    }

    fn looked_at(&self, heads: u64) {
        self.0.heads.store(heads, Ordering::Relaxed);
    }

    /// How many requests have begun.
    fn requests(&self) -> u64 {
        self.now() >> STATE.count_ones()
    }

    /// Whether the service has yet to get, or to answer, what was read.
    fn owes_an_answer(&self) -> bool {
        self.now() & STATE == BUSY || self.0.heads.load(Ordering::Relaxed) > self.requests()
    }

    fn wake_when_done(&self, waker: &Waker) {
        self.keeper().get_or_insert_with(|| waker.clone()).clone_from(waker);
    }

    fn keeper(&self) -> std::sync::MutexGuard<'_, Option<Waker>> {
        self.0.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        self.0.phase.load(Ordering::Relaxed)
    }

    fn set(&self, phase: u64) {
        self.0.phase.store(phase, Ordering::Relaxed);
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
            self.pacer.set(self.request | IDLE);
            if let Some(keeper) = self.pacer.keeper().take() {
                keeper.wake();
            }
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
                Ok(mut response) => {
                    if response.status() == StatusCode::SWITCHING_PROTOCOLS
                        && let Some(takeover) = response.extensions_mut().remove::<Takeover>()
                        && let Some(busy) = &this.busy
                    {
                        drop(busy.pacer.0.takeover.set(takeover));
                    }
                    response.map(Either::Right)
                }
                Err(never) => match never {},
            },
            // Polled after it was ready, which no caller does.
            (None, None) => return Poll::Pending,
        };
        let busy = this.busy.take();
        Poll::Ready(Ok(response.map(|body| Tracked { body, busy, failure: None })))
    }
}

pin_project! {
    /// A body that keeps its request under way until it is dropped. When it fails, the library is first given the time
    /// to send what it has: it forgets that as soon as it hears of a failure.
    pub(super) struct Tracked<B> {
        #[pin]
        body: B,
        busy: Option<Busy>,
        failure: Option<BodyError>,
    }
}

impl<B: Body> Body for Tracked<B>
where
    B::Error: Into<BodyError>,
{
    type Data = B::Data;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, BodyError>>> {
        let this = self.project();
        if let Some(failure) = this.failure.take() {
            return Poll::Ready(Some(Err(failure)));
        }
        match ready!(this.body.poll_frame(cx)) {
            None => Poll::Ready(None),
            Some(Ok(frame)) => Poll::Ready(Some(Ok(frame))),
            Some(Err(failure)) => {
                let failure = failure.into();
                if let Some(busy) = this.busy {
                    busy.pacer.body_failed(&failure);
                }
                *this.failure = Some(failure);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.failure.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A socket that fails with `TimedOut` when its caller keeps it waiting too long. It does not let itself be shut down:
/// whoever takes it back has a last word to say.
pub(super) struct Paced {
    stream: Box<dyn Socket>,
    pacer: Pacer,
    limits: Limits,
    read_timer: Pin<Box<Sleep>>,
    /// The state of the pacer for which the timer was set.
    read_armed_for: Option<u64>,
    write_timer: Option<Pin<Box<Sleep>>>,
    write_armed: bool,
    written: bool,
    messages: Messages,
    /// What was read of the next message while the present one was under way.
    ahead: Bytes,
    ambiguous: Option<Ambiguous>,
}

impl Paced {
    /// Of a connection that speaks HTTP/1.
    pub(super) fn new(stream: Box<dyn Socket>, pacer: Pacer, limits: Limits) -> Self {
        Self::following(Messages::new(), stream, pacer, limits)
    }

    /// Of a connection of whose bytes nothing is known here.
    pub(super) fn unframed(stream: Box<dyn Socket>, pacer: Pacer, limits: Limits) -> Self {
        Self::following(Messages::none(), stream, pacer, limits)
    }

    fn following(messages: Messages, stream: Box<dyn Socket>, pacer: Pacer, limits: Limits) -> Self {
        // The clock of the first head starts here and not with the first read.
        let read_timer = Box::pin(tokio::time::sleep(limits.head));
        let read_armed_for = Some(pacer.now());
        Self {
            stream,
            pacer,
            limits,
            read_timer,
            read_armed_for,
            write_timer: None,
            write_armed: false,
            written: false,
            messages,
            ahead: Bytes::new(),
            ambiguous: None,
        }
    }

    /// Whether every write so far went through.
    pub(super) fn has_sent_everything(&self) -> bool {
        !self.write_armed
    }

    /// Whether nothing was ever written.
    pub(super) fn has_sent_nothing(&self) -> bool {
        !self.written
    }

    /// Whether a head was not let through to the parser.
    pub(super) fn is_ambiguous(&self) -> bool {
        self.ambiguous.is_some()
    }

    /// Whether all of the latest request was read from the socket.
    pub(super) fn is_between(&self) -> bool {
        self.messages.is_between()
    }

    /// Whether the next byte is of a message that must wait for the one before.
    fn must_wait(&self) -> bool {
        // Behind a connection that is being taken over comes the other protocol.
        self.messages.is_between() && (self.pacer.owes_an_answer() || self.pacer.takeover().is_some())
    }

    /// How much of what has been read the parser may have.
    fn look(&mut self, read: &[u8]) -> Result<usize, Ambiguous> {
        if self.must_wait() {
            return Ok(0);
        }
        if self.messages.is_between() {
            self.pacer.head_begins();
        }
        let count = self.messages.follow(read)?;
        self.pacer.looked_at(self.messages.heads());
        Ok(count)
    }

    /// The socket, past all patience.
    pub(super) fn stream(&mut self) -> &mut dyn Socket {
        self.stream.as_mut()
    }

    pub(super) fn into_stream(self) -> Box<dyn Socket> {
        self.stream
    }

    /// The socket and what was read from it for nobody yet.
    pub(super) fn into_parts(self) -> (Box<dyn Socket>, Bytes) {
        (self.stream, self.ahead)
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
            if self.write_armed && self.ambiguous.is_some() {
                // A refusal was waiting for this.
                cx.waker().wake_by_ref();
            }
            self.write_armed = false;
            self.written = true;
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

fn refused(ambiguous: Ambiguous) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, ambiguous)
}

fn timed_out() -> io::Error {
    io::Error::from(io::ErrorKind::TimedOut)
}

impl AsyncRead for Paced {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(ambiguous) = this.messages.fault().or(this.ambiguous) {
            // The answer before is sent first: the parser forgets what it has as soon as it hears of a failure.
            let is_of_body = this.ambiguous.is_none();
            return if is_of_body || !this.write_armed { Poll::Ready(Err(refused(ambiguous))) } else { Poll::Pending };
        }
        let before = buffer.filled().len();
        let kept = !this.ahead.is_empty();
        if kept && this.must_wait() {
            this.pacer.wake_when_done(cx.waker());
            return this.poll_read_timer(cx).map(Err);
        }
        if kept {
            let count = this.ahead.len().min(buffer.remaining());
            buffer.put_slice(this.ahead.get(..count).unwrap_or_default());
        } else {
            match Pin::new(&mut this.stream).poll_read(cx, buffer) {
                Poll::Ready(outcome) => outcome?,
                Poll::Pending => return this.poll_read_timer(cx).map(Err),
            }
        }
        let read = buffer.filled().get(before..).unwrap_or_default();
        if read.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let count = match this.look(read) {
            Ok(count) => count,
            Err(ambiguous) => {
                buffer.set_filled(before);
                this.ambiguous = Some(ambiguous);
                // What is still to be written is written before the next read.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        };
        if kept {
            this.ahead.advance(count);
        } else if let Some(rest) = read.get(count..).filter(|rest| !rest.is_empty()) {
            this.ahead = Bytes::copy_from_slice(rest);
        }
        buffer.set_filled(before + count);
        if count > 0 {
            return Poll::Ready(Ok(()));
        }
        if let Some(fault) = this.messages.fault() {
            return Poll::Ready(Err(refused(fault)));
        }
        this.pacer.wake_when_done(cx.waker());
        this.poll_read_timer(cx).map(Err)
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

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
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
