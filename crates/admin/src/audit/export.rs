//! Columns by name: what `fields` may ask for, of an event and of its metadata.

use caracal_authority::Timestamp;
use caracal_store::evidence::EvidenceRow;
use serde_json::{Map, Value};

use super::{known, list_of, redacted};
use crate::problem::Refusal;

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

/// Columns in the order asked for, repetitions kept.
pub(super) struct Columns(Vec<&'static str>);

impl Columns {
    /// All of them.
    pub(super) fn all() -> Self {
        Self(FIELDS.to_vec())
    }

    /// A comma list, each of which must be known; else 400 `invalid_fields`.
    pub(super) fn parse(list: &str) -> Result<Self, Refusal> {
        let find = |name: &str| {
            let name = name.trim();
            let found = FIELDS.iter().copied().find(|field| *field == name);
            found.ok_or_else(|| {
                Refusal::invalid("invalid_fields").describe(format!("{name:?} is not a field of the export"))
            })
        };
        list.split(',').map(find).collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn names(&self) -> &[&'static str] {
        &self.0
    }

    /// One value for each column; what an event does not have is `null`.
    pub(super) fn values(&self, row: &EvidenceRow) -> Vec<Value> {
        let metadata = redacted(row);
        self.0.iter().map(|name| value(row, &metadata, name).unwrap_or(Value::Null)).collect()
    }

    /// An object with the columns; metadata that an event does not have is left out.
    pub(super) fn object(&self, row: &EvidenceRow) -> Map<String, Value> {
        let metadata = redacted(row);
        let member = |name: &&'static str| value(row, &metadata, name).map(|value| ((*name).to_owned(), value));
        self.0.iter().filter_map(member).collect()
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
