//! Zones change and end, applications register themselves, and a secret is shown once more (admin-api.md §5.1, §5.2, §6).

use serde_json::{Value, json};

use crate::standing::{managed, usual_revocations};
use crate::world::{BOOTSTRAP, World};

#[tokio::test]
async fn a_zone_is_renamed_and_its_settings_are_kept() {
    let world = World::new().await;
    let zone = world.zone("Ops").await;
    let path = format!("/v1/zones/{zone}");
    let body = json!({"name": "  Operations ", "slug": "operations", "operator_governed": true});
    let changed = world.call("PATCH", &path, Some(body)).await.is(200);
    assert_eq!(
        (&changed["name"], &changed["slug"], &changed["operator_governed"], &changed["operator_coauthor_badge"]),
        (&json!("Operations"), &json!("operations"), &json!(true), &json!(true))
    );
    assert!(changed["updated_by"].as_str().unwrap().starts_with("admin:"));
    assert_eq!(world.get(&path).await.is(200), changed);
    // All that a body says is done, also beside the end of registration.
    let body = json!({"dcr_enabled": true});
    world.call("PATCH", &path, Some(body)).await.is(200);
    let body = json!({"dcr_enabled": false, "operator_coauthor_badge": false});
    let changed = world.call("PATCH", &path, Some(body)).await.is(200);
    assert_eq!((&changed["dcr_enabled"], &changed["operator_coauthor_badge"]), (&json!(false), &json!(false)));
}

#[tokio::test]
async fn a_change_of_a_zone_is_refused_in_the_contracts_order() {
    let world = World::new().await;
    let zone = world.zone("Ops").await;
    world.zone("Dev").await;
    let write = world.mint("write", None).await;
    let own = world.mint("write", Some(&zone)).await;
    let path = format!("/v1/zones/{zone}");
    for (body, status, code) in [
        (json!({"name": ""}), 400, "invalid_zone"),
        (json!({"name": "x", "foo": 1}), 400, "invalid_zone"),
        (json!({"slug": "Bad_Slug"}), 400, "invalid_zone"),
        (json!({"dcr_shutdown": "now"}), 400, "invalid_zone"),
        (json!({"name": "caracal.sys/x", "dcr_shutdown": "keep_live"}), 409, "reserved_namespace"),
        (json!({"slug": "caracal-sys-x"}), 409, "reserved_namespace"),
        (json!({"dcr_shutdown": "keep_live"}), 400, "dcr_shutdown_not_applicable"),
        (json!({"dcr_shutdown": "keep_live", "dcr_enabled": true}), 400, "dcr_shutdown_not_applicable"),
        (json!({}), 400, "no_fields"),
        (json!({"slug": "dev"}), 409, "zone_slug_conflict"),
    ] {
        for token in [&write, &own] {
            let answer = world.call_as(Some(token), "PATCH", &path, Some(body.clone())).await;
            answer.is_refused(status, code);
        }
    }
    world.call("PATCH", "/v1/zones/none", Some(json!({"name": "x"}))).await.is_refused(404, "zone_not_found");
    let unchanged = world.get(&path).await.is(200);
    assert_eq!((&unchanged["name"], &unchanged["slug"]), (&json!("Ops"), &json!("ops")));
}

struct Registering {
    world: World,
    zone: String,
    path: String,
}

impl Registering {
    async fn new() -> Self {
        let world = World::new().await;
        let body = Some(json!({"name": "Open", "dcr_enabled": true}));
        let zone = world.call("POST", "/v1/zones", body).await.is(201)["id"].as_str().unwrap().to_owned();
        Self { path: format!("/v1/zones/{zone}/applications/dcr"), world, zone }
    }

    async fn register(&self, name: &str) -> Value {
        self.world.call("POST", &self.path, Some(json!({"name": name}))).await.is(201)
    }

    async fn patch(&self, body: Value) -> crate::world::Answer {
        self.world.call("PATCH", &format!("/v1/zones/{}", self.zone), Some(body)).await
    }

    async fn status(&self) -> Value {
        self.world.get(&format!("/v1/zones/{}/dcr-status", self.zone)).await.is(200)
    }
}

#[tokio::test]
async fn an_application_registers_itself_for_an_hour_at_most() {
    let setting = Registering::new().await;
    let (world, zone) = (&setting.world, &setting.zone);
    let made = setting.register(" Agent ").await;
    assert_eq!((&made["name"], &made["registration_method"]), (&json!("Agent"), &json!("dcr")));
    assert_eq!((&made["expires_at"], made.get("traits")), (&json!("2026-01-01T01:00:00.000Z"), None));
    let (id, secret) = (made["id"].as_str().unwrap(), made["client_secret"].as_str().unwrap());
    assert!(world.secret_is_right(zone, id, secret).await);
    assert_eq!(world.application_secret(zone, id).await, None);
    // Names may be shared, and nobody is shown the secret again.
    setting.register("Agent").await;
    let reveal = format!("/v1/zones/{zone}/applications/{id}/client-secret");
    world.get(&reveal).await.is_refused(404, "application_not_found");
    let short = world.call("POST", &setting.path, Some(json!({"name": "Brief", "expires_in": 60}))).await.is(201);
    assert_eq!(short["expires_at"], "2026-01-01T00:01:00.000Z");
    let expected = json!({"id": zone, "dcr_enabled": true, "live_dcr_applications": 3});
    assert_eq!(setting.status().await, expected);
    world.clock.advance(60);
    assert_eq!(setting.status().await["live_dcr_applications"], 2);
    let rows = world.records(Some(zone)).await;
    let created = rows.iter().find(|row| row.path == setting.path).unwrap();
    assert_eq!((created.entity_type.as_deref(), created.entity_id.as_deref()), (Some("applications"), Some(id)));
}

#[tokio::test]
async fn a_registration_is_refused_in_the_contracts_order() {
    let setting = Registering::new().await;
    let world = &setting.world;
    let write = world.mint("write", None).await;
    for (body, status, code) in [
        (json!({}), 400, "invalid_application"),
        (json!({"name": "x", "expires_in": 0}), 400, "invalid_application"),
        (json!({"name": "x", "expires_in": 3_601}), 400, "invalid_application"),
        (json!({"name": "x", "expires_in": 1.5}), 400, "invalid_application"),
        (json!({"name": "x", "traits": []}), 400, "invalid_application"),
        (json!({"name": "caracal.sys/x"}), 409, "reserved_namespace"),
    ] {
        world.call_as(Some(&write), "POST", &setting.path, Some(body)).await.is_refused(status, code);
    }
    let closed = world.zone("Closed").await;
    let body = Some(json!({"name": "x"}));
    let path = format!("/v1/zones/{closed}/applications/dcr");
    world.call("POST", &path, body.clone()).await.is_refused(403, "dcr_disabled");
    world.call("POST", "/v1/zones/none/applications/dcr", body).await.is_refused(404, "zone_not_found");
}

#[tokio::test]
async fn t08_availability_registrations_are_few_per_second_and_the_living_are_counted() {
    let setting = Registering::new().await;
    let world = &setting.world;
    // Refused ones count, too.
    setting.patch(json!({"dcr_enabled": false})).await.is(200);
    let body = || Some(json!({"name": "x"}));
    for _ in 0..10 {
        world.call("POST", &setting.path, body()).await.is_refused(403, "dcr_disabled");
    }
    let limited = world.call("POST", &setting.path, body()).await;
    limited.is_refused(429, "dcr_rate_limit_exceeded");
    assert_eq!(limited.headers["retry-after"], "1");
    world.clock.advance(1);
    setting.patch(json!({"dcr_enabled": true})).await.is(200);
    world.outside(&format!(
        "INSERT INTO applications (zone_id, id, name, registration_method, traits, expires_at, created_via_operator,
           created_at, name_key)
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
         SELECT '{}', 'filler-' || i, 'f', 'dcr', '[]', 9000000000000000, 0, 1, 'f' FROM n",
        setting.zone
    ));
    world.call("POST", &setting.path, body()).await.is_refused(429, "dcr_limit_exceeded");
}

#[tokio::test]
async fn registration_is_not_switched_off_over_the_heads_of_the_living() {
    let setting = Registering::new().await;
    for name in ["a", "b", "c"] {
        setting.register(name).await;
    }
    let refused = setting.patch(json!({"dcr_enabled": false})).await;
    let body = refused.is_refused(409, "dcr_shutdown_required").json();
    assert_eq!(body["details"], json!({"live_dcr_applications": 3}));
    assert_eq!(setting.status().await["dcr_enabled"], true);
    setting.patch(json!({"dcr_enabled": false, "dcr_shutdown": "keep_live"})).await.is(200);
    let status = setting.status().await;
    assert_eq!((&status["dcr_enabled"], &status["live_dcr_applications"]), (&json!(false), &json!(3)));
    let rows = setting.world.records(Some(&setting.zone)).await;
    let extra = rows.iter().find(|row| row.action == "DCR shutdown keep_live").unwrap();
    assert_eq!(
        (extra.entity_type.as_deref(), extra.entity_id.as_deref()),
        (Some("zones"), Some(setting.zone.as_str()))
    );
}

#[tokio::test]
async fn t04_state_what_registered_itself_ends_with_registration_when_that_is_asked_for() {
    let setting = Registering::new().await;
    let (world, zone) = (&setting.world, &setting.zone);
    let first = setting.register("a").await["id"].as_str().unwrap().to_owned();
    setting.register("b").await;
    let kept = world.create(&format!("/v1/zones/{zone}/applications"), managed("Kept")).await;
    world.stand_usual(zone, "a", "user-1", &first).await;
    world.stand_usual(zone, "b", "user-1", &kept).await;
    // Also where it had been switched off before.
    setting.patch(json!({"dcr_enabled": false, "dcr_shutdown": "keep_live"})).await.is(200);
    setting.patch(json!({"dcr_enabled": false, "dcr_shutdown": "revoke_live"})).await.is(200);
    assert_eq!(world.revoked(), usual_revocations("a", "dcr_shutdown"));
    assert_eq!(world.record_state(zone, "a-user").await, ("revoked".to_owned(), Some("dcr_shutdown".to_owned())));
    assert_eq!(world.record_state(zone, "b-user").await.0, "active");
    assert_eq!(setting.status().await["live_dcr_applications"], 0);
    let archived = world.get(&format!("/v1/zones/{zone}/applications?status=archived")).await.is(200);
    assert_eq!(archived["items"].as_array().unwrap().len(), 2);
    // Nobody is left, so nothing has to be said.
    setting.patch(json!({"dcr_enabled": true})).await.is(200);
    setting.patch(json!({"dcr_enabled": false})).await.is(200);
    let rows = world.records(Some(zone)).await;
    let extra = rows.iter().find(|row| row.action == "DCR shutdown revoke_live").unwrap();
    let payload: Value = serde_json::from_str(extra.payload.as_deref().unwrap()).unwrap();
    for (member, expected) in [
        ("dcr_registration_disabled", json!(true)),
        ("dcr_shutdown_mode", json!("revoke_live")),
        ("live_dcr_applications", json!(2)),
        ("revoked_applications", json!(2)),
        ("revoked_authority_records", json!(2)),
        ("terminated_sessions", json!(2)),
        ("revoked_delegations", json!(1)),
    ] {
        assert_eq!(payload[member], expected, "{member}");
    }
    assert!(rows.iter().any(|row| row.action == "DCR shutdown no_live"));
}

mod t05_secrets_reveal {
    use super::*;

    #[tokio::test]
    async fn a_secret_is_shown_to_who_may_write_and_the_showing_is_on_record_first() {
        let world = World::new().await;
        let zone = world.zone("Ops").await;
        let path = format!("/v1/zones/{zone}/applications");
        let made = world.call("POST", &path, Some(managed("Bot"))).await.is(201);
        let id = made["id"].as_str().unwrap();
        let reveal = format!("{path}/{id}/client-secret");
        for (capability, code) in [("read", "admin_token_read_only"), ("approve", "admin_token_approve_only")] {
            let token = world.mint(capability, None).await;
            world.call_as(Some(&token), "GET", &reveal, None).await.is_refused(403, code);
        }
        let shown = world.get(&reveal).await.is(200);
        assert_eq!(shown, json!({"client_secret": made["client_secret"]}));
        let events = world.get(&format!("/v1/zones/{zone}/audit?event_type=credential_revealed")).await.is(200);
        let event = &events["items"][0];
        assert_eq!((&event["decision"], &event["evaluation_status"]), (&json!("allow"), &json!("complete")));
        let mut metadata = event["metadata_json"].clone();
        assert!(metadata["actor"].take().as_str().unwrap().starts_with("admin:"));
        assert_eq!(
            metadata,
            json!({
                "credential": "application_client_secret", "application_id": id, "application_name": "Bot",
                "actor": null,
            })
        );
        world.outside(&format!("DELETE FROM sealed_secrets WHERE zone_id = '{zone}'"));
        world.get(&reveal).await.is_refused(404, "client_secret_not_stored");
        world.get(&format!("{path}/none/client-secret")).await.is_refused(404, "application_not_found");
        assert_eq!(events["items"].as_array().unwrap().len(), 1);
        world.outside("DROP TABLE sealed_secrets");
        world.get(&reveal).await.is_refused(502, "secret_backend_unavailable");
    }

    #[tokio::test]
    async fn t12_foothold_a_zone_token_is_not_shown_the_secret_of_a_control_key() {
        let world = World::new().await;
        let zone = world.zone("Ops").await;
        let own = world.mint("write", Some(&zone)).await;
        let write = world.mint("write", None).await;
        let path = format!("/v1/zones/{zone}/applications");
        let body = json!({"name": "key", "registration_method": "managed", "traits": ["control:invoke"]});
        let key = format!("{path}/{}/client-secret", world.create(&path, body).await);
        world.call_as(Some(&own), "GET", &key, None).await.is_refused(403, "trait_forbidden");
        world.call_as(Some(&write), "GET", &key, None).await.is(200);
        let reserved = world.create(&path, managed("caracal.sys/operator")).await;
        let reserved = format!("{path}/{reserved}/client-secret");
        world.call_as(Some(&write), "GET", &reserved, None).await.is_refused(409, "reserved_namespace");
        world.call_as(Some(BOOTSTRAP), "GET", &reserved, None).await.is(200);
    }

    #[tokio::test]
    async fn a_secret_whose_showing_can_t_be_recorded_is_not_shown() {
        let world = World::new().await;
        let zone = world.zone("Ops").await;
        let path = format!("/v1/zones/{zone}/applications");
        let id = world.create(&path, managed("Bot")).await;
        world.outside("DROP TABLE audit_events");
        let refused = world.get(&format!("{path}/{id}/client-secret")).await;
        refused.is_refused(500, "audit_unavailable");
        assert!(!refused.text.contains("cs_"));
    }
}
