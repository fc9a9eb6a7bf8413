//! `GET /v1/zones/{zone}/audit/by-request/{request}/explain`: why a request ended as it did, and the input with which it
//! can be tried again (contract: policy.md §12.3; README D33).
//!
//! Where policy denied, its event has the whole question, and that is what is shown: posted to simulate, it is decided as it
//! was, or as the policy that is named there would decide it. A request that ended before policy was asked has none, so an
//! input is rebuilt from what its event recorded. Ids that were empty are left out rather than rebuilt as empty, and the edge
//! comes back with its scopes. A workload's denial is rebuilt as a workload's.

use std::sync::Arc;

use caracal_authority::MetadataKey as Key;
use caracal_policy::INPUT_SCHEMA_VERSION;
use caracal_store::evidence::EvidenceRow;
use http::Method;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::by_request::events;
use super::{View, list_of, metadata, redacted};
use crate::Admin;
use crate::answer::Answer;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::openapi::shape::described;
use crate::openapi::spec::Spec;
use crate::problem::Refusal;

pub(crate) const ROUTE: Route = Route {
    method: Method::GET,
    path: "/v1/zones/{zone}/audit/by-request/{request}/explain",
    needs: Needs::Read,
    reach: Reach::Zone(Run::Read(|admin, call| Box::pin(explain(admin, call)))),
    spec: Spec::shows::<Explanation>("audit.explain", "Explains how a request was decided.")
        .refuses(&[(404, "request_not_found")]),
};

described! {
    #[derive(Serialize)]
    struct Explanation<'a> {
        request_id: &'a str,
        zone_id: &'a str,
        final_decision: &'a str,
        denied: Vec<Denied<'a>>,
        events: Vec<View<'a>>,
    }
}

described! {
    #[derive(Serialize)]
    struct Denied<'a> {
        event_id: &'a str,
        event_type: &'a str,
        evaluation_status: &'a str,
        determining_policies: Value,
        diagnostics: Value,
        metadata: Value,
        policy_input: Value,
    }
}

async fn explain(admin: Arc<Admin>, call: Call<InZone>) -> Result<Answer, Refusal> {
    let rows = events(&admin, &call).await?;
    let request: String = call.id("request")?;
    let is_deny = |row: &&EvidenceRow| row.decision == "deny";
    let final_decision = match (rows.iter().find(is_deny), rows.last()) {
        (Some(_), _) => "deny",
        (None, Some(last)) => &last.decision,
        (None, None) => "unknown",
    };
    Ok(Answer::ok(&Explanation {
        request_id: &request,
        zone_id: call.place.zone.as_str(),
        final_decision,
        denied: rows.iter().filter(is_deny).map(denied).collect(),
        events: rows.iter().map(View::from).collect(),
    }))
}

fn denied(row: &EvidenceRow) -> Denied<'_> {
    let mut shown = redacted(row);
    // It is shown beside.
    shown.as_object_mut().and_then(|members| members.remove(ASKED));
    Denied {
        event_id: &row.id,
        event_type: &row.event_type,
        evaluation_status: &row.evaluation_status,
        determining_policies: list_of(&row.determining_policies),
        diagnostics: list_of(&row.diagnostics),
        metadata: if shown.is_null() { json!({}) } else { shown },
        policy_input: policy_input(&row.zone_id, &metadata(row)),
    }
}

/// The member of an event's metadata that holds what policy was asked.
const ASKED: &str = Key::PolicyInput.as_str();

/// The question that an event's decision answered, as far as the event tells: what simulate takes.
pub fn recorded_question(row: &EvidenceRow) -> Value {
    policy_input(&row.zone_id, &metadata(row))
}

/// The input that the decision saw, as far as its event tells.
fn policy_input(zone: &str, metadata: &Value) -> Value {
    if let Some(asked) = metadata.get(ASKED).filter(|asked| asked.is_object()) {
        return asked.clone();
    }
    let text = |key: Key| metadata.get(key.as_str()).and_then(Value::as_str).filter(|text| !text.is_empty());
    let list = |key: Key| metadata.get(key.as_str()).filter(|value| value.is_array()).cloned();
    let workload = text(Key::WorkloadId);
    let (kind, action) =
        if workload.is_some() { ("Workload", "CredentialInjection") } else { ("Application", "TokenExchange") };
    let scopes = list(Key::RequestedScopes).unwrap_or_else(|| json!([]));
    // A request that is refused as a whole records what it asked for as a list. Of one resource that is as good.
    let only = match metadata.get(Key::Requested.as_str()).and_then(Value::as_array).map(Vec::as_slice) {
        Some([Value::String(only)]) => Some(only.as_str()),
        _ => None,
    };

    let mut principal = object(json!({
        "type": kind,
        "id": workload.or_else(|| text(Key::ApplicationId)).unwrap_or_default(),
        "zone_id": zone,
    }));
    put(&mut principal, "registration_method", text(Key::ApplicationRegistrationMethod));
    put(&mut principal, "agent_session_id", text(Key::AgentSessionId));
    put(&mut principal, "lifecycle", text(Key::AgentLifecycle));
    put(&mut principal, "labels", list(Key::AgentLabels));

    let mut action = object(json!({ "id": action }));
    put(&mut action, "method", text(Key::Method));
    put(&mut action, "path", text(Key::Path));

    let mut context = object(json!({
        "actor_claims": {},
        "requested_scopes": scopes,
        "challenge_resolved": false,
    }));
    put(&mut context, "session_id", text(Key::SessionId));
    put(&mut context, "agent_session_id", text(Key::AgentSessionId));
    put(&mut context, "delegation_edge_id", text(Key::DelegationEdgeId));
    put(&mut context, "subject_claims", subject_claims(metadata));

    let mut input = object(json!({
        "schema_version": INPUT_SCHEMA_VERSION,
        "principal": principal,
        "resource": {
            "type": "Resource",
            "identifier": text(Key::Resource).or(only).unwrap_or_default(),
            "scopes": scopes,
        },
        "action": action,
        "context": context,
    }));
    put(&mut input, "session", text(Key::SessionId).map(|id| json!({ "id": id })));
    if let Some(edge) = text(Key::DelegationEdgeId) {
        let mut edge = object(json!({ "id": edge }));
        put(&mut edge, "scopes", list(Key::DelegationScopes));
        input.insert("delegation_edge".to_owned(), Value::Object(edge));
    }
    Value::Object(input)
}

/// Of a presented mandate, what policy decides by. An event that tells of none was of a request that presented none.
fn subject_claims(metadata: &Value) -> Option<Value> {
    let scope = metadata.get(Key::PresentedScope.as_str())?;
    let edge = metadata.get(Key::DelegationEdgeId.as_str()).and_then(Value::as_str).unwrap_or_default();
    let mut claims = object(json!({ "scope": scope }));
    put(&mut claims, "target", metadata.get(Key::PresentedTargets.as_str()).cloned());
    put(&mut claims, "delegation_edge_id", Some(edge).filter(|edge| !edge.is_empty()));
    Some(Value::Object(claims))
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

fn put(members: &mut Map<String, Value>, name: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        members.insert(name.to_owned(), value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delegated_denial_comes_back_with_its_edges_scopes() {
        let metadata = json!({
            "application_id": "app-1", "application_registration_method": "managed", "agent_session_id": "s-1",
            "agent_lifecycle": "task", "agent_labels": ["exec"], "resource": "resource://n",
            "requested_scopes": ["n:pay"], "session_id": "ar-1", "delegation_edge_id": "e-1",
            "delegation_scopes": ["n:pay", "n:read"],
        });
        let expected = json!({
            "schema_version": "2026-05-20",
            "principal": {
                "type": "Application", "id": "app-1", "zone_id": "z", "registration_method": "managed",
                "agent_session_id": "s-1", "lifecycle": "task", "labels": ["exec"],
            },
            "resource": {"type": "Resource", "identifier": "resource://n", "scopes": ["n:pay"]},
            "action": {"id": "TokenExchange"},
            "context": {
                "actor_claims": {}, "requested_scopes": ["n:pay"], "challenge_resolved": false, "session_id": "ar-1",
                "agent_session_id": "s-1", "delegation_edge_id": "e-1",
            },
            "session": {"id": "ar-1"},
            "delegation_edge": {"id": "e-1", "scopes": ["n:pay", "n:read"]},
        });
        assert_eq!(policy_input("z", &metadata), expected);
    }

    #[test]
    fn what_policy_was_asked_is_shown_as_it_was() {
        let asked = json!({"schema_version": "2026-05-20", "context": {"subject_claims": {"scope": "n:read"}}});
        let metadata = json!({"application_id": "app-1", "resource": "resource://n", "policy_input": asked});
        assert_eq!(policy_input("z", &metadata), asked);
        let odd = json!({"application_id": "app-1", "policy_input": "none"});
        assert_eq!(policy_input("z", &odd)["principal"]["id"], "app-1");
    }

    #[test]
    fn what_was_empty_stays_away() {
        let metadata = json!({
            "application_id": "app-1", "resource": "resource://n", "requested_scopes": ["agent:lifecycle"],
            "session_id": "", "agent_session_id": "", "delegation_edge_id": "", "delegation_scopes": [],
        });
        let input = policy_input("z", &metadata);
        assert!(input.get("session").is_none() && input.get("delegation_edge").is_none());
        let context = json!({
            "actor_claims": {}, "requested_scopes": ["agent:lifecycle"], "challenge_resolved": false,
        });
        assert_eq!(input["context"], context);
        assert!(input["principal"].get("agent_session_id").is_none());
    }

    #[test]
    fn the_one_resource_of_a_request_that_was_refused_as_a_whole_is_known() {
        let identifier = |metadata: Value| policy_input("z", &metadata)["resource"]["identifier"].clone();
        assert_eq!(identifier(json!({"requested": ["resource://n"]})), "resource://n");
        assert_eq!(identifier(json!({"requested": ["resource://n"], "resource": "resource://m"})), "resource://m");
        assert_eq!(identifier(json!({"requested": ["resource://n", "resource://m"]})), "");
        assert_eq!(identifier(json!({"requested": []})), "");
    }

    /// Difference D33: what was explained can be tried again, and is allowed once its cause is mended.
    #[test]
    fn a_gateways_denial_is_denied_again_and_allowed_once_its_cause_is_mended() {
        let metadata = json!({
            "application_id": "app-1", "application_registration_method": "managed", "agent_session_id": "s-1",
            "agent_lifecycle": "task", "agent_labels": ["exec"], "resource": "resource://n",
            "requested_scopes": [], "session_id": "ar-1", "delegation_edge_id": "e-1", "delegation_scopes": ["n:pay"],
            "presented_scope": "n:pay", "presented_targets": ["resource://n"], "method": "GET", "path": "/items",
        });
        let input = policy_input("z", &metadata);
        assert_eq!(input["action"], json!({"id": "TokenExchange", "method": "GET", "path": "/items"}));
        let decided = |role: &str| {
            let content = format!(
                "package caracal.authz\nimport rego.v1\napp_ids := {{\"n\": \"app-1\"}}\n\
                 grants := {{\"resource://n\": {{\"application\": \"n\", \"roles\": {{\"exec\": [\"{role}\"]}}}}}}\n"
            );
            let documents = [caracal_policy::Document { policy_version_id: "pv-1", content: &content }];
            let bundle = caracal_policy::Bundle::load(&documents).unwrap();
            let Value::Object(input) = input.clone() else { panic!("no object") };
            let input = caracal_policy::Input::for_simulation(input).unwrap();
            serde_json::to_value(caracal_policy::decide(&bundle, &input).unwrap()).unwrap()
        };
        assert_eq!(decided("n:read")["diagnostics"], json!([{"reason": "role_scope_mismatch"}]));
        assert_eq!(decided("n:pay")["determining_policies"], json!([{"policy": "caracal-n-use"}]));
    }

    #[test]
    fn a_workloads_denial_is_a_workloads() {
        let metadata = json!({"workload_id": "w-1", "resource": "resource://n", "requested_scopes": ["a"]});
        let input = policy_input("z", &metadata);
        assert_eq!(input["principal"], json!({"type": "Workload", "id": "w-1", "zone_id": "z"}));
        assert_eq!(input["action"], json!({"id": "CredentialInjection"}));
    }
}
