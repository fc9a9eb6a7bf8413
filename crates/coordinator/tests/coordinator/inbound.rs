//! What a session was lent, as its owner reads it (contract: coordinator.md §6.4).

use serde_json::{Value, json};

use crate::support::{House, OPERATOR};

fn ids(body: &Value) -> Vec<&str> {
    body["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_list_is_paged_newest_first_and_shows_every_status() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    let target = house.task().await;
    let mut edges = Vec::new();
    for _ in 0..3 {
        let source = house.task().await;
        edges.push(house.edge(&source, &target, |body| body["ttl_seconds"] = json!(60)).await);
    }
    house.add_edge("0-revoked", &target, &target, |edge| edge.status = "revoked".to_owned()).await;
    edges.reverse();
    edges.push("0-revoked".to_owned());
    let path = format!("/zones/z-1/delegations/inbound/{target}");
    // Lapsed, and not swept: the list says what is stored.
    house.clock.advance(60);
    let all = house.get(&path, &token).await.expect(200).body;
    assert_eq!(ids(&all), edges);
    assert_eq!(all["next_cursor"], Value::Null);
    let item = &all["items"][0];
    assert_eq!((&item["status"], &item["expires_at"]), (&json!("active"), &json!("2027-01-15T08:01:00.000Z")));
    assert_eq!(item["constraints_json"], json!({"ttl_seconds": 60}));
    let first = house.get(&format!("{path}?limit=2"), &token).await.expect(200).body;
    assert_eq!((ids(&first), &first["next_cursor"]), (vec![edges[0].as_str(), &edges[1]], &json!(edges[1])));
    let rest = house.get(&format!("{path}?limit=2&cursor={}", edges[1]), &token).await.expect(200).body;
    assert_eq!((ids(&rest), &rest["next_cursor"]), (vec![edges[2].as_str(), &edges[3]], &json!("0-revoked")));
    let end = house.get(&format!("{path}?limit=2&cursor=0-revoked"), &token).await.expect(200).body;
    assert_eq!((ids(&end), &end["next_cursor"]), (vec![], &Value::Null));
}

#[tokio::test]
async fn queries_and_cursors_have_a_form() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    let (a, b) = (house.task().await, house.task().await);
    let other = house.edge(&a, &b, |_| ()).await;
    let path = format!("/zones/z-1/delegations/inbound/{a}");
    for query in ["limit=0", "limit=501", "limit=", "limit=1.5", "limit=abc", "limit=1&limit=1", "cursor=", "limit=-1"]
    {
        house.get(&format!("{path}?{query}"), &token).await.refused(400, "invalid_query");
    }
    for cursor in ["unknown", "a%20b", &other] {
        house.get(&format!("{path}?cursor={cursor}"), &token).await.refused(400, "invalid_cursor");
    }
    house.get(&format!("{path}?limit=500&other=1&other=2"), &token).await.expect(200);
}

#[tokio::test]
async fn a_delegation_is_found_by_its_target_while_it_is_live() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    let (a, b) = (house.task().await, house.task().await);
    let edge = house.edge(&a, &b, |body| body["ttl_seconds"] = json!(60)).await;
    let path = format!("/zones/z-1/delegations/inbound/{b}/{edge}");
    assert_eq!(house.get(&path, &token).await.expect(200).body, json!({"id": edge, "status": "active"}));
    house.get(&path, OPERATOR).await.expect(200);
    let elsewhere = format!("/zones/z-1/delegations/inbound/{a}/{edge}");
    house.get(&elsewhere, &token).await.refused(404, "delegation_not_found");
    house
        .get(&format!("/zones/z-1/delegations/inbound/{b}/unknown"), &token)
        .await
        .refused(404, "delegation_not_found");
    house.clock.advance(60);
    house.get(&path, &token).await.refused(404, "delegation_not_found");
}

mod t04_state_readers {
    use super::*;

    #[tokio::test]
    async fn a_foreign_sessions_delegations_do_not_exist_for_the_caller() {
        let house = House::open().await;
        let (a, b) = (house.task().await, house.task().await);
        let edge = house.edge(&a, &b, |_| ()).await;
        let stranger = house.mandate("app-2").await;
        let path = format!("/zones/z-1/delegations/inbound/{b}");
        for path in [path.clone(), format!("{path}/{edge}"), format!("{path}?cursor=unknown")] {
            house.get(&path, &stranger).await.refused(404, "session_not_found");
        }
        let admin = house.mandate_with("app-2", "coordinator.admin").await;
        assert_eq!(ids(&house.get(&path, &admin).await.expect(200).body), [edge]);
    }
}
