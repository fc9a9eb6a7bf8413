//! The HTTP face (contract: audit-and-streams.md §7).

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use caracal_authority::ZoneId;
use caracal_crypto::{SecretText, chance, constant_time_eq};
use caracal_http::limits::{Source, Verdict};
use caracal_http::{Face, FreshId, PeerAddr, Problem, Profile, health};
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::Audit;
use crate::dlq;
use crate::search::{SearchQuery, search};

/// For all readiness checks together.
const READY_WITHIN: Duration = Duration::from_secs(2);

impl Audit {
    /// The service's router, with request ids and error bodies around it. Serve it with `PeerAddr` as an extension of
    /// every request, or all callers share one back-off.
    pub fn router(self: Arc<Self>) -> Router {
        let fresh = FreshId::new(|| chance::uuid_v4().map(|id| id.to_string()).unwrap_or_default());
        let mut inner = Router::new()
            .route("/health", get(alive))
            .route("/ready", get(ready))
            .route("/metrics", get(metrics))
            .route("/metrics.json", get(metrics_json));
        if self.config.admin_token.is_some() {
            inner = inner
                .route("/api/audit/search", get(found))
                .route("/api/audit/dlq", get(dead_letters))
                .route("/api/audit/dlq/replay", post(replay))
                .route("/api/audit/dlq/{id}", get(dead_letter));
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

/// The part of this service that nobody else can do for it.
fn consumer(audit: &Audit) -> Option<&'static str> {
    (!audit.consuming.load(Ordering::Relaxed)).then_some("consumer_unhealthy")
}

async fn alive(State(audit): State<Arc<Audit>>) -> Response {
    match consumer(&audit) {
        Some(reason) => health::not_ready(reason).into_response(),
        None => health::alive_empty().into_response(),
    }
}

async fn ready(State(audit): State<Arc<Audit>>) -> Response {
    if let Some(reason) = consumer(&audit) {
        return health::not_ready(reason).into_response();
    }
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
    if audit.keeps_bad_frames() {
        return health::not_ready("audit_dlq_unavailable").into_response();
    }
    if let Some(objection) = audit.passed_threshold().or_else(|| audit.sweeps.objection()) {
        return health::not_ready(objection).into_response();
    }
    health::ready_audit(Profile::AUDIT).into_response()
}

async fn metrics(State(audit): State<Arc<Audit>>, headers: HeaderMap) -> Response {
    if !audit.may_read_metrics(&headers) {
        return audit.turn_away("invalid_metrics_bearer");
    }
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], audit.metrics.text()).into_response()
}

async fn metrics_json(State(audit): State<Arc<Audit>>, headers: HeaderMap) -> Response {
    if !audit.may_read_metrics(&headers) {
        return audit.turn_away("invalid_metrics_bearer");
    }
    Profile::AUDIT.json(StatusCode::OK, &audit.metrics.json()).into_response()
}

/// Authentication comes before parameters, and without a configured token there is no such route.
async fn found(
    State(audit): State<Arc<Audit>>,
    peer: Option<Extension<PeerAddr>>,
    headers: HeaderMap,
    Query(query): Query<Vec<(String, String)>>,
) -> Response {
    if let Some(refused) = shut(&audit, peer, &headers) {
        return refused;
    }
    let query = SearchQuery::of(query);
    if query.zone_id.is_empty() {
        return invalid("zone_id is required");
    }
    let Ok(zone) = ZoneId::parse(&query.zone_id) else { return invalid("zone_id is no id") };
    told(search(&audit.store, &zone, &query).await.map(Some), "search failed")
}

/// The dead letters of the frames' topic.
async fn dead_letters(
    State(audit): State<Arc<Audit>>,
    peer: Option<Extension<PeerAddr>>,
    headers: HeaderMap,
    Query(query): Query<Vec<(String, String)>>,
) -> Response {
    if let Some(refused) = shut(&audit, peer, &headers) {
        return refused;
    }
    match dlq::Range::of(&query) {
        Ok(range) => told(dlq::list(&audit.streams, &audit.store, &range).await.map(Some), "dlq list failed"),
        Err(dlq::Unreadable(why)) => invalid(why),
    }
}

async fn dead_letter(
    State(audit): State<Arc<Audit>>,
    peer: Option<Extension<PeerAddr>>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Response {
    if let Some(refused) = shut(&audit, peer, &headers) {
        return refused;
    }
    if !dlq::is_id(&id) {
        return not_found().into_response();
    }
    told(dlq::lookup(&audit.streams, &audit.store, &id).await, "dlq detail failed")
}

/// Offers what was put aside again, where that can help.
async fn replay(
    State(audit): State<Arc<Audit>>,
    peer: Option<Extension<PeerAddr>>,
    headers: HeaderMap,
    Query(query): Query<Vec<(String, String)>>,
) -> Response {
    if let Some(refused) = shut(&audit, peer, &headers) {
        return refused;
    }
    match dlq::Range::of(&query) {
        Ok(range) => told(dlq::replay(&audit.streams, &range).await.map(Some), "dlq replay failed"),
        Err(dlq::Unreadable(why)) => invalid(why),
    }
}

/// An answer that holds what was recorded, unredacted: no cache on the way may keep it.
fn told<T: Serialize, E: std::fmt::Display>(outcome: Result<Option<T>, E>, failed: &'static str) -> Response {
    match outcome {
        Ok(Some(found)) => {
            let mut response = Profile::AUDIT.json(StatusCode::OK, &found).into_response();
            response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }
        Ok(None) => not_found().into_response(),
        Err(error) => {
            tracing::error!(%error, "{failed}");
            Problem::internal().describe(failed).into_response()
        }
    }
}

fn invalid(why: &'static str) -> Response {
    Problem::new(StatusCode::BAD_REQUEST, "invalid_query").describe(why).into_response()
}

/// What those are told to whom the operators' routes are shut. Without a configured token there are none.
fn shut(audit: &Audit, peer: Option<Extension<PeerAddr>>, headers: &HeaderMap) -> Option<Response> {
    match &audit.config.admin_token {
        Some(token) => refusal(audit, token, peer, headers),
        None => Some(not_found().into_response()),
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
