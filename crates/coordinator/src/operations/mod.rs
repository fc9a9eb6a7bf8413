//! `GET /stats` and `GET /metrics`: what an operator watches (contract: coordinator.md §8). They speak of the whole
//! deployment, so a mandate of a zone opens neither: `/stats` is for the operator's token, `/metrics` for the holder of
//! `METRICS_BEARER` or, where none is configured, for the operator.

mod counted;
mod job_counts;
mod metrics;
mod outcomes;

pub(crate) use counted::CountedCache;
pub(crate) use outcomes::KeyOutcomes;

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use caracal_crypto::constant_time_eq;
use caracal_http::{Problem, Profile, log_counts};
use serde_json::{Map, Value, json};

use crate::Coordinator;
use crate::auth::{Unauthenticated, bearer, is_operator};
use crate::config::CoordinatorConfig;
use crate::wire::refusal;
use counted::Counted;

const EXPOSITION: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Counts as JSON, for the operator's token.
pub(crate) async fn stats(
    coordinator: &Coordinator,
    headers: &HeaderMap,
    method: &Method,
) -> Result<Response, Problem> {
    let token = bearer(headers).ok_or(Unauthenticated::MissingToken)?;
    if !is_operator(&coordinator.config, token) {
        return Err(operator_required());
    }
    // As on every other route: the operator's token opens no HEAD.
    if *method == Method::HEAD {
        return Err(Unauthenticated::InvalidToken.into());
    }
    let counted = coordinator.counted.read(coordinator).await?;
    Ok(Profile::COORDINATOR.json(StatusCode::OK, &stats_json(coordinator, &counted)).into_response())
}

/// The same counts as metrics.
pub(crate) async fn metrics(
    coordinator: &Coordinator,
    headers: &HeaderMap,
    method: &Method,
) -> Result<Response, Problem> {
    let token = bearer(headers).ok_or(Unauthenticated::MissingToken)?;
    if !may_read_metrics(&coordinator.config, token) {
        return Err(operator_required());
    }
    if *method == Method::HEAD {
        return Err(Unauthenticated::InvalidToken.into());
    }
    let counted = coordinator.counted.read(coordinator).await?;
    Ok(([(CONTENT_TYPE, EXPOSITION)], metrics::text(coordinator, &counted)).into_response())
}

/// The reference asks for both secrets in one header, so that nobody reads its metrics who has set them apart (W8).
fn may_read_metrics(config: &CoordinatorConfig, token: &str) -> bool {
    match config.metrics_bearer.as_ref().filter(|expected| !expected.expose().is_empty()) {
        Some(expected) => constant_time_eq(expected.expose().as_bytes(), token.as_bytes()),
        None => is_operator(config, token),
    }
}

fn operator_required() -> Problem {
    refusal(StatusCode::FORBIDDEN, "operator_token_required").describe("this speaks of all zones")
}

fn stats_json(coordinator: &Coordinator, counted: &Counted) -> Value {
    let mut stats = json!({
        "invocations": named(&counted.invocations),
        "outbox": named(&counted.outbox),
        "idempotency": {
            "rows": counted.receipts,
            "oldestSeconds": counted.oldest_receipt_seconds,
            "outcomes": named(&coordinator.outcomes.counts()),
        },
        "log": named(&log_counts::counts()),
    });
    if let Some(members) = stats.as_object_mut() {
        members.extend(job_counts::members(&coordinator.jobs, coordinator.removed()));
    }
    stats
}

fn named<C: Copy + Into<Value>>(counts: &[(&'static str, C)]) -> Map<String, Value> {
    counts.iter().map(|(name, count)| ((*name).to_owned(), (*count).into())).collect()
}
