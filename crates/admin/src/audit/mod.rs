//! Reading evidence (contract: admin-api.md §5.12, audit-and-streams.md §8).

pub(crate) mod by_request;
pub(crate) mod csv;
pub(crate) mod explain;
mod export;
pub(crate) mod list;

use caracal_authority::Timestamp;
use caracal_http::redact;
use caracal_store::evidence::EvidenceRow;
use serde::Serialize;
use serde_json::Value;

use crate::openapi::shape::described;

described! {
    /// An event as answers show it. What is unknown is `null`, lists are lists, and metadata is redacted.
    #[derive(Serialize)]
    pub(crate) struct View<'a> {
        id: &'a str,
        zone_id: &'a str,
        event_type: &'a str,
        request_id: &'a str,
        decision: &'a str,
        policy_set_id: Option<&'a str>,
        policy_set_version_id: Option<&'a str>,
        manifest_sha: Option<&'a str>,
        evaluation_status: &'a str,
        determining_policies_json: Value,
        diagnostics_json: Value,
        metadata_json: Value,
        occurred_at: Timestamp,
        ingested_at: Timestamp,
    }
}

impl<'a> From<&'a EvidenceRow> for View<'a> {
    fn from(row: &'a EvidenceRow) -> Self {
        Self {
            id: &row.id,
            zone_id: &row.zone_id,
            event_type: &row.event_type,
            request_id: &row.request_id,
            decision: &row.decision,
            policy_set_id: known(&row.policy_set_id),
            policy_set_version_id: known(&row.policy_set_version_id),
            manifest_sha: known(&row.manifest_sha),
            evaluation_status: &row.evaluation_status,
            determining_policies_json: list_of(&row.determining_policies),
            diagnostics_json: list_of(&row.diagnostics),
            metadata_json: redacted(row),
            occurred_at: Timestamp::from_micros(row.occurred_at),
            ingested_at: Timestamp::from_micros(row.ingested_at),
        }
    }
}

/// A stored text; empty is unknown.
fn known(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

/// A stored list, for people's eyes. Whatever else is stored there, a list is answered (README D3).
fn list_of(text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(Value::Null) | Err(_) => Value::Array(Vec::new()),
        Ok(mut value) => {
            redact::evidence(&mut value);
            value
        }
    }
}

/// The stored metadata as it is, `null` when there is none.
fn metadata(row: &EvidenceRow) -> Value {
    serde_json::from_str(&row.metadata).unwrap_or(Value::Null)
}

/// The metadata for people's eyes.
pub(crate) fn redacted(row: &EvidenceRow) -> Value {
    let mut value = metadata(row);
    redact::evidence(&mut value);
    value
}

fn place(row: &EvidenceRow) -> (Timestamp, String) {
    (Timestamp::from_micros(row.occurred_at), row.id.clone())
}
