//! The time of one connection to a caller.
//!
//! A caller that opens a connection and says nothing, sends a head byte by byte, keeps an idle connection for ever or
//! never takes its answer must not cost anybody else their service (assurance T08). The socket sees the bytes, the
//! service sees the requests; both speak through the [`Connection`].

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

/// How long a caller may keep a connection waiting.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// For a whole head, from the opening on or from its first byte.
    pub(crate) head: Duration,
    /// Between two requests.
    pub(crate) idle: Duration,
    /// For a write of which the caller takes nothing.
    pub(crate) stall: Duration,
}

const HEAD: u64 = 0;
const BUSY: u64 = 1;
const IDLE: u64 = 2;
/// The state stands in the two low bits, the number of requests so far above them: two idle spells are not the same.
const STATE: u64 = 3;

/// What is known of a connection. Relaxed order throughout: only the connection's own task decides by it, and the one
/// value that another task sets, the end of an upload, may be seen late.
pub(crate) struct Connection {
    phase: AtomicU64,
    /// A request has a body of which the end has not been read.
    unread: AtomicBool,
    /// The response under way was cut by a revocation and is to end with a trailer.
    parting: AtomicBool,
}

impl Connection {
    pub(crate) fn new() -> Arc<Self> {
        let (unread, parting) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Self { phase: AtomicU64::new(HEAD), unread, parting })
    }

    /// A request is under way until the returned value is dropped.
    pub(crate) fn begin(self: &Arc<Self>, has_body: bool) -> Busy {
        let request = (self.phase() | STATE).wrapping_add(1);
        self.phase.store(request | BUSY, Ordering::Relaxed);
        self.unread.store(has_body, Ordering::Relaxed);
        Busy { connection: self.clone(), request }
    }

    /// The end of the request's body has been read.
    pub(crate) fn body_was_read(&self) {
        self.unread.store(false, Ordering::Relaxed);
    }

    /// Whether the caller may still be sending.
    pub(crate) fn may_be_sending(&self) -> bool {
        self.unread.load(Ordering::Relaxed)
    }

    /// The response under way ends here, with the trailer that says why.
    pub(crate) fn part_with_trailer(&self) {
        self.parting.store(true, Ordering::Relaxed);
    }

    pub(crate) fn parts_with_trailer(&self) -> bool {
        self.parting.load(Ordering::Relaxed)
    }

    fn bytes_came(&self) {
        let phase = self.phase();
        if phase & STATE == IDLE {
            self.phase.store((phase & !STATE) | HEAD, Ordering::Relaxed);
        }
    }

    fn phase(&self) -> u64 {
        self.phase.load(Ordering::Relaxed)
    }
}

/// A request under way: from its head until the last byte of its response was handed over.
pub(crate) struct Busy {
    connection: Arc<Connection>,
    request: u64,
}

impl Drop for Busy {
    fn drop(&mut self) {
        // A pipelined request may have begun meanwhile; then the connection is not idle.
        if self.connection.phase() == self.request | BUSY {
            self.connection.phase.store(self.request | IDLE, Ordering::Relaxed);
        }
    }
}

/// A socket that fails with `TimedOut` when its caller keeps it waiting too long.
pub(crate) struct Socket {
    stream: TcpStream,
    connection: Arc<Connection>,
    patience: Patience,
    read_timer: Pin<Box<Sleep>>,
    /// The phase for which the timer was set.
    timed_for: u64,
    write_timer: Option<Pin<Box<Sleep>>>,
    /// The last write had to wait: not everything that was to be sent has been.
    blocked: bool,
}

impl Socket {
    pub(crate) fn new(stream: TcpStream, connection: Arc<Connection>, patience: Patience) -> Self {
        // The time of the first head counts from here and not from the first read.
        let read_timer = Box::pin(sleep(patience.head));
        let timed_for = connection.phase();
        Self { stream, connection, patience, read_timer, timed_for, write_timer: None, blocked: false }
    }

    /// Whether the last write had to wait.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked
    }

    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream
    }

    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let phase = self.connection.phase();
        let patience = match phase & STATE {
            HEAD => self.patience.head,
            IDLE => self.patience.idle,
            _ => return Poll::Pending,
        };
        if self.timed_for != phase {
            self.timed_for = phase;
            self.read_timer.as_mut().reset(Instant::now() + patience);
        }
        self.read_timer.as_mut().poll(cx).map(|()| timed_out())
    }

    fn after_write(&mut self, written: Poll<io::Result<usize>>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.blocked = false;
            return written;
        }
        let stall = self.patience.stall;
        let timer = self.write_timer.get_or_insert_with(|| Box::pin(sleep(stall)));
        if !self.blocked {
            self.blocked = true;
            timer.as_mut().reset(Instant::now() + stall);
        }
        timer.as_mut().poll(cx).map(|()| Err(timed_out()))
    }
}

fn timed_out() -> io::Error {
    io::Error::from(io::ErrorKind::TimedOut)
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.stream).poll_read(cx, buffer) {
            Poll::Ready(outcome) => {
                if buffer.filled().len() > before {
                    self.connection.bytes_came();
                }
                Poll::Ready(outcome)
            }
            Poll::Pending => self.poll_patience(cx).map(Err),
        }
    }
}

impl AsyncWrite for Socket {
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
