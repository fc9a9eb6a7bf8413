//! Zones.

use serde_json::json;

use crate::world::{BOOTSTRAP, World};

#[tokio::test]
async fn a_zone_gets_a_slug_from_its_name_and_a_number_when_it_is_taken() {
    let world = World::new().await;
    let zone = world.call("POST", "/v1/zones", Some(json!({"name": "  Ops  "}))).await.is(201);
    assert_eq!((&zone["name"], &zone["slug"]), (&json!("Ops"), &json!("ops")));
    let again = world.call("POST", "/v1/zones", Some(json!({"name": "  Ops  "}))).await.is(201);
    assert_eq!(again["slug"], "ops-2");
    let names: Vec<&String> = zone.as_object().unwrap().keys().collect();
    let expected = [
        "created_at",
        "created_by",
        "created_via_operator",
        "dcr_enabled",
        "id",
        "name",
        "operator_coauthor_badge",
        "operator_governed",
        "slug",
        "updated_at",
        "updated_by",
        "updated_via_operator",
    ];
    assert_eq!(names, expected);
    assert_eq!(zone["created_at"], "2026-01-01T00:00:00.000Z");
    assert_eq!(zone["created_at"], zone["updated_at"]);
    assert!(zone["created_by"].as_str().unwrap().starts_with("admin:"));
    assert_eq!(zone["id"].as_str().unwrap().as_bytes()[14], b'7');
    let path = format!("/v1/zones/{}", zone["id"].as_str().unwrap());
    assert_eq!(world.get(&path).await.is(200), zone);
}

#[tokio::test]
async fn a_zone_that_is_not_there_is_404() {
    let world = World::new().await;
    world.get("/v1/zones/none").await.is_refused(404, "zone_not_found");
}

#[tokio::test]
async fn an_explicit_slug_is_used_or_refused() {
    let world = World::new().await;
    let create = |body| world.call("POST", "/v1/zones", Some(body));
    let zone = create(json!({"name": "A", "slug": "mine", "dcr_enabled": true})).await.is(201);
    assert_eq!((&zone["slug"], &zone["dcr_enabled"]), (&json!("mine"), &json!(true)));
    create(json!({"name": "B", "slug": "mine"})).await.is_refused(409, "zone_slug_conflict");
}

#[tokio::test]
async fn what_is_no_zone_is_refused_and_leaves_nothing() {
    let world = World::new().await;
    for body in [
        json!({"name": "x", "foo": 1}),
        json!({"name": "x", "slug": "Bad_Slug"}),
        json!({"name": "x", "slug": ""}),
        json!({"name": "x", "slug": null}),
        json!({"name": "x".repeat(121)}),
        json!({"name": "   "}),
        json!({"name": 5}),
        json!({"name": "x", "dcr_enabled": "yes"}),
        json!({}),
        json!([]),
    ] {
        world.call("POST", "/v1/zones", Some(body)).await.is_refused(400, "invalid_zone");
    }
    world.call("POST", "/v1/zones", Some(json!({"name": "x".repeat(120)}))).await.is(201);
    assert_eq!(world.get("/v1/zones").await.is(200)["items"].as_array().unwrap().len(), 1);
}

mod t12_foothold_reserved {
    use super::*;

    #[tokio::test]
    async fn only_the_bootstrap_token_makes_a_system_zone_by_whatever_name() {
        let world = World::new().await;
        let write = world.mint("write", None).await;
        for body in [
            json!({"name": "caracal.sys/x"}),
            json!({"name": " CARACAL.SYS/x"}),
            json!({"name": "x", "slug": "caracal-sys-x"}),
            json!({"name": "Caracal Sys Foo"}),
        ] {
            let answer = world.call_as(Some(&write), "POST", "/v1/zones", Some(body)).await;
            answer.is_refused(409, "reserved_namespace");
        }
        for body in [json!({"name": "caracal.system/x"}), json!({"name": "caracal-system"})] {
            world.call_as(Some(&write), "POST", "/v1/zones", Some(body)).await.is(201);
        }
        let system = world.call("POST", "/v1/zones", Some(json!({"name": "caracal.sys/system"}))).await.is(201);
        let listed = world.get("/v1/zones").await.is(200);
        assert_eq!(listed["items"].as_array().unwrap().len(), 2);
        let path = format!("/v1/zones/{}", system["id"].as_str().unwrap());
        world.call_as(Some(&write), "GET", &path, None).await.is(200);
        let (sets, body) = (format!("{path}/policy-sets"), Some(json!({"name": "x"})));
        let answer = world.call_as(Some(&write), "POST", &sets, body.clone()).await;
        answer.is_refused(403, "system_zone_read_only");
        world.call_as(Some(BOOTSTRAP), "POST", &sets, body).await.is(201);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn zones_of_one_name_made_at_once_get_slugs_of_their_own() {
    let world = std::sync::Arc::new(World::new().await);
    let mut calls = Vec::new();
    for _ in 0..5 {
        let world = world.clone();
        calls.push(tokio::spawn(async move {
            let zone = world.call("POST", "/v1/zones", Some(json!({"name": "Ops"}))).await.is(201);
            zone["slug"].as_str().unwrap().to_owned()
        }));
    }
    let mut slugs = Vec::new();
    for call in calls {
        slugs.push(call.await.unwrap());
    }
    slugs.sort();
    assert_eq!(slugs, ["ops", "ops-2", "ops-3", "ops-4", "ops-5"]);
}
