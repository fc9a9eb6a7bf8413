//! Resources.

use caracal_admin::AdminConfig;
use serde_json::{Value, json};

use crate::world::World;

struct Setting {
    world: World,
    zone: String,
    provider: String,
    path: String,
}

impl Setting {
    async fn new() -> Self {
        Self::with(AdminConfig::default()).await
    }

    async fn with(config: AdminConfig) -> Self {
        let world = World::with(config).await;
        let zone = world.zone("Ops").await;
        let provider = world.create(&format!("/v1/zones/{zone}/providers"), json!({"name": "p", "kind": "none"})).await;
        let path = format!("/v1/zones/{zone}/resources");
        Self { world, zone, provider, path }
    }

    /// A body that is accepted, with `more` over it.
    fn body(&self, more: Value) -> Value {
        let mut body = json!({
            "name": "Reports", "upstream_url": "https://reports.example", "scopes": ["read", "write"],
            "credential_provider_id": self.provider,
        });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    }
}

#[tokio::test]
async fn a_resource_is_created_found_and_changed() {
    let set = Setting::new().await;
    let operations = json!([
        {"method": " get", "path": " /books/{id} ", "scope": "read"}, {"method": "POST", "path": "/v1/**", "scope": "write"}
    ]);
    let created = set.world.call("POST", &set.path, Some(set.body(json!({"operations": operations})))).await.is(201);
    let expected = json!({
        "id": created["id"], "zone_id": set.zone, "name": "Reports", "identifier": "resource://reports",
        "upstream_url": "https://reports.example", "scopes": ["read", "write"],
        "credential_provider_id": set.provider, "operation_enforcement": "enforced",
        "operations": [
            {"method": "GET", "path": "/books/{id}", "scope": "read"},
            {"method": "POST", "path": "/v1/**", "scope": "write"},
        ],
        "created_by": created["created_by"], "created_via_operator": false, "updated_by": null,
        "updated_via_operator": false, "created_at": "2026-01-01T00:00:00.000Z",
        "updated_at": "2026-01-01T00:00:00.000Z", "archived_at": null,
    });
    assert_eq!(created, expected);
    let one = format!("{}/{}", set.path, created["id"].as_str().unwrap());
    assert_eq!(set.world.get(&one).await.is(200), expected);
    assert_eq!(set.world.get(&set.path).await.is(200)["items"], json!([expected]));

    set.world.clock.advance(1);
    let patch = json!({"upstream_url": "http://127.0.0.1:9000/base", "operation_enforcement": "transport_uniform"});
    let changed = set.world.call("PATCH", &one, Some(patch)).await.is(200);
    assert_eq!(changed["upstream_url"], "http://127.0.0.1:9000/base");
    assert_eq!(changed["operation_enforcement"], "transport_uniform");
    assert_eq!(changed["operations"], expected["operations"]);
    assert_eq!(changed["updated_at"], "2026-01-01T00:00:01.000Z");
}

#[tokio::test]
async fn an_identifier_comes_from_the_name_and_is_never_one_that_was_used() {
    let set = Setting::new().await;
    for expected in ["resource://reports", "resource://reports-2"] {
        let created = set.world.call("POST", &set.path, Some(set.body(json!({})))).await.is(201);
        assert_eq!(created["identifier"], expected);
    }
    let named = set.body(json!({"name": "resource://as/it-is"}));
    assert_eq!(set.world.call("POST", &set.path, Some(named)).await.is(201)["identifier"], "resource://as/it-is");
    let mut own = set.body(json!({"identifier": "https://api.example/v1"}));
    own.as_object_mut().unwrap().remove("name");
    let created = set.world.call("POST", &set.path, Some(own)).await.is(201);
    assert_eq!((&created["name"], &created["identifier"]), (&json!("https://api.example/v1"), &created["identifier"]));
}

#[tokio::test]
async fn a_resource_is_refused_in_the_contracts_order() {
    let set = Setting::new().await;
    let other = set.world.zone("Other").await;
    let foreign = set.world.create(&format!("/v1/zones/{other}/providers"), json!({"name": "p", "kind": "none"})).await;
    let write = set.world.mint("write", None).await;
    set.world.create(&set.path, set.body(json!({"identifier": "resource://taken"}))).await;
    let operation = |method: &str, path: &str, scope: &str| json!({"method": method, "path": path, "scope": scope});
    for (more, status, code) in [
        (json!({"scopes": []}), 400, "invalid_resource"),
        (json!({"scopes": ["a\nb"]}), 400, "invalid_resource"),
        (json!({"scopes": vec!["s"; 65]}), 400, "invalid_resource"),
        (json!({"name": ""}), 400, "invalid_resource"),
        (json!({"upstream_url": "ftp://h"}), 400, "invalid_resource"),
        (json!({"upstream_url": "https://u:p@h"}), 400, "invalid_resource"),
        (json!({"operation_enforcement": "none"}), 400, "invalid_resource"),
        (json!({"operations": vec![operation("GET", "/", "read"); 257]}), 400, "invalid_resource"),
        (json!({"operations": [{"method": "GET", "path": "/"}]}), 400, "invalid_resource"),
        (json!({"identifier": "pipernet"}), 400, "invalid_resource_identifier"),
        (json!({"identifier": "provider://x"}), 400, "invalid_resource_identifier"),
        (json!({"identifier": "https://u:p@h/"}), 400, "invalid_resource_identifier"),
        (json!({"identifier": "caracal-sys://x", "credential_provider_id": "none"}), 409, "reserved_namespace"),
        (json!({"credential_provider_id": "none", "upstream_url": null}), 404, "provider_not_found"),
        (json!({"credential_provider_id": foreign}), 404, "provider_not_found"),
        (json!({"credential_provider_id": "not an id"}), 404, "provider_not_found"),
        (json!({"credential_provider_id": null, "upstream_url": null}), 400, "credential_provider_required"),
        (json!({"upstream_url": null, "operations": [operation("GET", "a", "x")]}), 400, "upstream_url_required"),
        (json!({"operations": [operation(" ", "/a", "read")]}), 400, "operation_method_and_path_required"),
        (json!({"operations": [operation("GET", "a", "read")]}), 400, "operation_path_must_be_absolute"),
        (json!({"operations": [operation("GET", "/a", "delete")]}), 400, "operation_scope_not_in_resource_scopes"),
        (
            json!({"operations": [operation("get", "/a", "read"), operation("GET", "/a", "write")]}),
            400,
            "operation_duplicate",
        ),
        (json!({"operations": [operation("GET", "/a/**/b", "read")]}), 400, "invalid_resource"),
        (json!({"identifier": "resource://taken"}), 409, "resource_identifier_conflict"),
    ] {
        let answer = set.world.call_as(Some(&write), "POST", &set.path, Some(set.body(more.clone()))).await;
        assert_eq!(answer.refused(), (status, code.to_owned()), "{more}");
    }
    for missing in ["scopes", "name", "credential_provider_id", "upstream_url"] {
        let mut body = set.body(json!({}));
        body.as_object_mut().unwrap().remove(missing);
        let expected = match missing {
            "credential_provider_id" => "credential_provider_required",
            "upstream_url" => "upstream_url_required",
            _ => "invalid_resource",
        };
        set.world.call("POST", &set.path, Some(body)).await.is_refused(400, expected);
    }
    set.world.call("POST", "/v1/zones/none/resources", Some(json!({}))).await.is_refused(404, "zone_not_found");
    assert_eq!(set.world.get(&set.path).await.is(200)["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_change_is_judged_as_the_whole_it_makes() {
    let set = Setting::new().await;
    let operations = json!([{"method": "GET", "path": "/a", "scope": "write"}]);
    let id = set.world.create(&set.path, set.body(json!({"operations": operations}))).await;
    set.world.create(&set.path, set.body(json!({"identifier": "resource://taken"}))).await;
    let write = set.world.mint("write", None).await;
    for (id, patch, status, code) in [
        ("none", json!({"scopes": []}), 400, "invalid_resource"),
        ("none", json!({"credential_provider_id": "none"}), 404, "provider_not_found"),
        ("none", json!({"identifier": "pipernet"}), 404, "resource_not_found"),
        (&id, json!({"identifier": "pipernet"}), 400, "invalid_resource_identifier"),
        (&id, json!({"identifier": "caracal-sys://x"}), 409, "reserved_namespace"),
        (&id, json!({"credential_provider_id": null}), 400, "credential_provider_required"),
        (&id, json!({"upstream_url": null}), 400, "upstream_url_required"),
        (&id, json!({"scopes": ["read"]}), 400, "operation_scope_not_in_resource_scopes"),
        (&id, json!({}), 400, "no_fields"),
        (&id, json!({"identifier": "resource://taken"}), 409, "resource_identifier_conflict"),
    ] {
        let answer = set.world.call_as(Some(&write), "PATCH", &format!("{}/{id}", set.path), Some(patch.clone())).await;
        assert_eq!(answer.refused(), (status, code.to_owned()), "{patch}");
    }
    let patch = json!({"scopes": ["read"], "operations": []});
    set.world.call("PATCH", &format!("{}/{id}", set.path), Some(patch)).await.is(200);
    set.world.get(&format!("{}/none", set.path)).await.is_refused(404, "resource_not_found");
}

#[tokio::test]
async fn a_resource_has_limits_of_its_own_until_they_are_taken_away() {
    let set = Setting::new().await;
    let limits = json!({"upstream_timeout_ms": 120_000, "max_request_bytes": 0});
    let created = set.world.call("POST", &set.path, Some(set.body(json!({"limits": limits})))).await.is(201);
    assert_eq!(created["limits"], limits);
    let one = format!("{}/{}", set.path, created["id"].as_str().unwrap());
    let patch = |limits: Value| set.world.call("PATCH", &one, Some(json!({"limits": limits})));
    // They are given anew as a whole.
    let fewer = json!({"stream_idle_timeout_ms": 1, "write_timeout_ms": 3_600_000});
    assert_eq!(patch(fewer.clone()).await.is(200)["limits"], fewer);
    for bad in [
        json!({"upstream_timeout_ms": 0}),
        json!({"upstream_timeout_ms": 3_600_001}),
        json!({"write_timeout_ms": -1}),
        json!({"stream_idle_timeout_ms": "60s"}),
        json!({"max_request_bytes": 1.5}),
        json!({"max_request_bytes": 9_007_199_254_740_992_u64}),
        json!({"max_response_bytes": 1}),
        json!([]),
        json!(1),
    ] {
        patch(bad.clone()).await.is_refused(400, "invalid_resource");
        assert_eq!(set.world.get(&one).await.is(200)["limits"], fewer, "{bad}");
    }
    assert_eq!(patch(Value::Null).await.is(200).get("limits"), None);
    assert_eq!(set.world.get(&one).await.is(200).get("limits"), None);
}

#[tokio::test]
async fn a_zone_has_at_most_its_number_of_resources() {
    let set = Setting::with(AdminConfig { max_resources_per_zone: 2, ..AdminConfig::default() }).await;
    for _ in 0..2 {
        set.world.create(&set.path, set.body(json!({}))).await;
    }
    let answer = set.world.call("POST", &set.path, Some(set.body(json!({})))).await;
    answer.is_refused(409, "resource_quota_exceeded");
}

mod t12_foothold_control_resource {
    use super::*;

    #[tokio::test]
    async fn the_control_resource_is_for_global_tokens_only() {
        let set = Setting::new().await;
        let own = set.world.mint("write", Some(&set.zone)).await;
        let body = json!({"identifier": "caracal-control", "scopes": ["control:app:read"]});
        let answer = set.world.call_as(Some(&own), "POST", &set.path, Some(body.clone())).await;
        answer.is_refused(409, "protected_resource");
        let created = set.world.call("POST", &set.path, Some(body)).await.is(201);
        let built_in = format!("provider-none-{}", set.zone);
        assert_eq!((&created["credential_provider_id"], &created["upstream_url"]), (&json!(built_in), &json!(null)));
        let provider = set.world.get(&format!("/v1/zones/{}/providers/{built_in}", set.zone)).await.is(200);
        assert_eq!((&provider["name"], &provider["identifier"]), (&json!("No credential"), &json!("provider://none")));

        let one = format!("{}/{}", set.path, created["id"].as_str().unwrap());
        set.world.get(&one).await.is(200);
        assert_eq!(set.world.get(&set.path).await.is(200)["items"].as_array().unwrap().len(), 1);
        assert_eq!(set.world.call_as(Some(&own), "GET", &set.path, None).await.is(200)["items"], json!([]));
        set.world.call_as(Some(&own), "GET", &one, None).await.is_refused(404, "resource_not_found");
        let rename = Some(json!({"name": "x"}));
        set.world.call_as(Some(&own), "PATCH", &one, rename).await.is_refused(409, "protected_resource");

        // Nor may an ordinary resource become it.
        let ordinary = set.world.create(&set.path, set.body(json!({}))).await;
        let become_control = Some(json!({"identifier": "caracal-control"}));
        let answer = set.world.call_as(Some(&own), "PATCH", &format!("{}/{ordinary}", set.path), become_control).await;
        answer.is_refused(409, "protected_resource");
    }

    #[tokio::test]
    async fn a_provider_in_the_built_in_one_s_place_is_said_so() {
        let set = Setting::new().await;
        let providers = format!("/v1/zones/{}/providers", set.zone);
        let squatter = set.world.create(&providers, json!({"name": "None", "kind": "none"})).await;
        let body = json!({"identifier": "caracal-control", "scopes": ["control:app:read"]});
        let answer = set.world.call("POST", &set.path, Some(body.clone())).await;
        answer.is_refused(409, "provider_identifier_conflict");
        assert_eq!(set.world.get(&set.path).await.is(200)["items"], json!([]));
        let mut named = body;
        named["credential_provider_id"] = json!(squatter);
        set.world.call("POST", &set.path, Some(named)).await.is(201);
    }

    #[tokio::test]
    async fn only_the_bootstrap_token_says_where_a_reserved_credential_goes() {
        let set = Setting::new().await;
        let own = set.world.mint("write", Some(&set.zone)).await;
        let write = set.world.mint("write", None).await;
        let config = json!({"header_name": "X-Key", "api_key": "sk-1"});
        let reserved = json!({"identifier": "provider://caracal-sys-x", "kind": "api_key", "config_json": config});
        let provider = set.world.create(&format!("/v1/zones/{}/providers", set.zone), reserved).await;
        let bound = set.body(json!({"credential_provider_id": provider, "upstream_url": "https://mine.example"}));
        let ordinary = format!("{}/{}", set.path, set.world.create(&set.path, set.body(json!({}))).await);
        let system = format!("{}/{}", set.path, set.world.create(&set.path, bound.clone()).await);
        for token in [&own, &write] {
            for (method, path, body) in [
                ("POST", &set.path, bound.clone()),
                ("PATCH", &ordinary, json!({"credential_provider_id": provider})),
                ("PATCH", &system, json!({"upstream_url": "https://mine.example"})),
                ("PATCH", &system, json!({"credential_provider_id": provider, "name": "x"})),
            ] {
                let answer = set.world.call_as(Some(token), method, path, Some(body)).await;
                answer.is_refused(409, "reserved_namespace");
            }
            set.world.call_as(Some(token), "PATCH", &system, Some(json!({"name": "x"}))).await.is(200);
        }
        let elsewhere = Some(json!({"upstream_url": "https://ours.example"}));
        set.world.call("PATCH", &system, elsewhere).await.is(200);
    }

    #[tokio::test]
    async fn only_the_bootstrap_token_touches_a_reserved_resource() {
        let set = Setting::new().await;
        let write = set.world.mint("write", None).await;
        let id = set.world.create(&set.path, set.body(json!({"identifier": "caracal-sys://x"}))).await;
        let one = format!("{}/{id}", set.path);
        let rename = Some(json!({"name": "x"}));
        set.world.call_as(Some(&write), "PATCH", &one, rename.clone()).await.is_refused(409, "reserved_namespace");
        set.world.call("PATCH", &one, rename).await.is(200);
    }
}
