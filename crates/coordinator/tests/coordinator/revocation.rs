//! Revoking delegations (contract: coordinator.md §6.5, §9; W4, D14, D15).

mod t04_state_revocation {
    use caracal_authority::AuthorityRecordId;
    use serde_json::{Value, json};

    use crate::support::{House, INVALIDATE, OPERATOR, REVOKE, about};

    fn hops(hops: u64, ttl: u64) -> impl FnOnce(&mut Value) {
        move |body: &mut Value| {
            body["constraints"] = json!({"max_hops": hops});
            body["ttl_seconds"] = json!(ttl);
        }
    }

    #[tokio::test]
    async fn everything_downstream_falls_and_the_source_goes_on() {
        let house = House::open().await;
        let token = house.mandate("app-1").await;
        let (a, b, c) = (house.task().await, house.task().await, house.task().await);
        let ab = house.edge(&a, &b, hops(3, 600)).await;
        let bc = house.edge(&b, &c, hops(2, 500)).await;
        let child = house.child(&c).await;
        house.messages();
        let reply = house.revoke(&token, &ab).await.expect(200);
        assert_eq!(reply.body, json!({"revoked_edges": 2, "affected_sessions": 1, "terminated_sessions": 3}));
        assert_eq!(house.session(&a).await.status, "active");
        for (id, reason) in [(&b, "delegation_revoked"), (&c, "delegation_revoked"), (&child, "parent_terminated")] {
            let session = house.session(id).await;
            assert_eq!((session.status.as_str(), session.termination_reason.as_deref()), ("terminated", Some(reason)));
        }
        assert_eq!(house.epoch().await, 1);
        assert_eq!(house.record_row("rec-1").await.status, "active", "an application's record is nobody's collateral");
        let messages = house.messages();
        for id in [&b, &c, &child] {
            let ended = about(&messages, REVOKE, "agent_session_id", id);
            assert_eq!(ended.len(), 1, "each session by its own name");
            assert_eq!(ended[0].field("reason"), Some("delegation_revoked"));
            assert_eq!(ended[0].field("session_id"), None);
        }
        for (edge, affected) in [(&ab, Some("2")), (&bc, None)] {
            let revoked = about(&messages, INVALIDATE, "edge_id", edge);
            assert_eq!(revoked.len(), 1, "each edge by its own name");
            assert_eq!(revoked[0].field("epoch"), Some("1"));
            assert_eq!(revoked[0].field("affected_edges"), affected);
            assert_eq!(about(&messages, REVOKE, "delegation_edge_id", edge).len(), 1);
        }
        house.revoke(&token, &ab).await.refused(404, "delegation_not_found");
        house.revoke(&token, &bc).await.refused(404, "delegation_not_found");
        assert_eq!(house.epoch().await, 1);
    }

    #[tokio::test]
    async fn revoking_the_middle_leaves_what_is_above() {
        let house = House::open().await;
        let token = house.mandate("app-1").await;
        let (a, b, c) = (house.task().await, house.task().await, house.task().await);
        let ab = house.edge(&a, &b, hops(3, 600)).await;
        let bc = house.edge(&b, &c, hops(2, 500)).await;
        house.revoke(&token, &bc).await.expect(200);
        assert_eq!(house.edge_row(&ab).await.status, "active");
        assert_eq!(house.session(&b).await.status, "active");
        assert_eq!(house.session(&c).await.status, "terminated");
    }

    #[tokio::test]
    async fn in_a_diamond_each_edge_falls_once() {
        let house = House::open().await;
        let token = house.mandate("app-1").await;
        for id in ["s-0", "s-1", "s-2", "s-3", "s-4"] {
            house.add_session(id, |_| ()).await;
        }
        for (id, source, target) in [
            ("e-01", "s-0", "s-1"),
            ("e-12", "s-1", "s-2"),
            ("e-13", "s-1", "s-3"),
            ("e-24", "s-2", "s-4"),
            ("e-34", "s-3", "s-4"),
        ] {
            house.add_edge(id, source, target, |_| ()).await;
        }
        let reply = house.revoke(&token, "e-01").await.expect(200);
        assert_eq!(reply.body, json!({"revoked_edges": 5, "affected_sessions": 1, "terminated_sessions": 4}));
    }

    #[tokio::test]
    async fn only_the_issuer_or_an_admin_takes_back_and_unknown_comes_before_foreign() {
        let house = House::open().await;
        let (a, b) = (house.task().await, house.task().await);
        let edge = house.edge(&a, &b, |_| ()).await;
        let receiver = house.mandate("app-2").await;
        house.revoke(&receiver, "unknown").await.refused(404, "delegation_not_found");
        house.revoke(&receiver, &edge).await.refused(403, "issuer_ownership_required");
        let wrong = house.mandate_with("app-2", "coordinator.delegate_from:app-2").await;
        house.revoke(&wrong, &edge).await.refused(403, "issuer_ownership_required");
        let named = house.mandate_with("app-2", "coordinator.delegate_from:app-1").await;
        house.revoke(&named, &edge).await.expect(200);
        house.revoke(&receiver, &edge).await.refused(403, "issuer_ownership_required");
        let (a, b) = (house.task().await, house.task().await);
        let edge = house.edge(&a, &b, |_| ()).await;
        house.revoke(OPERATOR, &edge).await.expect(200);
    }

    #[tokio::test]
    async fn a_lapsed_edge_can_still_be_revoked() {
        let house = House::open().await;
        let (a, b) = (house.task().await, house.task().await);
        let edge = house.edge(&a, &b, |body| body["ttl_seconds"] = json!(1)).await;
        house.clock.advance(10);
        let token = house.mandate("app-1").await;
        house.revoke(&token, &edge).await.expect(200);
        assert_eq!(house.session(&b).await.status, "terminated");
    }

    #[tokio::test]
    async fn a_users_record_that_others_still_use_outlives_the_revocation() {
        let house = House::open().await;
        house.add_record("rec-user", "user", "user-1", "app-1").await;
        let user = || AuthorityRecordId::parse("rec-user").unwrap();
        let a = house.task().await;
        house.add_session("s-lent", |session| session.subject_record_id = user()).await;
        house.add_session("s-other", |session| session.subject_record_id = user()).await;
        let edge = house.edge(&a, "s-lent", |_| ()).await;
        let token = house.mandate("app-1").await;
        house.messages();
        house.revoke(&token, &edge).await.expect(200);
        assert_eq!(house.record_row("rec-user").await.status, "active");
        assert!(about(&house.messages(), REVOKE, "session_id", "rec-user").is_empty());
        let edge = house.edge(&a, "s-other", |_| ()).await;
        house.revoke(&token, &edge).await.expect(200);
        assert_eq!(house.record_row("rec-user").await.status, "revoked");
        assert_eq!(about(&house.messages(), REVOKE, "session_id", "rec-user").len(), 1);
    }

    #[tokio::test]
    async fn the_epoch_rises_by_one_with_each_shrinking_and_never_otherwise() {
        let house = House::open().await;
        let token = house.mandate("app-1").await;
        let (a, b, c) = (house.task().await, house.task().await, house.task().await);
        let first = house.edge(&a, &b, |_| ()).await;
        house.edge(&a, &c, |_| ()).await;
        assert_eq!(house.epoch().await, 0);
        house.revoke(&token, &first).await.expect(200);
        assert_eq!(house.epoch().await, 1);
        house.revoke(&token, &first).await.expect(404);
        house.terminate(&token, &a).await.expect(204);
        assert_eq!(house.epoch().await, 2);
        house.terminate(&token, &c).await.expect(204);
        assert_eq!(house.epoch().await, 2, "no edge was left to fall");
    }
}
