//! The Gateway's own listener: accept, serve, part, drain.
//!
//! It is not the one that the other services share, for one reason. A chunked response that a revocation cuts has to
//! end in order and with a trailer (gateway.md §10.6), whether or not the caller said `TE: trailers`, without which the
//! HTTP library writes none. So the connection is taken back from the library when such a body fails, and the last
//! chunk with its trailer is written here. That is right only if everything before it has been sent: if the caller was
//! not taking it, the connection just breaks off, which no caller takes for an end either.
//!
//! On the way down the listener closes first, idle connections end at once, requests under way get their grace, and
//! what is left is cut.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use caracal_http::PeerAddr;
use caracal_http::server::Ended;

use crate::Gateway;
pub(crate) use crate::socket::{Busy, Connection};
use crate::socket::{Patience, Socket};

/// What the library may buffer of an incomplete head. More than a head may have, so that an oversized one is refused by
/// us and not by the library.
const PARSE_BUFFER_BYTES: usize = 32 * 1024;
/// How long to wait after a failed accept: usually there are no file descriptors left, and trying at once burns time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The last chunk of a response that a revocation cut.
const LAST_CHUNK: &[u8] = b"0\r\nX-Caracal-Revoked: true\r\n\r\n";
/// How long to take in what a caller still sends after its answer. Closing on unread bytes resets the connection, and
/// the caller may lose an answer it has not read yet.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1024 * 1024;

/// Serves until `stop` turns true or its sender is gone, then drains.
pub(crate) async fn serve(gateway: Arc<Gateway>, listener: TcpListener, mut stop: watch::Receiver<bool>) -> Ended {
    let slots = Arc::new(Semaphore::new(gateway.config.max_connections.clamp(1, Semaphore::MAX_PERMITS)));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stopped(&mut stop) => break,
            accepted = accept(&listener, &slots) => accepted,
        };
        while connections.try_join_next().is_some() {}
        let Some((stream, peer, slot)) = accepted else { continue };
        let (gateway, stop) = (gateway.clone(), stop.clone());
        connections.spawn(async move {
            let _slot = slot;
            connection(gateway, stream, PeerAddr(peer), stop).await;
        });
    }
    drop(listener);
    let drained = timeout(gateway.config.grace, async { while connections.join_next().await.is_some() {} }).await;
    if drained.is_ok() {
        return Ended::Drained;
    }
    let open = connections.len();
    connections.shutdown().await;
    Ended::Cut { open }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let slot = slots.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => {
            // Every chunk is to leave at once. A socket that refuses the option is already gone.
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

async fn connection(gateway: Arc<Gateway>, stream: TcpStream, peer: PeerAddr, mut stop: watch::Receiver<bool>) {
    let connection = Connection::new();
    let patience = Patience {
        head: gateway.config.read_header_timeout,
        idle: gateway.config.idle_timeout,
        stall: gateway.config.stream_idle_timeout,
    };
    let socket = Socket::new(stream, connection.clone(), patience);
    let service = service_fn(|request: Request<Incoming>| {
        let (gateway, connection) = (gateway.clone(), connection.clone());
        // Boxed: only then can the connection be taken back from the library.
        Box::pin(async move { Ok::<_, Infallible>(gateway.answer(request, peer, connection).await) })
    });
    let mut builder = http1::Builder::new();
    // The library's own timer of heads also runs between requests; the socket tells the two apart.
    builder.header_read_timeout(None).max_buf_size(PARSE_BUFFER_BYTES);
    let mut serving = builder.serve_connection(TokioIo::new(socket), service);
    let ended = {
        let mut stopping = std::pin::pin!(stopped(&mut stop));
        let mut draining = false;
        poll_fn(|cx| {
            if !draining && stopping.as_mut().poll(cx).is_ready() {
                draining = true;
                Pin::new(&mut serving).graceful_shutdown();
            }
            serving.poll_without_shutdown(cx)
        })
        .await
    };
    if let Err(error) = ended {
        // Callers go away all the time.
        tracing::debug!(%error, "a connection ended early");
    }
    let socket = serving.into_parts().io.into_inner();
    part(socket, &connection).await;
}

/// Says the last word on a connection and closes it.
async fn part(socket: Socket, connection: &Connection) {
    let whole = !socket.is_blocked();
    let mut stream = socket.into_stream();
    if connection.parts_with_trailer() && whole {
        let _ = timeout(LINGER, stream.write_all(LAST_CHUNK)).await;
    }
    let _ = stream.shutdown().await;
    if connection.may_be_sending() {
        let _ = timeout(LINGER, drain(&mut stream)).await;
    }
}

async fn drain(stream: &mut TcpStream) {
    let mut left = LINGER_BYTES;
    let mut buffer = [0; 4096];
    while let Ok(read) = stream.read(&mut buffer).await {
        if read == 0 || read > left {
            return;
        }
        left -= read;
    }
}
