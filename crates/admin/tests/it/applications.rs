//! Applications.

use serde_json::json;

use crate::world::{World, by_name};

#[tokio::test]
async fn an_application_is_created_found_renamed_and_given_another_secret() {
    let world = World::new().await;
    let zone = world.zone("Ops").await;
    let path = format!("/v1/zones/{zone}/applications");
    let body = json!({"name": " Bot ", "registration_method": "managed", "traits": ["team:a"]});
    let created = world.call("POST", &path, Some(body)).await.is(201);
    let secret = created["client_secret"].as_str().unwrap();
    assert!(secret.starts_with("cs_") && secret.len() == 46);
    let names: Vec<&String> = created.as_object().unwrap().keys().collect();
    let expected = [
        "client_secret",
        "created_at",
        "created_by",
        "created_via_operator",
        "expires_at",
        "id",
        "name",
        "registration_method",
        "updated_at",
        "updated_by",
        "updated_via_operator",
        "zone_id",
    ];
    assert_eq!(names, expected);
    assert_eq!((&created["name"], &created["updated_at"]), (&json!("Bot"), &json!(null)));
    let id = created["id"].as_str().unwrap();
    let one = format!("{path}/{id}");

    let found = world.get(&one).await.is(200);
    assert_eq!((&found["traits"], &found["archived_at"]), (&json!(["team:a"]), &json!(null)));
    assert!(found.get("client_secret").is_none());
    assert_eq!(by_name(&world.get(&path).await.is(200))["Bot"], found);

    world.clock.advance(5);
    let renamed = world.call("PATCH", &one, Some(json!({"name": "bot", "traits": []}))).await.is(200);
    assert_eq!((&renamed["name"], &renamed["traits"]), (&json!("bot"), &json!([])));
    assert_eq!(renamed["updated_at"], "2026-01-01T00:00:05.000Z");

    // What the client libraries do on every run.
    let chosen = "c".repeat(32);
    let patched = world.call("PATCH", &one, Some(json!({"client_secret": chosen}))).await.is(200);
    assert!(patched.get("client_secret").is_none());
    assert!(world.secret_is_right(&zone, id, &chosen).await);
    assert!(!world.secret_is_right(&zone, id, secret).await);
    assert_eq!(world.application_secret(&zone, id).await.as_deref(), Some(chosen.as_str()));

    let rotated = world.call("POST", &format!("{one}/rotate-secret"), None).await.is(200);
    let fresh = rotated["client_secret"].as_str().unwrap();
    assert!(rotated.get("traits").is_none() && rotated.get("archived_at").is_none());
    assert!(world.secret_is_right(&zone, id, fresh).await);
    assert!(!world.secret_is_right(&zone, id, &chosen).await);
    assert_eq!(world.application_secret(&zone, id).await.as_deref(), Some(fresh));
}

#[tokio::test]
async fn an_application_is_refused_in_the_contracts_order() {
    let world = World::new().await;
    let zone = world.zone("Ops").await;
    let own = world.mint("write", Some(&zone)).await;
    let path = format!("/v1/zones/{zone}/applications");
    world.create(&path, json!({"name": "Bot", "registration_method": "managed"})).await;
    for (body, status, code) in [
        (json!({"name": "x"}), 400, "invalid_application"),
        (json!({"name": "x", "registration_method": "dcr"}), 400, "invalid_application"),
        (json!({"name": " ", "registration_method": "managed"}), 400, "invalid_application"),
        (json!({"name": "x".repeat(201), "registration_method": "managed"}), 400, "invalid_application"),
        (json!({"name": "x", "registration_method": "managed", "foo": 1}), 400, "invalid_application"),
        (json!({"name": "x", "registration_method": "managed", "traits": [1]}), 400, "invalid_application"),
        (
            json!({"name": "CARACAL.SYS/x", "registration_method": "managed", "traits": ["a", "a"]}),
            409,
            "reserved_namespace",
        ),
        (json!({"name": "bot", "registration_method": "managed", "traits": ["a", "a"]}), 403, "trait_duplicate"),
        (json!({"name": "bot", "registration_method": "managed"}), 409, "application_name_taken"),
        (json!({"name": "x", "registration_method": "managed", "traits": ["control:invoke"]}), 403, "trait_forbidden"),
    ] {
        world.call_as(Some(&own), "POST", &path, Some(body)).await.is_refused(status, code);
    }
    // A zone that is not there comes first, and a zone token can't even ask.
    let body = Some(json!({}));
    world.call("POST", "/v1/zones/none/applications", body).await.is_refused(404, "zone_not_found");
    assert_eq!(world.get(&path).await.is(200)["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_change_of_an_application_is_refused_in_the_contracts_order() {
    let world = World::new().await;
    let zone = world.zone("Ops").await;
    let path = format!("/v1/zones/{zone}/applications");
    let bot = world.create(&path, json!({"name": "Bot", "registration_method": "managed"})).await;
    world.create(&path, json!({"name": "Other", "registration_method": "managed"})).await;
    let write = world.mint("write", None).await;
    let secret = "s".repeat(32);
    for (id, body, status, code) in [
        (bot.as_str(), json!({"client_secret": "s".repeat(31)}), 400, "invalid_application"),
        (&bot, json!({"client_secret": null}), 400, "invalid_application"),
        (&bot, json!({"registration_method": "managed"}), 400, "invalid_application"),
        ("none", json!({"name": "caracal.sys/x"}), 409, "reserved_namespace"),
        ("none", json!({"traits": ["1x"]}), 403, "trait_invalid"),
        ("none", json!({"name": "OTHER"}), 409, "application_name_taken"),
        ("none", json!({"client_secret": secret}), 404, "application_not_found"),
        ("none", json!({}), 400, "no_fields"),
        ("none", json!({"name": "free"}), 404, "application_not_found"),
    ] {
        let answer = world.call_as(Some(&write), "PATCH", &format!("{path}/{id}"), Some(body)).await;
        answer.is_refused(status, code);
    }
    for (method, one) in [("GET", "none"), ("POST", "none/rotate-secret")] {
        world.call(method, &format!("{path}/{one}"), None).await.is_refused(404, "application_not_found");
    }
}

#[tokio::test]
async fn only_global_tokens_see_traits() {
    let world = World::new().await;
    let zone = world.zone("Ops").await;
    let own = world.mint("write", Some(&zone)).await;
    let path = format!("/v1/zones/{zone}/applications");
    let body = json!({"name": "Bot", "registration_method": "managed", "traits": ["control:invoke"]});
    let id = world.create(&path, body).await;
    let one = format!("{path}/{id}");
    assert_eq!(world.get(&one).await.is(200)["traits"], json!(["control:invoke"]));
    let read = world.call_as(Some(&own), "GET", &one, None).await.is(200);
    let listed = world.call_as(Some(&own), "GET", &path, None).await.is(200);
    let patched = world.call_as(Some(&own), "PATCH", &one, Some(json!({"name": "b"}))).await.is(200);
    for seen in [&read, &listed["items"][0], &patched] {
        assert!(seen.get("traits").is_none(), "{seen}");
    }
    assert_eq!(world.get(&one).await.is(200)["traits"], json!(["control:invoke"]));
}

#[tokio::test]
async fn an_application_without_a_stored_hash_takes_no_secret() {
    let world = World::new().await;
    let zone = world.zone("Ops").await;
    let path = format!("/v1/zones/{zone}/applications");
    let id = world.create(&path, json!({"name": "Bot", "registration_method": "managed"})).await;
    let input = caracal_authority::ApplicationId::parse(&id).unwrap();
    let zone_id = caracal_authority::ZoneId::parse(&zone).unwrap();
    let cleared: Result<(), caracal_store::StoreError> = world
        .store
        .commit(&zone_id, input, |tx, id| {
            Box::pin(async move {
                let mut row = caracal_store::applications::lookup(tx, id).await?.unwrap();
                row.secret_hash = None;
                caracal_store::applications::update(tx, &row).await
            })
        })
        .await;
    cleared.unwrap();
    let answer = world.call("PATCH", &format!("{path}/{id}"), Some(json!({"client_secret": "s".repeat(32)}))).await;
    answer.is_refused(400, "client_secret_not_configured");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_that_want_one_name_at_once_one_gets_it() {
    let world = std::sync::Arc::new(World::new().await);
    let zone = world.zone("Ops").await;
    let mut calls = Vec::new();
    for name in ["Bot", "BOT"] {
        let (world, path) = (world.clone(), format!("/v1/zones/{zone}/applications"));
        let body = Some(json!({"name": name, "registration_method": "managed"}));
        calls.push(tokio::spawn(async move { world.call("POST", &path, body).await.status.as_u16() }));
    }
    let mut statuses = Vec::new();
    for call in calls {
        statuses.push(call.await.unwrap());
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409]);
}
