//! HTTP clients over the guarded connector: one for data paths, one for a request now and then.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_util::client::legacy::connect::Connect;
use hyper_util::client::legacy::{Builder, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::connect::{GuardedConnector, Resolver};
use super::peer::{PeerClient, PeerConnector};
use super::target::{Host, TargetUrl};
use super::tls::TlsTrust;
use super::{EgressError, TargetError};

/// A pooling HTTP/1 client that can only reach what the guard admits. It follows no redirect and decodes no content.
pub type EgressClient<B> = Client<GuardedConnector, B>;

/// Largest response head accepted, in bytes; also what a read of a response body may bring at once.
const RESPONSE_BUFFER_BYTES: usize = 64 * 1024;

/// How idle connections are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolSettings {
    /// How long an idle connection is kept.
    pub idle: Duration,
    /// Idle connections kept per host.
    pub idle_per_host: usize,
    /// Send a request again, on a new connection, when a kept one turned out to be closed before any byte of the request
    /// was written. Safe for every method: the upstream has seen nothing.
    pub retry_unsent: bool,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self { idle: Duration::from_secs(90), idle_per_host: 100, retry_unsent: true }
    }
}

/// A client for request bodies of type `B`. Cloning shares the pool.
pub fn client<B>(connector: GuardedConnector, settings: &PoolSettings) -> EgressClient<B>
where
    B: Body + Send + 'static + Unpin,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    builder(settings).build(connector)
}

/// The same to replicas of a peer.
pub fn peer_client<B>(connector: PeerConnector, settings: &PoolSettings) -> PeerClient<B>
where
    B: Body + Send + 'static + Unpin,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    builder(settings).build(connector)
}

fn builder(settings: &PoolSettings) -> Builder {
    let mut builder = Client::builder(TokioExecutor::new());
    builder
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(settings.idle)
        .pool_max_idle_per_host(settings.idle_per_host)
        .retry_canceled_requests(settings.retry_unsent)
        .http1_max_buf_size(RESPONSE_BUFFER_BYTES);
    builder
}

/// One request whose answer is read whole.
pub struct SimpleRequest {
    /// The method.
    pub method: Method,
    /// Where to.
    pub url: TargetUrl,
    /// Header fields; `Host` and `Content-Length` are added.
    pub headers: HeaderMap,
    /// The body; may be empty.
    pub body: Bytes,
    /// From now until the last byte of the answer.
    pub deadline: Duration,
    /// Largest answer accepted, in bytes.
    pub max_response_bytes: usize,
}

/// An answer, read whole. Any status, redirects included.
#[derive(Debug, Clone)]
pub struct SimpleResponse {
    /// The status.
    pub status: StatusCode,
    /// The header fields.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SimpleError {
    /// No connection.
    #[error(transparent)]
    Egress(#[from] EgressError),
    /// Not complete before the deadline.
    #[error("no complete answer in time")]
    Deadline,
    /// More than `max_response_bytes`, declared or sent.
    #[error("answer too large")]
    TooLarge,
    /// Broken off, or not HTTP.
    #[error("request failed: {0}")]
    Transport(String),
}

impl From<TargetError> for SimpleError {
    fn from(error: TargetError) -> Self {
        Self::Egress(error.into())
    }
}

/// For everything that is not a data path: token endpoints, key sets, webhooks, checks.
#[derive(Clone)]
pub struct SimpleClient(EgressClient<Full<Bytes>>);

impl SimpleClient {
    /// A client with its own small pool.
    pub fn new(connector: GuardedConnector) -> Self {
        Self(client(connector, &PoolSettings { idle_per_host: 4, ..PoolSettings::default() }))
    }

    /// Sends one request, reads the whole answer, follows nothing.
    pub async fn send(&self, request: SimpleRequest) -> Result<SimpleResponse, SimpleError> {
        let SimpleRequest { method, url, headers, body, deadline, max_response_bytes } = request;
        let mut outgoing = Request::new(Full::new(body));
        *outgoing.method_mut() = method;
        *outgoing.uri_mut() = url.to_uri()?;
        *outgoing.headers_mut() = headers;
        match tokio::time::timeout(deadline, exchange(&self.0, outgoing, max_response_bytes)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(SimpleError::Deadline),
        }
    }
}

async fn exchange<C>(
    client: &Client<C, Full<Bytes>>,
    request: Request<Full<Bytes>>,
    max_bytes: usize,
) -> Result<SimpleResponse, SimpleError>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let response = client.request(request).await.map_err(|error| match EgressError::find(&error) {
        Some(cause) => SimpleError::Egress(cause.clone()),
        None => SimpleError::Transport(chain(&error)),
    })?;
    let (parts, body) = response.into_parts();
    if body.size_hint().lower() > u64::try_from(max_bytes).unwrap_or(u64::MAX) {
        return Err(SimpleError::TooLarge);
    }
    let collected = Limited::new(body, max_bytes).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() { SimpleError::TooLarge } else { SimpleError::Transport(chain(&*error)) }
    })?;
    Ok(SimpleResponse { status: parts.status, headers: parts.headers, body: collected.to_bytes() })
}

/// For a request now and then to a server that the operator of this process names in its settings: a secret store, or
/// the metadata service of the cloud it runs in. No policy judges where it lies, as with a [`PeerConnector`]; nothing
/// that a tenant wrote may ever choose the URL. It keeps no connections and follows nothing.
#[derive(Clone)]
pub struct OperatorClient {
    resolver: Arc<dyn Resolver>,
    trust: TlsTrust,
}

impl OperatorClient {
    /// Believes whom `trust` says.
    pub fn new(resolver: Arc<dyn Resolver>, trust: TlsTrust) -> Self {
        Self { resolver, trust }
    }

    /// Sends one request, reads the whole answer.
    pub async fn send(&self, request: SimpleRequest) -> Result<SimpleResponse, SimpleError> {
        let deadline = request.deadline;
        match tokio::time::timeout(deadline, self.attempt(request)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(SimpleError::Deadline),
        }
    }

    async fn attempt(&self, request: SimpleRequest) -> Result<SimpleResponse, SimpleError> {
        let SimpleRequest { method, url, headers, body, deadline, max_response_bytes } = request;
        let addresses = match url.host() {
            Host::Address(address) => vec![*address],
            Host::Name(name) => {
                let failed = |reason: String| EgressError::ResolveFailed { host: name.clone(), reason };
                self.resolver.resolve(name).await.map_err(|error| failed(error.to_string()))?
            }
        };
        let scheme = if url.is_https() { "https" } else { "http" };
        let target = url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
        let host = http::HeaderValue::from_str(url.authority()).map_err(|_| TargetError::Host)?;
        let reason = || EgressError::ResolveFailed { host: url.host().to_string(), reason: "no address".to_owned() };
        let mut failed = SimpleError::Egress(reason());
        for address in addresses {
            let at = SocketAddr::new(address, url.port());
            let mut outgoing = Request::new(Full::new(body.clone()));
            *outgoing.method_mut() = method.clone();
            *outgoing.uri_mut() = format!("{scheme}://{at}{target}").parse().map_err(|_| TargetError::NotAbsolute)?;
            *outgoing.headers_mut() = headers.clone();
            outgoing.headers_mut().insert(http::header::HOST, host.clone());
            let connector = PeerConnector::new(url.host().clone(), self.trust.clone(), deadline);
            let client = peer_client(connector, &PoolSettings::default());
            match exchange(&client, outgoing, max_response_bytes).await {
                // Nobody there; whoever was reached has been asked, and is not asked again.
                Err(
                    error @ SimpleError::Egress(EgressError::ConnectFailed { .. } | EgressError::ConnectTimeout { .. }),
                ) => {
                    failed = error;
                }
                other => return other,
            }
        }
        Err(failed)
    }
}

fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
