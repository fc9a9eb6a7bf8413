//! Invocations: what agents ask of services (contract: coordinator.md §7).
//!
//! An application asks, for one of its sessions perhaps; the application behind the service does the work and says how it
//! went; what nobody begins or answers in time is ended by a job. How an invocation moves is decided by
//! `authority`; here are its routes, and who may move it. Parameters, metadata and errors are kept, and never shown.

mod create;
mod reads;
mod transitions;

pub(crate) use create::create;
pub(crate) use reads::{list, read};
pub(crate) use transitions::{attempts, cancel, complete, start};

use axum::http::StatusCode;
use caracal_authority::invocation::{IllegalInvocationMove, OutOfTime};
use caracal_http::Problem;
use caracal_http::rate::Kind;
use caracal_store::StoreError;
use caracal_store::invocations::Invocation;
use serde_json::{Map, Value, json};

use crate::Coordinator;
use crate::auth::{IdentityRevoked, Principal};
use crate::idempotency::{BadKey, KeyRefused};
use crate::outage::Outage;
use crate::page::invalid_cursor;
use crate::schema::Issues;
use crate::wire::{instant, invalid_body, refusal};

/// Why nothing is asked, moved or shown.
#[derive(Debug, thiserror::Error)]
enum InvocationRefused {
    #[error(transparent)]
    Caller(#[from] IdentityRevoked),
    #[error("the body does not match the schema")]
    Body(Issues),
    #[error(transparent)]
    BadKey(#[from] BadKey),
    #[error(transparent)]
    Key(#[from] KeyRefused),
    #[error("no such service")]
    ServiceNotFound,
    #[error("a named session does not exist, is no live task, or is named twice")]
    SessionNotFound,
    #[error("no such invocation")]
    NotFound,
    #[error("the application that acts here is another's")]
    Ownership,
    #[error("{0}")]
    Move(#[from] IllegalInvocationMove),
    #[error("{0}")]
    NotNow(#[from] OutOfTime),
    #[error("the cursor names no invocation of the list")]
    Cursor,
    #[error(transparent)]
    Outage(#[from] Outage),
}

impl From<StoreError> for InvocationRefused {
    fn from(error: StoreError) -> Self {
        Self::Outage(error.into())
    }
}

impl From<InvocationRefused> for Problem {
    fn from(error: InvocationRefused) -> Self {
        let message = error.to_string();
        let (status, code) = match error {
            InvocationRefused::Caller(revoked) => return revoked.into(),
            InvocationRefused::Body(issues) => return invalid_body(&issues),
            InvocationRefused::BadKey(bad) => return bad.into(),
            InvocationRefused::Key(refused) => return refused.into(),
            InvocationRefused::Cursor => return invalid_cursor(),
            InvocationRefused::Outage(outage) => return outage.problem(),
            InvocationRefused::ServiceNotFound => (StatusCode::NOT_FOUND, "agent_service_not_found"),
            InvocationRefused::SessionNotFound => (StatusCode::NOT_FOUND, "session_not_found"),
            InvocationRefused::NotFound => (StatusCode::NOT_FOUND, "invocation_not_found"),
            InvocationRefused::Ownership => (StatusCode::FORBIDDEN, "invoker_ownership_required"),
            InvocationRefused::Move(refused) => (StatusCode::CONFLICT, refused.code()),
            InvocationRefused::NotNow(_) => (StatusCode::CONFLICT, "invocation_not_startable"),
        };
        refusal(status, code).describe(message)
    }
}

/// Whether the caller may act for `application` where invocations are concerned.
fn may_invoke(principal: &Principal, application: &str) -> bool {
    principal.is_admin() || principal.may_for("coordinator.invoke_from", application)
}

impl Coordinator {
    /// Counts one request about invocations of this caller, wherever it comes from.
    async fn count_invocation(&self, principal: &Principal, kind: Kind) -> Result<(), Problem> {
        let caller = format!("{}:{}", principal.zone(), principal.name());
        self.invocations.hit(caller.as_str(), kind, self.store.now()).await.map_err(Problem::from)
    }
}

/// An invocation as it is shown when it is asked for, read or moved.
fn invocation_json(invocation: &Invocation) -> Value {
    let mut members = row_json(invocation);
    let policy = json!({"max_attempts": invocation.max_attempts, "backoff_ms": invocation.backoff_ms});
    members.insert("retry_policy_json".to_owned(), policy);
    members.insert("cancel_requested_at".to_owned(), instant(invocation.cancel_requested_at));
    Value::Object(members)
}

/// An invocation as lists show it.
fn row_json(invocation: &Invocation) -> Map<String, Value> {
    let members = [
        ("id", json!(invocation.id)),
        ("zone_id", json!(invocation.zone_id)),
        ("service_id", json!(invocation.service_id)),
        ("source_session_id", json!(invocation.source_session_id)),
        ("target_session_id", json!(invocation.target_session_id)),
        ("method", json!(invocation.method)),
        ("status", json!(invocation.status.as_str())),
        ("attempts", json!(invocation.attempts)),
        ("max_attempts", json!(invocation.max_attempts)),
        ("timeout_ms", json!(invocation.timeout_ms)),
        ("deadline_at", instant(invocation.deadline_at)),
        ("started_at", instant(invocation.started_at)),
        ("completed_at", instant(invocation.completed_at)),
        ("created_at", json!(invocation.created_at)),
    ];
    members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
