//! Admin tokens: made, listed, revoked, and out of each other's reach (admin-api.md §2.3; D12, D22; threat T12).

use caracal_admin::AdminConfig;
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

    /// Every kind of token, and everything it could wish for: what is made can do no more than its maker, at no more
    /// places, for no longer.
    #[tokio::test]
    async fn whatever_a_token_wishes_for_it_makes_nothing_that_is_more_than_itself() {
        /// Zone, capability, and the hour's second at which it ends.
        type Power<'p> = (Option<&'p str>, &'p str, Option<u32>);
        let open = AdminConfig { requests_per_minute: 0, ..AdminConfig::default() };
        let world = World::with(open).await;
        let (own, other) = (world.zone("Own").await, world.zone("Other").await);
        let body = |(zone, capability, end): Power<'_>| {
            let mut body = json!({"name": "x", "scope": "global", "capability": capability});
            if let Some(zone) = zone {
                (body["scope"], body["zone_id"]) = (json!("zone"), json!(zone));
            }
            if let Some(second) = end {
                body["expires_at"] = json!(format!("2026-01-01T01:00:{second:02}Z"));
            }
            body
        };
        let powers = |zones: &[Option<&'static str>], ends: &[Option<u32>]| -> Vec<Power<'static>> {
            let of_zone = |zone: &Option<&'static str>| {
                let zone = *zone;
                let all = ["read", "write", "approve"].into_iter();
                all.flat_map(move |capability| ends.iter().map(move |end| (zone, capability, *end))).collect::<Vec<_>>()
            };
            zones.iter().flat_map(of_zone).collect()
        };
        let place = |name: Option<&'static str>| name.map(|name| if name == "own" { own.as_str() } else { &other });
        let mut made = 0;
        for (zone, capability, end) in powers(&[None, Some("own")], &[None, Some(30)]) {
            let maker = make(&world, BOOTSTRAP, body((place(zone), capability, end))).await.is(201);
            let maker_token = maker["token"].as_str().unwrap();
            for wish in powers(&[None, Some("own"), Some("other")], &[None, Some(29), Some(30), Some(31)]) {
                let wished = (place(wish.0), wish.1, wish.2);
                let answer = make(&world, maker_token, body(wished)).await;
                let case = format!("{:?} for {:?}: {}", (zone, capability, end), wish, answer.text);
                // Said anew, and not as the code says it: capabilities, places and time are each ordered.
                let may_make_any = capability == "write" && zone.is_none();
                let can_no_more = wish.1 == capability || (capability == "write" && wish.1 == "read");
                let lasts_no_longer = end.is_none_or(|end| wish.2.is_some_and(|asked| asked <= end));
                if may_make_any && can_no_more && lasts_no_longer {
                    let told = answer.is(201);
                    let kept = (told["zone_id"].as_str(), told["capability"].as_str());
                    assert_eq!(kept, (wished.0, Some(wish.1)), "{case}");
                    made += 1;
                } else {
                    assert_eq!((answer.status.as_u16(), answer.json().get("token")), (403, None), "{case}");
                }
            }
        }
        // Global writers: without an end they make all but what decides, with one half of that.
        assert_eq!(made, 24 + 12);
        // Beside the deployment's own four and the makers nothing else came to be.
        let mut count = 0;
        let mut path = format!("{PATH}?limit=100");
        loop {
            let page = world.get(&path).await.is(200);
            count += page["items"].as_array().unwrap().len();
            let Some(next) = page["next_cursor"].as_str() else { break };
            path = format!("{PATH}?limit=100&cursor={next}");
        }
        assert_eq!(count, 4 + 12 + made);
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
