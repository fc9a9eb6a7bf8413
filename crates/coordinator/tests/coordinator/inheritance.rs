//! What a child inherits of its parent's delegations (contract: coordinator.md §4.2 "Inheritance").

use caracal_authority::{ApplicationId, EdgeId};
use serde_json::{Value, json};

use crate::support::{House, INVALIDATE, about};

async fn child(house: &House, parent: &str, more: Value) -> crate::support::Reply {
    let token = house.mandate("app-1").await;
    let mut body = json!({"application_id": "app-1", "parent_id": parent});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    house.start(&token, body).await
}

#[tokio::test]
async fn a_child_of_a_parent_that_was_lent_nothing_inherits_nothing() {
    let house = House::open().await;
    let parent = house.task().await;
    let reply = child(&house, &parent, json!({})).await.expect(201);
    assert_eq!(reply.body["delegation_edge_id"], Value::Null);
    let named = child(&house, &parent, json!({"inherit_parent_edge_id": "unknown"})).await;
    named.refused(409, "inherit_parent_edge_not_active");
    child(&house, &parent, json!({"inherit_parent_edge_id": "a b"}))
        .await
        .refused(409, "inherit_parent_edge_not_active");
}

mod t04_state_inheritance {
    use super::*;

    #[tokio::test]
    async fn an_inherited_edge_is_its_parents_in_everything() {
        let house = House::open().await;
        let (a, b) = (house.task().await, house.task().await);
        let lent = house
            .edge(&a, &b, |body| {
                body["scopes"] = json!(["write", "read"]);
                body["constraints"] = json!({"max_depth": 2, "budget": 4, "resources": ["resource://docs"]});
            })
            .await;
        house.messages();
        let reply = child(&house, &b, json!({})).await.expect(201);
        let (id, edge) = (reply.text("agent_session_id"), reply.text("delegation_edge_id"));
        let (lent, edge) = (house.edge_row(&lent).await, house.edge_row(&edge).await);
        assert!(edge.mirrored && !lent.mirrored);
        assert_eq!(edge.parent_edge_id.as_ref(), Some(&lent.id));
        assert_eq!((edge.source_session_id.as_str(), edge.target_session_id.as_str()), (b.as_str(), id.as_str()));
        assert_eq!(edge.issuer_application_id.as_str(), "app-1");
        assert_eq!(edge.receiver_application_id.as_str(), "app-1");
        assert_eq!(edge.resource_id, lent.resource_id);
        assert_eq!(edge.scopes, ["write", "read"]);
        assert_eq!(edge.constraints, lent.constraints);
        assert_eq!(edge.expires_at, lent.expires_at);
        let messages = house.messages();
        let created = about(&messages, INVALIDATE, "edge_id", edge.id.as_str());
        assert_eq!((created[0].field("event"), created[0].field("epoch")), (Some("edge_create"), Some("0")));
        assert_eq!(house.epoch().await, 0, "inheriting takes nothing from anybody");
    }

    #[tokio::test]
    async fn a_lapsed_ended_or_ambiguous_delegation_is_not_inherited_silently() {
        let house = House::open().await;
        let (a, b, c) = (house.task().await, house.task().await, house.task().await);
        let first = house.edge(&a, &b, |body| body["ttl_seconds"] = json!(60)).await;
        let second = house.edge(&c, &b, |body| body["ttl_seconds"] = json!(120)).await;
        let before = house.holding().await;
        child(&house, &b, json!({})).await.refused(409, "inherit_parent_edge_ambiguous");
        let chosen = child(&house, &b, json!({"inherit_parent_edge_id": first})).await.expect(201);
        let edge = house.edge_row(&chosen.text("delegation_edge_id")).await;
        assert_eq!(edge.parent_edge_id.as_ref().map(EdgeId::as_str), Some(first.as_str()));
        house.clock.advance(60);
        child(&house, &b, json!({"inherit_parent_edge_id": first}))
            .await
            .refused(409, "inherit_parent_edge_not_active");
        let other = child(&house, &b, json!({})).await.expect(201);
        let edge = house.edge_row(&other.text("delegation_edge_id")).await;
        assert_eq!(edge.parent_edge_id.as_ref().map(EdgeId::as_str), Some(second.as_str()));
        house.clock.advance(60);
        child(&house, &b, json!({})).await.refused(409, "inherit_parent_edge_not_active");
        // Ended edges of the parent count as much as lapsed ones.
        house.add_session("s-lent", |_| ()).await;
        house.add_edge("e-ended", &a, "s-lent", |edge| edge.status = "expired".to_owned()).await;
        child(&house, "s-lent", json!({})).await.refused(409, "inherit_parent_edge_not_active");
        assert_eq!(house.holding().await, before + 3, "refused children were not started");
        let independent = json!({"parent_authority": "none", "inherit_parent_edge_id": first});
        let reply = child(&house, &b, independent).await.expect(201);
        assert_eq!(reply.body["delegation_edge_id"], Value::Null);
    }

    #[tokio::test]
    async fn a_child_of_another_application_inherits_nothing() {
        let house = House::open().await;
        let lender = house.task().await;
        house.add_session("s-theirs", |session| session.application_id = ApplicationId::parse("app-2").unwrap()).await;
        house
            .add_edge("e-1", &lender, "s-theirs", |edge| {
                edge.receiver_application_id = ApplicationId::parse("app-2").unwrap();
            })
            .await;
        let token = house.mandate_with("app-1", "coordinator.spawn_under:app-2").await;
        let body = json!({"application_id": "app-1", "parent_id": "s-theirs"});
        let reply = house.start(&token, body).await.expect(201);
        assert_eq!(reply.body["delegation_edge_id"], Value::Null);
        let body = json!({"application_id": "app-1", "parent_id": "s-theirs", "inherit_parent_edge_id": "e-1"});
        house.start(&token, body).await.refused(409, "inherit_parent_edge_not_active");
    }

    #[tokio::test]
    async fn an_edge_of_another_session_cannot_be_named() {
        let house = House::open().await;
        let (a, b, c) = (house.task().await, house.task().await, house.task().await);
        let edge = house.edge(&a, &b, |_| ()).await;
        let reply = child(&house, &c, json!({"inherit_parent_edge_id": edge})).await;
        reply.refused(409, "inherit_parent_edge_not_active");
    }

    #[tokio::test]
    async fn no_lineage_grows_beyond_ten_edges() {
        let house = House::open().await;
        let (a, b) = (house.task().await, house.task().await);
        house.edge(&a, &b, |_| ()).await;
        let mut last = b;
        for _ in 0..9 {
            last = child(&house, &last, json!({})).await.expect(201).text("agent_session_id");
        }
        child(&house, &last, json!({})).await.refused(429, "session_depth_limit_exceeded");
        child(&house, &last, json!({"parent_authority": "none"})).await.expect(201);
    }
}
