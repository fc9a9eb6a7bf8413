//! What hangs on a delegation, what a session may do with all it was lent, and the zone's epoch (contract: coordinator.md
//! §6.4, §6.6).

use caracal_authority::{ApplicationId, AuthorityRecordId};
use serde_json::{Value, json};

use crate::support::{House, OPERATOR};

fn rows(list: &Value) -> Vec<(String, u64)> {
    let row = |row: &Value| (row["id"].as_str().unwrap().to_owned(), row["depth"].as_u64().unwrap());
    list.as_array().unwrap().iter().map(row).collect()
}

/// A diamond: `s-1` lends to `s-2` and, by another edge, `s-2` to `s-3` and `s-4`, and both of these to `s-5`.
async fn diamond(house: &House) {
    for (id, source, target) in [
        ("e-1", "s-1", "s-2"),
        ("e-2", "s-2", "s-3"),
        ("e-3", "s-2", "s-4"),
        ("e-4", "s-3", "s-5"),
        ("e-5", "s-4", "s-5"),
        ("e-6", "s-5", "s-6"),
    ] {
        house.add_edge(id, source, target, |_| ()).await;
    }
    for (id, record) in [("s-2", "rec-1"), ("s-3", "rec-1"), ("s-4", "rec-2"), ("s-5", "rec-1"), ("s-6", "rec-2")] {
        let record = AuthorityRecordId::parse(record).unwrap();
        house.add_session(id, |session| session.subject_record_id = record).await;
    }
}

#[tokio::test]
async fn a_traversal_is_a_bare_array_nearest_first_with_each_edge_once() {
    let house = House::open().await;
    diamond(&house).await;
    let path = |id: &str| format!("/zones/z-1/delegations/{id}/traverse");
    let all = house.get(&path("e-1"), OPERATOR).await.expect(200).body;
    let expected = [("e-1", 1), ("e-2", 2), ("e-3", 2), ("e-4", 3), ("e-5", 3), ("e-6", 4)];
    assert_eq!(rows(&all), expected.map(|(id, depth)| (id.to_owned(), depth)));
    let first = json!({"id": "e-1", "source_session_id": "s-1", "target_session_id": "s-2", "depth": 1});
    assert_eq!(all[0], first);
    assert_eq!(rows(&house.get(&path("e-6"), OPERATOR).await.expect(200).body), [("e-6".to_owned(), 1)]);
    assert_eq!(house.get(&path("unknown"), OPERATOR).await.expect(200).body, json!([]));
    house.clock.advance(600);
    assert_eq!(house.get(&path("e-1"), OPERATOR).await.expect(200).body, json!([]), "lapsed");
}

#[tokio::test]
async fn a_chain_is_followed_to_its_end_however_long() {
    let house = House::open().await;
    for number in 1..=14 {
        let [source, target] = [number, number + 1].map(|number| format!("s-{number}"));
        house.add_edge(&format!("e-{number:02}"), &source, &target, |_| ()).await;
    }
    let all = house.get("/zones/z-1/delegations/e-01/traverse", OPERATOR).await.expect(200).body;
    assert_eq!(rows(&all).last(), Some(&("e-14".to_owned(), 14)));
}

mod t08_availability {
    use super::*;

    /// Two edges from each session to the next: as many paths as 2 to the 24th, and 48 edges.
    #[tokio::test]
    async fn a_dense_graph_costs_its_edges_and_not_its_paths() {
        let house = House::open().await;
        for number in 0..24 {
            let [source, target] = [number, number + 1].map(|number| format!("s-{number}"));
            for twin in ["a", "b"] {
                house.add_edge(&format!("e-{number:02}{twin}"), &source, &target, |_| ()).await;
            }
        }
        let all = house.get("/zones/z-1/delegations/e-00a/traverse", OPERATOR).await.expect(200).body;
        assert_eq!(all.as_array().unwrap().len(), 47);
    }
}

#[tokio::test]
async fn an_impact_names_edges_sessions_and_records_each_once() {
    let house = House::open().await;
    diamond(&house).await;
    let body = house.get("/zones/z-1/delegations/e-1/impact", OPERATOR).await.expect(200).body;
    assert_eq!(body["edge_id"], "e-1");
    assert_eq!(rows(&body["affected_edges"]).len(), 6);
    assert_eq!(body["affected_sessions"], json!(["s-2", "s-3", "s-4", "s-5", "s-6"]));
    assert_eq!(body["affected_agents"], body["affected_sessions"]);
    assert_eq!(body["affected_authority_records"], json!(["rec-1", "rec-2"]));
    house.get("/zones/z-1/delegations/unknown/impact", OPERATOR).await.refused(404, "delegation_not_found");
    house.clock.advance(600);
    house.get("/zones/z-1/delegations/e-1/impact", OPERATOR).await.refused(404, "delegation_not_found");
}

#[tokio::test]
async fn an_impact_tells_what_a_revocation_then_takes() {
    let house = House::open().await;
    let (a, b, c) = (house.task().await, house.task().await, house.task().await);
    let first = house.edge(&a, &b, |body| body["constraints"] = json!({"max_hops": 3})).await;
    house.edge(&b, &c, |_| ()).await;
    let told = house.get(&format!("/zones/z-1/delegations/{first}/impact"), OPERATOR).await.expect(200).body;
    let revoked = house.revoke(OPERATOR, &first).await.expect(200).body;
    assert_eq!(told["affected_edges"].as_array().unwrap().len() as u64, revoked["revoked_edges"].as_u64().unwrap());
    assert_eq!(
        told["affected_sessions"].as_array().unwrap().len() as u64,
        revoked["terminated_sessions"].as_u64().unwrap()
    );
    house.get(&format!("/zones/z-1/delegations/{first}/impact"), OPERATOR).await.refused(404, "delegation_not_found");
}

mod t04_state_topology {
    use super::*;

    #[tokio::test]
    async fn how_delegations_hang_together_is_told_to_administrators_only() {
        let house = House::open().await;
        diamond(&house).await;
        let (own, admin) = (house.mandate("app-1").await, house.mandate_with("app-2", "coordinator.admin").await);
        for what in ["traverse", "impact"] {
            let path = format!("/zones/z-1/delegations/e-1/{what}");
            house.get(&path, &own).await.refused(403, "coordinator_admin_required");
            house.get(&path, &admin).await.expect(200);
        }
        let path = "/zones/z-1/delegations/unknown/traverse";
        house.get(path, &own).await.refused(403, "coordinator_admin_required");
    }

    #[tokio::test]
    async fn what_a_foreign_session_may_do_is_told_to_its_owner_and_administrators() {
        let house = House::open().await;
        let session = house.task().await;
        let path = format!("/zones/z-1/agents/{session}/effective-authority");
        let stranger = house.mandate("app-2").await;
        house.get(&path, &stranger).await.refused(404, "session_not_found");
        house.get(&path, &house.mandate("app-1").await).await.expect(200);
        house.get(&path, OPERATOR).await.expect(200);
        let unknown = "/zones/z-1/agents/unknown/effective-authority";
        house.get(unknown, &house.mandate("app-1").await).await.refused(404, "session_not_found");
        assert_eq!(house.get(unknown, OPERATOR).await.expect(200).body["inbound_edges"], json!([]));
    }
}

#[tokio::test]
async fn two_delegations_allow_together_only_what_both_allow() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    let (a, b, target) = (house.task().await, house.task().await, house.task().await);
    let wide = house
        .edge(&a, &target, |body| {
            body["scopes"] = json!(["write", "read"]);
            body["constraints"] = json!({"max_hops": 3});
            body["ttl_seconds"] = json!(600);
        })
        .await;
    let narrow = house
        .edge(&b, &target, |body| {
            body["resource_id"] = json!(null);
            body["constraints"] = json!({"max_hops": 2, "resources": ["resource://docs"]});
            body["ttl_seconds"] = json!(300);
        })
        .await;
    let path = format!("/zones/z-1/agents/{target}/effective-authority");
    let expected = json!({
        "agent_session_id": target,
        "inbound_edges": [wide, narrow],
        "effective_scopes": ["read"],
        "effective_resource_ids": ["res-docs"],
        "effective_resources": ["resource://docs"],
        "effective_resource_constrained": true,
        "effective_max_hops": 2,
        "effective_ttl_seconds": 300,
        "earliest_expires_at": "2027-01-15T08:05:00.000Z",
    });
    assert_eq!(house.get(&path, &token).await.expect(200).body, expected);
    // The narrow one has lapsed, so the wide one counts alone; then nothing does.
    house.clock.advance(300);
    let wider = house.get(&path, &token).await.expect(200).body;
    assert_eq!((&wider["inbound_edges"], &wider["effective_scopes"]), (&json!([wide]), &json!(["read", "write"])));
    house.clock.advance(300);
    let nothing = json!({
        "agent_session_id": target, "inbound_edges": [], "effective_scopes": [], "effective_resources": [],
        "effective_max_hops": 0, "effective_ttl_seconds": null, "earliest_expires_at": null,
    });
    assert_eq!(house.get(&path, &token).await.expect(200).body, nothing);
}

#[tokio::test]
async fn a_delegation_whose_constraints_cannot_be_read_is_named_and_allows_nothing() {
    let house = House::open().await;
    let damaged = |edge: &mut caracal_store::delegations::EdgeRow| {
        edge.constraints = json!({"unknown": 1}).as_object().unwrap().clone();
    };
    house.add_edge("e-1", "s-1", "s-2", damaged).await;
    let body = house.get("/zones/z-1/agents/s-2/effective-authority", OPERATOR).await.expect(200).body;
    assert_eq!((&body["inbound_edges"], &body["effective_scopes"]), (&json!(["e-1"]), &json!([])));
    assert_eq!((&body["effective_max_hops"], &body["earliest_expires_at"]), (&Value::Null, &Value::Null));
}

#[tokio::test]
async fn the_epoch_is_told_to_every_caller_of_the_zone_and_rises_when_authority_shrinks() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    let path = "/zones/z-1/delegations/epoch";
    let (a, b) = (house.task().await, house.task().await);
    let edge = house.edge(&a, &b, |_| ()).await;
    assert_eq!(house.get(path, &token).await.expect(200).body, json!({"zone_id": "z-1", "epoch": 0}));
    house.revoke(&token, &edge).await.expect(200);
    for token in [token.as_str(), OPERATOR, &house.mandate("app-2").await] {
        assert_eq!(house.get(path, token).await.expect(200).body["epoch"], 1);
    }
}

/// An offer across applications: the issuer's, received by another, and narrowed on from there.
#[tokio::test]
async fn an_application_lends_to_another_which_lends_on_less_and_never_more() {
    let house = House::open().await;
    let (one, two) = (house.mandate("app-1").await, house.mandate("app-2").await);
    let a = house.task().await;
    let body = json!({"application_id": "app-2"});
    let b = house.start(&two, body.clone()).await.expect(201).text("agent_session_id");
    let c = house.start(&two, body).await.expect(201).text("agent_session_id");
    let offer = json!({
        "source_session_id": a, "target_session_id": b, "issuer_application_id": "app-1",
        "receiver_application_id": "app-2", "resource_id": "resource://docs", "scopes": ["read"], "ttl_seconds": 600,
        "constraints": {"max_hops": 2},
    });
    house.post("/zones/z-1/delegations", &two, offer.clone()).await.refused(403, "issuer_ownership_required");
    let edge = house.post("/zones/z-1/delegations", &one, offer.clone()).await.expect(201).text("delegation_edge_id");
    let mut onward = json!({
        "source_session_id": b, "target_session_id": c, "issuer_application_id": "app-2",
        "receiver_application_id": "app-2", "resource_id": "resource://docs", "scopes": ["read"], "ttl_seconds": 500,
    });
    let child = house.post("/zones/z-1/delegations", &two, onward.clone()).await.expect(201);
    assert_eq!(child.body["parent_edge_id"], json!(edge));
    onward["scopes"] = json!(["write"]);
    house.post("/zones/z-1/delegations", &two, onward).await.refused(403, "delegation_exceeds_parent_authority");
    // Both see the offer, each its own side of it; the receiver cannot take it back, the issuer can.
    let receiver = ApplicationId::parse("app-2").unwrap();
    assert_eq!(house.edge_row(&edge).await.receiver_application_id, receiver);
    house.revoke(&two, &edge).await.refused(403, "issuer_ownership_required");
    house.revoke(&one, &edge).await.expect(200);
    assert_eq!(house.edge_row(&child.text("delegation_edge_id")).await.status, "revoked");
}
