//! Messages that were given up: who sees them, and how they get another try (contract: coordinator.md §8, §18; README D27).

use caracal_authority::ZoneId;
use caracal_store::{StoreError, outbox};
use serde_json::json;

use crate::support::{House, OPERATOR};

const FIRST: &str = "019b76da-a800-7000-8000-000000000001";
const SECOND: &str = "019b76da-a800-7000-8000-000000000002";

/// Two messages of `z-1` are dead, one of another zone is, and one of `z-1` is alive.
async fn house_with_dead_messages() -> House {
    let house = House::open().await;
    for (zone, id, dies) in [
        ("z-1", FIRST, true),
        ("z-1", SECOND, true),
        ("z-2", "019b76da-a800-7000-8000-000000000003", true),
        ("z-1", "019b76da-a800-7000-8000-000000000004", false),
    ] {
        let zone = ZoneId::parse(zone).unwrap();
        let done: Result<(), StoreError> = house
            .store
            .commit_deployment((zone, id), |tx, (zone, key)| {
                Box::pin(async move {
                    let id = key.parse().unwrap();
                    outbox::add(&mut tx.zone_write(zone), id, "topic", key, Vec::new()).await?;
                    Ok(())
                })
            })
            .await;
        done.unwrap();
        if dies {
            let done: Result<(), StoreError> = house
                .store
                .commit_upkeep(id, |tx, id| {
                    Box::pin(async move { outbox::note_refusal(tx, &id.parse().unwrap(), "WRONGTYPE", None).await })
                })
                .await;
            done.unwrap();
        }
    }
    house
}

#[tokio::test]
async fn an_operator_lists_the_dead_of_a_zone_and_requeues_one_or_all() {
    let house = house_with_dead_messages().await;
    let listed = house.get("/zones/z-1/outbox", OPERATOR).await.expect(200);
    let ids: Vec<_> = listed.body["items"].as_array().unwrap().iter().map(|item| item["id"].clone()).collect();
    assert_eq!(ids, [json!(FIRST), json!(SECOND)]);
    assert_eq!(listed.body["items"][0]["last_error"], "WRONGTYPE");
    let one = house.post(&format!("/zones/z-1/outbox/{FIRST}/requeue"), OPERATOR, json!({})).await.expect(200);
    assert_eq!(one.body, json!({"id": FIRST, "status": "pending"}));
    // It is not dead any more, and those of other zones and those that never died were never there.
    for id in [FIRST, "019b76da-a800-7000-8000-000000000003", "019b76da-a800-7000-8000-000000000004"] {
        let path = format!("/zones/z-1/outbox/{id}/requeue");
        house.post(&path, OPERATOR, json!({})).await.refused(404, "dead_outbox_not_found");
    }
    let all = house.post("/zones/z-1/outbox/requeue", OPERATOR, json!({})).await.expect(200);
    assert_eq!(all.body, json!({"requeued": 1}));
    assert_eq!(house.get("/zones/z-1/outbox", OPERATOR).await.expect(200).body, json!({"items": []}));
    let other = house.get("/zones/z-2/outbox", OPERATOR).await.expect(200);
    assert_eq!(other.body["items"].as_array().unwrap().len(), 1);
    assert_eq!(house.changes("z-1").await.len(), 2, "each requeue that did something is on record");
}

/// Contract, coordinator.md §18: 403 comes before the parameters are looked at.
#[tokio::test]
async fn t01_control_plane_nobody_else_sees_or_moves_them() {
    let house = house_with_dead_messages().await;
    let token = house.mandate("app-1").await;
    for (method, path) in [
        ("GET", "/zones/z-1/outbox".to_owned()),
        ("POST", "/zones/z-1/outbox/requeue".to_owned()),
        ("POST", format!("/zones/z-1/outbox/{FIRST}/requeue")),
        ("POST", "/zones/z-1/outbox/no%20id/requeue".to_owned()),
    ] {
        let body = (method == "POST").then(|| json!({}));
        house.call(method, &path, &token, body).await.refused(403, "coordinator_admin_required");
    }
    house.post("/zones/z-1/outbox/no%20id/requeue", OPERATOR, json!({})).await.refused(400, "invalid_body");
    assert_eq!(house.get("/zones/z-1/outbox", OPERATOR).await.expect(200).body["items"].as_array().unwrap().len(), 2);
}
