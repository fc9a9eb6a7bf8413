//! Suspending and resuming sessions (contract: coordinator.md §4.4, §9; difference D15).

use serde_json::json;

use crate::support::{House, LIFECYCLE, OPERATOR, REVOKE, Reply, about, delegation};

async fn pause(house: &House, token: &str, way: &str, id: &str) -> Reply {
    house.call("PATCH", &format!("/zones/z-1/agents/{id}/{way}"), token, None).await
}

async fn statuses(house: &House, ids: &[&str]) -> Vec<String> {
    let mut statuses = Vec::new();
    for id in ids {
        statuses.push(house.session(id).await.status);
    }
    statuses
}

#[tokio::test]
async fn a_suspension_reaches_all_below_through_active_sessions_and_a_resumption_takes_it_all_back() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    let root = house.task().await;
    let child = house.child(&root).await;
    let grandchild = house.child(&child).await;
    let sibling = house.child(&root).await;
    let stranger = house.task().await;
    let all = [root.as_str(), &child, &grandchild, &sibling, &stranger];
    let reply = pause(&house, &token, "suspend", &child).await.expect(200);
    assert_eq!(reply.body, json!({"suspended": 2}));
    assert_eq!(statuses(&house, &all).await, ["active", "suspended", "suspended", "active", "active"]);
    let reply = pause(&house, &token, "suspend", &root).await.expect(200);
    assert_eq!(reply.body, json!({"suspended": 2}), "the rest");
    let reply = pause(&house, &token, "resume", &root).await.expect(200);
    assert_eq!(reply.body, json!({"resumed": 4}), "those suspended on their own included");
    assert_eq!(statuses(&house, &all).await, ["active"; 5]);
}

#[tokio::test]
async fn each_way_goes_once_and_only_from_its_own_state() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    let id = house.task().await;
    pause(&house, &token, "resume", &id).await.refused(409, "session_not_found_or_not_suspended");
    pause(&house, &token, "suspend", &id).await.expect(200);
    pause(&house, &token, "suspend", &id).await.refused(409, "session_not_found_or_not_active");
    pause(&house, &token, "resume", &id).await.expect(200);
    house.terminate(&token, &id).await.expect(204);
    pause(&house, &token, "suspend", &id).await.refused(409, "session_not_found_or_not_active");
    pause(&house, &token, "resume", &id).await.refused(409, "session_not_found_or_not_suspended");
    for way in ["suspend", "resume"] {
        pause(&house, &token, way, "unknown").await.refused(404, "session_not_found");
        // Whatever comes as a body is ignored, as long as it can be read.
        let body = Some(json!([1]));
        let reply = house.call("PATCH", &format!("/zones/z-1/agents/unknown/{way}"), &token, body).await;
        reply.refused(404, "session_not_found");
    }
}

#[tokio::test]
async fn the_owner_an_admin_the_operator_and_who_may_start_for_it_suspend_and_resume() {
    let house = House::open().await;
    let id = house.task().await;
    let stranger = house.mandate_with("app-2", "coordinator.spawn_for:app-3").await;
    for way in ["suspend", "resume"] {
        pause(&house, &stranger, way, &id).await.refused(403, "application_ownership_required");
    }
    let owner = house.mandate("app-1").await;
    let starter = house.mandate_with("app-2", "coordinator.spawn_for:app-1").await;
    let admin = house.mandate_with("app-2", "coordinator.admin").await;
    for token in [owner.as_str(), &starter, &admin, OPERATOR] {
        pause(&house, token, "suspend", &id).await.expect(200);
        pause(&house, token, "resume", &id).await.expect(200);
    }
}

#[tokio::test]
async fn a_session_of_another_zone_can_be_neither_suspended_nor_resumed() {
    let house = House::open().await;
    let other = caracal_authority::ZoneId::parse("z-2").unwrap();
    house.add_session_in(&other, "s-elsewhere", |_| ()).await;
    for way in ["suspend", "resume"] {
        pause(&house, OPERATOR, way, "s-elsewhere").await.refused(404, "session_not_found");
    }
}

#[tokio::test]
async fn a_suspended_session_starts_lends_and_receives_nothing() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    let (source, target) = (house.task().await, house.task().await);
    pause(&house, &token, "suspend", &source).await.expect(200);
    let child = json!({"application_id": "app-1", "parent_id": source});
    house.start(&token, child.clone()).await.refused(404, "parent_not_found");
    house.delegate(delegation(&source, &target)).await.refused(404, "delegation_endpoint_not_found");
    house.delegate(delegation(&target, &source)).await.refused(404, "delegation_endpoint_not_found");
    pause(&house, &token, "resume", &source).await.expect(200);
    house.start(&token, child).await.expect(201);
    house.delegate(delegation(&source, &target)).await.expect(201);
}

#[tokio::test]
async fn a_suspension_revokes_nothing_and_is_published_every_time() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    // Anchored to a user: the reference kills the user's record with the first suspension.
    house.add_record("rec-user", "user", "alice", "app-1").await;
    let anchor = |session: &mut caracal_store::sessions::SessionRow| {
        session.subject_record_id = caracal_authority::AuthorityRecordId::parse("rec-user").unwrap();
    };
    house.add_session("s-user", anchor).await;
    let other = house.task().await;
    let edge = house.edge("s-user", &other, |_| ()).await;
    house.messages();
    for _ in 0..2 {
        pause(&house, &token, "suspend", "s-user").await.expect(200);
        house.clock.advance(1);
        pause(&house, &token, "resume", "s-user").await.expect(200);
        house.clock.advance(1);
    }
    let messages = house.messages();
    let told = about(&messages, LIFECYCLE, "agent_session_id", "s-user");
    let events: Vec<_> = told.iter().map(|message| message.field("event").unwrap()).collect();
    assert_eq!(events, ["suspend", "resume", "suspend", "resume"]);
    let keys: std::collections::BTreeSet<_> = told.iter().map(|message| &message.dedupe_key).collect();
    assert_eq!(keys.len(), 4, "no suspension is taken for an earlier one");
    assert_eq!(told[0].field("reason"), Some("requested"));
    assert_eq!(told[1].field("reason"), None);
    assert!(messages.iter().all(|message| message.topic != REVOKE), "{messages:?}");
    assert_eq!(house.record_row("rec-user").await.status, "active");
    assert_eq!(house.edge_row(&edge).await.status, "active");
    assert_eq!(house.epoch().await, 0);
}

#[tokio::test]
async fn a_resumed_service_gets_a_full_lease_under_the_generation_it_had() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    let body = json!({"application_id": "app-1", "lifecycle": "service"});
    let id = house.start(&token, body).await.expect(201).text("agent_session_id");
    pause(&house, &token, "suspend", &id).await.expect(200);
    let frozen = house.session(&id).await.heartbeat_deadline_at;
    house.clock.advance(500);
    assert_eq!(house.session(&id).await.heartbeat_deadline_at, frozen);
    assert_eq!(house.holding().await, 1, "it keeps its slot past its deadline");
    pause(&house, &token, "resume", &id).await.expect(200);
    let session = house.session(&id).await;
    let full = house.store.now().plus(std::time::Duration::from_secs(120));
    assert_eq!((session.heartbeat_deadline_at, session.lease_generation), (Some(full), 1));
    house.clock.advance(120);
    assert_eq!(house.holding().await, 0);
}

#[tokio::test]
async fn a_resumption_does_not_prolong_a_task_and_looks_at_no_ancestor() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    let body = json!({"application_id": "app-1", "ttl_seconds": 10});
    let lapsed = house.start(&token, body).await.expect(201).text("agent_session_id");
    let root = house.task().await;
    let child = house.child(&root).await;
    for id in [&lapsed, &root] {
        pause(&house, &token, "suspend", id).await.expect(200);
    }
    house.clock.advance(10);
    pause(&house, &token, "resume", &lapsed).await.expect(200);
    let below = json!({"application_id": "app-1", "parent_id": lapsed});
    house.start(&token, below).await.refused(404, "parent_not_found");
    let reply = pause(&house, &token, "resume", &child).await.expect(200);
    assert_eq!(reply.body, json!({"resumed": 1}));
    assert_eq!(statuses(&house, &[&root, &child]).await, ["suspended", "active"]);
}

#[tokio::test]
async fn a_suspended_session_can_be_ended_and_ends_with_its_ancestor() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    let root = house.task().await;
    let child = house.child(&root).await;
    pause(&house, &token, "suspend", &child).await.expect(200);
    house.terminate(&token, &root).await.expect(204);
    assert_eq!(statuses(&house, &[&root, &child]).await, ["terminated", "terminated"]);
}

#[tokio::test]
async fn both_ways_leave_a_record_each_and_refusals_too() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    let id = house.task().await;
    let before = house.changes("z-1").await.len();
    pause(&house, &token, "suspend", &id).await.expect(200);
    pause(&house, &token, "resume", &id).await.expect(200);
    let changes = house.changes("z-1").await;
    let actions: Vec<_> = changes[before..].iter().map(|change| (change.action.as_str(), change.status_code)).collect();
    let path = format!("PATCH /zones/z-1/agents/{id}");
    assert_eq!(actions, [(format!("{path}/suspend").as_str(), 200), (format!("{path}/resume").as_str(), 200)]);
    assert_eq!(changes[before].entity_id.as_deref(), Some(id.as_str()));
}
