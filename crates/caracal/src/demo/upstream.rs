//! The upstream of the demonstration: a real HTTP server that wants its own API key and writes down what it receives.

use std::convert::Infallible;
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
pub(super) const KEY_HEADER: &str = "x-notes-key";

/// One request as it arrived.
#[derive(Clone)]
pub(super) struct Received {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) headers: Vec<(String, String)>,
}

impl Received {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Whether `text` is anywhere in the request.
    pub(super) fn contains(&self, text: &str) -> bool {
        self.target.contains(text) || self.headers.iter().any(|(_, value)| value.contains(text))
    }
}

/// A running upstream.
pub(super) struct Upstream {
    pub(super) url: String,
    received: Arc<Mutex<Vec<Received>>>,
    _stop: watch::Sender<bool>,
}

impl Upstream {
    /// Starts it on a free port; it opens to `key` only.
    pub(super) async fn start(key: &str) -> Result<Self, Failure> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let received: Arc<Mutex<Vec<Received>>> = Arc::default();
        let (stop, stopping) = watch::channel(false);
        let (log, key) = (received.clone(), key.to_owned());
        let service = tower::service_fn(move |request: Request<Incoming>| {
            let answer = answer(&request, &key, &log);
            async move { Ok::<_, Infallible>(answer) }
        });
        tokio::spawn(server::serve(listener, service, FreshId::new(String::new), Limits::default(), stopping));
        Ok(Self { url, received, _stop: stop })
    }

    /// Everything received so far.
    pub(super) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn answer(request: &Request<Incoming>, key: &str, log: &Mutex<Vec<Received>>) -> Response<Full<Bytes>> {
    let headers = request
        .headers()
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
    let received = Received {
        method: request.method().to_string(),
        target: request.uri().to_string(),
        headers: headers.collect(),
    };
    let opens = received.header(KEY_HEADER) == Some(key);
    log.lock().unwrap_or_else(PoisonError::into_inner).push(received);
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
