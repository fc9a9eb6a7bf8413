//! Columns by name: what `fields` may ask for, of an event and of its metadata.

use caracal_authority::Timestamp;
use caracal_store::evidence::EvidenceRow;
use serde_json::Value;

use super::{known, list_of, redacted};
use crate::export::Exported;

/// Everything that can be exported, in the order it is when nothing is asked for.
const FIELDS: [&str; 46] = [
    "id",
    "occurred_at",
    "event_type",
    "decision",
    "evaluation_status",
    "request_id",
    "ingested_at",
    "policy_set_id",
    "policy_set_version_id",
    "manifest_sha",
    "determining_policies",
    "application_id",
    "application_name",
    "resource",
    "requested_scopes",
    "agent_session_id",
    "agent_lifecycle",
    "agent_labels",
    "delegation_edge_id",
    "delegation_hop_count",
    "method",
    "latency_ms",
    "upstream_status",
    "result_class",
    "reason",
    "trace_id",
    "provider_id",
    "connection_id",
    "upstream_host",
    "gateway_status",
    "error_kind",
    "response_bytes",
    "auth_mode",
    "subject_fingerprint",
    "subject",
    "authorized_by",
    "command",
    "subcommand",
    "challenge_id",
    "tier",
    "approver_class",
    "privacy_mode",
    "approver_subject_id",
    "subject_anchor",
    "subject_kind",
    "federated_user_issuer",
];

impl Exported for EvidenceRow {
    const FIELDS: &'static [&'static str] = &FIELDS;

    fn shown(&self) -> Value {
        redacted(self)
    }

    fn value(&self, shown: &Value, name: &str) -> Option<Value> {
        value(self, shown, name)
    }
}

fn value(row: &EvidenceRow, metadata: &Value, name: &str) -> Option<Value> {
    let instant = |micros| Value::from(Timestamp::from_micros(micros).to_millis_text());
    Some(match name {
        "id" => Value::from(row.id.as_str()),
        "occurred_at" => instant(row.occurred_at),
        "event_type" => Value::from(row.event_type.as_str()),
        "decision" => Value::from(row.decision.as_str()),
        "evaluation_status" => Value::from(row.evaluation_status.as_str()),
        "request_id" => Value::from(row.request_id.as_str()),
        "ingested_at" => instant(row.ingested_at),
        "policy_set_id" => Value::from(known(&row.policy_set_id)),
        "policy_set_version_id" => Value::from(known(&row.policy_set_version_id)),
        "manifest_sha" => Value::from(known(&row.manifest_sha)),
        "determining_policies" => policy_names(row),
        other => return metadata.get(other).cloned(),
    })
}

/// Of the determining policies their names.
fn policy_names(row: &EvidenceRow) -> Value {
    let policies = list_of(&row.determining_policies);
    let name = |policy: &Value| policy.get("policy").cloned();
    policies.as_array().map(|policies| policies.iter().filter_map(name).collect()).unwrap_or_default()
}
