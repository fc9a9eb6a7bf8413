//! For how many days evidence is kept (contract: audit-and-streams.md §5.5, §13).

use caracal_admin::AdminConfig;
use serde_json::{Value, json};

use crate::world::World;

const PATH: &str = "/v1/audit-retention";

async fn world() -> World {
    World::with(AdminConfig { retention_ceiling: 30, ..AdminConfig::default() }).await
}

#[tokio::test]
async fn it_is_the_ceiling_until_somebody_sets_fewer_days() {
    let world = world().await;
    let unset = json!({"retention_days": 30, "max_days": 30, "updated_by": null, "updated_at": null});
    assert_eq!(world.get(PATH).await.is(200), unset);
    world.clock.advance(5);
    let set = world.call("PUT", PATH, Some(json!({"retention_days": 10}))).await.is(200);
    assert_eq!((&set["retention_days"], &set["max_days"]), (&json!(10), &json!(30)));
    assert!(set["updated_by"].as_str().unwrap().starts_with("admin:"), "{set}");
    assert_eq!(set["updated_at"], "2026-01-01T00:00:05.000Z");
    assert_eq!(world.get(PATH).await.is(200), set);
    let records = world.records(None).await;
    let last = records.last().unwrap();
    assert_eq!((last.method.as_str(), last.path.as_str(), last.status_code), ("PUT", PATH, 200));
    let payload: Value = serde_json::from_str(last.payload.as_deref().unwrap()).unwrap();
    assert_eq!((&payload["change_kind"], &payload["changed_fields"]), (&json!("update"), &json!(["retention_days"])));
    world.outside("UPDATE deployment SET value = replace(value, '10', '90') WHERE name = 'audit_retention'");
    assert_eq!(world.get(PATH).await.is(200)["retention_days"], 30, "of a time of a higher ceiling");
}

#[tokio::test]
async fn what_is_no_number_of_days_or_above_the_ceiling_changes_nothing() {
    let world = world().await;
    let set = world.call("PUT", PATH, Some(json!({"retention_days": 30}))).await.is(200);
    for wrong in [
        json!({}),
        json!({"retention_days": 0}),
        json!({"retention_days": "10"}),
        json!({"retention_days": 1.5}),
        json!({"retention_days": 10, "max_days": 40}),
        json!({"limit_per_minute": 10}),
    ] {
        world.call("PUT", PATH, Some(wrong)).await.is_refused(400, "invalid_body");
    }
    for high in [json!(31), json!(4_294_967_297_u64)] {
        let answer = world.call("PUT", PATH, Some(json!({"retention_days": high}))).await;
        assert_eq!(answer.is_refused(400, "retention_above_limit").json()["max_days"], 30);
    }
    assert_eq!(world.get(PATH).await.is(200), set);
}

/// Fewer days remove evidence of every zone, so a token of one zone can't say so.
#[tokio::test]
async fn t01_control_plane_only_a_global_token_that_writes_sets_it() {
    let world = world().await;
    let zone = world.zone("Ops").await;
    let body = || Some(json!({"retention_days": 5}));
    for capability in ["read", "write", "approve"] {
        let global = world.mint(capability, None).await;
        world.call_as(Some(&global), "GET", PATH, None).await.is(200);
        let set = world.call_as(Some(&global), "PUT", PATH, body()).await;
        assert_eq!(set.status, if capability == "write" { 200 } else { 403 }, "{capability}");
        let of_zone = world.mint(capability, Some(&zone)).await;
        assert_eq!(world.call_as(Some(&of_zone), "PUT", PATH, body()).await.status, 403, "{capability}");
        world.call_as(Some(&of_zone), "GET", PATH, None).await.is_refused(403, "admin_token_zone_mismatch");
    }
}
