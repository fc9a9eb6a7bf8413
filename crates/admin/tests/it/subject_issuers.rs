//! Identity providers of a zone.

use serde_json::{Value, json};

use crate::world::World;

async fn world() -> (World, String) {
    let world = World::new().await;
    let zone = world.zone("Ops").await;
    let path = format!("/v1/zones/{zone}/subject-issuers");
    (world, path)
}

fn body(issuer: &str) -> Value {
    json!({"issuer": issuer, "jwks_url": "https://idp.example/keys", "audience": "caracal"})
}

#[tokio::test]
async fn a_registration_is_made_read_listed_changed_and_archived() {
    let (world, path) = world().await;
    let created = world.call("POST", &path, Some(body("https://idp.example"))).await.is(201);
    let names: Vec<&String> = created.as_object().unwrap().keys().collect();
    let expected = [
        "audience",
        "created_at",
        "created_by",
        "created_via_operator",
        "id",
        "issuer",
        "jwks_url",
        "updated_at",
        "updated_by",
        "updated_via_operator",
        "zone_id",
    ];
    assert_eq!(names, expected);
    let one = format!("{path}/{}", created["id"].as_str().unwrap());
    assert_eq!(world.get(&one).await.is(200), created);
    assert_eq!(world.get(&path).await.is(200)["items"], json!([created]));

    world.clock.advance(5);
    let patch = json!({"jwks_url": "https://idp.example/new", "audience": "other", "issuer": 7, "unknown": true});
    let changed = world.call("PATCH", &one, Some(patch)).await.is(200);
    assert_eq!(
        (&changed["jwks_url"], &changed["audience"], &changed["issuer"]),
        (&json!("https://idp.example/new"), &json!("other"), &json!("https://idp.example"))
    );
    assert!(changed["updated_by"].as_str().unwrap().starts_with("admin:"));
    world.clock.advance(5);
    let touched = world.call("PATCH", &one, Some(json!({}))).await.is(200);
    assert_eq!((&touched["jwks_url"], &touched["audience"]), (&changed["jwks_url"], &changed["audience"]));
    assert_ne!(touched["updated_at"], changed["updated_at"]);

    world.call("DELETE", &one, None).await.is(204);
    for (method, body) in [("GET", None), ("PATCH", Some(json!({}))), ("DELETE", None)] {
        world.call(method, &one, body).await.is_refused(404, "subject_issuer_not_found");
    }
    assert_eq!(world.get(&path).await.is(200)["items"], json!([]));
    world.call("POST", &path, Some(body("https://idp.example"))).await.is(201);
}

#[tokio::test]
async fn a_registration_is_refused_in_the_contracts_order() {
    let (world, path) = world().await;
    world.call("POST", "/v1/zones/none/subject-issuers", Some(json!({}))).await.is_refused(404, "zone_not_found");
    let with = |name: &str, value: Value| {
        let mut body = body("https://idp.example");
        body[name] = value;
        body
    };
    let long = |length: usize| format!("https://h/{}", "a".repeat(length - "https://h/".len()));
    for wrong in [
        with("issuer", json!("http://idp.example")),
        with("issuer", json!("https://u@h")),
        with("issuer", json!("https://h?x=1")),
        with("issuer", json!("https://h#f")),
        with("issuer", json!("")),
        with("issuer", json!(long(2049))),
        with("issuer", Value::Null),
        with("issuer", json!(["https://h"])),
        with("jwks_url", json!("http://idp.example/keys")),
        with("jwks_url", json!("https://u:p@h/keys")),
        with("jwks_url", json!("https://h/keys?v=1")),
        with("jwks_url", json!("https://h/keys#f")),
        with("jwks_url", json!(long(2049))),
        with("audience", json!("")),
        with("audience", json!("a".repeat(513))),
        with("audience", json!(["caracal"])),
        json!({"issuer": "https://h", "jwks_url": "https://h/keys"}),
        json!({"issuer": "https://h", "audience": "a"}),
        json!({"jwks_url": "https://h", "audience": "a"}),
        json!([]),
    ] {
        let answer = world.call("POST", &path, Some(wrong.clone())).await;
        assert_eq!(answer.refused(), (400, "invalid_subject_issuer".to_owned()), "{wrong}");
    }
    world.call("POST", &path, None).await.is_refused(400, "invalid_subject_issuer");
    world.call("POST", &path, Some(with("issuer", json!(long(2048))))).await.is(201);
    let id = world.create(&path, body("https://idp.example")).await;
    world.call("POST", &path, Some(body("https://idp.example"))).await.is_refused(409, "subject_issuer_exists");
    // One byte apart is another issuer.
    world.call("POST", &path, Some(body("https://idp.example/"))).await.is(201);
    let one = format!("{path}/{id}");
    for wrong in [json!({"jwks_url": "http://h"}), json!({"audience": ""}), json!({"audience": null}), json!([])] {
        world.call("PATCH", &one, Some(wrong)).await.is_refused(400, "invalid_subject_issuer");
    }
    let unknown = format!("{path}/none");
    world.call("PATCH", &unknown, Some(json!({"audience": ""}))).await.is_refused(400, "invalid_subject_issuer");
    world.call("PATCH", &unknown, Some(json!({}))).await.is_refused(404, "subject_issuer_not_found");
}

#[tokio::test]
async fn a_zone_has_twenty_issuers_at_most() {
    let (world, path) = world().await;
    let mut first = String::new();
    for number in 0..20 {
        let id = world.create(&path, body(&format!("https://idp-{number}.example"))).await;
        if number == 0 {
            first = id;
        }
    }
    for issuer in ["https://one-more.example", "https://idp-0.example"] {
        world.call("POST", &path, Some(body(issuer))).await.is_refused(409, "subject_issuer_limit_reached");
    }
    world.call("DELETE", &format!("{path}/{first}"), None).await.is(204);
    world.call("POST", &path, Some(body("https://one-more.example"))).await.is(201);
    // Another zone counts for itself.
    let other = world.zone("Other").await;
    let elsewhere = format!("/v1/zones/{other}/subject-issuers");
    world.call("POST", &elsewhere, Some(body("https://idp-1.example"))).await.is(201);
}

#[tokio::test]
async fn each_change_leaves_its_record_and_none_without_it() {
    let (world, path) = world().await;
    let zone = path.split('/').nth(3).unwrap().to_owned();
    let id = world.create(&path, body("https://idp.example")).await;
    let one = format!("{path}/{id}");
    world.call("PATCH", &one, Some(json!({"audience": "b"}))).await.is(200);
    world.call("DELETE", &one, None).await.is(204);
    let told: Vec<String> = world.records(Some(&zone)).await[1..]
        .iter()
        .map(|row| {
            let entity = (row.entity_type.as_deref().unwrap(), row.entity_id.as_deref().unwrap());
            format!("{} {} {}/{}", row.action, row.status_code, entity.0, entity.1)
        })
        .collect();
    assert_eq!(
        told,
        [
            format!("POST {path} 201 subject-issuers/{id}"),
            format!("PATCH {one} 200 subject-issuers/{id}"),
            format!("DELETE {one} 204 subject-issuers/{id}"),
        ]
    );
    world.outside("DROP TABLE admin_audit_events");
    world.call("POST", &path, Some(body("https://idp.example"))).await.is_refused(500, "audit_unavailable");
    assert_eq!(world.get(&path).await.is(200)["items"], json!([]));
}
