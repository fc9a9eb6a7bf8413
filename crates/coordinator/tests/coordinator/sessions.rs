//! Starting and reading sessions (contract: coordinator.md §4.2, §4.3).

use std::time::Duration;

use caracal_authority::ApplicationId;
use serde_json::{Value, json};

use crate::support::{House, LIFECYCLE, OPERATOR, about};

fn body() -> Value {
    json!({"application_id": "app-1"})
}

fn with(change: impl FnOnce(&mut Value)) -> Value {
    let mut body = body();
    change(&mut body);
    body
}

#[tokio::test]
async fn a_task_starts_with_the_contracts_defaults() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    let reply = house.start(&token, body()).await.expect(201);
    let id = reply.text("agent_session_id");
    assert_eq!(
        reply.body,
        json!({
            "agent_session_id": id, "zone_id": "z-1", "application_id": "app-1", "parent_id": null,
            "subject_authority_record_id": "rec-1", "lifecycle": "task", "labels": [], "status": "active", "depth": 0,
            "ttl_seconds": 3600, "started_at": "2027-01-15T08:00:00.000Z", "last_heartbeat_at": null,
            "heartbeat_deadline_at": null, "lease_generation": 0, "delegation_edge_id": null,
        })
    );
    assert_eq!(uuid_version(&id), '7');
    let messages = house.messages();
    let spawned = about(&messages, LIFECYCLE, "agent_session_id", &id);
    assert_eq!(spawned.len(), 1);
    assert_eq!(spawned[0].dedupe_key, format!("spawn:{id}"));
    assert_eq!(spawned[0].field("event"), Some("spawn"));
    assert_eq!(spawned[0].field("application_id"), Some("app-1"));
    assert_eq!(spawned[0].field("zone_id"), Some("z-1"));
    assert_eq!(spawned[0].field("parent_id"), None);
}

fn uuid_version(id: &str) -> char {
    assert_eq!(id.len(), 36);
    assert_eq!(id, id.to_lowercase());
    id.as_bytes()[14].into()
}

#[tokio::test]
async fn a_service_starts_with_its_first_lease() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    let reply = house.start(&token, with(|body| body["lifecycle"] = json!("service"))).await.expect(201);
    assert_eq!(reply.body["ttl_seconds"], Value::Null);
    assert_eq!(reply.body["lease_generation"], 1);
    assert_eq!(reply.body["last_heartbeat_at"], "2027-01-15T08:00:00.000Z");
    assert_eq!(reply.body["heartbeat_deadline_at"], "2027-01-15T08:02:00.000Z");
}

#[tokio::test]
async fn what_is_read_is_what_was_started() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    let wanted = json!({
        "application_id": "app-1", "labels": [" a ", "b", "a"], "ttl_seconds": 60.0,
        "metadata": {"task": {"n": 1.5}}, "unknown": true,
    });
    let id = house.start(&token, wanted).await.expect(201).text("agent_session_id");
    let reply = house.get(&format!("/zones/z-1/agents/{id}"), &token).await.expect(200);
    assert_eq!(
        reply.body,
        json!({
            "agent_session_id": id, "zone_id": "z-1", "application_id": "app-1", "parent_id": null,
            "subject_authority_record_id": "rec-1", "lifecycle": "task", "labels": ["a", "b", "a"], "status": "active",
            "depth": 0, "ttl_seconds": 60, "metadata": {"task": {"n": 1.5}},
            "started_at": "2027-01-15T08:00:00.000Z", "terminated_at": null, "last_heartbeat_at": null,
            "heartbeat_deadline_at": null, "termination_reason": null, "lease_generation": "0",
        })
    );
    house.terminate(&token, &id).await.expect(204);
    let reply = house.get(&format!("/zones/z-1/agents/{id}"), &token).await.expect(200);
    assert_eq!(reply.body["status"], "terminated");
    assert_eq!(reply.body["termination_reason"], "requested");
    assert_eq!(reply.body["terminated_at"], "2027-01-15T08:00:00.000Z");
}

#[tokio::test]
async fn a_body_outside_the_schema_writes_nothing() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    for wrong in [
        json!({}),
        json!([]),
        json!(null),
        json!("x"),
        json!({"application_id": ""}),
        json!({"application_id": null}),
        json!({"application_id": 1}),
        with(|body| body["subject_session_id"] = json!(null)),
        with(|body| body["parent_id"] = json!(1)),
        with(|body| body["lifecycle"] = json!("forever")),
        with(|body| body["lifecycle"] = json!(null)),
        with(|body| body["ttl_seconds"] = json!(1.5)),
        with(|body| body["ttl_seconds"] = json!(0)),
        with(|body| body["ttl_seconds"] = json!(86_401)),
        with(|body| body["ttl_seconds"] = json!("60")),
        with(|body| body["ttl_seconds"] = json!(null)),
        with(|body| body["labels"] = json!(vec!["x"; 33])),
        with(|body| body["labels"] = json!(["x".repeat(65)])),
        with(|body| body["labels"] = json!(["  "])),
        with(|body| body["labels"] = json!("x")),
        with(|body| body["labels"] = json!(["a\u{0}"])),
        with(|body| body["parent_authority"] = json!("some")),
        with(|body| body["inherit_parent_edge_id"] = json!("")),
        with(|body| body["metadata"] = json!([])),
        with(|body| body["metadata"] = json!({"a": ["\u{0}"]})),
        with(|body| body["subject_token"] = json!(1)),
    ] {
        let reply = house.start(&token, wrong.clone()).await;
        assert_eq!(reply.refusal(), (400, "invalid_body"), "{wrong}");
    }
    let service = json!({"application_id": "app-1", "lifecycle": "service", "ttl_seconds": 60});
    let reply = house.start(&token, service).await;
    reply.refused(400, "invalid_body");
    assert_eq!(reply.body["details"]["issues"][0]["path"], json!(["ttl_seconds"]));
    for fine in [
        with(|body| body["parent_id"] = json!(null)),
        with(|body| body["ttl_seconds"] = json!(86_400)),
        with(|body| body["labels"] = json!(vec!["x".repeat(64); 32])),
    ] {
        house.start(&token, fine).await.expect(201);
    }
    assert_eq!(house.holding().await, 3);
}

#[tokio::test]
async fn names_that_can_name_nothing_are_not_found() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    for parent in ["", "../x", "unknown", "a b"] {
        house.start(&token, with(|body| body["parent_id"] = json!(parent))).await.refused(404, "parent_not_found");
    }
    for record in ["", "../x", "unknown"] {
        let reply = house.start(&token, with(|body| body["subject_session_id"] = json!(record))).await;
        reply.refused(404, "session_not_found");
        assert!(reply.body["detail"].is_string());
    }
    assert_eq!(house.holding().await, 0);
}

#[tokio::test]
async fn an_application_that_is_gone_hosts_nothing() {
    let house = House::open().await;
    let token = house.mandate_with("app-1", "coordinator.spawn_for:app-9 coordinator.spawn_for:a/b").await;
    for application in ["app-9", "a/b"] {
        let reply = house.start(&token, json!({"application_id": application})).await;
        reply.refused(404, "application_not_found");
    }
}

#[tokio::test]
async fn a_self_registered_application_has_one_task_and_no_relatives() {
    let house = House::open().await;
    house.add_application("app-3", "dcr").await;
    house.add_record("rec-3", "application", "app-3", "app-3").await;
    let token = house.mandate("app-3").await;
    let body = |more: Value| {
        let mut body = json!({"application_id": "app-3"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let service = house.start(&token, body(json!({"lifecycle": "service"}))).await;
    service.refused(409, "dcr_application_cannot_host_service");
    house.start(&token, body(json!({"parent_id": "any"}))).await.refused(409, "dcr_application_cannot_be_child");
    let id = house.start(&token, body(json!({}))).await.expect(201).text("agent_session_id");
    house.start(&token, body(json!({}))).await.refused(409, "dcr_application_already_bound");
    let under = house.mandate_with("app-1", "coordinator.spawn_under:app-3").await;
    let child = house.start(&under, json!({"application_id": "app-1", "parent_id": id})).await;
    child.refused(409, "dcr_application_cannot_start_child");
    house.terminate(&token, &id).await.expect(204);
    house.start(&token, body(json!({}))).await.expect(201);
}

#[tokio::test]
async fn a_child_needs_a_parent_at_work() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    let under = |parent: &str| json!({"application_id": "app-1", "parent_id": parent});
    house.add_session("s-suspended", |session| session.status = "suspended".to_owned()).await;
    house.add_session("s-ended", |session| session.status = "terminated".to_owned()).await;
    house.add_session("s-lapsing", |session| session.ttl_seconds = Some(10)).await;
    house
        .add_session("s-service", |session| {
            session.lifecycle = "service".to_owned();
            session.ttl_seconds = None;
            session.lease_generation = 1;
            session.heartbeat_deadline_at = Some(house.store.now().plus(Duration::from_secs(10)));
        })
        .await;
    house.start(&token, under("s-suspended")).await.refused(404, "parent_not_found");
    house.start(&token, under("s-ended")).await.refused(404, "parent_not_found");
    let child = house.start(&token, under("s-lapsing")).await.expect(201);
    assert_eq!((&child.body["depth"], &child.body["parent_id"]), (&json!(1), &json!("s-lapsing")));
    house.start(&token, under("s-service")).await.expect(201);
    let service = json!({"application_id": "app-1", "parent_id": "s-lapsing", "lifecycle": "service"});
    house.start(&token, service).await.refused(409, "task_session_cannot_start_service");
    let service = json!({"application_id": "app-1", "parent_id": "s-service", "lifecycle": "service"});
    house.start(&token, service).await.expect(201);
    // Lapsed but not swept: no parent either.
    house.clock.advance(10);
    house.start(&token, under("s-lapsing")).await.refused(404, "parent_not_found");
    house.start(&token, under("s-service")).await.refused(404, "parent_not_found");
}

mod t04_state_ownership {
    use super::*;

    #[tokio::test]
    async fn only_the_exact_scope_starts_and_ends_for_another_application() {
        let house = House::open().await;
        let target = json!({"application_id": "app-2", "subject_session_id": "rec-2"});
        for scopes in [
            "",
            "coordinator.spawn_for",
            "coordinator.spawn_for:app",
            "coordinator.admin",
            "coordinator.spawn_for:app-20",
        ] {
            let token = house.mandate_with("app-1", scopes).await;
            house.start(&token, target.clone()).await.refused(403, "application_ownership_required");
        }
        let token = house.mandate_with("app-1", "coordinator.spawn_for:app-2").await;
        let id = house.start(&token, target).await.expect(201).text("agent_session_id");
        assert_eq!(house.session(&id).await.application_id.as_str(), "app-2");
        let stranger = house.mandate("app-1").await;
        house.terminate(&stranger, &id).await.refused(403, "application_ownership_required");
        assert_eq!(house.session(&id).await.status, "active");
        house.terminate(&token, &id).await.expect(204);
    }

    #[tokio::test]
    async fn a_child_under_another_applications_session_needs_the_scope_that_names_it() {
        let house = House::open().await;
        house.add_session("s-theirs", |session| session.application_id = ApplicationId::parse("app-2").unwrap()).await;
        let under = json!({"application_id": "app-1", "parent_id": "s-theirs"});
        for scopes in ["", "coordinator.admin", "coordinator.spawn_under", "coordinator.spawn_under:app-1"] {
            let token = house.mandate_with("app-1", scopes).await;
            house.start(&token, under.clone()).await.refused(403, "parent_ownership_required");
        }
        let token = house.mandate_with("app-1", "coordinator.spawn_under:app-2").await;
        let child = house.start(&token, under).await.expect(201);
        assert_eq!(child.body["delegation_edge_id"], Value::Null);
    }

    #[tokio::test]
    async fn an_application_reads_its_own_sessions_only_and_an_admin_all() {
        let house = House::open().await;
        let id = house.task().await;
        let path = format!("/zones/z-1/agents/{id}");
        let stranger = house.mandate("app-2").await;
        house.get(&path, &stranger).await.refused(404, "session_not_found");
        let admin = house.mandate_with("app-2", "coordinator.admin").await;
        house.get(&path, &admin).await.expect(200);
        house.get(&path, OPERATOR).await.expect(200);
    }
}

mod t04_state_limits {
    use super::*;

    #[tokio::test]
    async fn suspended_services_hold_their_slots_and_lapsed_tasks_do_not() {
        let house = House::with(|config| config.max_sessions_per_zone = 3).await;
        let token = house.mandate("app-1").await;
        house
            .add_session("s-suspended", |session| {
                session.lifecycle = "service".to_owned();
                session.status = "suspended".to_owned();
                session.ttl_seconds = None;
                session.lease_generation = 1;
                session.heartbeat_deadline_at = Some(house.store.now());
            })
            .await;
        house
            .add_session("s-lost", |session| {
                session.lifecycle = "service".to_owned();
                session.ttl_seconds = None;
                session.lease_generation = 1;
                session.heartbeat_deadline_at = Some(house.store.now());
            })
            .await;
        for _ in 0..2 {
            house.start(&token, with(|body| body["ttl_seconds"] = json!(10))).await.expect(201);
        }
        house.start(&token, body()).await.refused(429, "session_zone_limit_exceeded");
        house.clock.advance(9);
        house.start(&token, body()).await.refused(429, "session_zone_limit_exceeded");
        house.clock.advance(1);
        house.start(&token, body()).await.expect(201);
    }

    #[tokio::test]
    async fn the_zones_limit_is_looked_at_before_the_applications() {
        let house = House::with(|config| {
            config.max_sessions_per_zone = 3;
            config.max_sessions_per_application = 2;
        })
        .await;
        house.task().await;
        let id = house.task().await;
        let token = house.mandate("app-1").await;
        let limited = house.start(&token, body()).await;
        limited.refused(429, "session_limit_exceeded");
        assert!(limited.headers.contains_key("retry-after"));
        let other = house.mandate("app-2").await;
        house.start(&other, json!({"application_id": "app-2"})).await.expect(201);
        house.start(&token, body()).await.refused(429, "session_zone_limit_exceeded");
        house.terminate(&token, &id).await.expect(204);
        house.start(&token, body()).await.expect(201);
    }

    #[tokio::test]
    async fn a_slot_is_free_again_however_its_session_ended() {
        let house = House::with(|config| config.max_sessions_per_zone = 3).await;
        let token = house.mandate("app-1").await;
        for round in 0..3 {
            let (a, b) = (house.task().await, house.task().await);
            let below = house.child(&b).await;
            house.start(&token, body()).await.refused(429, "session_zone_limit_exceeded");
            let edge = house.edge(&a, &b, |_| ()).await;
            house.revoke(&token, &edge).await.expect(200);
            house.terminate(&token, &below).await.refused(404, "session_not_found");
            house.terminate(&token, &a).await.expect(204);
            assert_eq!(house.holding().await, 0, "round {round}");
        }
    }

    #[tokio::test]
    async fn ten_children_at_a_time_and_ten_levels_below_the_root() {
        let house = House::open().await;
        let token = house.mandate("app-1").await;
        let root = house.task().await;
        let mut last = String::new();
        for _ in 0..10 {
            last = house.child(&root).await;
        }
        let under = |parent: &str| json!({"application_id": "app-1", "parent_id": parent});
        house.start(&token, under(&root)).await.refused(429, "session_children_limit_exceeded");
        house.terminate(&token, &last).await.expect(204);
        house.start(&token, under(&root)).await.expect(201);
        house.start(&token, under(&root)).await.refused(429, "session_children_limit_exceeded");
        let mut deepest = house.task().await;
        for depth in 1..=10 {
            deepest = house.child(&deepest).await;
            assert_eq!(house.session(&deepest).await.depth, depth);
        }
        house.start(&token, under(&deepest)).await.refused(429, "session_depth_limit_exceeded");
    }

    #[tokio::test]
    async fn counting_agrees_with_the_rule_of_authority_for_every_state() {
        let house = House::open().await;
        let mut expected = 0;
        for (number, (lifecycle, status, rest)) in ["task", "service"]
            .into_iter()
            .flat_map(|lifecycle| {
                ["active", "suspended", "terminated", "expired"]
                    .into_iter()
                    .flat_map(move |status| [-1, 0, 1].map(|rest| (lifecycle, status, rest)))
            })
            .enumerate()
        {
            let id = format!("s-{number}");
            house
                .add_session(&id, |session| {
                    let start = session.started_at;
                    session.started_at = start.minus(Duration::from_secs(100));
                    session.status = status.to_owned();
                    session.lifecycle = lifecycle.to_owned();
                    session.ttl_seconds = (lifecycle == "task").then_some(100 + rest);
                    if lifecycle == "service" {
                        session.lease_generation = 1;
                        let end = session.started_at.plus(Duration::from_secs(u64::try_from(100 + rest).unwrap()));
                        session.heartbeat_deadline_at = Some(end);
                    }
                })
                .await;
            let facts = house.session(&id).await.facts().unwrap();
            expected += i64::from(facts.holds_capacity(house.store.now()));
        }
        assert_eq!(house.holding().await, expected);
        assert_eq!(expected, 6);
    }
}
