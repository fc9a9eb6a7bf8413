//! What is archived is absent for everything that is new, and readable where the contract says so (admin-api.md §1.5,
//! §5).

use serde_json::json;

use crate::world::{EMPTY_GRANTS, World};

async fn archive(world: &World, path: &str) {
    world.call("DELETE", path, None).await.is(204);
}

#[tokio::test]
async fn nothing_new_is_made_in_an_archived_zone_and_what_is_there_can_still_be_read() {
    let world = World::new().await;
    let zone = world.zone("Ops").await;
    let at = |path: &str| format!("/v1/zones/{zone}{path}");
    let app = world.create(&at("/applications"), json!({"name": "Bot", "registration_method": "managed"})).await;
    archive(&world, &at("")).await;
    // Its tokens ended with it; this one was made by somebody who did not know.
    let own = world.mint("write", Some(&zone)).await;
    world.get(&at("")).await.is_refused(404, "zone_not_found");
    assert_eq!(world.get("/v1/zones").await.is(200)["items"], json!([]));
    for (kind, body) in [
        ("/applications", json!({"name": "x", "registration_method": "managed"})),
        ("/providers", json!({"name": "x", "kind": "none"})),
        ("/resources", json!({"identifier": "caracal-control", "scopes": ["control:app:read"]})),
        ("/policies", json!({"name": "x", "content": EMPTY_GRANTS})),
        ("/policy-sets", json!({"name": "x"})),
        ("/subject-issuers", json!({"issuer": "https://i.example", "jwks_url": "https://i.example", "audience": "a"})),
    ] {
        // Also when the body is none that the route would take.
        for (token, body) in [(None, json!({})), (None, body.clone()), (Some(&own), body)] {
            let token = token.map_or(crate::world::BOOTSTRAP, String::as_str);
            let answer = world.call_as(Some(token), "POST", &at(kind), Some(body)).await;
            answer.is_refused(404, "zone_not_found");
        }
    }
    assert_eq!(world.get(&at("/applications")).await.is(200)["items"].as_array().unwrap().len(), 1);
    world.get(&at(&format!("/applications/{app}"))).await.is(200);
    world.get(&at("/audit")).await.is(200);
    assert_eq!(world.records(Some(&zone)).await[0].action, "POST /v1/zones");
}

#[tokio::test]
async fn a_slug_stays_taken_when_its_zone_is_archived() {
    let world = World::new().await;
    let zone = world.zone("Ops").await;
    archive(&world, &format!("/v1/zones/{zone}")).await;
    let explicit = Some(json!({"name": "x", "slug": "ops"}));
    world.call("POST", "/v1/zones", explicit).await.is_refused(409, "zone_slug_conflict");
    let generated = world.call("POST", "/v1/zones", Some(json!({"name": "Ops"}))).await.is(201);
    assert_eq!(generated["slug"], "ops-2");
}

#[tokio::test]
async fn an_archived_application_is_absent_and_its_name_is_free() {
    let world = World::new().await;
    let zone = world.zone("Ops").await;
    let path = format!("/v1/zones/{zone}/applications");
    let body = json!({"name": "Bot", "registration_method": "managed"});
    let id = world.create(&path, body.clone()).await;
    let one = format!("{path}/{id}");
    archive(&world, &one).await;
    for (method, path, body) in [
        ("GET", one.clone(), None),
        ("PATCH", one.clone(), Some(json!({"name": "x"}))),
        ("PATCH", one.clone(), Some(json!({"client_secret": "s".repeat(32)}))),
        ("POST", format!("{one}/rotate-secret"), None),
    ] {
        world.call(method, &path, body).await.is_refused(404, "application_not_found");
    }
    assert_eq!(world.get(&path).await.is(200)["items"], json!([]));
    let archived = world.get(&format!("{path}?status=archived")).await.is(200);
    assert_eq!((&archived["items"][0]["id"], archived["items"][0]["archived_at"].is_string()), (&json!(id), true));
    world.create(&path, body).await;
}

#[tokio::test]
async fn an_archived_provider_serves_no_resource_and_its_identifier_is_free() {
    let world = World::new().await;
    let zone = world.zone("Ops").await;
    let (providers, resources) = (format!("/v1/zones/{zone}/providers"), format!("/v1/zones/{zone}/resources"));
    let body = json!({"identifier": "provider://p", "kind": "none"});
    let (gone, live) =
        (world.create(&providers, body.clone()).await, json!({"identifier": "provider://q", "kind": "none"}));
    let live = world.create(&providers, live).await;
    archive(&world, &format!("{providers}/{gone}")).await;
    let resource = |provider: &str| {
        let to = "https://r.example";
        json!({"name": "r", "scopes": ["a"], "upstream_url": to, "credential_provider_id": provider})
    };
    world.call("POST", &resources, Some(resource(&gone))).await.is_refused(404, "provider_not_found");
    let id = world.create(&resources, resource(&live)).await;
    let patch = Some(json!({"credential_provider_id": gone}));
    world.call("PATCH", &format!("{resources}/{id}"), patch).await.is_refused(404, "provider_not_found");
    let one = format!("{providers}/{gone}");
    world.get(&one).await.is_refused(404, "provider_not_found");
    world.call("PATCH", &one, Some(json!({"name": "x"}))).await.is_refused(404, "provider_not_found");
    world.create(&providers, body).await;
}

#[tokio::test]
async fn an_archived_resource_is_absent_and_only_its_own_name_brings_its_identifier_back() {
    let world = World::new().await;
    let zone = world.zone("Ops").await;
    let provider = world.create(&format!("/v1/zones/{zone}/providers"), json!({"name": "p", "kind": "none"})).await;
    let path = format!("/v1/zones/{zone}/resources");
    let body = json!({
        "name": "Reports", "scopes": ["a"], "upstream_url": "https://r.example", "credential_provider_id": provider,
    });
    let id = world.create(&path, body.clone()).await;
    let one = format!("{path}/{id}");
    archive(&world, &one).await;
    world.get(&one).await.is_refused(404, "resource_not_found");
    world.call("PATCH", &one, Some(json!({"name": "x"}))).await.is_refused(404, "resource_not_found");
    // A generated identifier is never one that policies or approvals may still speak of.
    let generated = world.call("POST", &path, Some(body.clone())).await.is(201);
    assert_eq!(generated["identifier"], "resource://reports-2");
    let mut explicit = body;
    explicit["identifier"] = json!("resource://reports");
    world.create(&path, explicit).await;
}
