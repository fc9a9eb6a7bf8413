//! Forwarding: from a [`Permit`] to a response (contract: gateway.md §6 rows 16–19, §14–§17).
//!
//! The caller asked for `POST /items/?x=1` on a resource; the STS said where that is and with which key. The
//! directive's URL is judged, then whether its credential may go there; the request is built, with the caller's path
//! and query byte for byte behind the upstream's own, the caller's headers without everything that only one hop or only
//! Caracal may say, and the credential in its place. It is sent once. Redirects are not followed, nothing is sent
//! again, nothing is kept. What comes back is relayed as it comes.
//!
//! None of this can be reached without a permit, and a permit is spent by it. However it ends, its evidence is made
//! here or, once a response is under way, by the body that carries it.

mod answer;
mod bounds;
mod clients;
pub(crate) mod credential;
mod places;
mod query;
pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod target;
mod websocket;

use std::error::Error;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use caracal_http::egress::{EgressClient, EgressError, TargetUrl};
use caracal_http::{PeerAddr, Profile, RequestId, trace as spans};
use caracal_ledger::MetadataKey as Key;
use http::header::{CONTENT_LENGTH, TE, TRAILER};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body;
use hyper::body::Incoming;
use tokio::sync::oneshot;
use tracing::{Instrument, Span};

use crate::Gateway;
use crate::checks::{Granted, Permit};
use crate::evidence::{Attempt, Outcome};
use crate::exchange::Directive;
use crate::grpc;
use crate::outgoing::Answer;
use crate::revocation::Watch;
use crate::trace;
use crate::upload::{Pulse, Timing, Upload, UploadBody, UploadFault};
use crate::wire::Refusal;

use self::answer::Asked;
use self::bounds::Bounds;
pub use self::clients::ClientCertificate;
pub(crate) use self::clients::Clients;
pub(crate) use self::places::{Place, Places};
use self::request::{BuildFault, Facts};
pub(crate) use self::response::trailers;
use self::websocket::Handshake;

/// The client of the data path. Bodies are boxed: the library keeps room for some thirty requests beside each connection, and
/// an event stream keeps its connection.
pub(crate) type UpstreamClient = EgressClient<Box<UploadBody>>;

const IDENTITY: HeaderName = HeaderName::from_static("x-caracal-identity");
/// How long a call waits for a place at an upstream that has none, and when trying again can succeed.
const WAIT_FOR_PLACE: Duration = Duration::from_secs(5);
const BUSY_RETRY_AFTER: Duration = Duration::from_secs(1);
/// Methods by which a server answers with the request it got.
const MIRRORED: [&str; 2] = ["TRACE", "TRACK"];

/// One request on its way through.
pub(crate) struct Inbound {
    pub(crate) parts: Parts,
    pub(crate) body: Incoming,
    pub(crate) peer: PeerAddr,
    pub(crate) id: RequestId,
    /// When its head had been read.
    pub(crate) started: tokio::time::Instant,
}

/// What kind of call it is, as far as that changes how it is carried.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// One request, one response.
    Plain,
    /// A handshake that turns the connection into a WebSocket.
    WebSocket(Handshake),
    /// gRPC: HTTP/2 at both ends, with fields behind the bodies, and both sides may talk for as long as they like.
    Grpc,
}

impl Kind {
    fn of(inbound: &Inbound) -> Self {
        let parts = &inbound.parts;
        if grpc::is_call(parts) {
            return Self::Grpc;
        }
        Handshake::of(parts, !inbound.body.is_end_stream()).map_or(Self::Plain, Self::WebSocket)
    }
}

/// Whether every `%` is followed by two hex digits.
pub(crate) fn escapes_are_whole(text: &str) -> bool {
    let escapes = text.as_bytes().split(|byte| *byte == b'%').skip(1);
    escapes.into_iter().all(|rest| rest.get(..2).is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit)))
}

/// Forwards one request and relays its response.
pub(crate) async fn forward(gateway: &Gateway, permit: Permit, inbound: Inbound) -> Result<Answer, Refusal> {
    let Granted { mut attempt, zone, watch, access_token, directive, expires_at } = permit.spend();
    note_directive(&mut attempt, &directive);
    let ended = |mut attempt: Attempt, outcome: Outcome, refusal: Refusal| {
        attempt.end(outcome);
        refusal
    };
    if watch.is_revoked() {
        return Err(ended(attempt, Outcome::RevokedBeforeDispatch, Refusal::Revoked));
    }
    let judged = target::judge(&directive, &gateway.config.upstream_host_allowlist, &gateway.connector).await;
    let target = match judged {
        Ok(target) => target,
        Err(refused) => return Err(not_addressable(attempt, refused.to_string())),
    };
    attempt.note(Key::UpstreamHost, target.authority());
    if !target::may_receive_credential(&target, &directive) {
        return Err(ended(attempt, Outcome::HostNotAllowed, Refusal::HostNotAllowed));
    }
    let bounds = Bounds::of(&gateway.config, &directive.limits);
    // Nothing of a body that says it is too large for its resource is read, and nothing is sent.
    if inbound.body.size_hint().lower() > bounds.request_bytes {
        return Err(ended(attempt, Outcome::Transport(Refusal::BodyTooLarge.status()), Refusal::BodyTooLarge));
    }
    let kind = Kind::of(&inbound);
    let (method, version) = (inbound.parts.method.clone(), inbound.parts.version);
    let takes_trailers = answer::takes_trailers(version, &inbound.parts.headers);
    let (began, pulse) = (inbound.started, Pulse::new());
    let read_deadline = match kind {
        // A conversation takes as long as it takes; its upload ends it when nobody says anything.
        Kind::Grpc => None,
        Kind::Plain | Kind::WebSocket(_) => Some(began + gateway.config.read_timeout),
    };
    let timing = match read_deadline {
        Some(deadline) => Timing::Deadline(deadline),
        None => Timing::Alive(pulse.clone(), bounds.idle),
    };
    let credentials = (&directive, &access_token);
    let built = build(gateway, inbound, &target, credentials, (&kind, timing, &bounds), &mut attempt);
    let (request, upload, finished) = match built {
        Ok(built) => built,
        Err(fault) => {
            tracing::warn!(request_id = %id_of(&attempt), %fault, "an upstream request could not be built");
            return Err(ended(attempt, Outcome::BuildFailed, Refusal::BuildFailed));
        }
    };
    // The mandate and the provider's token have served; only the request knows them now.
    drop((directive, access_token));
    attempt.sending(began, upload.clone());
    let wait = tokio::time::Instant::now() + WAIT_FOR_PLACE;
    let patience = read_deadline.map_or(wait, |deadline| deadline.min(wait));
    let Ok(place) = gateway.places.take(&target, &zone, patience).await else {
        let refusal = Refusal::UpstreamBusy { retry_after: BUSY_RETRY_AFTER };
        let status = refusal.status();
        return Err(ended(attempt, Outcome::Transport(status), refusal));
    };
    attempt.hold(place);
    // What was revoked while the call waited is not begun.
    if watch.is_revoked() {
        return Err(ended(attempt, Outcome::RevokedBeforeDispatch, Refusal::Revoked));
    }
    let client = gateway.clients.of(&zone, &target).to(&kind);
    let dispatched = Instant::now();
    let sent =
        Sent { upload: &upload, finished, watch: &watch, read_deadline, upstream_timeout: bounds.upstream_timeout };
    let span = call(&method, &target);
    let upstream = match dispatch(client, request, sent, &kind).instrument(span.clone()).await {
        Ok(upstream) => upstream,
        Err(Failure::NotAddressable(refused)) => {
            spans::failed(&span, Refusal::NotAddressable.reason());
            return Err(not_addressable(attempt, refused));
        }
        Err(Failure::Revoked) => {
            spans::failed(&span, Refusal::Revoked.reason());
            attempt.interrupted();
            return Err(Refusal::Revoked);
        }
        Err(Failure::Transport(refusal)) => {
            spans::failed(&span, refusal.reason());
            let status = refusal.status();
            return Err(ended(attempt, Outcome::Transport(status), refusal));
        }
    };
    let asked = Asked { method, version, takes_trailers, kind, upload, pulse, bounds, expires_at };
    spans::returned(&span, upstream.status());
    drop(span);
    attempt.answered(upstream.status(), dispatched.elapsed());
    gateway.metrics.allowed.up();
    Ok(answer::relay(gateway, asked, upstream, attempt, watch))
}

/// The call as a trace shows it: from its dispatch to the head of the response. The upstream is named without path and query.
fn call(method: &Method, target: &TargetUrl) -> Span {
    spans::call(Profile::GATEWAY.service(), "upstream", method, (&target.host().to_string(), target.port()))
}

fn note_directive(attempt: &mut Attempt, directive: &Directive) {
    attempt.note(Key::AuthMode, &directive.auth_mode);
    attempt.note(Key::ProviderId, &directive.provider_id);
    attempt.note(Key::ConnectionId, &directive.connection_id);
}

/// The refusal names the setting that would admit the address: to the operator, in log and evidence, not to the caller.
fn not_addressable(mut attempt: Attempt, refused: String) -> Refusal {
    tracing::warn!(request_id = %id_of(&attempt), reason = %refused, "an upstream is not addressable");
    attempt.end(Outcome::NotAddressable(refused));
    Refusal::NotAddressable
}

fn id_of(attempt: &Attempt) -> &str {
    attempt.caller().map_or("-", |caller| caller.request_id.as_str())
}

type Built = (Request<Box<UploadBody>>, Arc<Upload>, oneshot::Receiver<()>);

fn build(
    gateway: &Gateway,
    inbound: Inbound,
    target: &TargetUrl,
    (directive, access_token): (&Directive, &caracal_crypto::SecretText),
    (kind, timing, bounds): (&Kind, Timing, &Bounds),
    attempt: &mut Attempt,
) -> Result<Built, BuildFault> {
    let Inbound { parts, body, peer, id, .. } = inbound;
    if MIRRORED.contains(&parts.method.as_str()) {
        return Err(BuildFault::Method);
    }
    let placed = credential::place(directive, access_token)?;
    let in_query = match &placed.query {
        Some(name) => Some((name.as_str(), credential::provider_token(directive)?.expose().as_str())),
        None => None,
    };
    let uri = target::address(target, parts.uri.path(), parts.uri.query(), in_query)?;
    let traceparent = trace::parent(&parts.headers);
    if let Some(trace) = traceparent.as_ref().and_then(trace::trace_id) {
        attempt.note(Key::TraceId, trace);
    }
    // No length is announced where no body is expected. Elsewhere it is, even of nothing: some servers insist (411).
    let expected = parts.headers.contains_key(CONTENT_LENGTH)
        || matches!(parts.method, Method::POST | Method::PUT | Method::PATCH);
    let facts = Facts {
        peer: peer.ip(),
        trust_proxy: gateway.config.trust_proxy,
        id: &id,
        traceparent: traceparent.as_ref(),
        content_length: body.size_hint().exact().filter(|length| expected || *length > 0),
    };
    let mut headers = request::headers(&parts, &placed, &facts);
    match kind {
        Kind::Plain => {}
        Kind::WebSocket(_) => Handshake::put_into(&mut headers),
        Kind::Grpc => drop(headers.insert(TE, HeaderValue::from_static("trailers"))),
    }
    // Over HTTP/1.1 fields behind a body are announced, and only a body of chunks has room for them.
    let announced = (*kind == Kind::Plain && body.size_hint().exact().is_none())
        .then(|| request::announced(&parts.headers, &placed.header))
        .flatten();
    let trailers = (*kind == Kind::Grpc || announced.is_some()).then_some(placed.header);
    if let Some(names) = announced {
        headers.insert(TRAILER, names);
    }
    let (body, upload, finished) = UploadBody::new(body, bounds.request_bytes, timing, trailers);
    let mut request = Request::new(Box::new(body));
    *request.method_mut() = parts.method;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    Ok((request, upload, finished))
}

/// Why there is no response.
enum Failure {
    NotAddressable(String),
    /// An anchor of the mandate was revoked first.
    Revoked,
    Transport(Refusal),
}

/// What is known of a request that is being sent.
struct Sent<'s> {
    upload: &'s Upload,
    /// Hears when nothing more is to be sent.
    finished: oneshot::Receiver<()>,
    /// Ends it, however far it has come.
    watch: &'s Watch,
    read_deadline: Option<tokio::time::Instant>,
    /// From then on to the head of the response.
    upstream_timeout: Duration,
}

/// Sends the request, once. The time for the response's head counts from the end of the request; until then the whole
/// request's deadline holds, also while the upstream takes nothing. A revocation ends all of it: an upstream that has
/// said nothing yet must not be told more in a name that has no authority any more.
async fn dispatch(
    client: &UpstreamClient,
    request: Request<Box<UploadBody>>,
    Sent { upload, finished, watch, read_deadline, upstream_timeout }: Sent<'_>,
    kind: &Kind,
) -> Result<Response<Incoming>, Failure> {
    let mut response = std::pin::pin!(client.request(request));
    let revoked = || poll_fn(|cx| if watch.poll_revoked(cx) { Poll::Ready(()) } else { Poll::Pending });
    let cut = || {
        // Dropping the response ends a connection of HTTP/1.1; over HTTP/2 the body has a task of its own.
        upload.cut();
        Err(Failure::Revoked)
    };
    let too_late = async {
        match read_deadline {
            Some(deadline) => tokio::time::sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    };
    let sent = tokio::select! {
        biased;
        () = revoked() => return cut(),
        response = response.as_mut() => Some(response),
        _ = finished => None,
        () = too_late => return Err(Failure::Transport(Refusal::UpstreamUnreachable)),
    };
    let response = match sent {
        Some(response) => response,
        None => tokio::select! {
            biased;
            () = revoked() => return cut(),
            response = response => response,
            () = tokio::time::sleep(upstream_timeout) => return Err(Failure::Transport(Refusal::UpstreamTimeout)),
        },
    };
    match response {
        // The one protocol that somebody may have asked for.
        Ok(response)
            if response.status() == StatusCode::SWITCHING_PROTOCOLS
                && matches!(kind, Kind::WebSocket(handshake) if handshake.is_answered_by(response.headers())) =>
        {
            Ok(response)
        }
        // 1xx are not relayed. 100 never arrives here.
        Ok(response) if response.status().is_informational() => Err(Failure::Transport(Refusal::UpstreamUnreachable)),
        Ok(response) => Ok(response),
        Err(error) => Err(failure(&error, upload)),
    }
}

fn failure(error: &(dyn Error + 'static), upload: &Upload) -> Failure {
    let refusal = match upload.fault() {
        Some(UploadFault::TooLarge) => Refusal::BodyTooLarge,
        Some(UploadFault::BrokenOff) => Refusal::CallerGone,
        Some(UploadFault::Malformed) => Refusal::MalformedBody,
        Some(UploadFault::TooSlow | UploadFault::Cut) => Refusal::UpstreamUnreachable,
        None => match EgressError::find(error) {
            Some(refused @ (EgressError::Refused { .. } | EgressError::ResolveFailed { .. })) => {
                return Failure::NotAddressable(refused.to_string());
            }
            Some(EgressError::ConnectTimeout { .. }) => Refusal::UpstreamTimeout,
            _ => Refusal::UpstreamUnreachable,
        },
    };
    // The innermost cause: outer ones may quote the address, and with it a credential in its query.
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    tracing::info!(reason = refusal.reason(), %cause, "an upstream gave no response");
    Failure::Transport(refusal)
}

/// A media type without its parameters.
pub(crate) fn essence(content_type: Option<&HeaderValue>) -> Option<&str> {
    Some(content_type?.to_str().ok()?.split(';').next()?.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_escape_is_a_percent_sign_and_two_hex_digits() {
        for whole in ["", "/", "/a%20b%2F", "%e4", "a%2541"] {
            assert!(escapes_are_whole(whole), "{whole}");
        }
        for broken in ["%", "/%", "/%2", "/%zz", "/a%%20", "%2g", "/%u002e"] {
            assert!(!escapes_are_whole(broken), "{broken}");
        }
    }
}
