//! The limit of mints that operators set for the whole deployment.

use caracal_admin::AdminConfig;
use caracal_crypto::fast_hash::ConsoleToken;
use serde_json::{Value, json};

use crate::world::{START, World, assertion, derived, request};

const PATH: &str = "/v1/mint-rate-limit";

async fn world() -> World {
    World::with(AdminConfig { mint_rate_ceiling: 500, ..AdminConfig::default() }).await
}

#[tokio::test]
async fn the_limit_is_the_ceiling_until_somebody_sets_a_lower_one() {
    let world = world().await;
    let unset = json!({"limit_per_minute": 500, "max_per_minute": 500, "updated_by": null, "updated_at": null});
    assert_eq!(world.get(PATH).await.is(200), unset);
    world.clock.advance(5);
    let set = world.call("PUT", PATH, Some(json!({"limit_per_minute": 20}))).await.is(200);
    assert_eq!((&set["limit_per_minute"], &set["max_per_minute"]), (&json!(20), &json!(500)));
    assert!(set["updated_by"].as_str().unwrap().starts_with("admin:"), "{set}");
    assert_eq!(set["updated_at"], "2026-01-01T00:00:05.000Z");
    assert_eq!(world.get(PATH).await.is(200), set);
    for limit in [1, 500] {
        world.call("PUT", PATH, Some(json!({"limit_per_minute": limit}))).await.is(200);
        assert_eq!(world.get(PATH).await.is(200)["limit_per_minute"], limit);
    }
    let records = world.records(None).await;
    let last = records.last().unwrap();
    assert_eq!((last.method.as_str(), last.path.as_str(), last.status_code), ("PUT", PATH, 200));
    let payload: Value = serde_json::from_str(last.payload.as_deref().unwrap()).unwrap();
    assert_eq!((&payload["change_kind"], &payload["changed_fields"]), (&json!("update"), &json!(["limit_per_minute"])));
}

#[tokio::test]
async fn what_is_no_limit_is_refused_and_changes_nothing() {
    let world = world().await;
    let set = world.call("PUT", PATH, Some(json!({"limit_per_minute": 20}))).await.is(200);
    for wrong in [
        json!({}),
        json!([]),
        json!({"limit_per_minute": null}),
        json!({"limit_per_minute": "20"}),
        json!({"limit_per_minute": 0}),
        json!({"limit_per_minute": -1}),
        json!({"limit_per_minute": 1.5}),
        json!({"limit_per_minute": 20, "max_per_minute": 1_000}),
        json!({"retention_days": 20}),
    ] {
        world.call("PUT", PATH, Some(wrong)).await.is_refused(400, "invalid_body");
    }
    world.call("PUT", PATH, None).await.is_refused(400, "invalid_body");
    for high in [json!(501), json!(4_294_967_296_u64), json!(9_007_199_254_740_991_u64)] {
        let answer = world.call("PUT", PATH, Some(json!({"limit_per_minute": high}))).await;
        assert_eq!(answer.is_refused(400, "rate_limit_above_ceiling").json()["max_per_minute"], 500);
    }
    assert_eq!(world.get(PATH).await.is(200), set);
}

#[tokio::test]
async fn a_limit_from_a_time_of_a_higher_ceiling_counts_as_the_ceiling() {
    let world = World::with(AdminConfig { mint_rate_ceiling: 900, ..AdminConfig::default() }).await;
    world.call("PUT", PATH, Some(json!({"limit_per_minute": 800}))).await.is(200);
    world.outside("UPDATE deployment SET value = replace(value, '800', '1200') WHERE name = 'mint_rate_limit'");
    let shown = world.get(PATH).await.is(200);
    assert_eq!((&shown["limit_per_minute"], &shown["max_per_minute"]), (&json!(900), &json!(900)));
}

#[tokio::test]
async fn any_global_token_reads_it_and_a_writing_one_or_an_account_sets_it() {
    let world = world().await;
    let zone = world.zone("Ops").await;
    let body = || Some(json!({"limit_per_minute": 30}));
    for capability in ["read", "write", "approve"] {
        let global = world.mint(capability, None).await;
        world.call_as(Some(&global), "GET", PATH, None).await.is(200);
        let of_zone = world.mint(capability, Some(&zone)).await;
        world.call_as(Some(&of_zone), "GET", PATH, None).await.is_refused(403, "admin_token_zone_mismatch");
        let set = world.call_as(Some(&of_zone), "PUT", PATH, body()).await;
        assert_eq!(set.status, 403, "{capability}");
        let set = world.call_as(Some(&global), "PUT", PATH, body()).await;
        assert_eq!(set.status, if capability == "write" { 200 } else { 403 }, "{capability}");
    }
    let mut by_account = request(Some(&derived(ConsoleToken::Write)), "PUT", PATH, body());
    by_account.headers_mut().insert("x-caracal-account", assertion("acct-1", START + 60).parse().unwrap());
    assert_eq!(world.send(by_account).await.is(200)["updated_by"], "acct-1");
}
