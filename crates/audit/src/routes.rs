//! The HTTP face (contract: audit-and-streams.md §7).

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use caracal_authority::ZoneId;
use caracal_crypto::{SecretText, chance, constant_time_eq};
use caracal_http::limits::{Source, Verdict};
use caracal_http::{Face, FreshId, PeerAddr, Problem, Profile, health};
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::Audit;
use crate::search::{SearchQuery, search};

/// For all readiness checks together.
const READY_WITHIN: Duration = Duration::from_secs(2);

impl Audit {
    /// The service's router, with request ids and error bodies around it. Serve it with `PeerAddr` as an extension of
    /// every request, or all callers share one back-off.
    pub fn router(self: Arc<Self>) -> Router {
        let fresh = FreshId::new(|| chance::uuid_v4().map(|id| id.to_string()).unwrap_or_default());
        let mut inner = Router::new()
            .route("/health", get(|| async { health::alive_empty() }))
            .route("/ready", get(ready))
            .route("/metrics", get(metrics))
            .route("/metrics.json", get(metrics_json));
        if self.config.admin_token.is_some() {
            inner = inner.route("/api/audit/search", get(found));
        }
        let inner = inner
            .fallback(|| async { not_found() })
            .method_not_allowed_fallback(|| async {
                Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed")
            })
            .with_state(self);
        Router::new().fallback_service(Face::new(Profile::AUDIT, fresh).wrap(inner))
    }

    fn may_read_metrics(&self, headers: &HeaderMap) -> bool {
        let Some(bearer) = &self.config.metrics_bearer else { return self.config.open_metrics };
        constant_time_eq(authorization(headers), Zeroizing::new(format!("Bearer {}", bearer.expose())).as_bytes())
    }

    /// Nobody we know; who that was is counted, not written (difference D11).
    fn turn_away(&self, reason: &'static str) -> Response {
        self.denials.count("audit", reason);
        let mut response = Problem::new(StatusCode::UNAUTHORIZED, "unauthorized").into_response();
        response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        response
    }
}

async fn ready(State(audit): State<Arc<Audit>>) -> Response {
    let answers = match tokio::time::timeout(READY_WITHIN, audit.store.check()).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::warn!(%error, "not ready");
            false
        }
        Err(_) => false,
    };
    if !answers {
        // The contract's name for "the store does not answer", whichever engine it is.
        return health::not_ready("postgres_unreachable").into_response();
    }
    if audit.probes.objections().await.redis_unreachable {
        return health::not_ready("redis_unreachable").into_response();
    }
    if let Some(objection) = audit.sweeps.objection() {
        return health::not_ready(objection).into_response();
    }
    health::ready_audit(Profile::AUDIT).into_response()
}

async fn metrics(State(audit): State<Arc<Audit>>, headers: HeaderMap) -> Response {
    if !audit.may_read_metrics(&headers) {
        return audit.turn_away("invalid_metrics_bearer");
    }
    let mut text = String::new();
    for (name, value) in audit.sweeps.counts() {
        let (name, kind) = match name {
            "tamper_chain_breaks" | "tamper_hmac_failures" => (format!("{name}_total"), "counter"),
            "tamper_last_sweep_unix" | "tamper_last_full_unix" => (name.to_owned(), "gauge"),
            _ => (name.to_owned(), "counter"),
        };
        text.push_str(&format!("# TYPE caracal_audit_{name} {kind}\ncaracal_audit_{name} {value}\n"));
    }
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

async fn metrics_json(State(audit): State<Arc<Audit>>, headers: HeaderMap) -> Response {
    if !audit.may_read_metrics(&headers) {
        return audit.turn_away("invalid_metrics_bearer");
    }
    let counts = audit.sweeps.counts().into_iter().map(|(name, value)| (name.to_owned(), Value::from(value)));
    Profile::AUDIT.json(StatusCode::OK, &counts.collect::<Map<_, _>>()).into_response()
}

/// Authentication comes before parameters, and without a configured token there is no such route.
async fn found(
    State(audit): State<Arc<Audit>>,
    peer: Option<Extension<PeerAddr>>,
    headers: HeaderMap,
    Query(query): Query<Vec<(String, String)>>,
) -> Response {
    let Some(token) = &audit.config.admin_token else { return not_found().into_response() };
    if let Some(refused) = refusal(&audit, token, peer, &headers) {
        return refused;
    }
    let query = SearchQuery::of(query);
    if query.zone_id.is_empty() {
        return Problem::new(StatusCode::BAD_REQUEST, "invalid_query").describe("zone_id is required").into_response();
    }
    let Ok(zone) = ZoneId::parse(&query.zone_id) else {
        return Problem::new(StatusCode::BAD_REQUEST, "invalid_query").describe("zone_id is no id").into_response();
    };
    match search(&audit.store, &zone, &query).await {
        Ok(found) => {
            let mut response = Profile::AUDIT.json(StatusCode::OK, &found).into_response();
            // It is not redacted: no cache on the way may keep it.
            response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }
        Err(error) => {
            tracing::error!(%error, "search failed");
            Problem::internal().describe("search failed").into_response()
        }
    }
}

/// What a caller without the token is told. Who guesses too often is not even compared any more, for a while.
fn refusal(
    audit: &Audit,
    token: &SecretText,
    peer: Option<Extension<PeerAddr>>,
    headers: &HeaderMap,
) -> Option<Response> {
    let source = Source::of(headers, peer.map(|Extension(peer)| peer.ip()), audit.config.trust_proxy);
    // Those of whom nobody can say it share one.
    let source = source.unwrap_or(Source::from(IpAddr::from(Ipv4Addr::UNSPECIFIED)));
    let now = audit.store.now();
    let limited = |wait| {
        audit.denials.count("audit", "rate_limited");
        Some(Problem::limited("rate_limited", wait).into_response())
    };
    if let Verdict::Limited { retry_after } = audit.guesses.check(&source, now) {
        return limited(retry_after);
    }
    if opens(headers, token) {
        return None;
    }
    if let Verdict::Limited { retry_after } = audit.guesses.failed(&source, now) {
        return limited(retry_after);
    }
    let mut response = audit.turn_away("invalid_admin_token");
    let challenge = HeaderValue::from_static("Bearer realm=\"caracal-audit\"");
    response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    Some(response)
}

/// The token may come with or without the scheme.
fn opens(headers: &HeaderMap, token: &SecretText) -> bool {
    let presented = authorization(headers);
    let presented = presented.strip_prefix(b"Bearer ").unwrap_or(presented);
    constant_time_eq(presented, token.expose().as_bytes())
}

/// What the one `Authorization` line says; of several, which one speaks is anybody's guess, so none does.
fn authorization(headers: &HeaderMap) -> &[u8] {
    let mut lines = headers.get_all(AUTHORIZATION).iter();
    match (lines.next(), lines.next()) {
        (Some(line), None) => line.as_bytes(),
        _ => &[],
    }
}

fn not_found() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "resource_not_found")
}
