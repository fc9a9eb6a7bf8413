//! Columns by name: what `fields` may ask for, of an event and of its metadata.

use caracal_authority::{MetadataKey as Key, Timestamp};
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
    Key::ApplicationId.as_str(),
    Key::ApplicationName.as_str(),
    Key::Resource.as_str(),
    Key::RequestedScopes.as_str(),
    Key::AgentSessionId.as_str(),
    Key::AgentLifecycle.as_str(),
    Key::AgentLabels.as_str(),
    Key::DelegationEdgeId.as_str(),
    Key::DelegationHopCount.as_str(),
    Key::Method.as_str(),
    Key::LatencyMs.as_str(),
    Key::UpstreamStatus.as_str(),
    Key::ResultClass.as_str(),
    Key::Reason.as_str(),
    Key::TraceId.as_str(),
    Key::ProviderId.as_str(),
    Key::ConnectionId.as_str(),
    Key::UpstreamHost.as_str(),
    Key::GatewayStatus.as_str(),
    Key::ErrorKind.as_str(),
    Key::ResponseBytes.as_str(),
    Key::AuthMode.as_str(),
    Key::SubjectFingerprint.as_str(),
    Key::Subject.as_str(),
    Key::AuthorizedBy.as_str(),
    Key::Command.as_str(),
    Key::Subcommand.as_str(),
    Key::ChallengeId.as_str(),
    Key::Tier.as_str(),
    Key::ApproverClass.as_str(),
    Key::PrivacyMode.as_str(),
    Key::ApproverSubjectId.as_str(),
    Key::SubjectAnchor.as_str(),
    Key::SubjectKind.as_str(),
    Key::FederatedUserIssuer.as_str(),
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
