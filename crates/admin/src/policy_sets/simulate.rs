//! `POST /v1/zones/{zone}/policy-sets/{id}/simulate`: what a version would decide if it were active (contract: policy.md
//! §10.5). Nothing is stored but the record that somebody asked; neither the active version nor any counter is touched.
//!
//! What is odd about an input is told as warnings, and it is asked all the same: whoever builds an input step by step
//! sees both. Only what has no version, or no documents that could serve, is refused.

use std::sync::Arc;

use caracal_authority::{PolicySetId, PolicySetVersionId, PolicyVersionId, ZoneId};
use http::{Method, StatusCode};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{bundle, existing, version_of};
use crate::Admin;
use crate::answer::Changed;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::input::{Body, Fields, Mismatch, Text};
use crate::openapi::shape::described;
use crate::openapi::spec::Spec;
use crate::policies::SCHEMA;
use crate::problem::Refusal;
use crate::runtime::{NotSimulated, Simulation};

pub(crate) const ROUTE: Route = Route {
    method: Method::POST,
    path: "/v1/zones/{zone}/policy-sets/{id}/simulate",
    needs: Needs::Write,
    reach: Reach::Zone(Run::Change(|admin, call| Box::pin(simulate(admin, call)))),
    spec: Spec::shows::<Simulated>(
        "policy_sets.simulate",
        "Tells what a version would decide, without putting it in force.",
    )
    .takes("invalid_body", |body| read(body).map(drop))
    .refuses(&[
        (404, "version_not_found"),
        (422, "invalid_policy_contract"),
        (422, "invalid_policy_bundle"),
        (503, "policy_verification_unavailable"),
    ]),
};

const MISSING: &str = "version_not_found";

described! {
    #[derive(Serialize)]
    struct Simulated<'a> {
        dry_run: bool,
        would_activate: bool,
        policy_set_id: &'a PolicySetId,
        version_id: &'a PolicySetVersionId,
        schema_version: &'a str,
        input_schema_version: &'static str,
        manifest_sha256: &'a str,
        policies: &'a [PolicyVersionId],
        warnings: Vec<String>,
        explanation: Explanation<'a>,
        result: Option<Value>,
    }
}

described! {
    #[derive(Serialize)]
    struct Explanation<'a> {
        evaluation: &'static str,
        reason: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        decision: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        policy_set_version_id: Option<&'a PolicySetVersionId>,
        #[serde(skip_serializing_if = "Option::is_none")]
        manifest_sha256: Option<&'a str>,
    }
}

fn read(body: impl Into<Body>) -> Result<(String, Option<Map<String, Value>>), Mismatch> {
    let mut fields = Fields::of(body)?;
    Ok((fields.required_text("version_id", Text::exact(1, usize::MAX))?, fields.object("input")?))
}

async fn simulate(admin: Arc<Admin>, mut call: Call<InZone>) -> Result<Changed, Refusal> {
    let (named, input) = read(call.body.take()).map_err(|mismatch| mismatch.refuse("invalid_body"))?;
    let id = PolicySetVersionId::parse(&named).map_err(|_| Refusal::missing(MISSING))?;
    let (set, zone): (PolicySetId, _) = (call.id("id")?, call.place.zone.clone());
    let mut snapshot = admin.store.snapshot().await?;
    let mut tx = snapshot.zone(&zone);
    existing(&mut tx, &set, MISSING).await?;
    let version = version_of(&mut tx, &set, &id, MISSING).await?;
    let manifest: Vec<String> = version.manifest.iter().map(PolicyVersionId::to_string).collect();
    let documents = bundle::contract(&mut tx, &manifest).await?;
    drop(snapshot);

    let mut warnings = input.as_ref().map(|input| warnings(&zone, input)).unwrap_or_default();
    let would_activate = warnings.is_empty();
    let asked = match (&admin.runtime, input) {
        (_, None) => Asked::Not("no input was given, so nothing was evaluated"),
        (None, Some(_)) => Asked::Not("nothing that evaluates policy is configured here"),
        (Some(runtime), Some(input)) => {
            let documents = documents.into_iter().map(|row| (row.id.to_string(), row.content)).collect();
            Asked::Of(
                runtime.simulate(&zone, Simulation { documents, input }).await.map_err(Fault::from).and_then(judged),
            )
        }
    };
    let bare = |evaluation, reason| Explanation {
        evaluation,
        reason,
        decision: None,
        policy_set_version_id: None,
        manifest_sha256: None,
    };
    let (explanation, result) = match asked {
        Asked::Not(why) => (bare("not_executed", why.to_owned()), None),
        Asked::Of(Err(why)) => {
            warnings.push(why.warning());
            (bare("failed", why.to_string()), None)
        }
        Asked::Of(Ok(result)) => {
            let decision = result.get("decision").and_then(Value::as_str).map(str::to_owned);
            let explanation = Explanation {
                decision,
                policy_set_version_id: Some(&version.id),
                manifest_sha256: Some(&version.manifest_sha256),
                ..bare("executed", reason(&result))
            };
            (explanation, Some(result))
        }
    };
    let trace = call.trace;
    let recorded = admin
        .store
        .commit(&zone, trace, |tx, trace| Box::pin(async move { trace.change(tx, StatusCode::OK, None).await }))
        .await?;
    Ok(recorded.answer(&Simulated {
        dry_run: true,
        would_activate,
        policy_set_id: &set,
        version_id: &version.id,
        schema_version: &version.schema_version,
        input_schema_version: SCHEMA,
        manifest_sha256: &version.manifest_sha256,
        policies: &version.manifest,
        warnings,
        explanation,
        result,
    }))
}

enum Asked {
    Not(&'static str),
    Of(Result<Value, Fault>),
}

/// Why there is no result to show.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("{0}")]
    Not(#[from] NotSimulated),
    #[error("what evaluates policy answered with what is no result: {0}")]
    Garbage(&'static str),
}

impl Fault {
    fn warning(&self) -> String {
        match self {
            Self::Not(NotSimulated::Unreachable(text)) => format!("sts_simulation_unreachable:{text}"),
            Self::Not(NotSimulated::Failed { code, .. }) => format!("sts_simulation_failed:{code}"),
            Self::Garbage(what) => format!("sts_simulation_invalid_response:{what}"),
        }
    }
}

/// What is odd about an input, in the contract's order.
fn warnings(zone: &ZoneId, input: &Map<String, Value>) -> Vec<String> {
    let mut warnings = Vec::new();
    let schema = input.get("schema_version").and_then(Value::as_str).unwrap_or_default();
    if schema != SCHEMA {
        let shown: String = schema.chars().filter(|character| !character.is_control()).take(64).collect();
        warnings.push(format!("input_schema_mismatch:{shown}"));
    }
    let of = input.get("principal").and_then(|principal| principal.get("zone_id")).and_then(Value::as_str);
    if of != Some(zone.as_str()) {
        warnings.push("principal_zone_mismatch".to_owned());
    }
    for (name, warning) in
        [("resource", "missing_resource"), ("action", "missing_action"), ("context", "missing_context")]
    {
        if !input.get(name).is_some_and(Value::is_object) {
            warnings.push(warning.to_owned());
        }
    }
    warnings
}

/// The document, if it is one (policy.md §4.3): whatever else was answered must not pass for a decision.
fn judged(result: Value) -> Result<Value, Fault> {
    let text = |name: &str| result.get(name).and_then(Value::as_str);
    let objects = |name: &str| {
        let list = result.get(name).and_then(Value::as_array);
        list.is_some_and(|list| list.iter().all(Value::is_object))
    };
    match (text("decision"), text("evaluation_status")) {
        (Some("allow" | "deny"), Some("complete")) => {}
        (Some("allow" | "deny"), _) => return Err(Fault::Garbage("evaluation_status")),
        _ => return Err(Fault::Garbage("decision")),
    }
    match ["determining_policies", "diagnostics"].into_iter().find(|name| !objects(name)) {
        Some(name) => Err(Fault::Garbage(name)),
        None => Ok(result),
    }
}

/// In words: what was decided and by what.
fn reason(result: &Value) -> String {
    let first = |list: &str, member: &str| {
        let found = result.get(list)?.get(0)?.get(member)?.as_str()?;
        Some(found.to_owned())
    };
    if let Some(policy) = first("determining_policies", "policy") {
        let held = result.get("diagnostics").and_then(|list| list.get(0)?.get("step_up_required")).is_some();
        let held = if held { ", and held for a human" } else { "" };
        return format!("allowed by {policy}{held}");
    }
    first("diagnostics", "reason").map_or_else(|| "decided".to_owned(), |reason| format!("denied: {reason}"))
}
