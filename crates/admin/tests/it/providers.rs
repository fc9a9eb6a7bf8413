//! Providers and what is sealed for them.

use serde_json::{Value, json};

use crate::world::World;

async fn world() -> (World, String) {
    let world = World::new().await;
    let zone = world.zone("Ops").await;
    let path = format!("/v1/zones/{zone}/providers");
    (world, path)
}

fn zone_of(path: &str) -> &str {
    path.split('/').nth(3).unwrap()
}

#[tokio::test]
async fn each_built_kind_is_created_and_shows_its_public_part_only() {
    let (world, path) = world().await;
    for (body, config, keys, sealed) in [
        (json!({"name": "None", "kind": "none"}), json!({}), json!([]), None),
        (json!({"name": "Self", "kind": "caracal_mandate", "config_json": {}}), json!({}), json!([]), None),
        (
            json!({"name": "Key", "kind": "api_key", "config_json": {"header_name": "X-Key", "api_key": " sk-1\n"}}),
            json!({"auth_location": "header", "header_name": "X-Key"}),
            json!(["api_key"]),
            Some(json!({"api_key": "sk-1"})),
        ),
        (
            json!({"name": "Bearer", "kind": "bearer_token", "config_json": {
                "bearer_token": "t", "allowed_token_hosts": ["API.example"], "allow_runtime_injection": true}}),
            json!({"allowed_token_hosts": ["api.example"], "allow_runtime_injection": true}),
            json!(["bearer_token"]),
            Some(json!({"bearer_token": "t"})),
        ),
        (
            json!({"name": "Basic", "kind": "http_basic", "config_json": {"username": "u", "password": "p\"w"}}),
            json!({"username": "u"}),
            json!(["password"]),
            Some(json!({"password": "p\"w"})),
        ),
    ] {
        let created = world.call("POST", &path, Some(body.clone())).await.is(201);
        assert_eq!((&created["config_json"], &created["secret_config_keys"]), (&config, &keys), "{body}");
        assert_eq!(created["connectivity_failed_at"], json!(null));
        let id = created["id"].as_str().unwrap();
        assert_eq!(world.get(&format!("{path}/{id}")).await.is(200), created);
        assert_eq!(world.provider_secrets(zone_of(&path), id).await, sealed, "{body}");
    }
    let listed = world.get(&path).await.is(200);
    assert_eq!(listed["items"].as_array().unwrap().len(), 5);
    let names: Vec<&String> = listed["items"][0].as_object().unwrap().keys().collect();
    let expected = [
        "archived_at",
        "config_json",
        "connectivity_failed_at",
        "created_at",
        "created_by",
        "created_via_operator",
        "id",
        "identifier",
        "kind",
        "name",
        "secret_config_keys",
        "updated_at",
        "updated_by",
        "updated_via_operator",
        "zone_id",
    ];
    assert_eq!(names, expected);
}

#[tokio::test]
async fn an_identifier_comes_from_the_name_and_a_name_from_the_identifier() {
    let (world, path) = world().await;
    let create = |body: Value| world.call("POST", &path, Some(body));
    let first = create(json!({"name": "My Key!", "kind": "none"})).await.is(201);
    assert_eq!(first["identifier"], "provider://my-key");
    let second = create(json!({"name": "provider://my-key", "identifier": " ", "kind": "none"})).await.is(201);
    assert_eq!(second["identifier"], "provider://my-key-2");
    let third = create(json!({"identifier": " provider://own ", "kind": "none"})).await.is(201);
    assert_eq!((&third["name"], &third["identifier"]), (&json!("provider://own"), &json!("provider://own")));
    let symbols = create(json!({"name": "!!", "kind": "none"})).await.is(201);
    assert_eq!(symbols["identifier"], "provider://provider");
}

#[tokio::test]
async fn a_provider_is_refused_in_the_contracts_order() {
    let (world, path) = world().await;
    let write = world.mint("write", None).await;
    world.create(&path, json!({"identifier": "provider://taken", "kind": "none"})).await;
    let bad = json!({"api_key": "x"});
    for (body, status, code) in [
        (json!({"kind": "none"}), 400, "invalid_provider"),
        (json!({"kind": "none", "name": "  ", "identifier": ""}), 400, "invalid_provider"),
        (json!({"name": "x"}), 400, "invalid_provider"),
        (json!({"name": "x", "kind": "kerberos"}), 400, "invalid_provider"),
        (json!({"name": "x", "kind": "none", "config_json": []}), 400, "invalid_provider"),
        (json!({"name": "x", "kind": "none", "check": "yes"}), 400, "invalid_provider"),
        (json!({"identifier": "x", "kind": "none", "config_json": bad}), 400, "invalid_provider_identifier"),
        (json!({"name": "x", "kind": "none", "config_json": bad, "check": true}), 400, "invalid_provider_config"),
        (json!({"name": "x", "kind": "oauth2_client_credentials"}), 400, "invalid_provider_config"),
        (
            json!({"identifier": "provider://caracal-sys-x", "kind": "none", "check": true}),
            400,
            "provider_check_unsupported",
        ),
        (json!({"identifier": "provider://caracal-sys-x", "kind": "none"}), 409, "reserved_namespace"),
        (json!({"name": "Caracal Sys X", "kind": "none"}), 409, "reserved_namespace"),
        (json!({"identifier": "provider://taken", "kind": "none"}), 409, "provider_identifier_conflict"),
    ] {
        let answer = world.call_as(Some(&write), "POST", &path, Some(body.clone())).await;
        assert_eq!(answer.refused(), (status, code.to_owned()), "{body}");
    }
    world.call("POST", "/v1/zones/none/providers", Some(json!({}))).await.is_refused(404, "zone_not_found");
    assert_eq!(world.get(&path).await.is(200)["items"].as_array().unwrap().len(), 1);
    // Unknown members of the body itself do not matter here.
    world.call("POST", &path, Some(json!({"name": "y", "kind": "none", "foo": 1}))).await.is(201);
}

#[tokio::test]
async fn a_new_public_part_keeps_the_sealed_secret() {
    let (world, path) = world().await;
    let id = world
        .create(&path, json!({"name": "K", "kind": "api_key", "config_json": {"header_name": "A", "api_key": "sk-1"}}))
        .await;
    let one = format!("{path}/{id}");
    let patch = |body: Value| world.call("PATCH", &one, Some(body));
    world.clock.advance(1);
    let patched = patch(json!({"config_json": {"header_name": "B"}})).await.is(200);
    assert_eq!(patched["config_json"], json!({"auth_location": "header", "header_name": "B"}));
    assert_eq!(patched["secret_config_keys"], json!(["api_key"]));
    assert_eq!(patched["updated_at"], "2026-01-01T00:00:01.000Z");
    assert_eq!(world.provider_secrets(zone_of(&path), &id).await, Some(json!({"api_key": "sk-1"})));

    let replaced = patch(json!({"config_json": {"header_name": "B", "api_key": "sk-2"}})).await.is(200);
    assert_eq!(replaced["secret_config_keys"], json!(["api_key"]));
    assert_eq!(world.provider_secrets(zone_of(&path), &id).await, Some(json!({"api_key": "sk-2"})));

    let renamed = patch(json!({"name": "New", "identifier": "provider://new"})).await.is(200);
    assert_eq!((&renamed["name"], &renamed["identifier"]), (&json!("New"), &json!("provider://new")));
    assert_eq!(renamed["config_json"], replaced["config_json"]);

    let emptied = patch(json!({"kind": "none", "config_json": {}})).await.is(200);
    assert_eq!((&emptied["kind"], &emptied["secret_config_keys"]), (&json!("none"), &json!([])));
    assert_eq!(world.provider_secrets(zone_of(&path), &id).await, None);
}

#[tokio::test]
async fn a_change_of_a_provider_is_refused_in_the_contracts_order() {
    let (world, path) = world().await;
    let write = world.mint("write", None).await;
    world.create(&path, json!({"identifier": "provider://taken", "kind": "none"})).await;
    let id = world
        .create(&path, json!({"name": "K", "kind": "api_key", "config_json": {"header_name": "A", "api_key": "sk-1"}}))
        .await;
    for (id, body, status, code) in [
        ("none", json!({"kind": 5}), 400, "invalid_provider"),
        ("none", json!({"identifier": "x"}), 400, "invalid_provider_identifier"),
        ("none", json!({"identifier": "provider://caracal-sys-x", "kind": "none"}), 409, "reserved_namespace"),
        ("none", json!({"kind": "none"}), 400, "provider_config_required"),
        ("none", json!({}), 404, "provider_not_found"),
        (&id, json!({"kind": "bearer_token", "config_json": {}}), 400, "invalid_provider_config"),
        (&id, json!({"config_json": {"header_name": "Host"}}), 400, "invalid_provider_config"),
        (&id, json!({"config_json": {"header_name": "A", "bearer_token": "x"}}), 400, "invalid_provider_config"),
        (&id, json!({"kind": "oauth2_authorization_code", "config_json": {}}), 400, "invalid_provider_config"),
        (&id, json!({}), 400, "no_fields"),
        (&id, json!({"identifier": "provider://taken"}), 409, "provider_identifier_conflict"),
    ] {
        let answer = world.call_as(Some(&write), "PATCH", &format!("{path}/{id}"), Some(body.clone())).await;
        assert_eq!(answer.refused(), (status, code.to_owned()), "{body}");
    }
    assert_eq!(world.provider_secrets(zone_of(&path), &id).await, Some(json!({"api_key": "sk-1"})));
    world.get(&format!("{path}/none")).await.is_refused(404, "provider_not_found");
}
