//! The fixed routes (contract: gateway.md §3, §10.5, §20). They answer at their exact path and shadow equal paths of
//! every upstream.

use std::time::Duration;

use bytes::Bytes;
use caracal_crypto::{constant_time_eq, jws};
use caracal_http::{PeerAddr, Profile, RequestId, health};
use http::header::{AUTHORIZATION, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use http_body_util::Full;
use serde_json::json;

use crate::Gateway;
use crate::config::MetricsAccess;
use crate::evidence::CAPACITY;
use crate::metrics::Gauges;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const EXPOSITION: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
/// For all readiness checks together.
const READY_WITHIN: Duration = Duration::from_secs(2);
const RELOAD_WITHIN: Duration = Duration::from_secs(5);

/// The answer of a fixed route; `None` when the request is one to proxy.
pub(crate) async fn answer(gateway: &Gateway, request: &Parts, id: &RequestId) -> Option<Response<Full<Bytes>>> {
    match request.uri.path() {
        "/health" => Some(health::alive_empty()),
        "/ready" => Some(ready(gateway, id).await),
        "/metrics" => Some(metrics(gateway, request, |gateway, gauges| {
            let mut response = Response::new(Full::new(Bytes::from(gateway.metrics.text(gauges))));
            response.headers_mut().insert(CONTENT_TYPE, EXPOSITION);
            response
        })),
        "/metrics.json" => Some(metrics(gateway, request, |gateway, gauges| {
            Profile::GATEWAY.json(StatusCode::OK, &gateway.metrics.json(gauges))
        })),
        "/internal/revocations/reload" if request.method == Method::POST => Some(reload(gateway, request, id).await),
        _ => None,
    }
}

async fn ready(gateway: &Gateway, id: &RequestId) -> Response<Full<Bytes>> {
    let checks = async {
        // One store stands in the place of the contract's two.
        if gateway.store.check().await.is_err() {
            return Some("store_unreachable");
        }
        if gateway.probes.objections().await.redis_unreachable {
            return Some("redis_unreachable");
        }
        if !gateway.revocations.is_fresh(gateway.store.now()) {
            return Some("revocation_snapshot_stale");
        }
        if gateway.evidence.dropped.get() > 0 {
            return Some("audit_evidence_lost");
        }
        if !gateway.evidence.parked.is_available() {
            return Some("audit_replay_unavailable");
        }
        gateway.exchange.check().await.is_err().then_some("sts_unreachable")
    };
    match tokio::time::timeout(READY_WITHIN, checks).await.unwrap_or(Some("sts_unreachable")) {
        None => health::ready(Profile::GATEWAY),
        Some(reason) => health::not_ready(reason).render(id, Profile::GATEWAY),
    }
}

fn metrics(
    gateway: &Gateway,
    request: &Parts,
    show: impl Fn(&Gateway, &Gauges) -> Response<Full<Bytes>>,
) -> Response<Full<Bytes>> {
    let allowed = match &gateway.config.metrics {
        MetricsAccess::Open => true,
        MetricsAccess::Closed => false,
        MetricsAccess::Bearer(bearer) => {
            let line = request.headers.get(AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
            is_bearer(line, bearer.expose())
        }
    };
    if allowed {
        return show(gateway, &gauges(gateway));
    }
    let mut response = plain(StatusCode::UNAUTHORIZED, "unauthorized\n");
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn gauges(gateway: &Gateway) -> Gauges {
    let now = gateway.store.now();
    let (revocation_messages, propagation) = gateway.revocations.applied();
    Gauges {
        circuit_open: gateway.circuit.is_open(tokio::time::Instant::now()),
        evidence_dropped: gateway.evidence.dropped.get(),
        evidence_sink_errors: gateway.evidence.sink_errors.get(),
        evidence_depth: u64::try_from(gateway.evidence.depth()).unwrap_or(u64::MAX),
        evidence_capacity: u64::try_from(CAPACITY).unwrap_or(u64::MAX),
        evidence_persisted: gateway.evidence.persisted.get(),
        evidence_drained: gateway.evidence.drained.get(),
        evidence_replayed: gateway.evidence.parked.replayed.get(),
        evidence_aside: gateway.evidence.parked.aside.get(),
        parked: gateway.evidence.parked.backlog(gateway.store.now()),
        revocations_active: gateway.revocations.active(),
        snapshot_age: gateway.revocations.age(now).and_then(|age| u64::try_from(age).ok()).unwrap_or(0),
        snapshot_fresh: gateway.revocations.is_fresh(now),
        revocation_messages,
        propagation_seconds: propagation.as_secs(),
        feed: gateway.feed.get().map(|counts| counts()).unwrap_or_default(),
        work: gateway.gate.get().map(|gate| gate.counts()),
        connections: gateway.store.connections(),
        verifications: jws::verifications(),
        commits: gateway.store.commits(),
        changes: gateway.store.changes(),
    }
}

/// Without the token the route does not exist.
async fn reload(gateway: &Gateway, request: &Parts, id: &RequestId) -> Response<Full<Bytes>> {
    let not_found = || plain(StatusCode::NOT_FOUND, "not found\n");
    let Some(token) = &gateway.config.admin_token else { return not_found() };
    // The token opens the Admin API too, whose limits do not cover this door. Who guesses too often is not even compared
    // for a while, and learns no more than anybody else: that there is nothing here.
    let source = request.extensions.get::<PeerAddr>().map(|peer| peer.source());
    let now = gateway.store.now();
    if !gateway.guesses.check(&source, now).is_allowed() {
        return not_found();
    }
    let line = request.headers.get(AUTHORIZATION).map(|line| line.as_bytes().trim_ascii()).unwrap_or_default();
    if !is_bearer(line, token.expose()) {
        // The verdict changes nothing: the answer is the same.
        let _ = gateway.guesses.failed(&source, now);
        return not_found();
    }
    match tokio::time::timeout(RELOAD_WITHIN, gateway.refresh_revocations()).await {
        Ok(Ok(marks)) => Profile::GATEWAY.json(StatusCode::OK, &json!({"ok": true, "revocations": marks})),
        _ => health::not_ready("revocation_reload_failed").render(id, Profile::GATEWAY),
    }
}

/// Whether a line is exactly `Bearer <secret>`, in a time that does not tell how much of it is right.
fn is_bearer(line: &[u8], secret: &str) -> bool {
    line.strip_prefix(b"Bearer ").is_some_and(|token| constant_time_eq(token, secret.as_bytes()))
}

/// A short text of ours.
pub(crate) fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, TEXT);
    response
}
