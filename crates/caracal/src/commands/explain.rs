//! `caracal audit explain`: what happened under one request, for a person who reads it top to bottom. The Admin API's
//! `…/audit/by-request/{request}/explain` says the same to programs, with the input to try again.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use caracal_authority::Timestamp;
use caracal_http::redact;
use caracal_ledger::MetadataKey as Key;
use caracal_store::evidence::{self, EvidenceRow};
use serde_json::{Map, Value, json};

use super::place::{Place, zone_of_request};
use super::{Failure, runtime};

/// What `audit explain` is asked for.
pub struct ExplainFlags {
    /// The request.
    pub request_id: String,
    /// The zone, where several have such a request.
    pub zone: Option<String>,
    /// The data directory.
    pub data_dir: Option<PathBuf>,
    /// JSON instead of text.
    pub json: bool,
}

/// What belongs together, in the order in which somebody asks for it. The rest follows under its own names.
const PARTS: [(&str, &[Key]); 4] = [
    (
        "who",
        &[
            Key::ApplicationName,
            Key::ApplicationId,
            Key::WorkloadName,
            Key::WorkloadId,
            Key::SubjectKind,
            Key::AgentSessionId,
            Key::AgentLifecycle,
            Key::AgentLabels,
        ],
    ),
    ("through", &[Key::DelegationEdgeId, Key::DelegationScopes, Key::DelegationHopCount]),
    ("asked", &[Key::Method, Key::Path, Key::Resource, Key::Requested, Key::RequestedScopes]),
    (
        "ended",
        &[
            Key::GatewayStatus,
            Key::UpstreamStatus,
            Key::ResultClass,
            Key::ErrorKind,
            Key::ResponseBytes,
            Key::DurationMs,
        ],
    ),
];
/// What policy was asked, whole: for machines.
const LEFT_TO_JSON: [Key; 1] = [Key::PolicyInput];

/// Prints it. Exit 0 also where the request was denied: it was explained.
pub fn explain(flags: &ExplainFlags) -> Result<ExitCode, Failure> {
    let place = Place::find(flags.data_dir.clone())?;
    let request = &flags.request_id;
    let (zone, mut rows) = runtime()?.block_on(async {
        let zone = zone_of_request(&place, flags.zone.as_deref(), request).await?;
        let rows = place.read(async |tx| evidence::find_by_request(&mut tx.zone(&zone), request).await).await?;
        Ok::<_, Failure>((zone, rows))
    })?;
    if rows.is_empty() {
        return Err(Failure(format!("zone {zone} has no request `{}` in its ledger", request.escape_debug())));
    }
    rows.sort_by_key(|row| (row.occurred_at, row.chain_seq));
    if flags.json {
        let events: Vec<Value> = rows.iter().map(event).collect();
        println!(
            "{}",
            json!({"request_id": request, "zone_id": zone, "final_decision": outcome(&rows), "events": events})
        );
    } else {
        println!("request {} in zone {zone}: {}\n{}", line(request), outcome(&rows), told(&rows));
    }
    Ok(ExitCode::SUCCESS)
}

/// The word of the request as a whole, as the Admin API has it: one denial denies it.
fn outcome(rows: &[EvidenceRow]) -> &str {
    match (rows.iter().any(|row| row.decision == "deny"), rows.last()) {
        (true, _) => "deny",
        (false, Some(last)) => &last.decision,
        (false, None) => "unknown",
    }
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_default()
}

/// As operators may see it.
fn metadata(row: &EvidenceRow) -> Map<String, Value> {
    let mut metadata = parsed(&row.metadata);
    redact::evidence(&mut metadata);
    match metadata {
        Value::Object(metadata) => metadata,
        _ => Map::new(),
    }
}

fn event(row: &EvidenceRow) -> Value {
    json!({
        "occurred_at": Timestamp::from_micros(row.occurred_at), "position": row.chain_seq, "id": row.id,
        "event_type": row.event_type, "decision": row.decision, "evaluation_status": row.evaluation_status,
        "policy_set_version_id": row.policy_set_version_id, "determining_policies": parsed(&row.determining_policies),
        "diagnostics": parsed(&row.diagnostics), "metadata": metadata(row),
    })
}

fn told(rows: &[EvidenceRow]) -> String {
    let mut text = String::new();
    for row in rows {
        let at = Timestamp::from_micros(row.occurred_at);
        let words = [&row.event_type, &row.decision, &row.evaluation_status].map(|word| line(word));
        let _ = writeln!(text, "\n{at}  {}  (position {})", words.join("  "), row.chain_seq);
        let mut metadata = metadata(row);
        for (part, keys) in PARTS {
            let said: Vec<String> = keys.iter().filter_map(|key| take(&mut metadata, *key)).collect();
            put(&mut text, part, &said.join(", "));
        }
        put(&mut text, "policy", &policies(row));
        for diagnostic in parsed(&row.diagnostics).as_array().into_iter().flatten() {
            put(&mut text, "because", &pairs(diagnostic));
        }
        for key in LEFT_TO_JSON {
            metadata.remove(key.as_str());
        }
        for (key, value) in &metadata {
            put(&mut text, &line(key), &shown(value));
        }
    }
    text.truncate(text.trim_end().len());
    text
}

/// The member and its name, and it is not told again.
fn take(metadata: &mut Map<String, Value>, key: Key) -> Option<String> {
    let value = shown(&metadata.remove(key.as_str())?);
    (!value.is_empty()).then(|| format!("{} {value}", key.as_str()))
}

fn policies(row: &EvidenceRow) -> String {
    let policies = parsed(&row.determining_policies);
    let names = policies.as_array().into_iter().flatten();
    let names: Vec<String> = names.map(|policy| shown(policy.get("policy").unwrap_or(policy))).collect();
    match (names.is_empty(), row.policy_set_version_id.is_empty()) {
        (_, true) => names.join(", "),
        (true, false) => format!("policy_set_version_id {}", line(&row.policy_set_version_id)),
        (false, false) => format!("{}, policy_set_version_id {}", names.join(", "), line(&row.policy_set_version_id)),
    }
}

fn pairs(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let pair = |(name, value): (&String, &Value)| format!("{} {}", line(name), shown(value));
            members.iter().map(pair).collect::<Vec<_>>().join(", ")
        }
        other => shown(other),
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => line(text),
        Value::Array(values) if !values.iter().any(|value| value.is_object() || value.is_array()) => {
            values.iter().map(shown).collect::<Vec<_>>().join(" ")
        }
        other => line(&other.to_string()),
    }
}

/// On one line, and without what a terminal would act on: some of it comes from callers and upstreams.
fn line(text: &str) -> String {
    text.chars().fold(String::new(), |mut line, char| {
        if char.is_control() {
            line.extend(char.escape_default());
        } else {
            line.push(char);
        }
        line
    })
}

fn put(text: &mut String, name: &str, said: &str) {
    if !said.is_empty() {
        let _ = writeln!(text, "  {name:<10} {said}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_from_outside_stays_on_its_line_and_does_nothing_to_a_terminal() {
        assert_eq!(shown(&json!("a\u{1b}[2J\r\nb\u{9b}c")), "a\\u{1b}[2J\\r\\nb\\u{9b}c");
        assert_eq!(shown(&json!(["notes:read", "notes\n:write"])), "notes:read notes\\n:write");
        assert_eq!(pairs(&json!({"reason": "no\u{7}"})), "reason no\\u{7}");
    }
}
