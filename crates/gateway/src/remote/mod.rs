//! The STS in another process, asked over signed HTTP (contract: gateway.md §11, sts.md §10.1).
//!
//! A Gateway asks for authority. It writes the contract's form, signs it with the key that both sides hold, with the
//! time and a nonce that is drawn for this try alone, and sends it to one of the replicas behind `STS_URL`. `answer`
//! turns whatever comes back into the same [`Permitted`] or [`ExchangeRefusal`] that an STS in this process gives; the
//! caller of the Gateway can't tell the two apart.
//!
//! # One question, one attempt
//!
//! An exchange uses the mandate up in the commit that decides. So it is sent again only while no byte of it has been
//! written: when a replica does not accept the connection the next one is tried, and a kept connection that the STS has
//! closed meanwhile is replaced. Once something was written, a break leaves the decision unknown, and asking again
//! would make it worse: if the lost answer was an allow, its directive can't be had a second time, and the caller
//! would be told `token replay detected`, with evidence of a replay that never was. The caller is told 503 and that the
//! mandate may be used up; a fresh one costs it one mint (gateway.md, security property 20).
//!
//! # Replicas
//!
//! A name may stand for several. Each request goes to the next of them in turn; one that does not accept connections is
//! passed over, within the same deadline, and asked last for a few seconds.

mod answer;
mod replicas;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use caracal_authority::ZoneId;
use caracal_crypto::chance;
use caracal_crypto::encoding::hex;
use caracal_crypto::hmac::{HmacKey, gateway_signature};
use caracal_custody::{FetchKeySet, KeySetUnreachable};
use caracal_http::egress::{Host, PeerClient, PeerConnector, PoolSettings, Resolver, TargetUrl, TlsTrust, peer_client};
use caracal_http::{RequestId, form, request_id, trace};
use caracal_store::{BoxFuture, Clock};
use http::header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::sync::Semaphore;

use crate::exchange::{Exchange, ExchangeRefusal, ExchangeRequest, Permitted, StsUnreachable};
use replicas::Replicas;

const TIMESTAMP: HeaderName = HeaderName::from_static("x-caracal-gateway-timestamp");
const NONCE: HeaderName = HeaderName::from_static("x-caracal-gateway-request");
const SIGNATURE: HeaderName = HeaderName::from_static("x-caracal-gateway-signature");

const GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

const KEY_SET: &str = "/.well-known/jwks.json";
/// A longer document is no key set.
const MOST_KEY_SET_BYTES: usize = 256 * 1024;

/// Exchanges under way at a time (gateway.md §11.1). Further ones wait within their deadline.
const MOST_AT_ONCE: usize = 200;
/// Connections to one replica that are kept while nobody uses them.
const IDLE_PER_REPLICA: usize = 32;
/// Well below the minute after which the STS closes an idle connection: what is taken from the pool is alive.
const IDLE: Duration = Duration::from_secs(30);
/// Longest a replica may take to accept a connection. A dead one must leave time to ask another.
const LONGEST_CONNECT: Duration = Duration::from_secs(1);
/// Readiness asks within this, or `STS_TIMEOUT` if that is less.
const CHECK_WITHIN: Duration = Duration::from_secs(1);

/// `STS_URL`, checked.
#[derive(Debug, Clone)]
pub struct StsUrl {
    target: TargetUrl,
    /// Without a trailing `/`; empty for none.
    base_path: String,
}

/// Why a text is no address of an STS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadStsUrl {
    /// Relative, or with a part that makes no sense here.
    #[error("must be an absolute http or https URL without user, query and fragment")]
    NotAbsolute,
    /// Exchanges carry mandates and provider credentials: in clear text only on one machine or one private network.
    #[error(
        "must be https, unless its host is a loopback address, localhost or a name without a dot, when CARACAL_MODE is \
         rc or stable"
    )]
    ClearText,
}

impl StsUrl {
    /// Reads `STS_URL`. A `published` mode (rc, stable) insists on TLS (gateway.md §21).
    pub fn parse(text: &str, published: bool) -> Result<Self, BadStsUrl> {
        let target = TargetUrl::parse(text).map_err(|_| BadStsUrl::NotAbsolute)?;
        if text.contains(['?', '#']) {
            return Err(BadStsUrl::NotAbsolute);
        }
        let near = match target.host() {
            Host::Name(name) => !name.contains('.'),
            Host::Address(address) => address.is_loopback(),
        };
        if published && !target.is_https() && !near {
            return Err(BadStsUrl::ClearText);
        }
        let base_path = target.path().trim_end_matches('/').to_owned();
        Ok(Self { target, base_path })
    }
}

/// What a [`RemoteSts`] works with.
pub struct RemoteStsConfig {
    /// `STS_URL`.
    pub url: StsUrl,
    /// `GATEWAY_STS_HMAC_KEY`. Without it nothing is signed, and the STS refuses: for development only.
    pub key: Option<Arc<HmacKey>>,
    /// `STS_TIMEOUT`: from question to answer, whatever is tried in between.
    pub timeout: Duration,
    /// Dates the signatures. The STS accepts a minute of difference.
    pub clock: Arc<dyn Clock>,
    /// Finds the replicas behind the name.
    pub resolver: Arc<dyn Resolver>,
    /// Whom TLS trusts.
    pub trust: TlsTrust,
}

/// Why there is no [`RemoteSts`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RemoteStsError {
    /// A deadline of nothing.
    #[error("STS_TIMEOUT must be greater than zero")]
    Timeout,
    /// Every handshake would fail.
    #[error("CARACAL_TLS_EXTRA_CA_FILE: {0}")]
    Trust(String),
    /// The host can't stand in a header.
    #[error("STS_URL has no usable host")]
    Host,
}

/// The STS, asked over signed HTTP.
pub struct RemoteSts {
    url: StsUrl,
    host: HeaderValue,
    key: Option<Arc<HmacKey>>,
    timeout: Duration,
    clock: Arc<dyn Clock>,
    replicas: Replicas,
    client: PeerClient<Full<Bytes>>,
    slots: Semaphore,
}

/// What is asked; signed when it is an exchange, which has an id.
struct Question {
    method: Method,
    path: Cow<'static, str>,
    body: Bytes,
    id: Option<RequestId>,
}

/// Why a question brought no answer.
enum Unanswered {
    /// Nobody took it: the STS has seen no byte.
    NotSent,
    /// Taken, and what came back was no HTTP.
    NotHttp,
    /// Taken, and the connection broke.
    Broken,
    /// It could not be written at all.
    Unwritable,
}

impl RemoteSts {
    /// Connects nowhere yet: the STS need not be up.
    pub fn new(config: RemoteStsConfig) -> Result<Self, RemoteStsError> {
        let RemoteStsConfig { url, key, timeout, clock, resolver, trust } = config;
        if timeout.is_zero() {
            return Err(RemoteStsError::Timeout);
        }
        if let Some(fault) = trust.fault().filter(|_| url.target.is_https()) {
            return Err(RemoteStsError::Trust(fault.to_string()));
        }
        if key.is_none() {
            tracing::warn!("GATEWAY_STS_HMAC_KEY is not set: exchanges are not signed, and the STS will refuse them");
        }
        let connect = LONGEST_CONNECT.min(timeout / 4);
        let connector = PeerConnector::new(url.target.host().clone(), trust, connect);
        let pool = PoolSettings { idle: IDLE, idle_per_host: IDLE_PER_REPLICA, retry_unsent: true };
        Ok(Self {
            host: HeaderValue::from_str(url.target.authority()).map_err(|_| RemoteStsError::Host)?,
            replicas: Replicas::new(url.target.host().clone(), url.target.port(), resolver, connect),
            client: peer_client(connector, &pool),
            slots: Semaphore::new(MOST_AT_ONCE),
            url,
            key,
            timeout,
            clock,
        })
    }

    async fn ask(&self, request: ExchangeRequest) -> Result<Permitted, ExchangeRefusal> {
        let _slot = self.slots.acquire().await.map_err(|_| ExchangeRefusal::unavailable())?;
        let body = Bytes::from(body(&request));
        let question =
            Question { method: Method::POST, path: "/oauth/2/token".into(), body, id: Some(request.request_id) };
        match self.send(&question).await {
            Ok(response) => answer::read(response, &request.resource).await,
            Err(Unanswered::NotSent) => Err(ExchangeRefusal::undecided(StatusCode::BAD_GATEWAY, "sts unavailable")),
            Err(Unanswered::NotHttp) => Err(ExchangeRefusal::unknown(StatusCode::BAD_GATEWAY, "sts unavailable")),
            Err(Unanswered::Broken) => Err(ExchangeRefusal::answer_lost()),
            Err(Unanswered::Unwritable) => Err(ExchangeRefusal::unavailable()),
        }
    }

    /// The published keys of a zone (contract: gateway.md §8). Anything but the document or "no such" is no answer.
    async fn key_set(&self, zone: &ZoneId) -> Result<Option<Vec<u8>>, KeySetUnreachable> {
        let path = format!("{KEY_SET}?{}", form::encode([("zone_id", zone.as_str())]));
        let question = Question { method: Method::GET, path: path.into(), body: Bytes::new(), id: None };
        let response = self.send(&question).await.map_err(|_| KeySetUnreachable)?;
        match response.status() {
            StatusCode::OK => {
                let document = answer::collect(response.into_body(), MOST_KEY_SET_BYTES).await;
                document.ok().flatten().map(|document| Some(document.expose().clone())).ok_or(KeySetUnreachable)
            }
            StatusCode::NOT_FOUND => Ok(None),
            status => {
                tracing::warn!(%status, "the sts did not give out a key set");
                Err(KeySetUnreachable)
            }
        }
    }

    async fn is_alive(&self) -> bool {
        let question = Question { method: Method::GET, path: "/health".into(), body: Bytes::new(), id: None };
        matches!(self.send(&question).await, Ok(response) if response.status().is_success())
    }

    /// Sends a question to one replica. It is written anew for each that is tried.
    async fn send(&self, question: &Question) -> Result<Response<Incoming>, Unanswered> {
        let mut tried = Vec::new();
        // A second look at the name: the replicas of a moment ago may all have been replaced since.
        for anew in [false, true] {
            for replica in self.replicas.in_turn(anew).await {
                if tried.contains(&replica) {
                    continue;
                }
                tried.push(replica);
                let request = self.written(question, replica).ok_or(Unanswered::Unwritable)?;
                let error = match self.client.request(request).await {
                    Ok(response) => {
                        self.replicas.answered(replica);
                        return Ok(response);
                    }
                    Err(error) => error,
                };
                if !error.is_connect() {
                    tracing::warn!(%replica, error = %cause(&error), "the sts was asked and did not answer");
                    return Err(if is_parse(&error) { Unanswered::NotHttp } else { Unanswered::Broken });
                }
                tracing::warn!(%replica, error = %cause(&error), "an sts can't be reached");
                self.replicas.did_not_accept(replica);
            }
        }
        Err(Unanswered::NotSent)
    }

    /// `None` without randomness for the nonce, which is 32 bytes and nobody's but this try's.
    fn written(&self, question: &Question, replica: SocketAddr) -> Option<Request<Full<Bytes>>> {
        let Question { method, path, body, id } = question;
        let path = format!("{}{path}", self.url.base_path);
        let scheme = if self.url.target.is_https() { "https" } else { "http" };
        let mut request = Request::new(Full::new(body.clone()));
        *request.method_mut() = method.clone();
        *request.uri_mut() = format!("{scheme}://{replica}{path}").parse().ok()?;
        let headers = request.headers_mut();
        headers.insert(HOST, self.host.clone());
        headers.insert(USER_AGENT, HeaderValue::from_static("caracal-gateway"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let Some(id) = id else { return Some(request) };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        headers.insert(request_id::HEADER, id.to_header());
        if let Some(parent) = trace::onward() {
            headers.insert(trace::HEADER, parent);
        }
        if let Some(key) = &self.key {
            let nonce = hex(&chance::random_bytes::<32>().ok()?);
            let now = self.clock.now().as_seconds();
            let signature = gateway_signature(key, now, &nonce, method.as_str(), &path, body);
            headers.insert(TIMESTAMP, HeaderValue::from(now));
            headers.insert(NONCE, HeaderValue::from_str(&nonce).ok()?);
            headers.insert(SIGNATURE, HeaderValue::from_str(&signature).ok()?);
        }
        Some(request)
    }
}

impl Exchange for RemoteSts {
    fn exchange(&self, request: ExchangeRequest) -> BoxFuture<'_, Result<Permitted, ExchangeRefusal>> {
        Box::pin(async move {
            let asked = tokio::time::timeout(self.timeout, self.ask(request)).await;
            asked.unwrap_or_else(|_| Err(ExchangeRefusal::timed_out()))
        })
    }

    /// `GET {STS_URL}/health` is 2xx (gateway.md §20.1).
    fn check(&self) -> BoxFuture<'_, Result<(), StsUnreachable>> {
        Box::pin(async move {
            let asked = tokio::time::timeout(CHECK_WITHIN.min(self.timeout), self.is_alive()).await;
            if asked == Ok(true) { Ok(()) } else { Err(StsUnreachable) }
        })
    }
}

impl FetchKeySet for RemoteSts {
    fn fetch<'a>(&'a self, zone: &'a ZoneId) -> BoxFuture<'a, Result<Option<Vec<u8>>, KeySetUnreachable>> {
        Box::pin(async move {
            let asked = tokio::time::timeout(self.timeout, self.key_set(zone)).await;
            asked.unwrap_or(Err(KeySetUnreachable))
        })
    }
}

/// The form, its fields in the order of the contract's vector.
fn body(request: &ExchangeRequest) -> String {
    form::encode([
        ("application_id", request.client.as_str()),
        ("gateway_request_id", request.request_id.as_str()),
        ("grant_type", GRANT),
        ("request_method", request.method.as_str()),
        ("request_path", request.path.as_str()),
        ("resource", request.resource.as_str()),
        ("subject_token", request.bearer.expose().as_str()),
        ("subject_token_type", ACCESS_TOKEN),
        ("zone_id", request.zone.as_str()),
    ])
}

/// The innermost cause: the outer ones only say that a request failed.
fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| error.source()).last().unwrap_or(error).to_string()
}

fn is_parse(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    causes.any(|error| error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse))
}
