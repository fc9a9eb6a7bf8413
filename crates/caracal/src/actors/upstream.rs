//! A real HTTP server that wants its own API key and, where somebody will read it, writes down what it receives.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use caracal_http::FreshId;
use caracal_http::server::{self, Limits};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::commands::Failure;

/// Where the API expects its key.
pub(crate) const KEY_HEADER: &str = "x-notes-key";

/// One request as it arrived.
#[derive(Clone)]
pub(crate) struct Received {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Whether `text` is anywhere in the request.
    pub(crate) fn contains(&self, text: &str) -> bool {
        self.target.contains(text) || self.headers.iter().any(|(_, value)| value.contains(text))
    }
}

/// A running upstream.
pub(crate) struct Upstream {
    pub(crate) url: String,
    received: Arc<Mutex<Vec<Received>>>,
    _stop: watch::Sender<bool>,
}

impl Upstream {
    /// Starts it on a free port; it opens to `key` only, and keeps what it receives if it is to `remember`.
    pub(crate) async fn start(key: &str, remember: bool) -> Result<Self, Failure> {
        Self::start_on(IpAddr::from([127, 0, 0, 1]), key, remember).await
    }

    /// The same on another address of this machine.
    pub(crate) async fn start_on(address: IpAddr, key: &str, remember: bool) -> Result<Self, Failure> {
        let listener = TcpListener::bind((address, 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let received: Arc<Mutex<Vec<Received>>> = Arc::default();
        let (stop, stopping) = watch::channel(false);
        let (log, key) = (received.clone(), key.to_owned());
        let service = tower::service_fn(move |request: Request<Incoming>| {
            let answer = answer(&request, &key, remember.then_some(&*log));
            async move { Ok::<_, Infallible>(answer) }
        });
        tokio::spawn(server::serve(listener, service, FreshId::new(String::new), Limits::default(), stopping));
        Ok(Self { url, received, _stop: stop })
    }

    /// Everything received so far, where it is remembered.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn answer(request: &Request<Incoming>, key: &str, log: Option<&Mutex<Vec<Received>>>) -> Response<Full<Bytes>> {
    let opens = request.headers().get(KEY_HEADER).is_some_and(|given| given.as_bytes() == key.as_bytes());
    if let Some(log) = log {
        log.lock().unwrap_or_else(PoisonError::into_inner).push(received(request));
    }
    let (status, body) = if opens {
        (StatusCode::OK, r#"{"notes":["buy milk","call Ada"]}"#)
    } else {
        (StatusCode::UNAUTHORIZED, r#"{"error":"wrong key"}"#)
    };
    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    response
}

fn received(request: &Request<Incoming>) -> Received {
    let headers = request
        .headers()
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
    Received { method: request.method().to_string(), target: request.uri().to_string(), headers: headers.collect() }
}
