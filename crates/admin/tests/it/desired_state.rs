//! A zone as one document: export, import, and the plan of an import (docs/decisions/0048).

use serde_json::{Value, json};

use crate::world::{Answer, BOOTSTRAP, EMPTY_GRANTS, World, idp};

/// A zone with one of everything that a document can speak of, and with what it leaves out.
async fn furnished(world: &World, name: &str) -> String {
    let zone = world.zone(name).await;
    let at = |path: &str| format!("/v1/zones/{zone}{path}");
    let key = json!({"identifier": "provider://key", "name": "Key", "kind": "api_key",
        "config_json": {"api_key": "sk-very-secret", "header_name": "X-Key"}});
    let key = world.create(&at("/providers"), key).await;
    let token = json!({"identifier": "provider://bearer", "kind": "bearer_token",
        "config_json": {"bearer_token": "bt-very-secret", "allowed_token_hosts": ["API.example"]}});
    world.create(&at("/providers"), token).await;
    let basic = json!({"identifier": "provider://basic", "kind": "http_basic",
        "config_json": {"username": "u", "password": "pw-very-secret"}});
    world.create(&at("/providers"), basic).await;
    let client = json!({"identifier": "provider://client", "kind": "oauth2_client_credentials",
        "config_json": {"token_endpoint": format!("{}/token", idp().url()), "client_id": "c",
            "client_secret": "cs-very-secret"}});
    world.create(&at("/providers"), client).await;
    world.create(&at("/providers"), json!({"identifier": "provider://mandate", "kind": "caracal_mandate"})).await;
    let resource = json!({"identifier": "resource://books", "name": "Books", "scopes": ["read", "write"],
        "upstream_url": "https://books.example", "credential_provider_id": key,
        "operations": [{"method": "get", "path": "/books/{id}", "scope": "read"}],
        "limits": {"upstream_timeout_ms": 1000}});
    world.create(&at("/resources"), resource).await;
    world.create(&at("/resources"), json!({"identifier": "caracal-control", "scopes": ["control:app:read"]})).await;
    for (name, traits) in [("Bot", json!(["agent"])), ("Key to control", json!(["control:invoke"]))] {
        let application = json!({"name": name, "registration_method": "managed", "traits": traits});
        world.create(&at("/applications"), application).await;
    }
    world.call("PATCH", &at(""), Some(json!({"dcr_enabled": true}))).await.is(200);
    world.create(&at("/applications/dcr"), json!({"name": "Self"})).await;
    let reserved = json!({"name": "caracal.sys/x", "registration_method": "managed"});
    world.create(&at("/applications"), reserved).await;
    let policy = json!({"name": "baseline", "description": "d", "content": EMPTY_GRANTS});
    let policy = world.call("POST", &at("/policies"), Some(policy)).await.is(201);
    let set = world.create(&at("/policy-sets"), json!({"name": "main"})).await;
    let manifest = json!({"manifest": [{"policy_version_id": policy["version_id"]}]});
    world.create(&at(&format!("/policy-sets/{set}/versions")), manifest).await;
    zone
}

async fn export(world: &World, zone: &str) -> Value {
    world.get(&format!("/v1/zones/{zone}/export")).await.is(200)
}

async fn import(world: &World, zone: &str, query: &str, document: &Value) -> Answer {
    world.call("POST", &format!("/v1/zones/{zone}/import{query}"), Some(document.clone())).await
}

/// What was, or would be, done: `kind identity: action drift`.
fn told(report: &Value) -> Vec<String> {
    let line = |outcome: &Value| {
        let text = |name: &str| outcome[name].as_str().unwrap_or_default().to_owned();
        let drift = outcome["drift"]
            .as_array()
            .map(|names| format!(" {}", names.iter().map(|name| name.as_str().unwrap()).collect::<Vec<_>>().join(",")));
        format!("{} {}: {}{}", text("kind"), text("identity"), text("action"), drift.unwrap_or_default())
    };
    report["outcomes"].as_array().unwrap().iter().map(line).collect()
}

fn object<'d>(document: &'d mut Value, identity: &str) -> &'d mut Value {
    let objects = document["objects"].as_array_mut().unwrap();
    let names = |spec: &Value| [&spec["name"], &spec["identifier"]].into_iter().any(|name| name == identity);
    &mut objects.iter_mut().find(|object| names(&object["spec"])).unwrap()["spec"]
}

#[tokio::test(flavor = "multi_thread")]
async fn t05_secrets_an_export_has_the_zone_and_no_secret_and_imports_as_no_change() {
    let world = World::new().await;
    let zone = furnished(&world, "Whole").await;
    let exported = world.get(&format!("/v1/zones/{zone}/export")).await;
    for secret in ["very-secret", "argon2", "cs_"] {
        assert!(!exported.text.contains(secret), "{secret}");
    }
    let document = exported.is(200);
    let mut specs: Vec<String> = Vec::new();
    for object in document["objects"].as_array().unwrap() {
        let spec = &object["spec"];
        let identity = spec.get("identifier").unwrap_or(&spec["name"]).as_str().unwrap();
        specs.push(format!("{} {identity}", object["kind"].as_str().unwrap()));
        assert!(spec.get("id").is_none() && spec.get("zone_id").is_none());
    }
    let expected = [
        "identity-provider provider://basic",
        "identity-provider provider://bearer",
        "identity-provider provider://client",
        "identity-provider provider://key",
        "identity-provider provider://mandate",
        "application Bot",
        "application Key to control",
        "resource resource://books",
        "policy baseline",
        "policy-set main",
    ];
    assert_eq!(specs, expected);
    let mut copy = document.clone();
    assert_eq!(object(&mut copy, "provider://key")["secret_config_keys"], json!(["api_key"]));
    assert_eq!(object(&mut copy, "resource://books")["credential_provider"], "provider://key");
    assert_eq!(object(&mut copy, "main")["policies"], json!(["baseline"]));
    let report = import(&world, &zone, "?prune=true", &document).await.is(200);
    assert_eq!((&report["drift"], &report["ok"]), (&json!(false), &json!(true)), "{report}");
    assert_eq!(report["summary"], json!({"created": 0, "updated": 0, "unchanged": 10, "pruned": 0, "failed": 0}));
    assert_eq!(export(&world, &zone).await, document);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_makes_another_zone_the_same_once_its_secrets_are_added() {
    let world = World::new().await;
    let (from, to) = (furnished(&world, "From").await, world.zone("To").await);
    let mut document = export(&world, &from).await;
    let refused = import(&world, &to, "", &document).await;
    refused.is_refused(422, "import_refused");
    let report = &refused.json()["details"];
    // Four providers lack their secret, and a resource its provider.
    assert_eq!(report["summary"]["failed"], 5, "{report}");
    let failed: Vec<&Value> =
        report["outcomes"].as_array().unwrap().iter().filter(|outcome| outcome.get("error").is_some()).collect();
    assert_eq!(failed[0]["error"]["reason"], "invalid_provider_config (HTTP 400)");
    assert_eq!(failed[4]["error"], json!({"code": "not_found", "reason": "provider_not_found (HTTP 404)"}));
    assert!(failed.iter().all(|outcome| outcome["applied"] == false && outcome.get("id").is_none()));
    // Nothing of it is there.
    assert_eq!(export(&world, &to).await, json!({"objects": []}));
    for (identity, key) in [
        ("provider://key", "api_key"),
        ("provider://bearer", "bearer_token"),
        ("provider://basic", "password"),
        ("provider://client", "client_secret"),
    ] {
        object(&mut document, identity)["config"][key] = "new-very-secret".into();
    }
    // Whatever the order in the document.
    document["objects"].as_array_mut().unwrap().reverse();
    let report = import(&world, &to, "", &document).await.is(200);
    assert_eq!(report["summary"]["created"], 10, "{report}");
    assert!(report["outcomes"].as_array().unwrap().iter().all(|outcome| outcome["applied"] == true));
    assert!(report["outcomes"][0]["kind"] == "policy-set" && !report.to_string().contains("very-secret"));
    let mut same = export(&world, &from).await;
    object(&mut same, "main").as_object_mut().unwrap().remove("active");
    assert_eq!(export(&world, &to).await, same);
    let bot = told(&report).iter().position(|line| line == "application Bot: create").unwrap();
    let bot = report["outcomes"][bot]["id"].as_str().unwrap().to_owned();
    // It has no secret before it is given one.
    let at = format!("/v1/zones/{to}/applications/{bot}");
    world.get(&format!("{at}/client-secret")).await.is_refused(404, "client_secret_not_stored");
    let secret = world.call("POST", &format!("{at}/rotate-secret"), None).await.is(200);
    assert!(world.secret_is_right(&to, &bot, secret["client_secret"].as_str().unwrap()).await);
    let provider = report["outcomes"].as_array().unwrap().iter().find(|one| one["identity"] == "provider://key");
    let sealed = world.provider_secrets(&to, provider.unwrap()["id"].as_str().unwrap()).await.unwrap();
    assert_eq!(sealed, json!({"api_key": "new-very-secret"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_shows_what_the_import_then_does() {
    let world = World::new().await;
    let zone = furnished(&world, "Plan").await;
    let before = export(&world, &zone).await;
    let mut document = before.clone();
    object(&mut document, "resource://books")["scopes"] = json!(["write", "read", "list"]);
    object(&mut document, "Bot")["traits"] = json!(["agent", "night"]);
    object(&mut document, "baseline")["content"] = format!("{EMPTY_GRANTS}# more\n").into();
    object(&mut document, "provider://key")["name"] = "Renamed".into();
    let objects = document["objects"].as_array_mut().unwrap();
    objects.retain(|object| object["spec"]["identifier"] != "provider://mandate");
    objects.retain(|object| object["spec"]["name"] != "Key to control");
    objects.push(json!({"kind": "application", "spec": {"name": "Fresh"}}));
    let plan = import(&world, &zone, "?dry_run=true&prune=true", &document).await.is(200);
    let expected = [
        "identity-provider provider://basic: unchanged",
        "identity-provider provider://bearer: unchanged",
        "identity-provider provider://client: unchanged",
        "identity-provider provider://key: update name",
        "application Bot: update traits",
        "resource resource://books: update scopes",
        "policy baseline: update content",
        "policy-set main: update policies",
        "application Fresh: create",
        "identity-provider provider://mandate: prune",
    ];
    assert_eq!(told(&plan), expected);
    assert_eq!((&plan["dryRun"], &plan["prune"], &plan["drift"]), (&json!(true), &json!(true), &json!(true)));
    assert!(plan["outcomes"][8].get("id").is_none() && plan["outcomes"][8]["applied"] == false);
    assert_eq!(export(&world, &zone).await, before);
    let done = import(&world, &zone, "?prune=true", &document).await.is(200);
    assert_eq!(told(&done), expected);
    let again = import(&world, &zone, "?prune=true", &document).await.is(200);
    assert_eq!(again["drift"], false, "{again}");
    // A name's change left the secret where it was, and a control key is pruned by nobody.
    let provider = done["outcomes"][3]["id"].as_str().unwrap();
    assert_eq!(world.provider_secrets(&zone, provider).await.unwrap(), json!({"api_key": "sk-very-secret"}));
    let listed = world.get(&format!("/v1/zones/{zone}/applications")).await.is(200);
    for name in ["Key to control", "Self", "caracal.sys/x"] {
        assert!(listed["items"].as_array().unwrap().iter().any(|item| item["name"] == name), "{name}");
    }
    // Each object's own history tells of it, and no record has a value.
    let records = world.records(Some(&zone)).await;
    let mut of_objects: Vec<(String, &str)> = records
        .iter()
        .filter_map(|row| Some((row.action.strip_prefix("Import ")?.to_owned(), row.entity_type.as_deref()?)))
        .collect();
    of_objects.sort();
    let expected = [
        ("create", "applications"),
        ("prune", "providers"),
        ("update", "applications"),
        ("update", "policies"),
        ("update", "policy-sets"),
        ("update", "providers"),
        ("update", "resources"),
    ];
    assert_eq!(of_objects, expected.map(|(action, entity)| (action.to_owned(), entity)));
    let imports = records.iter().filter(|row| row.path.ends_with("/import") && row.action.starts_with("POST")).count();
    assert_eq!(imports, 2);
    assert!(records.iter().all(|row| !row.payload.as_deref().unwrap_or_default().contains("night")));
}

#[tokio::test(flavor = "multi_thread")]
async fn t04_state_an_import_is_all_of_it_or_nothing() {
    let world = World::new().await;
    let zone = world.zone("All").await;
    let spec = |kind: &str, spec: Value| json!({"kind": kind, "spec": spec});
    let good = spec("application", json!({"name": "Good"}));
    let control = json!({"identifier": "caracal-control", "scopes": ["control:app:read"]});
    world.create(&format!("/v1/zones/{zone}/resources"), control).await;
    for (bad, code) in [
        (spec("identity-provider", json!({"identifier": "provider://x"})), "invalid_provider (HTTP 400)"),
        (
            spec("identity-provider", json!({"identifier": "x", "kind": "none"})),
            "invalid_provider_identifier (HTTP 400)",
        ),
        (
            spec(
                "identity-provider",
                json!({"identifier": "provider://x", "kind": "none", "config": {"api_key": "leaked-secret"}}),
            ),
            "invalid_provider_config (HTTP 400)",
        ),
        (spec("application", json!({"name": "a", "traits": ["control:nothing"]})), "trait_invalid (HTTP 403)"),
        (spec("application", json!({"name": "GOOD"})), "application_name_taken (HTTP 409)"),
        (
            spec(
                "resource",
                json!({"identifier": "resource://x", "scopes": ["r"], "upstream_url": "https://x.example",
            "credential_provider": "provider://absent"}),
            ),
            "provider_not_found (HTTP 404)",
        ),
        (
            spec(
                "resource",
                json!({"identifier": "resource://x", "scopes": ["r"], "upstream_url": "https://x.example",
            "credential_provider": null}),
            ),
            "credential_provider_required (HTTP 400)",
        ),
        (
            spec(
                "resource",
                json!({"identifier": "resource://x", "scopes": ["r"], "credential_provider": "provider://none"}),
            ),
            "upstream_url_required (HTTP 400)",
        ),
        (
            spec("identity-provider", json!({"identifier": "provider://none", "kind": "none"})),
            "provider_identifier_conflict (HTTP 409)",
        ),
        (spec("resource", json!({"identifier": "x", "scopes": ["r"]})), "invalid_resource_identifier (HTTP 400)"),
        (spec("resource", json!({"identifier": "caracal-control", "scopes": ["r"]})), "protected_resource (HTTP 409)"),
        (spec("policy", json!({"name": "p"})), "invalid_body (HTTP 400)"),
        (spec("policy", json!({"name": "p", "content": "package x"})), "invalid_rego (HTTP 422)"),
        (spec("policy-set", json!({"name": "s", "policies": ["absent"]})), "policy_not_found (HTTP 404)"),
    ] {
        let document = json!({"objects": [good, bad]});
        let refused = import(&world, &zone, "", &document).await;
        refused.is_refused(422, "import_refused");
        let outcome = refused.json()["details"]["outcomes"][1].clone();
        assert_eq!(outcome["error"]["reason"], code, "{bad}");
        assert!(!refused.text.contains("leaked-secret"), "{bad}");
        let plan = import(&world, &zone, "?dry_run=true", &document).await.is(200);
        assert_eq!((&plan["ok"], &plan["outcomes"][1]["error"]), (&json!(false), &outcome["error"]), "{bad}");
        assert_eq!(export(&world, &zone).await, json!({"objects": []}), "{bad}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_is_none_is_refused_as_a_whole() {
    let world = World::new().await;
    let (zone, other) = (world.zone("Bad").await, world.zone("Other").await);
    let many: Vec<Value> =
        (0..1_001).map(|n| json!({"kind": "application", "spec": {"name": format!("a{n}")}})).collect();
    let twice = json!({"kind": "policy-set", "spec": {"name": "s"}});
    for body in [
        json!([]),
        json!({}),
        json!({"objects": {}}),
        json!({"objects": ["x"]}),
        json!({"objects": [{"spec": {"name": "a"}}]}),
        json!({"objects": [{"kind": "grant", "spec": {"name": "a"}}]}),
        json!({"objects": [{"kind": "application"}]}),
        json!({"objects": [{"kind": "application", "spec": {"name": 5}}]}),
        json!({"objects": [{"kind": "resource", "spec": {"name": "only a name"}}]}),
        json!({"objects": [twice, twice]}),
        json!({"objects": many}),
    ] {
        import(&world, &zone, "", &body).await.is_refused(400, "invalid_document");
    }
    let elsewhere = json!({"objects": [{"kind": "application", "spec": {"name": "a", "zone_id": other}}]});
    import(&world, &zone, "", &elsewhere).await.is_refused(409, "zone_mismatch");
    import(&world, &zone, "?prune=perhaps", &json!({"objects": []})).await.is_refused(400, "invalid_query");
    import(&world, "absent", "", &json!({"objects": []})).await.is_refused(404, "zone_not_found");
    world.get("/v1/zones/absent/export").await.is_refused(404, "zone_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn t12_foothold_a_zones_own_token_imports_nothing_that_is_above_it() {
    let world = World::new().await;
    let (zone, other) = (furnished(&world, "Own").await, world.zone("Foreign").await);
    let own = world.mint("write", Some(&zone)).await;
    let at = |zone: &str, end: &str| format!("/v1/zones/{zone}{end}");
    let mut document = world.call_as(Some(&own), "GET", &at(&zone, "/export"), None).await.is(200);
    assert!(document["objects"].as_array().unwrap().iter().all(|object| object["spec"].get("traits").is_none()));
    let import =
        async |body: &Value| world.call_as(Some(&own), "POST", &at(&zone, "/import"), Some(body.clone())).await;
    assert_eq!(import(&document).await.is(200)["drift"], false);
    object(&mut document, "Bot")["traits"] = json!(["control:invoke"]);
    let refused = import(&document).await;
    refused.is_refused(422, "import_refused");
    let refused = refused.json();
    assert!(refused.to_string().contains("trait_forbidden (HTTP 403)"), "{refused}");
    for reserved in [
        json!({"kind": "application", "spec": {"name": "CARACAL.SYS/y"}}),
        json!({"kind": "policy", "spec": {"name": "caracal.sys/y", "content": EMPTY_GRANTS}}),
        json!({"kind": "identity-provider", "spec": {"identifier": "provider://caracal-sys-y", "kind": "none"}}),
        json!({"kind": "resource", "spec": {"identifier": "caracal-sys://y", "scopes": ["r"],
            "upstream_url": "https://y.example", "credential_provider": "provider://none"}}),
    ] {
        let by_bootstrap = super::desired_state::import(&world, &zone, "", &json!({"objects": [reserved]})).await;
        assert!(by_bootstrap.text.contains("reserved_namespace (HTTP 409)"), "{} {reserved}", by_bootstrap.text);
        let refused = import(&json!({"objects": [reserved]})).await;
        assert!(refused.text.contains("reserved_namespace (HTTP 409)"), "{} {reserved}", refused.text);
    }
    for end in ["/export", "/import"] {
        let method = if end == "/export" { "GET" } else { "POST" };
        let body = Some(json!({"objects": []}));
        world.call_as(Some(&own), method, &at(&other, end), body).await.is_refused(403, "admin_token_zone_mismatch");
    }
    let reader = world.mint("read", Some(&zone)).await;
    let refused = world.call_as(Some(&reader), "POST", &at(&zone, "/import"), Some(json!({"objects": []}))).await;
    refused.is_refused(403, "admin_token_read_only");
    world.call_as(Some(BOOTSTRAP), "GET", &at(&zone, "/export"), None).await.is(200);
}

/// Nothing listens here at all: every part of an import is done in process, in the transaction of its zone.
#[tokio::test(flavor = "multi_thread")]
async fn t12_foothold_many_operations_at_once_are_one_callers_in_one_zone() {
    let world = World::new().await;
    let (zone, other) = (world.zone("Own").await, world.zone("Foreign").await);
    let own = world.mint("write", Some(&zone)).await;
    let document = json!({"objects": [
        {"kind": "identity-provider", "spec": {"identifier": "provider://none", "kind": "none"}},
        {"kind": "application", "spec": {"name": "Bot"}},
        {"kind": "resource", "spec": {"identifier": "resource://books", "scopes": ["read"],
            "upstream_url": "https://books.example", "credential_provider": "provider://none"}},
        {"kind": "policy", "spec": {"name": "baseline", "content": EMPTY_GRANTS}},
        {"kind": "policy-set", "spec": {"name": "main", "policies": ["baseline"]}},
    ]});
    let path = format!("/v1/zones/{zone}/import");
    let report = world.call_as(Some(&own), "POST", &path, Some(document)).await.is(200);
    assert_eq!(told(&report).len(), 5);
    let records = world.records(Some(&zone)).await;
    let of_import: Vec<_> = records.iter().filter(|record| record.path.ends_with("/import")).collect();
    // One of each object, and that of the import: all under the token that asked, and none under another.
    assert_eq!(of_import.len(), 6, "{of_import:?}");
    for record in &of_import {
        assert_eq!(record.actor_id, of_import[0].actor_id);
        assert_eq!(record.actor_scope, of_import[0].actor_scope);
        assert_eq!(record.request_id, of_import[0].request_id);
        assert_eq!(record.zone_id.as_deref(), Some(zone.as_str()));
    }
    assert!(of_import[0].actor_scope.as_deref().is_some_and(|scope| scope != "global"), "{of_import:?}");
    for chain in [Some(other.as_str()), None] {
        let elsewhere = world.records(chain).await;
        assert!(elsewhere.iter().all(|record| !record.path.ends_with("/import")), "{elsewhere:?}");
    }
}
