//! `GET /metrics` (contract: admin-api.md §12): for a bearer of its own, and open in dev alone when none is set.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use caracal_authority::Timestamp;
use caracal_crypto::{Secret, constant_time_eq};
use caracal_http::log_counts;
use caracal_store::notification_deliveries;
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
    match waiting(&admin).await {
        Ok(waiting) => {
            let text = text(&admin, &waiting);
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

/// What waits to be sent.
struct Waiting {
    messages: Backlog,
    notifications: i64,
    oldest_notification: Option<Timestamp>,
    now: Timestamp,
}

async fn waiting(admin: &Admin) -> Result<Waiting, caracal_store::StoreError> {
    let mut snapshot = admin.store.snapshot().await?;
    let mut tx = snapshot.deployment();
    let (notifications, oldest_notification) = notification_deliveries::backlog(&mut tx).await?;
    let messages = outbox::backlog(&mut tx).await?;
    Ok(Waiting { messages, notifications, oldest_notification, now: tx.now() })
}

fn text(admin: &Admin, waiting: &Waiting) -> String {
    let mut text = String::with_capacity(4 * 1_024);
    log_counts::write_metrics(&mut text);
    let backlog = &waiting.messages;
    let age = |since: Option<Timestamp>| since.map_or(0, |since| since.until(waiting.now).as_secs());
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
        ("gauge", "notifications_pending", "Notifications that wait to be taken.", count(waiting.notifications)),
        (
            "gauge",
            "notifications_oldest_pending_age_seconds",
            "Age of the oldest notification that waits.",
            age(waiting.oldest_notification),
        ),
    ] {
        // Writing to a string does not fail.
        let _ = write!(text, "# HELP caracal_{name} {help}\n# TYPE caracal_{name} {kind}\ncaracal_{name} {value}\n");
    }
    let name = "caracal_notification_attempts_total";
    let help =
        "Attempts to send a notification, by how they went; abandoned are those that nothing is tried for any more.";
    let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} counter\n");
    for (outcome, count) in admin.notified.counts() {
        let _ = writeln!(text, "{name}{{outcome=\"{outcome}\"}} {count}");
    }
    text
}
