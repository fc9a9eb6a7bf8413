//! What a connection runs over, and how a service takes one over.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// A caller's connection, in the clear or behind TLS.
pub trait Socket: AsyncRead + AsyncWrite + Send + Unpin {
    /// Makes the connection end with a reset when it is dropped, so that nobody takes the end for one in order.
    fn break_off(&self);
}

impl Socket for TcpStream {
    fn break_off(&self) {
        // A socket that refuses the option is one that is already gone.
        let _ = self.set_zero_linger();
    }
}

impl Socket for tokio_rustls::server::TlsStream<TcpStream> {
    fn break_off(&self) {
        self.get_ref().0.break_off();
    }
}

/// A connection of which some bytes have been read ahead.
pub(super) struct Ahead {
    read: Bytes,
    socket: Box<dyn Socket>,
}

impl Ahead {
    pub(super) fn new(read: Bytes, socket: Box<dyn Socket>) -> Self {
        Self { read, socket }
    }
}

impl Socket for Ahead {
    fn break_off(&self) {
        self.socket.break_off();
    }
}

impl AsyncRead for Ahead {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.socket).poll_read(cx, buffer);
        }
        let count = self.read.len().min(buffer.remaining());
        buffer.put_slice(self.read.get(..count).unwrap_or_default());
        self.read.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Ahead {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}

/// A connection that is HTTP no more.
pub struct TakenOver {
    /// What is left of it. Whoever has it closes it.
    pub socket: Box<dyn Socket>,
    /// Turns true when the listener stops. A connection that has not ended when the grace period has is cut.
    pub stop: watch::Receiver<bool>,
}

type Talk = Box<dyn FnOnce(TakenOver) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// An extension of a response with status 101: what goes on with the connection once the caller has the response. It has
/// no effect on other responses, nor over HTTP/2. When the caller does not get that far, it is dropped.
///
/// The slot of the connection stays taken while it runs.
#[derive(Clone)]
pub struct Takeover(Arc<Mutex<Option<Talk>>>);

impl Takeover {
    /// Goes on with `talk`.
    pub fn new<F>(talk: impl FnOnce(TakenOver) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self(Arc::new(Mutex::new(Some(Box::new(|taken| Box::pin(talk(taken)))))))
    }

    pub(super) fn take(&self) -> Option<Talk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl std::fmt::Debug for Takeover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Takeover")
    }
}
