//! Delegations as they are listed: what a session was lent, what it lends, and what lends now (contract: coordinator.md
//! §6.4).

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
    // Ids of one instant ascend only as long as no other test of this process draws some for a later one.
    edges.sort_unstable_by(|one, other| other.cmp(one));
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

#[tokio::test]
async fn what_a_session_lends_is_paged_newest_first_and_shows_every_status() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    let source = house.task().await;
    let mut edges = Vec::new();
    for _ in 0..2 {
        let target = house.task().await;
        edges.insert(0, house.edge(&source, &target, |_| ()).await);
    }
    edges.sort_unstable_by(|one, other| other.cmp(one));
    house.add_edge("0-revoked", &source, "s-gone", |edge| edge.status = "revoked".to_owned()).await;
    edges.push("0-revoked".to_owned());
    let path = format!("/zones/z-1/delegations/outbound/{source}");
    let all = house.get(&path, &token).await.expect(200).body;
    assert_eq!(
        (ids(&all), &all["items"][2]["status"]),
        (edges.iter().map(String::as_str).collect(), &json!("revoked"))
    );
    assert_eq!(all["items"][0].get("broad_reason"), None);
    let first = house.get(&format!("{path}?limit=2"), &token).await.expect(200).body;
    assert_eq!((ids(&first), &first["next_cursor"]), (vec![edges[0].as_str(), &edges[1]], &json!(edges[1])));
    let rest = house.get(&format!("{path}?limit=2&cursor={}", edges[1]), &token).await.expect(200).body;
    assert_eq!((ids(&rest), &rest["next_cursor"]), (vec!["0-revoked"], &Value::Null));
    // Of the other list of the same session.
    let inbound = house.task().await;
    let other = house.edge(&inbound, &source, |_| ()).await;
    house.get(&format!("{path}?cursor={other}"), &token).await.refused(400, "invalid_cursor");
    house.get(&format!("{path}?limit=0"), &token).await.refused(400, "invalid_query");
}

#[tokio::test]
async fn only_what_lends_now_is_active() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    let (a, b) = (house.task().await, house.task().await);
    let edge = house.edge(&a, &b, |body| body["ttl_seconds"] = json!(60)).await;
    house.add_edge("0-revoked", &a, &b, |edge| edge.status = "revoked".to_owned()).await;
    let broad = |edge: &mut caracal_store::delegations::EdgeRow| edge.broad_reason = Some("why".to_owned());
    house.add_edge("0-broad", &a, &b, broad).await;
    let path = "/zones/z-1/delegations/active";
    let all = house.get(path, &token).await.expect(200).body;
    assert_eq!(ids(&all), [edge.as_str(), "0-broad"]);
    assert_eq!((&all["items"][0]["broad_reason"], &all["items"][1]["broad_reason"]), (&Value::Null, &json!("why")));
    let first = house.get(&format!("{path}?limit=1"), &token).await.expect(200).body;
    assert_eq!((ids(&first), &first["next_cursor"]), (vec![edge.as_str()], &json!(edge)));
    house.clock.advance(60);
    // Lapsed at this very instant, and still a place in the list from which a reader goes on.
    assert_eq!(ids(&house.get(path, &token).await.expect(200).body), ["0-broad"]);
    let rest = house.get(&format!("{path}?limit=1&cursor={edge}"), &token).await.expect(200).body;
    assert_eq!(ids(&rest), ["0-broad"]);
    house.get(&format!("{path}?cursor=unknown"), &token).await.refused(400, "invalid_cursor");
}

mod t04_state_readers {
    use super::*;

    #[tokio::test]
    async fn an_application_sees_active_delegations_that_it_issued_or_received_and_no_others() {
        let house = House::open().await;
        let app = |id: &str| caracal_authority::ApplicationId::parse(id).unwrap();
        for (id, issuer, receiver) in [("e-1", "app-1", "app-1"), ("e-2", "app-2", "app-1"), ("e-3", "app-2", "app-3")]
        {
            let parties = (app(issuer), app(receiver));
            house
                .add_edge(id, "s-1", "s-2", |edge| {
                    (edge.issuer_application_id, edge.receiver_application_id) = parties;
                })
                .await;
        }
        let path = "/zones/z-1/delegations/active";
        for (application, shown, hidden) in [("app-1", vec!["e-2", "e-1"], "e-3"), ("app-2", vec!["e-3", "e-2"], "e-1")]
        {
            let token = house.mandate(application).await;
            assert_eq!(ids(&house.get(path, &token).await.expect(200).body), shown);
            house.get(&format!("{path}?cursor={hidden}"), &token).await.refused(400, "invalid_cursor");
        }
        let admin = house.mandate_with("app-2", "coordinator.admin").await;
        for token in [admin.as_str(), OPERATOR] {
            assert_eq!(ids(&house.get(path, token).await.expect(200).body), ["e-3", "e-2", "e-1"]);
        }
    }

    #[tokio::test]
    async fn what_a_foreign_session_lends_does_not_exist_for_the_caller() {
        let house = House::open().await;
        let (a, b) = (house.task().await, house.task().await);
        let edge = house.edge(&a, &b, |_| ()).await;
        let stranger = house.mandate("app-2").await;
        for path in [format!("outbound/{a}"), format!("outbound/{a}?cursor={edge}"), "outbound/unknown".to_owned()] {
            let path = format!("/zones/z-1/delegations/{path}");
            house.get(&path, &stranger).await.refused(404, "session_not_found");
        }
        let path = format!("/zones/z-1/delegations/outbound/{a}");
        assert_eq!(ids(&house.get(&path, OPERATOR).await.expect(200).body), [edge]);
    }

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
