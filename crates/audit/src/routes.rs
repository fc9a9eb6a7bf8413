//! The HTTP face (contract: audit-and-streams.md §7).

use std::sync::Arc;

use axum::Router;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use caracal_authority::ZoneId;
use caracal_crypto::{SecretText, chance, constant_time_eq};
use caracal_http::{Face, FreshId, Problem, Profile, health};
use http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::Audit;
use crate::search::{SearchQuery, search};

impl Audit {
    /// The service's router, with request ids and error bodies around it.
    pub fn router(self: Arc<Self>) -> Router {
        let fresh = FreshId::new(|| chance::uuid_v4().map(|id| id.to_string()).unwrap_or_default());
        Router::new()
            .route("/health", get(|| async { health::alive_empty() }))
            .route("/ready", get(ready))
            .route("/metrics", get(metrics))
            .route("/metrics.json", get(metrics_json))
            .route("/api/audit/search", get(found))
            .fallback(|| async { not_found() })
            .method_not_allowed_fallback(|| async {
                Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed")
            })
            .with_state(self)
            .layer(Face::new(Profile::AUDIT, fresh))
    }

    fn may_read_metrics(&self, headers: &HeaderMap) -> bool {
        let Some(bearer) = &self.config.metrics_bearer else { return self.config.open_metrics };
        constant_time_eq(authorization(headers), Zeroizing::new(format!("Bearer {}", bearer.expose())).as_bytes())
    }
}

async fn ready(State(audit): State<Arc<Audit>>) -> Response {
    if let Err(error) = audit.store.check().await {
        tracing::warn!(%error, "not ready");
        // The contract's name for "the store does not answer", whichever engine it is.
        return health::not_ready("postgres_unreachable").into_response();
    }
    if !audit.sweeps.is_intact() {
        return health::not_ready("ledger_tampered").into_response();
    }
    health::ready_audit(Profile::AUDIT).into_response()
}

async fn metrics(State(audit): State<Arc<Audit>>, headers: HeaderMap) -> Response {
    if !audit.may_read_metrics(&headers) {
        return unauthorized(None);
    }
    let mut text = String::new();
    for (name, value) in audit.sweeps.counts() {
        let (name, kind) = match name {
            "tamper_chain_breaks" | "tamper_hmac_failures" => (format!("{name}_total"), "counter"),
            "tamper_last_full_unix" => (name.to_owned(), "gauge"),
            _ => (name.to_owned(), "counter"),
        };
        text.push_str(&format!("# TYPE caracal_audit_{name} {kind}\ncaracal_audit_{name} {value}\n"));
    }
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

async fn metrics_json(State(audit): State<Arc<Audit>>, headers: HeaderMap) -> Response {
    if !audit.may_read_metrics(&headers) {
        return unauthorized(None);
    }
    let counts = audit.sweeps.counts().into_iter().map(|(name, value)| (name.to_owned(), Value::from(value)));
    Profile::AUDIT.json(StatusCode::OK, &counts.collect::<Map<_, _>>()).into_response()
}

/// Authentication comes before parameters, and without a configured token there is no such route.
async fn found(
    State(audit): State<Arc<Audit>>,
    headers: HeaderMap,
    query: Result<Query<SearchQuery>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let Some(token) = &audit.config.admin_token else { return not_found().into_response() };
    if !opens(&headers, token) {
        return unauthorized(Some(HeaderValue::from_static("Bearer realm=\"caracal-audit\"")));
    }
    let Query(query) = query.unwrap_or_default();
    if query.zone_id.is_empty() {
        return Problem::new(StatusCode::BAD_REQUEST, "invalid_query").describe("zone_id is required").into_response();
    }
    let Ok(zone) = ZoneId::parse(&query.zone_id) else {
        return Problem::new(StatusCode::BAD_REQUEST, "invalid_query").describe("zone_id is no id").into_response();
    };
    match search(&audit.store, &zone, &query).await {
        Ok(found) => Profile::AUDIT.json(StatusCode::OK, &found).into_response(),
        Err(error) => {
            tracing::error!(%error, "search failed");
            Problem::internal().describe("search failed").into_response()
        }
    }
}

/// The token may come with or without the scheme.
fn opens(headers: &HeaderMap, token: &SecretText) -> bool {
    let presented = authorization(headers);
    let presented = presented.strip_prefix(b"Bearer ").unwrap_or(presented);
    constant_time_eq(presented, token.expose().as_bytes())
}

fn authorization(headers: &HeaderMap) -> &[u8] {
    headers.get(AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default()
}

fn not_found() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "resource_not_found")
}

fn unauthorized(challenge: Option<HeaderValue>) -> Response {
    let mut response = (StatusCode::UNAUTHORIZED, "unauthorized\n").into_response();
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(challenge) = challenge {
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    }
    response
}
