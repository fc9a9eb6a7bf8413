//! Every way a proxied request can be refused, and the one mapping to status, code, text, metric and evidence
//! (contract: gateway.md §6, §11.2, §16, §18; README D7, D8, D11).

use std::time::Duration;

use bytes::Bytes;
use caracal_http::{Problem, Profile, RequestId};
use caracal_ledger::EvaluationStatus;
use http::header::{CACHE_CONTROL, CONNECTION, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;

use crate::exchange::{ExchangeRefusal, RefusalKind};
use crate::metrics::{Counter, Metrics};

/// 499: the caller went away. Seen in evidence and logs only.
pub(crate) fn client_closed_request() -> StatusCode {
    StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST)
}

/// Why a proxied request got no response from its upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    // The caller's.
    MissingBearer,
    BearerTooLarge,
    MalformedBearer,
    Expiring,
    ClientIdHeader,
    MissingRouting,
    MissingZone,
    MissingClient,
    UnsafePath,
    BadSignature,
    Replayed,
    Revoked,
    BodyTooLarge,
    // The STS's decision, or its lack of one.
    Exchange(ExchangeRefusal),
    NoUpstream,
    // A dependency's.
    RevocationStale,
    KeysUnavailable,
    EvidenceUnavailable,
    // Ours: more is asked than can be done.
    Overloaded,
    CircuitOpen { retry_after: Duration },
    // The directive's.
    NotAddressable,
    HostNotAllowed,
    BuildFailed,
    // The upstream's.
    UpstreamBusy { retry_after: Duration },
    UpstreamTimeout,
    UpstreamUnreachable,
    // After dispatch.
    CallerGone,
    MalformedBody,
}

/// What a refusal is called.
enum Word {
    /// In the event of a verified caller, which is refused before dispatch.
    Recorded(EvaluationStatus),
    /// In counts and spans only: its caller proved nothing yet, another event says it, or there is no room for one.
    Counted(&'static str),
}

/// What the caller sees of a refusal.
struct Seen<'r> {
    status: StatusCode,
    code: &'r str,
    description: &'r str,
}

impl Refusal {
    fn seen(&self) -> Seen<'_> {
        use StatusCode as S;
        let seen = |status, code, description| Seen { status, code, description };
        match self {
            Self::RevocationStale => seen(S::SERVICE_UNAVAILABLE, "sts_unavailable", "revocation state unavailable"),
            Self::MissingBearer => seen(S::UNAUTHORIZED, "invalid_token", "missing bearer token"),
            Self::BearerTooLarge => seen(S::UNAUTHORIZED, "invalid_token", "bearer token too large"),
            Self::MalformedBearer => seen(S::UNAUTHORIZED, "invalid_token", "malformed bearer token"),
            Self::Expiring => seen(
                S::UNAUTHORIZED,
                "credential_expired_not_renewable",
                "credential expiring within pre-flight window",
            ),
            Self::ClientIdHeader => {
                seen(S::BAD_REQUEST, "invalid_token", "client identity derives from the bearer token")
            }
            Self::MissingRouting => seen(S::BAD_REQUEST, "invalid_token", "missing routing headers"),
            Self::MissingZone => seen(S::UNAUTHORIZED, "invalid_token", "missing token zone"),
            Self::MissingClient => seen(S::UNAUTHORIZED, "invalid_token", "missing token client"),
            Self::UnsafePath => seen(S::BAD_REQUEST, "invalid_token", "path traversal not permitted"),
            Self::BadSignature => seen(S::UNAUTHORIZED, "invalid_token", "bearer signature invalid"),
            Self::KeysUnavailable => seen(S::SERVICE_UNAVAILABLE, "sts_unavailable", "signing keys unavailable"),
            Self::Replayed => seen(S::UNAUTHORIZED, "invalid_token", "token replay detected"),
            Self::Revoked => seen(S::UNAUTHORIZED, "invalid_token", "session revoked"),
            Self::EvidenceUnavailable => seen(S::SERVICE_UNAVAILABLE, "sts_unavailable", "evidence unavailable"),
            Self::Overloaded => seen(
                S::SERVICE_UNAVAILABLE,
                "sts_unavailable",
                "more is asked than can be done; nothing was used up, try again",
            ),
            Self::CircuitOpen { .. } => seen(S::SERVICE_UNAVAILABLE, "sts_unavailable", "sts unavailable"),
            Self::Exchange(refusal) if refusal.kind == RefusalKind::Replayed => Self::Replayed.seen(),
            // A refusal with the status of a success could be taken for one.
            Self::Exchange(refusal) if refusal.status.as_u16() < 300 => {
                seen(S::BAD_GATEWAY, "sts_unavailable", "sts response invalid")
            }
            Self::Exchange(refusal) => seen(refusal.status, &refusal.code, &refusal.description),
            Self::NoUpstream => seen(S::FORBIDDEN, "access_denied", "resource upstream not configured"),
            Self::BodyTooLarge => seen(S::PAYLOAD_TOO_LARGE, "payload_too_large", "request body too large"),
            Self::NotAddressable => seen(S::BAD_GATEWAY, "internal_error", "upstream not addressable"),
            Self::HostNotAllowed => {
                seen(S::BAD_GATEWAY, "internal_error", "provider credential not allowed for upstream host")
            }
            Self::BuildFailed => seen(S::BAD_REQUEST, "internal_error", "upstream request build failed"),
            Self::UpstreamBusy { .. } => seen(S::SERVICE_UNAVAILABLE, "internal_error", "upstream busy"),
            Self::UpstreamTimeout => seen(S::GATEWAY_TIMEOUT, "internal_error", "upstream timeout"),
            Self::UpstreamUnreachable => seen(S::BAD_GATEWAY, "internal_error", "upstream unreachable"),
            Self::CallerGone => seen(client_closed_request(), "internal_error", "client cancelled"),
            Self::MalformedBody => seen(S::BAD_REQUEST, "internal_error", "request body malformed"),
        }
    }

    /// The status the caller sees.
    pub(crate) fn status(&self) -> StatusCode {
        self.seen().status
    }

    /// The text the caller sees.
    pub(crate) fn description(&self) -> &str {
        self.seen().description
    }

    /// The text where there is room for one alone: the code says more than nothing.
    pub(crate) fn message(&self) -> &str {
        let Seen { code, description, .. } = self.seen();
        if description.is_empty() { code } else { description }
    }

    /// What it is called where it is noted.
    fn word(&self) -> Word {
        use EvaluationStatus as E;
        use Word::{Counted, Recorded};
        match self {
            Self::MissingBearer => Counted("missing_bearer_token"),
            Self::BearerTooLarge => Counted("bearer_too_large"),
            Self::MalformedBearer => Counted("malformed_bearer_token"),
            Self::Expiring => Counted("bearer_expiring"),
            Self::ClientIdHeader => Counted("client_id_header"),
            Self::MissingRouting => Counted("missing_routing_headers"),
            Self::MissingZone => Counted("missing_token_zone"),
            Self::MissingClient => Counted("missing_token_client"),
            Self::UnsafePath => Counted("path_traversal"),
            Self::BadSignature => Counted("bad_signature"),
            Self::Replayed => Counted("replay_detected"),
            Self::Revoked => Recorded(E::SessionRevoked),
            Self::BodyTooLarge => Recorded(E::RequestTooLarge),
            Self::Exchange(refusal) => match refusal.kind {
                RefusalKind::Denied => Counted("exchange_denied"),
                RefusalKind::Replayed => Counted("replay_detected"),
                RefusalKind::Unavailable => Recorded(E::StsUnavailable),
                RefusalKind::Unknown if refusal.status == StatusCode::GATEWAY_TIMEOUT => Recorded(E::StsTimeout),
                RefusalKind::Unknown => Recorded(E::StsOutcomeUnknown),
            },
            Self::NoUpstream => Recorded(E::UpstreamNotConfigured),
            Self::RevocationStale => Counted("revocation_state_unavailable"),
            Self::KeysUnavailable => Counted("signing_keys_unavailable"),
            Self::EvidenceUnavailable => Counted("evidence_unavailable"),
            Self::Overloaded => Counted("overloaded"),
            Self::CircuitOpen { .. } => Recorded(E::StsCircuitOpen),
            Self::NotAddressable => Counted("upstream_not_addressable"),
            Self::HostNotAllowed => Counted("provider_host_not_allowed"),
            Self::BuildFailed => Counted("request_build_failed"),
            Self::UpstreamBusy { .. } => Counted("upstream_busy"),
            Self::UpstreamTimeout => Counted("upstream_timeout"),
            Self::UpstreamUnreachable => Counted("upstream_unreachable"),
            Self::CallerGone => Counted("client_cancelled"),
            Self::MalformedBody => Counted("request_body_malformed"),
        }
    }

    /// `evaluation_status` of the event that a verified caller leaves when refused before dispatch.
    pub(crate) fn evaluation_status(&self) -> Option<EvaluationStatus> {
        match self.word() {
            Word::Recorded(status) => Some(status),
            Word::Counted(_) => None,
        }
    }

    /// The name of the reason in evidence, in spans and in the count of anonymous denials.
    pub(crate) fn reason(&self) -> &'static str {
        match self.word() {
            Word::Recorded(status) => status.as_str(),
            Word::Counted(word) => word,
        }
    }

    /// Counts a refusal of the checks. What ends after them is counted where its evidence is made.
    pub(crate) fn count(&self, metrics: &Metrics) {
        metrics.denied.up();
        let counter: Option<&Counter> = match self {
            Self::RevocationStale => Some(&metrics.revocation_stale),
            Self::MissingBearer => Some(&metrics.missing_auth),
            Self::BearerTooLarge | Self::MalformedBearer => Some(&metrics.bad_bearer),
            Self::Expiring => Some(&metrics.expiring),
            Self::ClientIdHeader | Self::MissingRouting | Self::MissingZone | Self::MissingClient => {
                Some(&metrics.bad_routing)
            }
            Self::UnsafePath => Some(&metrics.path_traversal),
            Self::BadSignature | Self::KeysUnavailable => Some(&metrics.signature),
            Self::Replayed => Some(&metrics.replay),
            Self::Revoked => Some(&metrics.revoked),
            Self::CircuitOpen { .. } => {
                metrics.circuit_fast_fail.up();
                Some(&metrics.exchange_errors)
            }
            Self::Exchange(refusal) if refusal.kind == RefusalKind::Replayed => Some(&metrics.replay),
            Self::Exchange(_) | Self::NoUpstream => Some(&metrics.exchange_errors),
            Self::BodyTooLarge
            | Self::Overloaded
            | Self::EvidenceUnavailable
            | Self::NotAddressable
            | Self::HostNotAllowed
            | Self::BuildFailed
            | Self::UpstreamBusy { .. }
            | Self::UpstreamTimeout
            | Self::UpstreamUnreachable
            | Self::CallerGone
            | Self::MalformedBody => None,
        };
        if let Some(counter) = counter {
            counter.up();
        }
    }

    /// The finished answer.
    pub(crate) fn render(&self, id: &RequestId) -> Response<Full<Bytes>> {
        let Seen { status, code, description } = self.seen();
        let mut problem = Problem::new(status, code.to_owned()).describe(description);
        let retry_after = match self {
            Self::CircuitOpen { retry_after } | Self::UpstreamBusy { retry_after } => Some(*retry_after),
            Self::Exchange(refusal) => refusal.retry_after,
            _ => None,
        };
        if let Some(wait) = retry_after {
            problem = problem.retry_after(wait);
        }
        let mut response = problem.render(id, Profile::GATEWAY);
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        // What the caller is still sending is not read any more.
        if matches!(self, Self::BodyTooLarge | Self::MalformedBody) {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use serde_json::{Value, json};

    use super::*;

    async fn rendered(refusal: Refusal) -> (u16, http::HeaderMap, Value) {
        let (parts, body) = refusal.render(&RequestId::parse(b"r-1").unwrap()).into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        assert!(body.ends_with(b"\n"));
        (parts.status.as_u16(), parts.headers, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn each_refusal_has_the_contracts_status_code_and_text() {
        let denied = ExchangeRefusal::denied(StatusCode::FORBIDDEN, "operation_not_permitted", "");
        for (refusal, status, code, description) in [
            (Refusal::RevocationStale, 503, "sts_unavailable", "revocation state unavailable"),
            (Refusal::MissingBearer, 401, "invalid_token", "missing bearer token"),
            (Refusal::BearerTooLarge, 401, "invalid_token", "bearer token too large"),
            (Refusal::MalformedBearer, 401, "invalid_token", "malformed bearer token"),
            (
                Refusal::Expiring,
                401,
                "credential_expired_not_renewable",
                "credential expiring within pre-flight window",
            ),
            (Refusal::ClientIdHeader, 400, "invalid_token", "client identity derives from the bearer token"),
            (Refusal::MissingRouting, 400, "invalid_token", "missing routing headers"),
            (Refusal::MissingZone, 401, "invalid_token", "missing token zone"),
            (Refusal::MissingClient, 401, "invalid_token", "missing token client"),
            (Refusal::UnsafePath, 400, "invalid_token", "path traversal not permitted"),
            (Refusal::BadSignature, 401, "invalid_token", "bearer signature invalid"),
            (Refusal::KeysUnavailable, 503, "sts_unavailable", "signing keys unavailable"),
            (Refusal::Replayed, 401, "invalid_token", "token replay detected"),
            (Refusal::Exchange(ExchangeRefusal::replayed()), 401, "invalid_token", "token replay detected"),
            (Refusal::Revoked, 401, "invalid_token", "session revoked"),
            (Refusal::CircuitOpen { retry_after: Duration::from_secs(7) }, 503, "sts_unavailable", "sts unavailable"),
            (Refusal::UpstreamBusy { retry_after: Duration::from_secs(1) }, 503, "internal_error", "upstream busy"),
            (Refusal::Exchange(denied), 403, "operation_not_permitted", ""),
            (Refusal::Exchange(ExchangeRefusal::timed_out()), 504, "sts_unavailable", "sts timeout"),
            (
                Refusal::Exchange(ExchangeRefusal::denied(StatusCode::OK, "x", "y")),
                502,
                "sts_unavailable",
                "sts response invalid",
            ),
            (Refusal::NoUpstream, 403, "access_denied", "resource upstream not configured"),
            (Refusal::NotAddressable, 502, "internal_error", "upstream not addressable"),
            (Refusal::HostNotAllowed, 502, "internal_error", "provider credential not allowed for upstream host"),
            (Refusal::BuildFailed, 400, "internal_error", "upstream request build failed"),
            (Refusal::UpstreamTimeout, 504, "internal_error", "upstream timeout"),
            (Refusal::UpstreamUnreachable, 502, "internal_error", "upstream unreachable"),
            (Refusal::BodyTooLarge, 413, "payload_too_large", "request body too large"),
            (Refusal::CallerGone, 499, "internal_error", "client cancelled"),
            (Refusal::MalformedBody, 400, "internal_error", "request body malformed"),
        ] {
            let (found, headers, body) = rendered(refusal.clone()).await;
            let mut expected = json!({"error": code, "requestId": "r-1", "request_id": "r-1"});
            if !description.is_empty() {
                expected["error_description"] = json!(description);
            }
            assert_eq!((found, &body), (status, &expected), "{refusal:?}");
            assert_eq!(headers["x-request-id"], "r-1");
            assert_eq!(headers["content-type"], "application/json");
            assert_eq!(headers["cache-control"], "no-store");
            assert_eq!(headers.contains_key("retry-after"), status == 503, "{refusal:?}");
            assert_eq!(headers.contains_key("www-authenticate"), status == 401, "{refusal:?}");
        }
        let (_, headers, _) = rendered(Refusal::CircuitOpen { retry_after: Duration::from_millis(6_500) }).await;
        assert_eq!(headers["retry-after"], "7");
        let limited = ExchangeRefusal {
            retry_after: Some(Duration::from_secs(60)),
            ..ExchangeRefusal::denied(StatusCode::TOO_MANY_REQUESTS, "provider_rate_limited", "")
        };
        let (status, headers, _) = rendered(Refusal::Exchange(limited)).await;
        assert_eq!((status, &headers["retry-after"]), (429, &HeaderValue::from_static("60")));
    }
}
