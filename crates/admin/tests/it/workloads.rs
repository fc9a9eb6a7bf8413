//! Workloads (contract: admin-api.md §5.3, §6).

use caracal_authority::{WorkloadId, ZoneId};
use caracal_custody::workload_secret_ref;
use caracal_store::evidence::{self, EvidenceFilter};
use caracal_store::{Page, workloads};
use serde_json::{Value, json};

use crate::world::{World, by_name};

async fn zone() -> (World, String, String) {
    let world = World::new().await;
    let zone = world.zone("Ops").await;
    let path = format!("/v1/zones/{zone}/workloads");
    (world, zone, path)
}

/// Whether the STS would accept this secret.
async fn is_right(world: &World, zone: &str, id: &str, secret: &str) -> bool {
    let (zone, id) = (ZoneId::parse(zone).unwrap(), WorkloadId::parse(id).unwrap());
    let mut snapshot = world.store.snapshot().await.unwrap();
    let row = workloads::lookup(&mut snapshot.zone(&zone), &id).await.unwrap().unwrap();
    world.secrets.verify(Some(&row.secret_hash), secret, world.store.now()).await.unwrap()
}

/// The sealed copy of its secret.
async fn kept(world: &World, zone: &str, id: &str) -> Option<String> {
    let (zone, id) = (ZoneId::parse(zone).unwrap(), WorkloadId::parse(id).unwrap());
    let mut snapshot = world.store.snapshot().await.unwrap();
    let reference = workload_secret_ref(&zone, &id);
    let opened = world.sealed.open(&mut snapshot.zone(&zone), &reference).await.unwrap();
    opened.map(|secret| String::from_utf8(secret.expose().clone()).unwrap())
}

#[tokio::test]
async fn a_workload_is_created_bound_renamed_given_another_secret_and_removed() {
    let (world, zone, path) = zone().await;
    let created = world.call("POST", &path, Some(json!({"name": " Nightly "}))).await.is(201);
    let secret = created["secret"].as_str().unwrap();
    assert!(secret.starts_with("ws_") && secret.len() == 46);
    let names: Vec<&String> = created.as_object().unwrap().keys().collect();
    let expected = [
        "bindings",
        "created_at",
        "created_by",
        "created_via_operator",
        "id",
        "name",
        "secret",
        "updated_at",
        "updated_by",
        "updated_via_operator",
        "zone_id",
    ];
    assert_eq!(names, expected);
    assert_eq!((&created["name"], &created["bindings"]), (&json!("Nightly"), &json!([])));
    assert_eq!((&created["updated_at"], &created["zone_id"]), (&Value::Null, &json!(zone)));
    let id = created["id"].as_str().unwrap();
    let one = format!("{path}/{id}");
    assert!(is_right(&world, &zone, id, secret).await);
    assert_eq!(kept(&world, &zone, id).await.as_deref(), Some(secret));

    let found = world.get(&one).await.is(200);
    assert!(found.get("secret").is_none());
    assert_eq!(by_name(&world.get(&path).await.is(200))["Nightly"], found);

    world.clock.advance(5);
    let bindings = json!([
        {"env": " WAREHOUSE_TOKEN ", "resource": "resource://warehouse", "scopes": ["stock:read"]},
        {"env": "MAPS_KEY", "resource": "resource://maps", "optional": true, "on_failure": "warn"},
        {"env": "_x", "resource": "resource://x", "scopes": [], "optional": false, "on_failure": "warn"},
    ]);
    let bound = world.call("PUT", &one, Some(json!({"bindings": bindings}))).await.is(200);
    let expected = json!([
        {"env": "WAREHOUSE_TOKEN", "resource": "resource://warehouse", "scopes": ["stock:read"]},
        {"env": "MAPS_KEY", "resource": "resource://maps", "optional": true, "on_failure": "warn"},
        {"env": "_x", "resource": "resource://x"},
    ]);
    assert_eq!((&bound["bindings"], &bound["name"]), (&expected, &json!("Nightly")));
    assert_eq!(bound["updated_at"], "2026-01-01T00:00:05.000Z");
    assert!(bound.get("secret").is_none());
    let renamed = world.call("PUT", &one, Some(json!({"name": "nightly"}))).await.is(200);
    assert_eq!((&renamed["bindings"], &renamed["name"]), (&expected, &json!("nightly")));

    let rotated = world.call("POST", &format!("{one}/rotate-secret"), None).await.is(200);
    let fresh = rotated["secret"].as_str().unwrap();
    assert_eq!(rotated["bindings"], expected);
    assert!(is_right(&world, &zone, id, fresh).await);
    assert!(!is_right(&world, &zone, id, secret).await);
    assert_eq!(kept(&world, &zone, id).await.as_deref(), Some(fresh));

    assert!(world.call("DELETE", &one, None).await.is(204).is_null());
    for (method, path, body) in [
        ("GET", one.clone(), None),
        ("PUT", one.clone(), Some(json!({"bindings": []}))),
        ("POST", format!("{one}/rotate-secret"), None),
        ("GET", format!("{one}/secret"), None),
        ("DELETE", one.clone(), None),
    ] {
        world.call(method, &path, body).await.is_refused(404, "workload_not_found");
    }
    assert_eq!(kept(&world, &zone, id).await, None);
    world.call("POST", &path, Some(json!({"name": "Nightly"}))).await.is(201);

    let records = world.records(Some(&zone)).await;
    let kinds: Vec<String> = records
        .iter()
        .filter(|row| row.status_code < 400 && row.entity_type.as_deref() == Some("workloads"))
        .map(|row| {
            let payload: Value = serde_json::from_str(row.payload.as_deref().unwrap()).unwrap();
            format!("{} {}", payload["change_kind"].as_str().unwrap(), payload["changed_fields"])
        })
        .collect();
    let expected = [
        "create [\"name\"]",
        "update [\"bindings\"]",
        "update [\"name\"]",
        "secret_rotation []",
        "delete []",
        "create [\"name\"]",
    ];
    assert_eq!(kinds, expected);
}

#[tokio::test]
async fn a_workload_is_refused_in_the_contracts_order() {
    let (world, zone, path) = zone().await;
    world.create(&path, json!({"name": "Nightly"})).await;
    for (body, status, code) in [
        (json!({}), 400, "invalid_workload"),
        (json!({"name": " "}), 400, "invalid_workload"),
        (json!({"name": "x".repeat(201)}), 400, "invalid_workload"),
        (json!({"name": "nightly", "bindings": []}), 400, "invalid_workload"),
        (json!({"name": "NIGHTLY"}), 409, "workload_name_taken"),
    ] {
        world.call("POST", &path, Some(body)).await.is_refused(status, code);
    }
    world.call("POST", "/v1/zones/none/workloads", Some(json!({}))).await.is_refused(404, "zone_not_found");

    let other = world.create(&path, json!({"name": "Hourly"})).await;
    let bind = |env: &str| json!({"env": env, "resource": "r"});
    for (id, body, status, code) in [
        ("none", json!({"name": "nightly", "unknown": 1}), 400, "invalid_workload"),
        ("none", json!({"bindings": [bind("ld_preload")], "name": " "}), 400, "invalid_workload"),
        ("none", json!({}), 400, "no_fields"),
        ("none", json!({"name": "nightly", "bindings": [bind("1A")]}), 409, "workload_name_taken"),
        ("none", json!({"bindings": [bind("1A")]}), 400, "invalid_credential_env"),
        ("none", json!({"bindings": [bind("ld_preload")]}), 400, "invalid_credential_env"),
        ("none", json!({"bindings": [bind("A"), bind("A")]}), 400, "duplicate_credential_env"),
        ("none", json!({"bindings": [bind("A")]}), 404, "workload_not_found"),
        (other.as_str(), json!({"name": "HOURLY"}), 200, ""),
    ] {
        let answer = world.call("PUT", &format!("{path}/{id}"), Some(body.clone())).await;
        if status == 200 {
            answer.is(200);
            continue;
        }
        answer.is_refused(status, code);
        if code.ends_with("_credential_env") {
            let env = body["bindings"][0]["env"].as_str().unwrap();
            assert_eq!(answer.json()["details"]["env"], env);
        }
    }
    // A name is another zone's to give as well, and an archived zone takes nothing new.
    let elsewhere = world.zone("Other").await;
    world.create(&format!("/v1/zones/{elsewhere}/workloads"), json!({"name": "Nightly"})).await;
    assert_eq!(world.get(&path).await.is(200)["items"].as_array().unwrap().len(), 2, "{zone}");
}

mod t05_secrets_at_rest {
    use super::*;

    #[tokio::test]
    async fn a_reveal_needs_write_and_is_on_record_before_it_is_shown() {
        let (world, zone, path) = zone().await;
        let created = world.call("POST", &path, Some(json!({"name": "Nightly"}))).await.is(201);
        let (id, secret) = (created["id"].as_str().unwrap(), created["secret"].as_str().unwrap());
        let reveal = format!("{path}/{id}/secret");
        for capability in ["read", "approve"] {
            let token = world.mint(capability, Some(&zone)).await;
            assert_eq!(world.call_as(Some(&token), "GET", &reveal, None).await.refused().0, 403, "{capability}");
            assert_eq!(world.call_as(Some(&token), "GET", &format!("{path}/{id}"), None).await.status, 200);
        }
        let token = world.mint("write", Some(&zone)).await;
        let shown = world.call_as(Some(&token), "GET", &reveal, None).await;
        assert_eq!(shown.is(200), json!({"secret": secret}));
        assert_eq!(shown.headers["cache-control"], "no-store");

        let mut snapshot = world.store.snapshot().await.unwrap();
        let zone_id = ZoneId::parse(&zone).unwrap();
        let filter = EvidenceFilter::default();
        let events = evidence::list(&mut snapshot.zone(&zone_id), &filter, &Page::first(10)).await.unwrap();
        drop(snapshot);
        let [event] = &events[..] else { panic!("{events:?}") };
        assert_eq!((event.event_type.as_str(), event.decision.as_str()), ("credential_revealed", "allow"));
        let metadata: Value = serde_json::from_str(&event.metadata).unwrap();
        assert_eq!(
            (&metadata["credential"], &metadata["workload_id"], &metadata["workload_name"]),
            (&json!("workload_secret"), &json!(id), &json!("Nightly"))
        );
        assert!(metadata["actor"].as_str().unwrap().starts_with("admin:"));
        assert!(!event.metadata.contains(secret));

        // Without its event it is not shown.
        world.outside("DROP TABLE audit_heads");
        let unrecorded = world.call_as(Some(&token), "GET", &reveal, None).await;
        unrecorded.is_refused(500, "audit_unavailable");
        assert!(!unrecorded.text.contains(secret));
    }

    #[tokio::test]
    async fn a_copy_that_is_not_kept_or_not_had_is_said_so() {
        let (world, _, path) = zone().await;
        let id = world.create(&path, json!({"name": "Nightly"})).await;
        let reveal = format!("{path}/{id}/secret");
        world.outside("DELETE FROM sealed_secrets");
        world.get(&reveal).await.is_refused(404, "workload_secret_not_stored");
        let rotated = world.call("POST", &format!("{path}/{id}/rotate-secret"), None).await.is(200);
        assert_eq!(world.get(&reveal).await.is(200)["secret"], rotated["secret"]);
        world.outside("DROP TABLE sealed_secrets");
        world.get(&reveal).await.is_refused(502, "secret_backend_unavailable");
    }

    #[tokio::test]
    async fn when_a_workloads_secret_cannot_be_kept_nothing_changes_and_the_old_one_works() {
        let (world, zone, path) = zone().await;
        let created = world.call("POST", &path, Some(json!({"name": "Nightly"}))).await.is(201);
        let (id, secret) = (created["id"].as_str().unwrap(), created["secret"].as_str().unwrap());
        let before = world.get(&path).await.text;
        world.outside("DROP TABLE sealed_secrets");
        let other = Some(json!({"name": "Other"}));
        world.call("POST", &path, other).await.is_refused(502, "secret_backend_unavailable");
        let rotate = format!("{path}/{id}/rotate-secret");
        world.call("POST", &rotate, None).await.is_refused(502, "secret_backend_unavailable");
        assert_eq!(world.get(&path).await.text, before);
        assert!(is_right(&world, &zone, id, secret).await);
    }

    #[tokio::test]
    async fn a_workloads_secret_is_nowhere_in_clear() {
        let (world, zone, path) = zone().await;
        let created = world.call("POST", &path, Some(json!({"name": "Nightly"}))).await.is(201);
        let id = created["id"].as_str().unwrap();
        let rotated = world.call("POST", &format!("{path}/{id}/rotate-secret"), None).await.is(200);
        let mut seen = world.get(&path).await.text + &world.get(&format!("{path}/{id}")).await.text;
        for row in world.records(Some(&zone)).await {
            seen.push_str(&format!("{row:?}"));
        }
        let stored = world.bytes_on_disk();
        assert!(seen.contains("Nightly") && stored.windows(7).any(|bytes| bytes == b"Nightly"));
        for secret in [&created["secret"], &rotated["secret"]] {
            let secret = secret.as_str().unwrap();
            assert!(!seen.contains(secret));
            assert!(!stored.windows(secret.len()).any(|bytes| bytes == secret.as_bytes()));
        }
    }
}

mod t01_control_plane {
    use super::*;

    #[tokio::test]
    async fn another_zones_workload_is_absent() {
        let (world, _, path) = zone().await;
        let id = world.create(&path, json!({"name": "Nightly"})).await;
        let other = world.zone("Other").await;
        let one = format!("/v1/zones/{other}/workloads/{id}");
        for (method, path, body) in [
            ("GET", one.clone(), None),
            ("GET", format!("{one}/secret"), None),
            ("PUT", one.clone(), Some(json!({"name": "x"}))),
            ("POST", format!("{one}/rotate-secret"), None),
            ("DELETE", one.clone(), None),
        ] {
            world.call(method, &path, body).await.is_refused(404, "workload_not_found");
        }
        assert_eq!(world.get(&format!("{path}/{id}")).await.is(200)["name"], "Nightly");
    }
}
