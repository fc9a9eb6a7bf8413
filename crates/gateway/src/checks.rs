//! Everything that has to hold before a request may be forwarded, in the contract's order (gateway.md §6, rows 1–15).
//!
//! Rows 1–10 look at the request alone and cost nothing but time of the processor; a row further down never answers
//! before one further up. Row 11 verifies the signature, with the key of the zone the token itself names: from there on
//! the caller is somebody, and a refusal leaves evidence of its own instead of a count. The mandate is used up in row
//! 15, by the exchange and in its commit; whoever is turned away before keeps it (README D8, D35).
//!
//! What comes out is a [`Permit`]. Nothing else makes one, and nothing is forwarded without one.

use std::time::Instant;

use caracal_authority::mandate::MAX_TOKEN_BYTES;
use caracal_authority::{ApplicationId, MandateId, Timestamp, ZoneId};
use caracal_crypto::encoding::hex;
use caracal_crypto::jws::UnverifiedToken;
use caracal_crypto::{Secret, SecretText};
use caracal_custody::VerificationKeys;
use caracal_http::{RequestId, path};
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderMap, HeaderName};
use serde_json::Value;

use crate::Gateway;
use crate::evidence::{Attempt, Caller};
use crate::exchange::{Directive, ExchangeRefusal, ExchangeRequest, Permitted, RefusalKind};
use crate::revocation::{Anchors, Watch};
use crate::wire::Refusal;

const RESOURCE: HeaderName = HeaderName::from_static("x-caracal-resource");
const CLIENT_ID: HeaderName = HeaderName::from_static("x-caracal-client-id");

/// A mandate must live at least this long, so that it does not end under way.
const PRE_FLIGHT_SECONDS: i64 = 35;

/// Leave to forward one request: its mandate was verified, is not revoked and now used up, and the STS allowed exactly
/// this resource, method and path. Made by [`check`] alone.
pub(crate) struct Permit(Granted);

/// What a permit grants. Taking it apart spends it.
pub(crate) struct Granted {
    /// The duty to record how the call ends.
    pub(crate) attempt: Attempt,
    /// Whose call it is.
    pub(crate) zone: ZoneId,
    /// Set when an anchor of the mandate is revoked.
    pub(crate) watch: Watch,
    /// The mandate minted for the resource.
    pub(crate) access_token: SecretText,
    /// Where the call goes.
    pub(crate) directive: Directive,
    /// When the presented mandate ends.
    pub(crate) expires_at: Timestamp,
}

impl Permit {
    pub(crate) fn spend(self) -> Granted {
        self.0
    }
}

/// Runs every check on one request. `declared` is the length its body is said to have.
pub(crate) async fn check(
    gateway: &Gateway,
    request: &Parts,
    id: &RequestId,
    declared: Option<u64>,
) -> Result<Permit, Refusal> {
    let unknown = Leaving { gateway, caller: None };
    let verified = verify(gateway, request, id).await;
    unknown.stays();
    let mandate = match verified {
        Ok(mandate) => mandate,
        Err(refusal) => {
            gateway.evidence.anonymous_denial(refusal.reason());
            return Err(refusal);
        }
    };
    let caller = mandate.caller.clone();
    let known = Leaving { gateway, caller: Some(&caller) };
    let outcome = decide(gateway, mandate, request, declared).await;
    known.stays();
    if let Err(refusal) = &outcome {
        record(gateway, &caller, refusal);
    }
    outcome
}

/// A caller who goes away makes every future of its request disappear. One who does so before the checks are through leaves
/// this behind: 499 "client cancelled" (gateway.md §11.2), which nobody is there to be told.
struct Leaving<'g> {
    gateway: &'g Gateway,
    /// Who it was, once that is proven.
    caller: Option<&'g Caller>,
}

impl Leaving<'_> {
    /// The checks have an outcome, and that is what is recorded.
    fn stays(self) {
        std::mem::forget(self);
    }
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        let refusal = Refusal::CallerGone;
        refusal.count(&self.gateway.metrics);
        match self.caller {
            Some(caller) => self.gateway.evidence.left(caller, refusal.status(), refusal.description()),
            None => self.gateway.evidence.anonymous_denial(refusal.reason()),
        }
    }
}

/// Rows 1–11: from a request to a mandate that its zone has signed.
async fn verify<'r>(gateway: &Gateway, request: &'r Parts, id: &RequestId) -> Result<VerifiedMandate<'r>, Refusal> {
    let now = gateway.store.now();
    if !gateway.revocations.is_fresh(now) {
        return Err(Refusal::RevocationStale);
    }
    let bearer = bearer(&request.headers)?;
    let presented = PresentedMandate::parse(bearer)?;
    if presented.expires_at.as_seconds() - now.as_seconds() < PRE_FLIGHT_SECONDS {
        return Err(Refusal::Expiring);
    }
    let resource = routing(&request.headers)?;
    let (zone, client) = (presented.zone()?, presented.client()?);
    path::check(request.uri.path()).map_err(|_| Refusal::UnsafePath)?;
    presented.verify(gateway.keys.as_ref(), zone, client, resource, request.method.as_str(), id).await
}

/// Rows 12–15: whether this mandate may do this now.
async fn decide(
    gateway: &Gateway,
    mandate: VerifiedMandate<'_>,
    request: &Parts,
    declared: Option<u64>,
) -> Result<Permit, Refusal> {
    let VerifiedMandate { caller, anchors, bearer, expires_at } = mandate;
    // The store's word is given in the exchange; this only answers sooner.
    if gateway.spent.knows(&caller.zone, &caller.jti) {
        return Err(Refusal::Replayed);
    }
    let watch = gateway.revocations.watch(anchors).map_err(|_| Refusal::Revoked)?;
    // A body that says it is too large is refused before it costs the caller its mandate.
    if declared.is_some_and(|length| length > gateway.config.max_request_bytes) {
        return Err(Refusal::BodyTooLarge);
    }
    let room = tokio::time::timeout(gateway.config.sts_timeout, gateway.evidence.has_room());
    room.await.map_err(|_| Refusal::EvidenceUnavailable)?;
    let question = ExchangeRequest {
        zone: caller.zone.clone(),
        client: caller.client.clone(),
        bearer: Secret::new(bearer.to_owned()),
        jti: caller.jti.clone(),
        expires_at,
        resource: caller.resource.clone(),
        method: caller.method.clone(),
        path: request.uri.path().to_owned(),
        request_id: caller.request_id.clone(),
    };
    let Permitted { access_token, upstream } = exchange(gateway, &caller, question).await?;
    let directive = upstream.filter(|directive| !directive.url.is_empty()).ok_or(Refusal::NoUpstream)?;
    let zone = caller.zone.clone();
    let attempt = gateway.evidence.attempt(caller);
    Ok(Permit(Granted { attempt, zone, watch, access_token, directive, expires_at }))
}

/// Rows 14 and 15: one question, one attempt, in time, and the circuit learns how it went.
async fn exchange(gateway: &Gateway, caller: &Caller, question: ExchangeRequest) -> Result<Permitted, Refusal> {
    let pass = gateway
        .circuit
        .enter(&caller.zone, tokio::time::Instant::now())
        .map_err(|tripped| Refusal::CircuitOpen { retry_after: tripped.retry_after })?;
    let asked = Instant::now();
    let answer = tokio::time::timeout(gateway.config.sts_timeout, gateway.exchange.exchange(question)).await;
    let took = asked.elapsed();
    gateway.metrics.exchange_latency.set(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
    gateway.metrics.exchanges.observe(took);
    let refusal = match answer {
        Ok(Ok(permitted)) if !permitted.access_token.expose().is_empty() => {
            pass.succeeded();
            gateway.spent.note(&caller.zone, &caller.jti);
            return Ok(permitted);
        }
        Ok(Ok(_)) => ExchangeRefusal::unknown(http::StatusCode::BAD_GATEWAY, "sts response invalid"),
        Ok(Err(refusal)) => refusal,
        Err(_) => ExchangeRefusal::timed_out(),
    };
    if refusal.is_outage() && pass.failed(tokio::time::Instant::now()) {
        gateway.metrics.circuit_opened.up();
    }
    if refusal.kind == RefusalKind::Replayed {
        gateway.spent.note(&caller.zone, &caller.jti);
        return Err(Refusal::Replayed);
    }
    Err(Refusal::Exchange(refusal))
}

/// Evidence of a refused caller who is somebody. The STS records its own decisions under the same request id.
fn record(gateway: &Gateway, caller: &Caller, refusal: &Refusal) {
    match refusal {
        Refusal::Replayed => gateway.evidence.replayed(caller),
        Refusal::Exchange(ExchangeRefusal { kind: RefusalKind::Denied, .. }) => {}
        other => match other.evaluation_status() {
            Some(status) => gateway.evidence.denied(caller, other.status(), status, other.description()),
            None => gateway.evidence.anonymous_denial(other.reason()),
        },
    }
}

/// Rows 2 and 3. The scheme is compared without case and ends with one space; only the first line counts.
fn bearer(headers: &HeaderMap) -> Result<&str, Refusal> {
    let line = headers.get(AUTHORIZATION).map(|line| line.as_bytes()).unwrap_or_default();
    let (scheme, token) = line.split_at_checked("Bearer ".len()).ok_or(Refusal::MissingBearer)?;
    let token = token.trim_ascii();
    if !scheme.eq_ignore_ascii_case(b"Bearer ") || token.is_empty() {
        return Err(Refusal::MissingBearer);
    }
    if token.len() > MAX_TOKEN_BYTES {
        return Err(Refusal::BearerTooLarge);
    }
    std::str::from_utf8(token).map_err(|_| Refusal::MalformedBearer)
}

/// Rows 6 and 7.
fn routing(headers: &HeaderMap) -> Result<&str, Refusal> {
    if headers.get_all(CLIENT_ID).iter().any(|line| !line.as_bytes().trim_ascii().is_empty()) {
        return Err(Refusal::ClientIdHeader);
    }
    let line = headers.get(RESOURCE).map(|line| line.as_bytes().trim_ascii()).unwrap_or_default();
    match std::str::from_utf8(line) {
        Ok(resource) if !resource.is_empty() => Ok(resource),
        _ => Err(Refusal::MissingRouting),
    }
}

/// A mandate by its shape. Nothing in it is believed yet.
struct PresentedMandate<'b> {
    bearer: &'b str,
    token: UnverifiedToken<'b>,
    expires_at: Timestamp,
    jti: MandateId,
}

impl<'b> PresentedMandate<'b> {
    /// Row 4. Without a usable `jti` there would be nothing to use up, so that is malformed, too.
    fn parse(bearer: &'b str) -> Result<Self, Refusal> {
        let token = UnverifiedToken::parse(bearer).map_err(|_| Refusal::MalformedBearer)?;
        let expires_at = token.claims().get("exp").and_then(Value::as_i64).filter(|seconds| *seconds != 0);
        let expires_at = Timestamp::from_seconds(expires_at.ok_or(Refusal::MalformedBearer)?);
        let jti = text(&token, "jti").and_then(|jti| MandateId::parse(jti).ok()).ok_or(Refusal::MalformedBearer)?;
        Ok(Self { bearer, token, expires_at, jti })
    }

    /// Row 8.
    fn zone(&self) -> Result<ZoneId, Refusal> {
        text(&self.token, "zone_id").and_then(|id| ZoneId::parse(id).ok()).ok_or(Refusal::MissingZone)
    }

    /// Row 9.
    fn client(&self) -> Result<ApplicationId, Refusal> {
        text(&self.token, "client_id").and_then(|id| ApplicationId::parse(id).ok()).ok_or(Refusal::MissingClient)
    }

    /// Row 11: the key is one of the zone's own, whatever keys other zones have under that `kid`.
    async fn verify(
        self,
        keys: &dyn VerificationKeys,
        zone: ZoneId,
        client: ApplicationId,
        resource: &str,
        method: &str,
        id: &RequestId,
    ) -> Result<VerifiedMandate<'b>, Refusal> {
        let kid = self.token.kid().ok_or(Refusal::BadSignature)?;
        let key = keys.verification_key(&zone, kid).await.map_err(|error| {
            tracing::error!(request_id = %id, zone_id = %zone, %error, "the zone's keys can't be read");
            Refusal::KeysUnavailable
        })?;
        let key = key.ok_or(Refusal::BadSignature)?;
        self.token.verify_once(&key).map_err(|_| Refusal::BadSignature)?;
        let anchors = Anchors::of(zone.clone(), kid, |claim| text(&self.token, claim));
        let subject_kind = match text(&self.token, "sub_type") {
            Some("user") => Some("user"),
            Some("application") => Some("application"),
            _ => None,
        };
        let caller = Caller {
            zone,
            client,
            jti: self.jti,
            resource: resource.to_owned(),
            fingerprint: fingerprint(self.bearer),
            method: method.to_owned(),
            subject_kind,
            request_id: id.clone(),
        };
        Ok(VerifiedMandate { caller, anchors, bearer: self.bearer, expires_at: self.expires_at })
    }
}

/// A mandate that the zone it names has signed.
struct VerifiedMandate<'b> {
    caller: Caller,
    anchors: Anchors,
    bearer: &'b str,
    expires_at: Timestamp,
}

/// A claim that is text and not empty.
fn text<'t>(token: &'t UnverifiedToken<'_>, claim: &str) -> Option<&'t str> {
    token.claims().get(claim).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// First eight bytes of the bearer's SHA-256, in hex (gateway.md §19.1).
fn fingerprint(bearer: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bearer.as_bytes());
    hex(digest.as_ref().get(..8).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &[u8])]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, http::HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    #[test]
    fn the_fingerprint_is_the_contracts() {
        assert_eq!(fingerprint("aaa.bbb.ccc"), "ce887a8eece06ba3");
    }

    #[test]
    fn only_the_first_line_with_the_scheme_and_one_space_is_a_bearer() {
        let found = |lines: &[(&'static str, &[u8])]| bearer(&headers(lines)).map(str::to_owned);
        for accepted in [&b"Bearer x"[..], b"BEARER   x  ", b"bearer \tx"] {
            assert_eq!(found(&[("authorization", accepted)]), Ok("x".to_owned()), "{accepted:?}");
        }
        for missing in [&b""[..], b"Basic x", b"Bearer", b"Bearer ", b"Bearer   ", b"Bearer\tx", b"Bearerx y", b"x"] {
            assert_eq!(found(&[("authorization", missing)]), Err(Refusal::MissingBearer), "{missing:?}");
        }
        assert_eq!(found(&[]), Err(Refusal::MissingBearer));
        let two: [(&'static str, &[u8]); 2] = [("authorization", b"Basic x"), ("authorization", b"Bearer x")];
        assert_eq!(found(&two), Err(Refusal::MissingBearer));
        let sized = |length: usize| found(&[("authorization", format!("Bearer {}", "x".repeat(length)).as_bytes())]);
        assert!(sized(4096).is_ok());
        assert_eq!(sized(4097), Err(Refusal::BearerTooLarge));
        assert_eq!(found(&[("authorization", b"Bearer \xff")]), Err(Refusal::MalformedBearer));
    }

    #[test]
    fn the_resource_is_the_first_line_and_no_client_id_may_be_named() {
        let found = |lines: &[(&'static str, &[u8])]| routing(&headers(lines)).map(str::to_owned);
        assert_eq!(found(&[("x-caracal-resource", b" a "), ("x-caracal-resource", b"b")]), Ok("a".to_owned()));
        assert_eq!(found(&[("x-caracal-resource", b"a"), ("x-caracal-client-id", b"")]), Ok("a".to_owned()));
        for missing in [&b""[..], b"  ", b"\xff"] {
            assert_eq!(found(&[("x-caracal-resource", missing)]), Err(Refusal::MissingRouting));
        }
        let named: [(&'static str, &[u8]); 2] = [("x-caracal-client-id", b""), ("x-caracal-client-id", b"a")];
        assert_eq!(found(&named), Err(Refusal::ClientIdHeader));
    }
}
