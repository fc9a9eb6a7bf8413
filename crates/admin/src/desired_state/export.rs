//! `GET /v1/zones/{zone}/export`: what the zone is, as a document that makes a zone be that. Secrets are not in it; which a
//! provider has is said, so that whoever imports elsewhere knows what to add.

use std::sync::Arc;

use caracal_store::policies;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Kind, State, document};
use crate::Admin;
use crate::answer::Answer;
use crate::gate::{Call, InZone, Needs, Reach, Route, Run};
use crate::openapi::shape::Definitions;
use crate::openapi::spec::{Content, Spec};
use crate::problem::Refusal;
use crate::{applications, policy_sets, providers, resources};

pub(crate) const ROUTE: Route = Route {
    method: Method::GET,
    path: "/v1/zones/{zone}/export",
    needs: Needs::Read,
    reach: Reach::Zone(Run::Read(|admin, call| Box::pin(export(admin, call)))),
    spec: Spec::of("zones.export", "Writes a zone as a document.", StatusCode::OK, Content::Json(schema))
        .refuses(&[(404, "zone_not_found"), (409, "zone_too_large")]),
};

fn schema(_: &mut Definitions) -> Value {
    json!({"type": "object", "properties": {"objects": document::objects_schema()}, "required": ["objects"]})
}

async fn export(admin: Arc<Admin>, call: Call<InZone>) -> Result<Answer, Refusal> {
    call.require_live_zone()?;
    let mut snapshot = admin.store.snapshot().await?;
    let tx = &mut snapshot.zone(&call.place.zone);
    let state = State::read(tx, &admin.config.control_audience).await?;
    let mut objects = Vec::new();
    let mut add = |kind: Kind, spec: Value| objects.push(json!({"kind": kind.as_str(), "spec": spec}));
    for provider in state.providers.values() {
        add(Kind::IdentityProvider, providers::desired::spec(provider));
    }
    for application in state.applications.values() {
        add(Kind::Application, applications::desired::spec(application, call.caller.is_global()));
    }
    for resource in state.resources.values() {
        add(Kind::Resource, resources::desired::spec(resource, &state));
    }
    for (policy, latest) in state.policies.values() {
        let Some(latest) = latest else { continue };
        let content = policies::lookup_version(tx, &latest.id).await?.map(|version| version.content);
        let spec = json!({"name": policy.name, "description": policy.description, "content": content});
        add(Kind::Policy, without_null(spec, "description"));
    }
    for (set, _) in state.sets.values() {
        let spec = policy_sets::desired::spec(tx, set, &state).await?;
        add(Kind::PolicySet, without_null(spec, "description"));
    }
    Ok(Answer::ok(&json!({"objects": objects})))
}

/// An optional field of a spec is absent or a text.
fn without_null(mut spec: Value, name: &str) -> Value {
    if let Some(members) = spec.as_object_mut()
        && members.get(name).is_some_and(Value::is_null)
    {
        members.remove(name);
    }
    spec
}
