//! HTTP clients over the guarded connector: one for data paths, one for a request now and then.

use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_util::client::legacy::connect::Connect;
use hyper_util::client::legacy::{Builder, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::address::{AddressClass, classify};
use super::connect::{GuardedConnector, HTTP1, HTTP2, Resolver};
use super::peer::{PeerClient, PeerConnector};
use super::target::{Host, TargetUrl};
use super::tls::TlsTrust;
use super::{EgressError, TargetError};

/// A pooling client that can only reach what the guard admits. It follows no redirect and decodes no content.
pub type EgressClient<B> = Client<GuardedConnector, B>;

/// Largest response head accepted, in bytes; also what a read of a response body may bring at once.
const RESPONSE_BUFFER_BYTES: usize = 64 * 1024;

/// Bytes of one stream that may be on their way without having been taken.
const HTTP2_WINDOW_BYTES: u32 = 256 * 1024;
/// How often an upstream of HTTP/2 with streams open is asked whether it is still there, and how long it may take to say so.
const HTTP2_PING: Duration = Duration::from_secs(30);
const HTTP2_PONG: Duration = Duration::from_secs(20);

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

/// The same that speaks HTTP/2 with `https` upstreams that choose it, and HTTP/1.1 with all others.
pub fn either_client<B>(connector: &GuardedConnector, settings: &PoolSettings) -> EgressClient<B>
where
    B: Body + Send + 'static + Unpin,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    http2_builder(settings).build(connector.offering(&[HTTP2, HTTP1]))
}

/// The same over HTTP/2 alone: agreed on in the handshake of an `https` upstream, taken for granted at an `http` one.
pub fn http2_client<B>(connector: &GuardedConnector, settings: &PoolSettings) -> EgressClient<B>
where
    B: Body + Send + 'static + Unpin,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    http2_builder(settings).http2_only(true).build(connector.offering(&[HTTP2]))
}

fn http2_builder(settings: &PoolSettings) -> Builder {
    let mut builder = builder(settings);
    builder
        .timer(TokioTimer::new())
        .http2_initial_stream_window_size(HTTP2_WINDOW_BYTES)
        .http2_max_header_list_size(u32::try_from(RESPONSE_BUFFER_BYTES).unwrap_or(u32::MAX))
        .http2_keep_alive_interval(HTTP2_PING)
        .http2_keep_alive_timeout(HTTP2_PONG);
    builder
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
    #[expect(
        clippy::disallowed_methods,
        reason = "the one home of clients: each is built around a connector that judges"
    )]
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

    /// Sends one request and gives the status of its answer, as soon as that is there: however long or slow the body is, it
    /// is nobody's. A short one is read to its end, so that the connection can be used again.
    pub async fn status(&self, request: SimpleRequest) -> Result<StatusCode, SimpleError> {
        let SimpleRequest { method, url, headers, body, deadline, max_response_bytes } = request;
        let mut outgoing = Request::new(Full::new(body));
        *outgoing.method_mut() = method;
        *outgoing.uri_mut() = url.to_uri()?;
        *outgoing.headers_mut() = headers;
        let response = match tokio::time::timeout(deadline, respond(&self.0, outgoing)).await {
            Ok(response) => response?,
            Err(_) => return Err(SimpleError::Deadline),
        };
        let (parts, body) = response.into_parts();
        let most = u64::try_from(max_response_bytes).unwrap_or(u64::MAX);
        if body.size_hint().upper().is_some_and(|upper| upper <= most) {
            let _ = tokio::time::timeout(DRAIN, body.collect()).await;
        }
        Ok(parts.status)
    }
}

/// How long a short body that nobody wants is waited for.
const DRAIN: Duration = Duration::from_millis(200);

async fn respond<C>(
    client: &Client<C, Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<http::Response<hyper::body::Incoming>, SimpleError>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    client.request(request).await.map_err(|error| match EgressError::find(&error) {
        Some(cause) => SimpleError::Egress(cause.clone()),
        None => SimpleError::Transport(chain(&error)),
    })
}

async fn exchange<C>(
    client: &Client<C, Full<Bytes>>,
    request: Request<Full<Bytes>>,
    max_bytes: usize,
) -> Result<SimpleResponse, SimpleError>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let (parts, body) = respond(client, request).await?.into_parts();
    if body.size_hint().lower() > u64::try_from(max_bytes).unwrap_or(u64::MAX) {
        return Err(SimpleError::TooLarge);
    }
    let collected = Limited::new(body, max_bytes).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() { SimpleError::TooLarge } else { SimpleError::Transport(chain(&*error)) }
    })?;
    Ok(SimpleResponse { status: parts.status, headers: parts.headers, body: collected.to_bytes() })
}

/// For a request now and then to a server that the operator of this process names in its settings: a secret store, or
/// the metadata service of the cloud it runs in. Unlike [`SimpleClient`] it may go to loopback and to private networks,
/// where such servers lie; nothing that a tenant wrote may ever choose the URL. Link-local and metadata addresses are
/// refused here, too, but for those that it was made for. It keeps no connections and follows nothing.
#[derive(Clone)]
pub struct OperatorClient {
    resolver: Arc<dyn Resolver>,
    trust: TlsTrust,
    platform: &'static [IpAddr],
}

impl OperatorClient {
    /// Believes whom `trust` says.
    pub fn new(resolver: Arc<dyn Resolver>, trust: TlsTrust) -> Self {
        Self { resolver, trust, platform: &[] }
    }

    /// The same, that also reaches these addresses of the platform it runs on, where a URL names them as such. A name that
    /// leads there is refused as before: whoever answers for the name must not choose what is asked for credentials.
    #[must_use]
    pub fn reaching(self, platform: &'static [IpAddr]) -> Self {
        Self { platform, ..self }
    }

    /// Refuses what no server of an operator's lies at.
    pub(super) fn judge(&self, host: &Host, address: IpAddr) -> Result<(), EgressError> {
        let class = classify(address);
        match class {
            AddressClass::LinkLocal | AddressClass::Metadata | AddressClass::Multicast | AddressClass::Unspecified => {
                let is_own = *host == Host::Address(address) && self.platform.contains(&address);
                let refused = EgressError::Refused { host: host.to_string(), class, admitted_by: None };
                if is_own { Ok(()) } else { Err(refused) }
            }
            AddressClass::Public | AddressClass::Loopback | AddressClass::Private | AddressClass::Reserved => Ok(()),
        }
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
        // One bad answer refuses them all, as everywhere.
        for address in &addresses {
            self.judge(url.host(), *address)?;
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::SystemResolver;

    const PLATFORM: &[IpAddr] = &[IpAddr::V4(std::net::Ipv4Addr::new(169, 254, 169, 254))];

    #[test]
    fn t03_egress_metadata_is_reached_at_its_own_literal_address_and_by_who_is_made_for_it() {
        let client = OperatorClient::new(Arc::new(SystemResolver::new()), TlsTrust::from_pem(false, None));
        let admits = |client: &OperatorClient, host: &str, address: &str| {
            client.judge(&Host::parse(host).unwrap(), address.parse().unwrap()).is_ok()
        };
        for fine in ["127.0.0.1", "10.0.0.1", "192.168.1.1", "93.184.216.34"] {
            assert!(admits(&client, "vault.internal", fine), "{fine}");
        }
        let refused = [
            "169.254.169.254",
            "169.254.170.2",
            "169.254.1.1",
            "168.63.129.16",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "fd00:ec2::254",
            "fe80::1",
            "0.0.0.0",
            "224.0.0.1",
        ];
        let made_for_it = client.clone().reaching(PLATFORM);
        for address in refused {
            assert!(!admits(&client, "vault.internal", address), "{address}");
            assert!(!admits(&made_for_it, "vault.internal", address), "a name that leads to {address}");
            let literal = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
            assert!(!admits(&client, &literal, address), "{address}");
            assert_eq!(admits(&made_for_it, &literal, address), address == "169.254.169.254", "{address}");
        }
    }

    #[tokio::test]
    async fn an_operator_s_url_that_names_a_metadata_address_is_refused_before_anything_is_sent() {
        let client = OperatorClient::new(Arc::new(SystemResolver::new()), TlsTrust::from_pem(false, None));
        let request = SimpleRequest {
            method: Method::GET,
            url: TargetUrl::parse("https://169.254.169.254/latest").unwrap(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            deadline: Duration::from_secs(5),
            max_response_bytes: 10,
        };
        let refused = client.send(request).await.unwrap_err();
        assert!(matches!(refused, SimpleError::Egress(EgressError::Refused { class: AddressClass::Metadata, .. })));
    }
}
