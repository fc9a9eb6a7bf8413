//! A workload that can be launched, and what stands before its credential.

use caracal_store::workloads::Binding;
use caracal_testkit::{Received, Reply};
use serde_json::{Value, json};

use super::providers::TokenEndpoint;
use super::{Ask, DOCS, World};

pub(crate) const ENV: &str = "DOCS_TOKEN";
pub(crate) const LAUNCH: &str = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff";

pub(crate) fn bound(env: &str, resource: &str, scopes: &[&str]) -> Binding {
    Binding {
        env: env.to_owned(),
        resource: resource.to_owned(),
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        optional: false,
        on_failure: None,
    }
}

pub(crate) fn docs() -> Binding {
    bound(ENV, DOCS, &["docs:read"])
}

/// A bearer token that may be injected stands before the docs, and `w-1` is bound to it.
pub(crate) async fn launchable() -> World {
    let world = World::new().await;
    ready(&world).await;
    world
}

pub(crate) async fn ready(world: &World) {
    let injectable = json!({"allow_runtime_injection": true});
    world.provide("bearer_token", injectable, Some(json!({"bearer_token": "bt-docs"}))).await;
    world.add_workload(&[docs()]).await;
}

/// The same where reading the docs is held for an operator.
pub(crate) async fn held() -> World {
    let world = World::held().await;
    ready(&world).await;
    world
}

/// The id of the hold that asking for the credential raises.
pub(crate) async fn hold(world: &World) -> String {
    let answer = Ask::credential(ENV).send(world).await;
    assert_eq!(answer.outcome(), "401 interaction_required");
    answer.text("approval_id").to_owned()
}

pub(crate) fn with(approval: &str) -> Ask {
    Ask::credential(ENV).set("approval_id", approval)
}

/// Types and outcomes of all evidence so far.
pub(crate) async fn types(world: &World) -> Vec<String> {
    world.evidence().await.iter().map(|event| format!("{} {}", event.row.event_type, event.outcome())).collect()
}

pub(crate) fn issuing(_: &Received) -> Reply {
    Reply::json(200, r#"{"access_token":"at-docs","token_type":"Bearer","expires_in":600}"#)
}

pub(crate) fn issued(endpoint: &TokenEndpoint) -> Value {
    json!({
        "token_endpoint": endpoint.url(), "client_id": "c", "allowed_token_hosts": ["localhost"],
        "allow_runtime_injection": true,
    })
}

pub(crate) fn client_secret() -> Option<Value> {
    Some(json!({"client_secret": "cs-upstream"}))
}
