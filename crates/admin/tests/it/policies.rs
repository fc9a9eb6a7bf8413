//! Policies and their versions.

use serde_json::{Value, json};

use crate::world::{EMPTY_GRANTS, World};

/// A valid document with these rules.
fn document(rules: &str) -> String {
    format!("# caracal:data-document\npackage caracal.authz\nimport rego.v1\n{rules}\n")
}

#[tokio::test]
async fn a_policy_is_created_with_its_first_version_and_gets_more() {
    let world = World::new().await;
    let zone = world.zone("Ops").await;
    let path = format!("/v1/zones/{zone}/policies");
    let content = "# caracal:data-document\npackage caracal.authz\nimport rego.v1\napp_ids := {\"app-1\":\"app-1\"}\n\
                   grants := {\"resource://n\":{\"application\":\"app-1\",\"roles\":{\"app-1\":[\"n:read\"]}}}\n";
    let sha = "d83c824a54849ee22238792e2292341cc34b6f849f8bbccd74590c99ba1a2877";
    let body = json!({"name": "grants", "description": "who may", "content": content, "ignored": 1});
    let created = world.call("POST", &path, Some(body)).await.is(201);
    let (id, version) = (created["id"].as_str().unwrap(), created["version_id"].as_str().unwrap());
    let expected = json!({
        "id": id, "version_id": version, "zone_id": zone, "name": "grants", "description": "who may",
        "version": {
            "id": version, "policy_id": id, "version": 1, "content_sha256": sha, "schema_version": "2026-05-20",
            "created_at": "2026-01-01T00:00:00.000Z",
        },
    });
    assert_eq!(created, expected);

    let next = world.call("POST", &format!("{path}/{id}/versions"), Some(json!({"content": content}))).await.is(201);
    let expected = json!({
        "version_id": next["version_id"], "id": next["version_id"], "policy_id": id, "version": 2,
        "content_sha256": sha, "schema_version": "2026-05-20", "created_at": "2026-01-01T00:00:00.000Z",
    });
    assert_eq!(next, expected);

    let found = world.get(&format!("{path}/{id}")).await.is(200);
    assert_eq!(found["versions"][0]["version"], 2);
    let first = json!({
        "id": version, "policy_id": id, "version": 1, "content": content, "content_sha256": sha,
        "schema_version": "2026-05-20", "created_by": found["created_by"],
        "created_at": "2026-01-01T00:00:00.000000+00:00", "archived_at": null, "created_via_operator": false,
    });
    assert_eq!(found["versions"][1], first);

    let listed = world.get(&path).await.is(200);
    let latest = json!({"version_id": next["version_id"], "version": 2, "content_sha256": sha});
    assert_eq!((&listed["items"][0]["id"], &listed["items"][0]["latest_version"]), (&json!(id), &latest));
}

#[tokio::test]
async fn a_policy_is_refused_in_the_contracts_order() {
    let world = World::new().await;
    let zone = world.zone("Ops").await;
    let write = world.mint("write", None).await;
    let path = format!("/v1/zones/{zone}/policies");
    let good = EMPTY_GRANTS;
    world.create(&path, json!({"name": "taken", "content": good})).await;
    for (body, status, code) in [
        (json!({"name": "", "content": good}), 400, "invalid_body"),
        (json!({"name": "x", "content": ""}), 400, "invalid_body"),
        (json!({"name": "x"}), 400, "invalid_body"),
        (json!({"name": "x", "description": 1, "content": good}), 400, "invalid_body"),
        (json!({"name": " Caracal.SYS/x", "content": "broken"}), 409, "reserved_namespace"),
        (json!({"name": "taken", "content": "broken"}), 422, "invalid_rego"),
        (json!({"name": "taken", "content": good}), 409, "policy_name_conflict"),
    ] {
        let answer = world.call_as(Some(&write), "POST", &path, Some(body.clone())).await;
        assert_eq!(answer.refused(), (status, code.to_owned()), "{body}");
    }
    let issues = world.call("POST", &path, Some(json!({"name": ""}))).await;
    let issue = json!([{"path": ["name"], "message": "must have 1 to 512 characters"}]);
    assert_eq!(issues.json()["details"]["issues"], issue);
    world.call("POST", "/v1/zones/none/policies", Some(json!({}))).await.is_refused(404, "zone_not_found");

    let versions = |id: &str| format!("{path}/{id}/versions");
    world.call("POST", &versions("none"), Some(json!({}))).await.is_refused(400, "invalid_body");
    let bad = Some(json!({"content": "bad"}));
    world.call("POST", &versions("none"), bad).await.is_refused(422, "invalid_rego");
    let content = Some(json!({"content": good}));
    world.call("POST", &versions("none"), content).await.is_refused(404, "policy_not_found");
    world.get(&format!("{path}/none")).await.is_refused(404, "policy_not_found");
    world.call("DELETE", &format!("{path}/none"), None).await.is_refused(404, "policy_not_found");
}

#[tokio::test]
async fn the_text_check_answers_with_its_code_and_the_place() {
    let world = World::new().await;
    let long = |length: usize| {
        let head = document("grants := {}");
        format!("{head}#{}", "x".repeat(length - head.len() - 1))
    };
    for (content, code) in [
        ("default allow = false".to_owned(), "missing_package_declaration"),
        ("package caracal.authz\ndefault allow = false".to_owned(), "must_be_data_document"),
        (document("result := 1"), "data_document_must_not_define_result"),
        (document("helper := 1"), "data_document_rule_not_allowed:helper"),
        (document(""), "data_document_must_define_data"),
        ("# caracal:data-document\npackage other\ngrants := {}".to_owned(), "must_use_package_caracal_authz"),
        (document("grants := \"oops"), "unterminated_string"),
        (document("grants := {"), "unbalanced_delimiters"),
        (document("grants := rand.intn(\"a\", http.send({}))"), "forbidden_builtin:http.send"),
        (long(262_145), "content_too_large"),
    ] {
        let answer = world.call("POST", "/v1/policies/validate", Some(json!({"content": content}))).await;
        answer.is_refused(422, "invalid_rego");
        let body = answer.json();
        assert_eq!((&body["valid"], &body["error_description"]), (&json!(false), &json!(code)));
        assert!(body["details"]["line"].as_u64().unwrap() >= 1 && body["details"]["column"].as_u64().unwrap() >= 1);
    }
    let place = world.call("POST", "/v1/policies/validate", Some(json!({"content": document("helper := 1")}))).await;
    assert_eq!((&place.json()["details"]["line"], &place.json()["details"]["column"]), (&json!(4), &json!(1)));
    world.call("POST", "/v1/policies/validate", Some(json!({"content": long(262_144)}))).await.is(200);
    let strings = document("grants := {\"#\": \"}\"} # }");
    world.call("POST", "/v1/policies/validate", Some(json!({"content": strings}))).await.is(200);
}

#[tokio::test]
async fn what_no_set_could_serve_is_not_valid() {
    let world = World::new().await;
    for (rules, code, column) in [
        ("grants(x) := {}", "root_is_a_function", 1),
        ("result[\"a\"] := 1\ngrants := {}", "rule_not_allowed", 1),
        ("restrict contains \"x\" if restrict[\"y\"]", "recursive_definition", 1),
        ("restrict contains \"x\" if regex.match(\"a\", input.principal.id)", "function_not_available", 26),
        ("restrict contains \"x\" if data.caracal.authz.result", "foreign_reference", 26),
    ] {
        let content = document(rules);
        let answer = world.call("POST", "/v1/policies/validate", Some(json!({"content": content}))).await;
        answer.is_refused(422, "invalid_rego");
        let body = answer.json();
        assert_eq!((&body["valid"], &body["error_description"]), (&json!(false), &json!(code)), "{rules}");
        assert_eq!(body["details"]["column"], json!(column), "{rules}: {body}");
        assert!(body["details"]["message"].as_str().unwrap().len() > 20);
    }
    let content = document("restrict contains id if {\n  id := input.principal.id\n  id == \"app-1\"\n}");
    world.call("POST", "/v1/policies/validate", Some(json!({"content": content}))).await.is(200);
}

#[tokio::test]
async fn validation_says_what_a_document_defines() {
    let world = World::new().await;
    let answer = world.call("POST", "/v1/policies/validate", Some(json!({"content": EMPTY_GRANTS}))).await.is(200);
    let expected = json!({
        "valid": true, "schema_version": "2026-05-20", "input_schema_version": "2026-05-20",
        "output_contract": {
            "package": "caracal.authz", "rule": "result", "decision": ["allow", "deny"],
            "evaluation_status": ["complete"],
        },
        "preview": {
            "package": "caracal.authz", "rules": ["app_ids", "grants"], "default_result": false, "decisions": [],
            "inputs_referenced": [], "data_referenced": [],
        },
    });
    assert_eq!(answer, expected);
    world.call("POST", "/v1/policies/validate", Some(json!({}))).await.is_refused(400, "invalid_body");
}

#[tokio::test]
async fn read_and_foreign_tokens_may_validate_and_not_create() {
    let world = World::new().await;
    let (zone, other) = (world.zone("Ops").await, world.zone("Other").await);
    let body = || Some(json!({"name": "x", "content": EMPTY_GRANTS}));
    for token in [world.mint("read", None).await, world.mint("write", Some(&other)).await] {
        world.call_as(Some(&token), "POST", "/v1/policies/validate", body()).await.is(200);
        let answer = world.call_as(Some(&token), "POST", &format!("/v1/zones/{zone}/policies"), body()).await;
        assert_eq!(answer.status, 403);
    }
}

#[tokio::test]
async fn the_catalog_is_a_bare_array_whose_documents_pass() {
    let world = World::new().await;
    let catalog = world.get("/v1/policy-templates").await.is(200);
    let ids: Vec<&Value> = catalog.as_array().unwrap().iter().map(|template| &template["id"]).collect();
    assert_eq!(ids, ["application-bindings", "resource-grants", "label-confinement", "zone-restriction"]);
    for template in catalog.as_array().unwrap() {
        let body = json!({"content": template["content"]});
        world.call("POST", "/v1/policies/validate", Some(body)).await.is(200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_versions_get_consecutive_numbers() {
    let world = std::sync::Arc::new(World::new().await);
    let zone = world.zone("Ops").await;
    let path = format!("/v1/zones/{zone}/policies");
    let id = world.create(&path, json!({"name": "p", "content": EMPTY_GRANTS})).await;
    let mut calls = Vec::new();
    for _ in 0..8 {
        let (world, path) = (world.clone(), format!("{path}/{id}/versions"));
        calls.push(tokio::spawn(async move {
            let answer = world.call("POST", &path, Some(json!({"content": EMPTY_GRANTS}))).await.is(201);
            answer["version"].as_i64().unwrap()
        }));
    }
    let mut numbers = Vec::new();
    for call in calls {
        numbers.push(call.await.unwrap());
    }
    numbers.sort_unstable();
    assert_eq!(numbers, [2, 3, 4, 5, 6, 7, 8, 9]);
}

#[tokio::test]
async fn an_archived_policy_is_gone_from_sight_and_its_name_is_free() {
    let world = World::new().await;
    let zone = world.zone("Ops").await;
    let path = format!("/v1/zones/{zone}/policies");
    let id = world.create(&path, json!({"name": "p", "content": EMPTY_GRANTS})).await;
    let gone = world.call("DELETE", &format!("{path}/{id}"), None).await;
    assert_eq!((gone.status.as_u16(), gone.text.as_str()), (204, ""));
    world.call("DELETE", &format!("{path}/{id}"), None).await.is_refused(404, "policy_not_found");
    world.get(&format!("{path}/{id}")).await.is_refused(404, "policy_not_found");
    assert_eq!(world.get(&path).await.is(200)["items"], json!([]));
    world.create(&path, json!({"name": "p", "content": EMPTY_GRANTS})).await;
}

#[tokio::test]
async fn t12_foothold_only_the_bootstrap_token_touches_a_reserved_policy() {
    let world = World::new().await;
    let zone = world.zone("Ops").await;
    let write = world.mint("write", None).await;
    let path = format!("/v1/zones/{zone}/policies");
    let id = world.create(&path, json!({"name": "caracal.sys/x", "content": EMPTY_GRANTS})).await;
    let (versions, body) = (format!("{path}/{id}/versions"), Some(json!({"content": EMPTY_GRANTS})));
    world.call_as(Some(&write), "POST", &versions, body.clone()).await.is_refused(409, "reserved_namespace");
    let answer = world.call_as(Some(&write), "DELETE", &format!("{path}/{id}"), None).await;
    answer.is_refused(409, "reserved_namespace");
    world.call("POST", &versions, body).await.is(201);
}
