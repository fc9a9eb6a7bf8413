//! What management leaves behind.

use caracal_crypto::hmac::HmacKey;
use caracal_ledger::{ChainKey, verify_store};
use caracal_store::admin_evidence::AdminEvidenceRow;
use serde_json::{Value, json};

use crate::world::{BOOTSTRAP, EMPTY_GRANTS, World, request};

fn payload(row: &AdminEvidenceRow) -> Value {
    serde_json::from_str(row.payload.as_deref().unwrap()).unwrap()
}

/// `action status entity_type/entity_id change_kind` of each record.
fn told(rows: &[AdminEvidenceRow]) -> Vec<String> {
    let tell = |row: &AdminEvidenceRow| {
        let entity = format!("{}/{}", row.entity_type.as_deref().unwrap(), row.entity_id.as_deref().unwrap());
        let kind = payload(row)["change_kind"].as_str().unwrap_or("-").to_owned();
        format!("{} {} {} {}", row.action, row.status_code, entity, kind)
    };
    rows.iter().map(tell).collect()
}

mod t12_foothold_evidence {
    use super::*;

    #[tokio::test]
    async fn every_kind_of_change_leaves_its_record() {
        let world = World::new().await;
        let zone = world.zone("Ops").await;
        let at = |path: &str| format!("/v1/zones/{zone}{path}");
        let app = world.create(&at("/applications"), json!({"name": "Bot", "registration_method": "managed"})).await;
        world.call("PATCH", &at(&format!("/applications/{app}")), Some(json!({"name": "B"}))).await.is(200);
        world.call("POST", &at(&format!("/applications/{app}/rotate-secret")), None).await.is(200);
        let config = json!({"header_name": "X-Key", "api_key": "sk-visible"});
        let provider =
            world.create(&at("/providers"), json!({"name": "p", "kind": "api_key", "config_json": config})).await;
        let patch = json!({"config_json": {"header_name": "Y", "api_key": "sk-visible"}});
        world.call("PATCH", &at(&format!("/providers/{provider}")), Some(patch)).await.is(200);
        let body = json!({
            "name": "r", "scopes": ["read"], "credential_provider_id": provider, "upstream_url": "https://r.example",
        });
        let resource = world.create(&at("/resources"), body).await;
        world.call("PATCH", &at(&format!("/resources/{resource}")), Some(json!({"name": "q"}))).await.is(200);
        let policy =
            world.call("POST", &at("/policies"), Some(json!({"name": "p", "content": EMPTY_GRANTS}))).await.is(201);
        let (policy, document) = (policy["id"].as_str().unwrap(), policy["version_id"].as_str().unwrap());
        let content = Some(json!({"content": EMPTY_GRANTS}));
        world.call("POST", &at(&format!("/policies/{policy}/versions")), content).await.is(201);
        let set = world.create(&at("/policy-sets"), json!({"name": "s"})).await;
        let manifest = Some(json!({"manifest": [{"policy_version_id": document}]}));
        let version = world.call("POST", &at(&format!("/policy-sets/{set}/versions")), manifest).await.is(201);
        let activate = Some(json!({"version_id": version["version_id"]}));
        world.call("POST", &at(&format!("/policy-sets/{set}/activate")), activate).await.is(202);
        world.call("DELETE", &at(&format!("/policies/{policy}")), None).await.is(204);
        world.call("DELETE", &at(&format!("/policy-sets/{set}")), None).await.is(204);

        let rows = world.records(Some(&zone)).await;
        let expected = [
            format!("POST /v1/zones 201 zones/{zone} create"),
            format!("POST {} 201 applications/{app} create", at("/applications")),
            format!("PATCH {} 200 applications/{app} update", at(&format!("/applications/{app}"))),
            format!(
                "POST {} 200 applications/{app} secret_rotation",
                at(&format!("/applications/{app}/rotate-secret"))
            ),
            format!("POST {} 201 providers/{provider} create", at("/providers")),
            format!("PATCH {} 200 providers/{provider} secret_rotation", at(&format!("/providers/{provider}"))),
            format!("POST {} 201 resources/{resource} create", at("/resources")),
            format!("PATCH {} 200 resources/{resource} update", at(&format!("/resources/{resource}"))),
            format!("POST {} 201 policies/{policy} create", at("/policies")),
            format!("POST {} 201 policies/{policy} action", at(&format!("/policies/{policy}/versions"))),
            format!("POST {} 201 policy-sets/{set} create", at("/policy-sets")),
            format!("POST {} 201 policy-sets/{set} action", at(&format!("/policy-sets/{set}/versions"))),
            format!("POST {} 202 policy-sets/{set} action", at(&format!("/policy-sets/{set}/activate"))),
            format!("DELETE {} 204 policies/{policy} delete", at(&format!("/policies/{policy}"))),
            format!("DELETE {} 204 policy-sets/{set} delete", at(&format!("/policy-sets/{set}"))),
        ];
        assert_eq!(told(&rows), expected);
        let rotated = payload(&rows[5]);
        let expected = json!({
            "rls_mode": "control_plane_wildcard", "rls_zone_guc": "*", "change_kind": "secret_rotation",
            "changed_fields": ["config_json.header_name"], "secret_rotated": true,
        });
        assert_eq!(rotated, expected);
        assert_eq!(payload(&rows[3])["secret_rotated"], true);
        for row in &rows {
            assert_eq!((row.actor_name.as_deref(), row.actor_scope.as_deref()), (Some("bootstrap"), Some("global")));
            assert!(!row.payload.as_deref().unwrap().contains("sk-visible"));
        }
    }

    #[tokio::test]
    async fn a_change_whose_record_can_t_be_written_does_not_happen() {
        let world = World::new().await;
        let zone = world.zone("Ops").await;
        world.outside("DROP TABLE admin_audit_events");
        for (path, body) in [
            ("/v1/zones".to_owned(), json!({"name": "Another"})),
            (format!("/v1/zones/{zone}/providers"), json!({"name": "p", "kind": "none"})),
            (format!("/v1/zones/{zone}/policy-sets"), json!({"name": "s"})),
            ("/v1/policies/validate".to_owned(), json!({"content": EMPTY_GRANTS})),
        ] {
            world.call("POST", &path, Some(body)).await.is_refused(500, "audit_unavailable");
        }
        assert_eq!(world.get("/v1/zones").await.is(200)["items"].as_array().unwrap().len(), 1);
        for kind in ["providers", "policy-sets"] {
            assert_eq!(world.get(&format!("/v1/zones/{zone}/{kind}")).await.is(200)["items"], json!([]));
        }
    }

    #[tokio::test]
    async fn a_padded_body_hides_nothing_of_what_took_effect() {
        let world = World::new().await;
        let zone = world.zone("Ops").await;
        let config = json!({"header_name": "X-Key", "api_key": "sk-1"});
        let provider = json!({"name": "p", "kind": "api_key", "config_json": config});
        let id = world.create(&format!("/v1/zones/{zone}/providers"), provider).await;
        // Members that no route reads, sorted before and behind those that one does.
        let mut padded = json!({"name": "q", "config_json": {"header_name": "Y", "api_key": "sk-2"}});
        for number in 0..500 {
            padded[format!("a{number:03}")] = json!(1);
            padded[format!("z{number:03}")] = json!({"x": number});
        }
        world.call("PATCH", &format!("/v1/zones/{zone}/providers/{id}"), Some(padded)).await.is(200);
        let told = payload(world.records(Some(&zone)).await.last().unwrap());
        assert_eq!((&told["change_kind"], &told["secret_rotated"]), (&json!("secret_rotation"), &json!(true)));
        let fields = told["changed_fields"].as_array().unwrap();
        assert_eq!(fields.len(), 64);
        assert!(fields.contains(&json!("config_json.header_name")) && fields.contains(&json!("name")), "{told}");
        assert!(fields.is_sorted_by_key(|name| name.as_str().map(str::to_owned)));
    }

    #[tokio::test]
    async fn what_a_known_caller_was_refused_is_on_record() {
        let world = World::new().await;
        let zone = world.zone("Ops").await;
        let read = world.mint("read", None).await;
        let path = format!("/v1/zones/{zone}/providers");
        world
            .call_as(Some(&read), "POST", &path, Some(json!({"secret": "x"})))
            .await
            .is_refused(403, "admin_token_read_only");
        world.get(&format!("{path}/none")).await.is_refused(404, "provider_not_found");
        world.get("/v1/zones/none").await.is_refused(404, "zone_not_found");
        world.get("/v1/nowhere?token=x").await.is_refused(404, "not_found");
        world.get(&path).await.is(200);

        let rows = world.records(Some(&zone)).await;
        let expected = [
            format!("POST /v1/zones 201 zones/{zone} create"),
            format!("POST {path} 403 zones/{zone} -"),
            format!("GET {path}/none 404 providers/none -"),
        ];
        assert_eq!(told(&rows), expected);
        assert_eq!(payload(&rows[1]), json!({"rls_mode": "control_plane_wildcard", "rls_zone_guc": "*"}));
        // A zone that does not exist has no chain, and a caller can't make one.
        let zoneless = world.records(None).await;
        let actions: Vec<(&str, i64)> = zoneless.iter().map(|row| (row.action.as_str(), row.status_code)).collect();
        assert_eq!(actions, [("GET /v1/zones/none", 404), ("GET /v1/nowhere", 404)]);
        assert!(world.records(Some("none")).await.is_empty());
    }

    #[tokio::test]
    async fn a_zone_token_writes_into_its_own_zones_chain_only() {
        let world = World::new().await;
        let (own, other) = (world.zone("Own").await, world.zone("Other").await);
        let token = world.mint("write", Some(&own)).await;
        let path = format!("/v1/zones/{other}/providers");
        world.call_as(Some(&token), "POST", &path, None).await.is_refused(403, "admin_token_zone_mismatch");
        let body = Some(json!({"content": EMPTY_GRANTS}));
        world.call_as(Some(&token), "POST", "/v1/policies/validate", body.clone()).await.is(200);
        world.call("POST", "/v1/policies/validate", body).await.is(200);

        let own_rows = world.records(Some(&own)).await;
        let mut actions: Vec<&str> = own_rows.iter().map(|row| row.action.as_str()).collect();
        actions.sort_unstable();
        let refused = format!("POST {path}");
        // Refusals are written in their own time.
        assert_eq!(actions, ["POST /v1/policies/validate", "POST /v1/zones", &refused]);
        let expected = json!({"rls_mode": "zone_scoped", "rls_zone_guc": own});
        let row = own_rows.iter().find(|row| row.action == refused).unwrap();
        assert_eq!(payload(row), expected);
        assert_eq!(world.records(Some(&other)).await.len(), 1);
        assert_eq!(world.records(None).await.len(), 1);
    }

    #[tokio::test]
    async fn the_actor_comes_from_the_credential_and_never_from_a_header() {
        let world = World::new().await;
        let zone = world.zone("Ops").await;
        let mut forged =
            request(Some(BOOTSTRAP), "POST", &format!("/v1/zones/{zone}/policy-sets"), Some(json!({"name": "s"})));
        for (name, value) in [("x-caracal-authorized-by", "somebody else"), ("x-caracal-created-via", "operator")] {
            forged.headers_mut().insert(name, value.parse().unwrap());
        }
        let created = world.send(forged).await.is(201);
        assert!(created["created_by"].as_str().unwrap().starts_with("admin:"));
        assert_eq!(created["created_via_operator"], false);
        let rows = world.records(Some(&zone)).await;
        assert_eq!(format!("admin:{}", rows[1].actor_id.as_deref().unwrap()), created["created_by"]);
    }
}

#[tokio::test]
async fn t06_evidence_the_chains_verify_from_what_is_stored() {
    let world = World::new().await;
    let zone = world.zone("Ops").await;
    world.create(&format!("/v1/zones/{zone}/providers"), json!({"name": "p\u{1f}", "kind": "none", "n\0ul": 1})).await;
    world.get("/v1/nowhere").await.is_refused(404, "not_found");
    // What a path holds once it is decoded is the caller's choice, and on record.
    world.get(&format!("/v1/zones/{zone}/providers/%00%1F%0A%22")).await.is_refused(400, "invalid_params");
    world.get("/v1/zones/%00").await.is_refused(400, "invalid_params");
    assert_eq!(world.records(None).await.len(), 2);
    let rows = world.records(Some(&zone)).await;
    assert_eq!(rows.len(), 3);
    assert_eq!(payload(&rows[1])["changed_fields"], json!(["kind", "name", "nul"]));
    let key = HmacKey::from_bytes(&[7; 32]).unwrap();
    let mut snapshot = world.store.snapshot().await.unwrap();
    let (mut tx, heads) = (snapshot.deployment(), std::collections::BTreeMap::new());
    let report = verify_store(&mut tx, Some(&key as &dyn ChainKey), &heads, |_, _| {}).await.unwrap();
    assert_eq!(report.chains.len(), 2);
    assert!(report.is_intact(), "{report:?}");
}

#[tokio::test]
async fn t08_availability_anonymous_refusals_are_counted_and_not_written_one_by_one() {
    let world = World::new().await;
    for _ in 0..5 {
        world.call_as(None, "GET", "/v1/zones/any", None).await.is_refused(401, "invalid_admin_token");
    }
    world.call_as(None, "GET", "/v1/zones/%zz", None).await.is_refused(400, "bad_request");
    assert!(world.records(None).await.is_empty());
    world.denials.summarise(&world.store, &world.ledger).await.unwrap();
    let rows = world.records(None).await;
    assert_eq!(rows.len(), 1);
    assert_eq!(payload(&rows[0]), json!({"admin": {"invalid_admin_token": 5, "invalid_request": 1}}));
}
