//! Ending sessions, and what falls with them (contract: coordinator.md §4.4, §9; differences D14, D15).

use std::time::Duration;

use caracal_authority::AuthorityRecordId;
use serde_json::json;

use crate::support::{House, INVALIDATE, LIFECYCLE, OPERATOR, REVOKE, about};

async fn service(house: &House, id: &str, generation: i64) {
    let deadline = house.store.now().plus(Duration::from_secs(60));
    house
        .add_session(id, |session| {
            session.lifecycle = "service".to_owned();
            session.ttl_seconds = None;
            session.lease_generation = generation;
            session.heartbeat_deadline_at = Some(deadline);
        })
        .await;
}

#[tokio::test]
async fn an_ended_session_says_when_and_why() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    let id = house.task().await;
    house.clock.advance(5);
    let path = format!("/zones/z-1/agents/{id}?reason=all+done&other=1");
    house.call("DELETE", &path, &token, None).await.expect(204);
    let session = house.session(&id).await;
    assert_eq!((session.status.as_str(), session.termination_reason.as_deref()), ("terminated", Some("all done")));
    assert_eq!(session.terminated_at, Some(house.store.now()));
}

#[tokio::test]
async fn what_has_ended_is_not_found() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    let id = house.task().await;
    house.terminate(&token, &id).await.expect(204);
    house.terminate(&token, &id).await.refused(404, "session_not_found");
    house.terminate(&token, "unknown").await.refused(404, "session_not_found");
    house.add_session("s-expired", |session| session.status = "expired".to_owned()).await;
    house.terminate(&token, "s-expired").await.refused(404, "session_not_found");
    // A lapsed task that nobody has swept can still be ended, and so can a suspended one.
    house.add_session("s-lapsed", |session| session.ttl_seconds = Some(1)).await;
    house.add_session("s-suspended", |session| session.status = "suspended".to_owned()).await;
    house.clock.advance(2);
    house.terminate(&token, "s-lapsed").await.expect(204);
    house.terminate(&token, "s-suspended").await.expect(204);
}

#[tokio::test]
async fn a_reason_of_the_wrong_kind_is_refused_before_anything_else() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    for query in ["reason=", "reason=a&reason=b", "reason=%0a", &format!("reason={}", "x".repeat(257))] {
        let path = format!("/zones/z-1/agents/unknown?{query}");
        house.call("DELETE", &path, &token, Some(json!([]))).await.refused(400, "invalid_query");
    }
}

mod t04_state_lease {
    use super::*;

    #[tokio::test]
    async fn a_service_is_ended_by_the_holder_of_its_lease_or_an_admin() {
        let house = House::open().await;
        let token = house.mandate("app-1").await;
        service(&house, "s-1", 2).await;
        let end = |generation: i64| Some(json!({"lease_generation": generation}));
        house.terminate(&token, "s-1").await.refused(400, "lease_generation_required");
        for fenced in [1, 3] {
            let reply = house.call("DELETE", "/zones/z-1/agents/s-1", &token, end(fenced)).await;
            reply.refused(409, "session_lease_fenced");
        }
        assert_eq!(house.session("s-1").await.status, "active");
        house.call("DELETE", "/zones/z-1/agents/s-1", &token, end(2)).await.expect(204);
        // Both are looked at before whether it still runs.
        house.terminate(&token, "s-1").await.refused(400, "lease_generation_required");
        house.call("DELETE", "/zones/z-1/agents/s-1", &token, end(1)).await.refused(409, "session_lease_fenced");
        house.call("DELETE", "/zones/z-1/agents/s-1", &token, end(2)).await.refused(404, "session_not_found");
        service(&house, "s-2", 1).await;
        let admin = house.mandate_with("app-2", "coordinator.admin").await;
        house.terminate(&admin, "s-2").await.expect(204);
        service(&house, "s-3", 1).await;
        house.terminate(OPERATOR, "s-3").await.expect(204);
    }
}

mod t04_state_cascade {
    use super::*;

    #[tokio::test]
    async fn descendants_end_with_their_ancestor_and_siblings_do_not() {
        let house = House::open().await;
        let token = house.mandate("app-1").await;
        let root = house.task().await;
        let ended = house.child(&root).await;
        let sibling = house.child(&root).await;
        let below = house.child(&ended).await;
        let deepest = house.child(&below).await;
        house.messages();
        let path = format!("/zones/z-1/agents/{ended}?reason=enough");
        house.call("DELETE", &path, &token, None).await.expect(204);
        for (id, status, reason) in [
            (&root, "active", None),
            (&sibling, "active", None),
            (&ended, "terminated", Some("enough")),
            (&below, "terminated", Some("parent_terminated")),
            (&deepest, "terminated", Some("parent_terminated")),
        ] {
            let session = house.session(id).await;
            assert_eq!((session.status.as_str(), session.termination_reason.as_deref()), (status, reason), "{id}");
        }
        let messages = house.messages();
        for (id, parent) in [(&ended, &root), (&below, &ended), (&deepest, &below)] {
            let lifecycle = about(&messages, LIFECYCLE, "agent_session_id", id);
            assert_eq!(lifecycle.len(), 1);
            assert_eq!(lifecycle[0].dedupe_key, format!("terminate:{id}"));
            assert_eq!(lifecycle[0].field("event"), Some("terminate"));
            assert_eq!(lifecycle[0].field("reason"), Some("enough"));
            assert_eq!(lifecycle[0].field("parent_id"), Some(parent.as_str()));
            let revoke = about(&messages, REVOKE, "agent_session_id", id);
            assert_eq!(revoke.len(), 1);
            assert_eq!(revoke[0].dedupe_key, format!("agent_terminate:{id}"));
            assert_eq!(revoke[0].field("reason"), Some("enough"));
            // The application's own record is nobody's collateral.
            assert_eq!(revoke[0].field("session_id"), None);
        }
        assert_eq!(messages.len(), 6);
        assert_eq!(house.record_row("rec-1").await.status, "active");
        assert_eq!(house.epoch().await, 0);
    }

    #[tokio::test]
    async fn no_edge_that_touches_an_ended_session_is_live_and_each_is_published_with_the_epoch() {
        let house = House::open().await;
        let token = house.mandate("app-1").await;
        let (a, b, c, d) = (house.task().await, house.task().await, house.task().await, house.task().await);
        let hops = |body: &mut serde_json::Value| body["constraints"] = json!({"max_hops": 3});
        let ab = house.edge(&a, &b, hops).await;
        let bc = house.edge(&b, &c, |body| body["constraints"] = json!({"max_hops": 2})).await;
        let ad = house.edge(&a, &d, hops).await;
        let cd = house.edge(&c, &d, |body| body["ttl_seconds"] = json!(60)).await;
        assert_eq!(house.epoch().await, 0);
        house.messages();
        house.terminate(&token, &b).await.expect(204);
        for (edge, status) in [(&ab, "revoked"), (&bc, "revoked"), (&cd, "revoked"), (&ad, "active")] {
            let row = house.edge_row(edge).await;
            assert_eq!(row.status, status, "{edge}");
            assert_eq!(row.edge_version, i64::from(status == "revoked"));
            assert_eq!(row.revoked_at.is_some(), status == "revoked");
        }
        for session in [&a, &c, &d] {
            assert_eq!(house.session(session).await.status, "active");
        }
        assert_eq!(house.epoch().await, 1);
        let messages = house.messages();
        for edge in [&ab, &bc, &cd] {
            let invalidate = about(&messages, INVALIDATE, "edge_id", edge);
            assert_eq!(invalidate.len(), 1);
            assert_eq!(invalidate[0].dedupe_key, format!("edge_revoke:{edge}"));
            assert_eq!(invalidate[0].field("event"), Some("edge_revoke"));
            assert_eq!(invalidate[0].field("epoch"), Some("1"));
            assert_eq!(invalidate[0].field("reason"), Some("requested"));
            assert_eq!(about(&messages, REVOKE, "delegation_edge_id", edge).len(), 1);
        }
        assert!(about(&messages, INVALIDATE, "edge_id", &ad).is_empty());
    }

    #[tokio::test]
    async fn a_users_record_ends_with_the_last_session_that_acts_for_the_user() {
        let house = House::open().await;
        let token = house.mandate("app-1").await;
        house.add_record("rec-user", "user", "user-1", "app-1").await;
        let zone = crate::support::zone();
        house.add_record_in(&zone, "rec-minted", "user", "user-1", "app-1", Some("rec-user")).await;
        for id in ["s-1", "s-2"] {
            let user = AuthorityRecordId::parse("rec-user").unwrap();
            house.add_session(id, |session| session.subject_record_id = user).await;
        }
        house.messages();
        house.terminate(&token, "s-1").await.expect(204);
        assert_eq!(house.record_row("rec-user").await.status, "active");
        let messages = house.messages();
        assert_eq!(about(&messages, REVOKE, "agent_session_id", "s-1").len(), 1);
        assert!(about(&messages, REVOKE, "session_id", "rec-user").is_empty());
        house.terminate(&token, "s-2").await.expect(204);
        let record = house.record_row("rec-user").await;
        assert_eq!((record.status.as_str(), record.revoked_reason.as_deref()), ("revoked", Some("requested")));
        assert_eq!(house.record_row("rec-minted").await.status, "revoked");
        let messages = house.messages();
        let ended = about(&messages, REVOKE, "agent_session_id", "s-2");
        assert_eq!(ended[0].field("session_id"), Some("rec-user"));
        assert_eq!(about(&messages, REVOKE, "session_id", "rec-minted").len(), 1);
    }

    #[tokio::test]
    async fn a_users_record_ends_when_all_its_sessions_fall_together() {
        let house = House::open().await;
        let token = house.mandate("app-1").await;
        house.add_record("rec-user", "user", "user-1", "app-1").await;
        let user = || AuthorityRecordId::parse("rec-user").unwrap();
        house.add_session("s-1", |session| session.subject_record_id = user()).await;
        house
            .add_session("s-2", |session| {
                session.subject_record_id = user();
                session.parent_id = Some(caracal_authority::AgentSessionId::parse("s-1").unwrap());
                session.depth = 1;
            })
            .await;
        house.terminate(&token, "s-1").await.expect(204);
        assert_eq!(house.record_row("rec-user").await.status, "revoked");
        let messages = house.messages();
        for id in ["s-1", "s-2"] {
            let ended = about(&messages, REVOKE, "agent_session_id", id);
            assert_eq!(ended[0].field("session_id"), Some("rec-user"), "{id}");
        }
    }
}
