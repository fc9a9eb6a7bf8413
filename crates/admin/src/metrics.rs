//! `GET /metrics` (contract: admin-api.md §12): for a bearer of its own, and open in dev alone when none is set.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use caracal_authority::Timestamp;
use caracal_crypto::{Secret, constant_time_eq};
use caracal_http::log_counts;
use caracal_store::outbox::{self, Backlog};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};

use crate::Admin;
use crate::problem::Refusal;

pub(crate) async fn metrics(admin: Arc<Admin>, request: Request) -> Response {
    if !may_read(&admin, request.headers()) {
        admin.denials.count("admin", "invalid_metrics_bearer");
        return Refusal::unauthenticated("unauthorized").problem.into_response();
    }
    match backlog(&admin).await {
        Ok((backlog, now)) => {
            let text = text(&admin, &backlog, now);
            ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
        }
        Err(error) => {
            tracing::warn!(%error, "metrics could not be read");
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable").problem.into_response()
        }
    }
}

fn may_read(admin: &Admin, headers: &HeaderMap) -> bool {
    let Some(bearer) = &admin.config.metrics_bearer else { return admin.config.open_metrics };
    let mut lines = headers.get_all(AUTHORIZATION).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return false };
    let expected = Secret::new(format!("Bearer {}", bearer.expose()));
    constant_time_eq(line.as_bytes(), expected.expose().as_bytes())
}

async fn backlog(admin: &Admin) -> Result<(Backlog, Timestamp), caracal_store::StoreError> {
    let mut snapshot = admin.store.snapshot().await?;
    let mut tx = snapshot.deployment();
    let now = tx.now();
    Ok((outbox::backlog(&mut tx).await?, now))
}

fn text(admin: &Admin, backlog: &Backlog, now: Timestamp) -> String {
    let mut text = String::with_capacity(2 * 1_024);
    log_counts::write_metrics(&mut text);
    let age = |since: Option<Timestamp>| since.map_or(0, |since| since.until(now).as_secs());
    let count = |count: i64| u64::try_from(count).unwrap_or(0);
    let (operations, errors) = admin.sealed.counts();
    for (kind, name, help, value) in [
        ("counter", "secret_backend_operations_total", "Secrets that were read.", operations),
        ("counter", "secret_backend_errors_total", "Secrets that could not be read.", errors),
        ("gauge", "api_outbox_pending_total", "Messages that wait to be sent.", count(backlog.pending)),
        ("gauge", "api_outbox_dead_total", "Messages that were given up.", count(backlog.dead)),
        (
            "gauge",
            "api_outbox_oldest_pending_age_seconds",
            "Age of the oldest that waits.",
            age(backlog.oldest_pending),
        ),
        (
            "gauge",
            "api_outbox_oldest_dead_age_seconds",
            "Age of the oldest that was given up.",
            age(backlog.oldest_dead),
        ),
    ] {
        // Writing to a string does not fail.
        let _ = write!(text, "# HELP caracal_{name} {help}\n# TYPE caracal_{name} {kind}\ncaracal_{name} {value}\n");
    }
    text
}
