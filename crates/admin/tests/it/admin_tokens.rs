//! Admin tokens: made, listed, revoked, and out of each other's reach (admin-api.md §2.3; D12, D22; threat T12).

use caracal_crypto::fast_hash::ConsoleToken;
use serde_json::{Value, json};

use crate::world::{BOOTSTRAP, START, World, assertion, derived, request};

const PATH: &str = "/v1/admin-tokens";

async fn make(world: &World, token: &str, body: Value) -> crate::world::Answer {
    world.call_as(Some(token), "POST", PATH, Some(body)).await
}

#[tokio::test]
async fn a_token_is_shown_once_works_is_listed_and_ends_when_it_is_revoked() {
    let world = World::new().await;
    let zone = world.zone("Ops").await;
    let made = make(&world, BOOTSTRAP, json!({"name": "ci", "scope": "zone", "zone_id": zone})).await.is(201);
    let (id, token) = (made["id"].as_str().unwrap(), made["token"].as_str().unwrap());
    assert_eq!((token.len(), token.starts_with("cat_")), (47, true));
    assert_eq!(
        (&made["capability"], &made["zone_id"], &made["scope"]),
        (&json!("write"), &json!(zone), &json!("zone"))
    );
    assert!(made["created_by"].as_str().unwrap().starts_with("admin:"));
    world.call_as(Some(token), "GET", &format!("/v1/zones/{zone}"), None).await.is(200);

    let listed = world.get(PATH).await.is(200);
    let items = listed["items"].as_array().unwrap();
    // Beside it the deployment's own four.
    assert_eq!(items.len(), 5);
    let own = items.iter().find(|item| item["id"] == *id).unwrap();
    assert_eq!((&own["name"], &own["revoked_at"], own.get("token")), (&json!("ci"), &Value::Null, None));
    assert!(!listed.to_string().contains("digest"));

    let one = format!("{PATH}/{id}");
    world.call("DELETE", &one, None).await.is(204);
    world.call_as(Some(token), "GET", &format!("/v1/zones/{zone}"), None).await.is_refused(401, "invalid_admin_token");
    world.call("DELETE", &one, None).await.is_refused(404, "admin_token_not_found");
    world.call("DELETE", &format!("{PATH}/a%20b"), None).await.is_refused(400, "invalid_admin_token_id");
    let rows = world.records(None).await;
    let told: Vec<_> =
        rows.iter().map(|row| (row.method.as_str(), row.entity_type.as_deref(), row.entity_id.as_deref())).collect();
    assert_eq!(told[0], ("POST", Some("admin-tokens"), Some(id)));
    assert_eq!(told[1], ("DELETE", Some("admin-tokens"), Some(id)));
    assert!(!world.bytes_on_disk().windows(token.len()).any(|bytes| bytes == token.as_bytes()));
}

#[tokio::test]
async fn a_token_that_can_t_be_meant_is_refused() {
    let world = World::new().await;
    let zone = world.zone("Ops").await;
    let gone = world.zone("Gone").await;
    world.call("DELETE", &format!("/v1/zones/{gone}"), None).await.is(204);
    for (body, status, code) in [
        (json!({}), 400, "invalid_admin_token_request"),
        (json!({"name": "", "scope": "global"}), 400, "invalid_admin_token_request"),
        (json!({"name": "x".repeat(121), "scope": "global"}), 400, "invalid_admin_token_request"),
        (json!({"name": "x", "scope": "fleet"}), 400, "invalid_admin_token_request"),
        (json!({"name": "x", "scope": "global", "capability": "own"}), 400, "invalid_admin_token_request"),
        (json!({"name": "x", "scope": "global", "more": 1}), 400, "invalid_admin_token_request"),
        (json!({"name": "x", "scope": "global", "expires_at": "soon"}), 400, "invalid_admin_token_request"),
        (
            json!({"name": "x", "scope": "global", "expires_at": "2026-01-01T00:00:00Z"}),
            400,
            "invalid_admin_token_request",
        ),
        (json!({"name": "x", "scope": "zone"}), 400, "zone_id_required"),
        (json!({"name": "x", "scope": "global", "zone_id": zone}), 400, "zone_id_not_allowed_for_global"),
        (json!({"name": "x", "scope": "zone", "zone_id": "none"}), 404, "zone_not_found"),
        (json!({"name": "x", "scope": "zone", "zone_id": "no id"}), 404, "zone_not_found"),
        (json!({"name": "x", "scope": "zone", "zone_id": gone}), 404, "zone_not_found"),
    ] {
        make(&world, BOOTSTRAP, body).await.is_refused(status, code);
    }
    assert_eq!(world.get(PATH).await.is(200)["items"].as_array().unwrap().len(), 4);
}

mod t12_foothold_growth {
    use super::*;

    #[tokio::test]
    async fn a_token_makes_none_that_can_do_more_than_itself() {
        let world = World::new().await;
        let write = world.mint("write", None).await;
        let approve = json!({"name": "x", "scope": "global", "capability": "approve"});
        make(&world, &write, approve.clone()).await.is_refused(403, "approve_capability_required");
        for capability in ["read", "write"] {
            let body = json!({"name": "x", "scope": "global", "capability": capability});
            make(&world, &write, body).await.is(201);
        }
        make(&world, BOOTSTRAP, approve.clone()).await.is(201);
        let (read, deciding) = (world.mint("read", None).await, world.mint("approve", None).await);
        make(&world, &read, approve.clone()).await.is_refused(403, "admin_token_read_only");
        make(&world, &deciding, approve).await.is_refused(403, "admin_token_approve_only");
    }

    #[tokio::test]
    async fn a_token_stops_at_its_end_and_makes_none_that_outlives_it() {
        let world = World::new().await;
        let body = |end: &str| json!({"name": "x", "scope": "global", "expires_at": end});
        let made = make(&world, BOOTSTRAP, body("2026-01-01T01:00:00Z")).await.is(201);
        assert_eq!(made["expires_at"], "2026-01-01T01:00:00.000Z");
        let token = made["token"].as_str().unwrap();
        for later in [json!({"name": "x", "scope": "global"}), body("2026-01-01T01:00:01Z")] {
            make(&world, token, later).await.is_refused(403, "admin_token_expiry_exceeded");
        }
        let child = make(&world, token, body("2026-01-01T01:00:00Z")).await.is(201);
        world.clock.advance(3_599);
        world.call_as(Some(token), "GET", "/v1/zones", None).await.is(200);
        world.clock.advance(1);
        for ended in [token, child["token"].as_str().unwrap()] {
            world.call_as(Some(ended), "GET", "/v1/zones", None).await.is_refused(401, "invalid_admin_token");
        }
    }

    #[tokio::test]
    async fn no_token_but_the_bootstrap_token_revokes_the_deployments_own() {
        let world = World::new().await;
        let write = world.mint("write", None).await;
        let listed = world.get(PATH).await.is(200);
        let own = |created_by: &str| {
            let items = listed["items"].as_array().unwrap();
            let item = items.iter().find(|item| item["created_by"] == *created_by).unwrap();
            format!("{PATH}/{}", item["id"].as_str().unwrap())
        };
        for created_by in ["env-bootstrap", "env-derived", "env-derived-write", "env-derived-approve"] {
            let path = own(created_by);
            world.call_as(Some(&write), "DELETE", &path, None).await.is_refused(403, "bootstrap_token_required");
        }
        world.call("DELETE", &own("env-derived-approve"), None).await.is(204);
        world.call("DELETE", &own("env-bootstrap"), None).await.is(204);
        world.get(PATH).await.is_refused(401, "invalid_admin_token");
        // Nor does a restart with the same value bring it back.
        let world = world.restarted(BOOTSTRAP).await;
        world.get(PATH).await.is_refused(401, "invalid_admin_token");
    }

    #[tokio::test]
    async fn zone_tokens_and_console_accounts_never_reach_the_deployments_own_routes() {
        let world = World::new().await;
        let zone = world.zone("Ops").await;
        let own = world.mint("write", Some(&zone)).await;
        let bodies = [
            ("GET", PATH, None),
            ("POST", PATH, Some(json!({"name": "x", "scope": "zone", "zone_id": zone}))),
            ("DELETE", "/v1/admin-tokens/x", None),
            ("GET", "/v1/admin-audit", None),
        ];
        for (method, path, body) in bodies {
            let answer = world.call_as(Some(&own), method, path, body.clone()).await;
            answer.is_refused(403, "admin_token_zone_mismatch");
            for console in [ConsoleToken::ReadOnly, ConsoleToken::Write] {
                if console == ConsoleToken::ReadOnly && method != "GET" {
                    continue;
                }
                let mut request = request(Some(&derived(console)), method, path, body.clone());
                request.headers_mut().insert("x-caracal-account", assertion("acct-1", START + 60).parse().unwrap());
                world.send(request).await.is_refused(403, "account_scope_required");
            }
        }
    }
}

#[tokio::test]
async fn when_a_token_was_last_used_is_known_roughly() {
    let world = World::new().await;
    let token = world.mint("read", None).await;
    let used = async || {
        let listed = world.get(PATH).await.is(200);
        let items = listed["items"].as_array().unwrap();
        items.iter().find(|item| item["name"] == "test read").unwrap()["last_used_at"].clone()
    };
    assert_eq!(used().await, Value::Null);
    world.call_as(Some(&token), "GET", "/v1/zones", None).await.is(200);
    // It is written behind the request; what waits is written before the end.
    world.records(None).await;
    assert_eq!(used().await, "2026-01-01T00:00:00.000Z");
}
