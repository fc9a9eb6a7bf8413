//! Upstreams: real servers on loopback, one that records and answers by the rules of HTTP, one that does as it likes.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub(crate) type UpstreamBody = BoxBody<Bytes, Infallible>;

/// What an upstream received.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Whether the body came whole.
    pub(crate) whole: bool,
}

impl Received {
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(found, _)| found == name).map(|(_, value)| value.as_str()).collect()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }
}

#[derive(Clone)]
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    connections: Arc<AtomicUsize>,
}

impl Upstream {
    /// Answers every request with what `answer` makes of it.
    pub(crate) async fn answering(
        answer: impl Fn(&Received) -> Response<UpstreamBody> + Send + Sync + 'static,
    ) -> Self {
        let (this, listener) = Self::listen().await;
        let (upstream, answer) = (this.clone(), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                upstream.connections.fetch_add(1, Ordering::SeqCst);
                let (upstream, answer) = (upstream.clone(), answer.clone());
                let service = service_fn(move |request| {
                    let (upstream, answer) = (upstream.clone(), answer.clone());
                    async move {
                        let received = receive(request).await;
                        upstream.received.lock().unwrap().push(received.clone());
                        Ok::<_, Infallible>(answer(&received))
                    }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        this
    }

    /// Answers `200 ok`.
    pub(crate) async fn ok() -> Self {
        Self::answering(|_| Response::new(full("ok"))).await
    }

    /// Does with each connection what `act` does.
    pub(crate) async fn raw<F>(act: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (this, listener) = Self::listen().await;
        let connections = this.connections.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(act(stream));
            }
        });
        this
    }

    /// Reads a head, then writes `bytes` and closes.
    pub(crate) async fn saying(bytes: &'static [u8]) -> Self {
        Self::raw(move |mut stream| async move {
            read_head(&mut stream).await;
            let _ = stream.write_all(bytes).await;
        })
        .await
    }

    async fn listen() -> (Self, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (Self { address, received: Arc::default(), connections: Arc::default() }, listener)
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// The only request that came.
    pub(crate) fn only(&self) -> Received {
        let received = self.received();
        assert_eq!(received.len(), 1, "{received:?}");
        received[0].clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

pub(crate) fn full(text: impl Into<Bytes>) -> UpstreamBody {
    Full::new(text.into()).boxed()
}

/// Reads up to the end of a head and gives it back.
pub(crate) async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}

async fn receive(request: Request<Incoming>) -> Received {
    let (parts, mut body) = request.into_parts();
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let mut received = Received {
        method: parts.method.to_string(),
        target: parts.uri.to_string(),
        headers: parts.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
        body: Vec::new(),
        whole: true,
    };
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => received.body.extend(frame.into_data().unwrap_or_default()),
            Err(_) => {
                received.whole = false;
                break;
            }
        }
    }
    received
}
