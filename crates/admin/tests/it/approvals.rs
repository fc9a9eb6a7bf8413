//! Approvals on the operators' side: what is shown, who may decide, and what a decision leaves behind
//! (contract: admin-api.md §2.2 gates 2 to 6, §5.9, §10).

use std::sync::Arc;

use caracal_authority::ZoneId;
use caracal_authority::approval::Binding;
use caracal_crypto::fast_hash::ConsoleToken;
use caracal_store::approvals::{self, ApprovalRow};
use caracal_store::evidence::{self, EvidenceFilter, EvidenceRow};
use caracal_store::{Page, StoreError};
use serde_json::{Value, json};

use crate::world::{BOOTSTRAP, START, World, assertion, derived, request};

/// A hold of the zone that waits for an hour, with whatever is to be different.
async fn hold(world: &World, zone: &str, name: &str, change: impl FnOnce(&mut ApprovalRow)) -> String {
    let now = world.store.now();
    let id = format!("0b9f7a9e-8f52-4a51-9d2c-0000000000{name}");
    let metadata = json!({"resources": ["resource://docs"], "agent_labels": ["reader"]});
    let mut row = ApprovalRow {
        zone_id: ZoneId::parse(zone).unwrap(),
        id: id.parse().unwrap(),
        principal_id: "app-1".to_owned(),
        principal_kind: "application".to_owned(),
        record_id: None,
        application_id: Some("app-1".parse().unwrap()),
        agent_session_id: Some("s-1".parse().unwrap()),
        delegation_edge_id: Some("e-1".parse().unwrap()),
        requesting: Vec::new(),
        tier: "payments".to_owned(),
        approver_class: "operator".to_owned(),
        privacy_mode: "anonymous".to_owned(),
        subject_anchor: None,
        binding: name.repeat(32),
        metadata: metadata.as_object().cloned().unwrap(),
        created_at: now,
        expires_at: now.plus(std::time::Duration::from_secs(3_600)),
        approved_at: None,
        rejected_at: None,
        approver_id: None,
        approver_record_id: None,
        decision_reason: None,
        consumed_at: None,
        consumed_record_id: None,
    };
    change(&mut row);
    let zone = row.zone_id.clone();
    let added: Result<_, StoreError> = world
        .store
        .commit(&zone, row, |tx, row| {
            Box::pin(async move { approvals::add(tx, row).await.map(|found| found.is_none()) })
        })
        .await;
    assert!(added.unwrap());
    id
}

async fn spend(world: &World, zone: &str, id: &str, name: &str) {
    let zone = ZoneId::parse(zone).unwrap();
    let input = (id.parse().unwrap(), Binding::parse(&name.repeat(32)).unwrap());
    let spent: Result<bool, StoreError> = world
        .store
        .commit(&zone, input, |tx, (id, binding)| {
            Box::pin(async move { approvals::consume(tx, id, binding, None).await })
        })
        .await;
    assert!(spent.unwrap());
}

async fn events(world: &World, zone: &str) -> Vec<EvidenceRow> {
    let zone = ZoneId::parse(zone).unwrap();
    let mut snapshot = world.store.snapshot().await.unwrap();
    evidence::list(&mut snapshot.zone(&zone), &EvidenceFilter::default(), &Page::first(100)).await.unwrap()
}

fn at(zone: &str, rest: &str) -> String {
    format!("/v1/zones/{zone}/approvals{rest}")
}

fn ids(listing: &Value) -> Vec<&str> {
    let items = listing["items"].as_array().unwrap();
    items.iter().map(|item| &item["id"].as_str().unwrap()[34..]).collect()
}

mod t14_automation_operators {
    use super::*;

    #[tokio::test]
    async fn an_operator_approves_and_all_that_belongs_to_it_is_there() {
        let world = World::new().await;
        let zone = world.zone("Ops").await;
        let id = hold(&world, &zone, "a1", |_| {}).await;
        let answer = world.call("POST", &at(&zone, &format!("/{id}/approve")), Some(json!({"reason": "fine"}))).await;
        let body = answer.is(200);
        let approver = body["approver_subject_id"].as_str().unwrap();
        assert!(approver.starts_with("admin:"), "kept verbatim whatever the privacy: {approver}");
        let now = "2026-01-01T00:00:00.000Z";
        let expected = json!({
            "id": id, "state": "approved", "satisfied_at": now, "rejected_at": null, "approver_subject_id": approver,
        });
        assert_eq!(body, expected);
        let shown = world.get(&at(&zone, &format!("/{id}"))).await.is(200);
        assert_eq!((shown["state"].as_str(), shown["decision_reason"].as_str()), (Some("approved"), Some("fine")));

        let events = events(&world, &zone).await;
        let [event] = &events[..] else { panic!("{} events", events.len()) };
        assert_eq!((event.event_type.as_str(), event.decision.as_str()), ("step_up_decided", "approved"));
        assert_eq!(
            (event.evaluation_status.as_str(), event.request_id.as_str()),
            ("complete", answer.headers["x-request-id"].to_str().unwrap())
        );
        assert_eq!(
            serde_json::from_str::<Value>(&event.metadata).unwrap(),
            json!({
                "challenge_id": id, "tier": "payments", "approver_class": "operator", "privacy_mode": "anonymous",
                "binding": "a1".repeat(32), "session_id": "", "approver_plane": "operator",
                "approver_subject_id": approver, "application_id": "app-1", "agent_session_id": "s-1",
                "delegation_edge_id": "e-1", "reason": "fine", "agent_labels": ["reader"],
            })
        );
        {
            let messages = world.messages.lock().unwrap();
            let [message] = &messages[..] else { panic!("{messages:?}") };
            assert_eq!(message.topic, "caracal.approvals.decided");
            assert_eq!((message.field("approval_id"), message.field("state")), (Some(id.as_str()), Some("approved")));
        }
        let records = world.records(Some(&zone)).await;
        let record = records.last().unwrap();
        assert_eq!(
            (record.entity_type.as_deref(), record.entity_id.as_deref()),
            (Some("approvals"), Some(id.as_str()))
        );
        assert_eq!(record.status_code, 200);
        let payload: Value = serde_json::from_str(record.payload.as_deref().unwrap()).unwrap();
        assert_eq!((payload["change_kind"].as_str(), &payload["changed_fields"]), (Some("action"), &json!(["reason"])));
    }

    #[tokio::test]
    async fn an_operator_rejects_without_a_word() {
        let world = World::new().await;
        let zone = world.zone("Ops").await;
        for (name, body) in [("a1", None), ("a2", Some(json!({}))), ("a3", Some(json!({"foo": 1})))] {
            let id = hold(&world, &zone, name, |_| {}).await;
            let answer = world.call("POST", &at(&zone, &format!("/{id}/reject")), body).await.is(200);
            assert_eq!((answer["state"].as_str(), &answer["satisfied_at"]), (Some("rejected"), &Value::Null));
            assert!(answer["rejected_at"].is_string());
        }
    }

    #[tokio::test]
    async fn what_cannot_be_decided_is_said_with_its_state() {
        let world = World::new().await;
        let zone = world.zone("Ops").await;
        let decide = |id: String, verb: &str| {
            let path = at(&zone, &format!("/{id}/{verb}"));
            let world = &world;
            async move { world.call("POST", &path, None).await }
        };
        let subject = hold(&world, &zone, "a1", |row| row.approver_class = "subject".to_owned()).await;
        decide(subject.clone(), "approve").await.is_refused(403, "subject_approval_required");
        let any = hold(&world, &zone, "a2", |row| row.approver_class = "any".to_owned()).await;
        decide(any.clone(), "approve").await.is(200);
        for verb in ["approve", "reject"] {
            let answer = decide(any.clone(), verb).await;
            answer.is_refused(409, "approval_not_decidable");
            assert_eq!(answer.json()["state"], "approved");
        }
        spend(&world, &zone, &any, "a2").await;
        assert_eq!(decide(any, "approve").await.is_refused(409, "approval_not_decidable").json()["state"], "consumed");
        let rejected = hold(&world, &zone, "a3", |_| {}).await;
        decide(rejected.clone(), "reject").await.is(200);
        assert_eq!(
            decide(rejected, "approve").await.is_refused(409, "approval_not_decidable").json()["state"],
            "rejected"
        );
        let over = hold(&world, &zone, "a4", |_| {}).await;
        world.clock.advance(3_600);
        assert_eq!(decide(over, "approve").await.is_refused(409, "approval_not_decidable").json()["state"], "expired");
        // What is over is not the subject's to decide either.
        assert_eq!(
            decide(subject, "approve").await.is_refused(409, "approval_not_decidable").json()["state"],
            "expired"
        );
        decide("0b9f7a9e-8f52-4a51-9d2c-ffffffffffff".to_owned(), "approve")
            .await
            .is_refused(404, "approval_not_found");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_operators_who_decide_at_once_one_has_decided() {
        let world = Arc::new(World::new().await);
        let zone = world.zone("Ops").await;
        let id = hold(&world, &zone, "a1", |_| {}).await;
        let deciders = (0..8).map(|number| {
            let (world, path) =
                (world.clone(), at(&zone, &format!("/{id}/{}", if number % 2 == 0 { "approve" } else { "reject" })));
            tokio::spawn(async move { world.call("POST", &path, None).await.status.as_u16() })
        });
        let mut statuses = Vec::new();
        for decider in deciders.collect::<Vec<_>>() {
            statuses.push(decider.await.unwrap());
        }
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 409, 409, 409, 409, 409, 409, 409]);
        assert_eq!(events(&world, &zone).await.len(), 1, "and one decision is on record");
    }

    #[tokio::test]
    async fn a_body_that_does_not_fit_decides_nothing() {
        let world = World::new().await;
        let zone = world.zone("Ops").await;
        let id = hold(&world, &zone, "a1", |_| {}).await;
        let path = at(&zone, &format!("/{id}/approve"));
        for body in
            [json!([]), json!("x"), json!({"reason": 1}), json!({"reason": null}), json!({"reason": "x".repeat(501)})]
        {
            world.call("POST", &path, Some(body)).await.is_refused(400, "invalid_body");
        }
        world.call("POST", &path, Some(json!({"reason": "x".repeat(500)}))).await.is(200);
    }

    #[tokio::test]
    async fn only_approve_tokens_and_the_bootstrap_token_decide() {
        let world = World::new().await;
        let zone = world.zone("Ops").await;
        let other = world.zone("Other").await;
        let path = |name: &str| at(&zone, &format!("/0b9f7a9e-8f52-4a51-9d2c-0000000000{name}/approve"));
        for name in ["a1", "a2", "a3", "a4"] {
            hold(&world, &zone, name, |_| {}).await;
        }
        for (capability, of, code) in [
            ("read", None, "admin_token_read_only"),
            ("write", None, "approve_capability_required"),
            ("write", Some(zone.as_str()), "approve_capability_required"),
            ("approve", Some(other.as_str()), "admin_token_zone_mismatch"),
        ] {
            let token = world.mint(capability, of).await;
            world.call_as(Some(&token), "POST", &path("a1"), None).await.is_refused(403, code);
        }
        // No spelling of the path gets around that.
        let write = world.mint("write", None).await;
        for encoded in [path("a1").replace("approve", "%61pprove"), path("a1").replace("/v1", "/v1/../v1")] {
            world.call_as(Some(&write), "POST", &encoded, None).await.is_refused(404, "not_found");
        }
        let absolute = format!("http://elsewhere.example{}", path("a1"));
        world.call_as(Some(&write), "POST", &absolute, None).await.is_refused(403, "approve_capability_required");
        for (name, of) in [("a1", None), ("a2", Some(zone.as_str()))] {
            let token = world.mint("approve", of).await;
            world.call_as(Some(&token), "POST", &path(name), None).await.is(200);
            let created = world.call_as(Some(&token), "POST", "/v1/zones", Some(json!({"name": "x"}))).await;
            assert_eq!(created.status, 403);
            world.call_as(Some(&token), "GET", &at(&zone, ""), None).await.is(200);
        }
        world.call_as(Some(BOOTSTRAP), "POST", &path("a3"), None).await.is(200);
    }

    #[tokio::test]
    async fn the_console_s_account_is_who_decided() {
        let world = World::new().await;
        let account = assertion("account-1", START + 60);
        let write = derived(ConsoleToken::Write);
        let mut create = request(Some(&write), "POST", "/v1/zones", Some(json!({"name": "Owned"})));
        create.headers_mut().insert("x-caracal-account", account.parse().unwrap());
        let zone = world.send(create).await.is(201)["id"].as_str().unwrap().to_owned();
        let id = hold(&world, &zone, "a1", |_| {}).await;
        let path = at(&zone, &format!("/{id}/approve"));
        let mut by_write = request(Some(&write), "POST", &path, None);
        by_write.headers_mut().insert("x-caracal-account", account.parse().unwrap());
        world.send(by_write).await.is_refused(403, "approve_capability_required");
        let mut by_approve = request(Some(&derived(ConsoleToken::Approve)), "POST", &path, None);
        by_approve.headers_mut().insert("x-caracal-account", account.parse().unwrap());
        assert_eq!(world.send(by_approve).await.is(200)["approver_subject_id"], "console:account-1");
    }

    #[tokio::test]
    async fn a_decision_without_its_evidence_does_not_happen() {
        let world = World::new().await;
        let zone = world.zone("Ops").await;
        let id = hold(&world, &zone, "a1", |_| {}).await;
        world.outside(if world.directory.database().is_some() {
            "CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'broken'; END $$;
             CREATE TRIGGER broken BEFORE INSERT ON audit_events FOR EACH ROW EXECUTE FUNCTION broken()"
        } else {
            "CREATE TRIGGER broken BEFORE INSERT ON audit_events BEGIN SELECT RAISE(ABORT, 'broken'); END"
        });
        assert_eq!(world.call("POST", &at(&zone, &format!("/{id}/approve")), None).await.status, 500);
        assert_eq!(world.get(&at(&zone, &format!("/{id}"))).await.is(200)["state"], "pending");
        assert!(world.messages.lock().unwrap().is_empty(), "and nobody is woken");
    }
}

#[tokio::test]
async fn a_hold_is_shown_with_all_that_was_asked() {
    let world = World::new().await;
    let zone = world.zone("Ops").await;
    let before = hold(&world, &zone, "b1", |row| row.record_id = "rec-1".parse().ok()).await;
    world.call("POST", &at(&zone, &format!("/{before}/approve")), None).await.is(200);
    let id = hold(&world, &zone, "a1", |row| {
        row.binding = "b1".repeat(32);
        row.principal_id = "user-1".to_owned();
        row.principal_kind = "user".to_owned();
        row.subject_anchor = Some("user-1".to_owned());
    })
    .await;
    assert_eq!(
        world.get(&at(&zone, &format!("/{id}"))).await.is(200),
        json!({
            "id": id, "zone_id": zone, "session_id": null, "principal_id": "user-1", "application_id": "app-1",
            "approval_type": "human_approval", "tier": "payments", "approver_class": "operator",
            "privacy_mode": "anonymous", "subject_anchor": "user-1", "binding": "b1".repeat(32),
            "metadata_json": {"resources": ["resource://docs"], "agent_labels": ["reader"]},
            "decision_reason": null, "created_at": "2026-01-01T00:00:00.000Z",
            "expires_at": "2026-01-01T01:00:00.000Z", "satisfied_at": null, "rejected_at": null, "consumed_at": null,
            "approver_subject_id": null, "principal_federated": true, "prior_approved": 1, "prior_rejected": 0,
            "state": "pending",
        })
    );
    let other = world.zone("Other").await;
    world.get(&at(&other, &format!("/{id}"))).await.is_refused(404, "approval_not_found");
}

#[tokio::test]
async fn holds_are_listed_and_counted_by_what_is_asked_for() {
    let world = World::new().await;
    let zone = world.zone("Ops").await;
    for name in ["a1", "a2", "a3", "a4", "a5"] {
        hold(&world, &zone, name, |row| {
            row.tier = format!("tier-{name}");
            row.principal_id = format!("principal-{name}");
            if name == "a4" {
                row.expires_at = row.created_at.plus(std::time::Duration::from_secs(60));
            }
        })
        .await;
        world.clock.advance(1);
    }
    let id = |name: &str| format!("0b9f7a9e-8f52-4a51-9d2c-0000000000{name}");
    for (name, verb) in [("a2", "approve"), ("a3", "reject"), ("a5", "approve")] {
        world.call("POST", &at(&zone, &format!("/{}/{verb}", id(name))), None).await.is(200);
    }
    spend(&world, &zone, &id("a5"), "a5").await;
    world.clock.advance(120);
    let counts = world.get(&at(&zone, "/counts")).await.is(200);
    assert_eq!(counts, json!({"pending": 1, "approved": 1, "rejected": 1, "expired": 1, "consumed": 1}));
    for (query, expected) in [
        ("", vec!["a5", "a4", "a3", "a2", "a1"]),
        ("?state=pending", vec!["a1"]),
        ("?state=approved", vec!["a2"]),
        ("?state=rejected", vec!["a3"]),
        ("?state=expired", vec!["a4"]),
        ("?state=consumed", vec!["a5"]),
        ("?tier=tier-a2", vec!["a2"]),
        ("?principal=principal-a3&state=rejected", vec!["a3"]),
        ("?principal=principal-a3&state=pending", vec![]),
        ("?since=2026-01-01T00:00:01.000Z&until=2026-01-01T00:00:03.000Z", vec!["a4", "a3", "a2"]),
    ] {
        let listing = world.get(&at(&zone, query)).await.is(200);
        assert_eq!(ids(&listing), expected, "{query}");
    }
    let first = world.get(&at(&zone, "?limit=2")).await.is(200);
    assert_eq!(ids(&first), ["a5", "a4"]);
    let next = format!("?limit=2&cursor={}", first["next_cursor"].as_str().unwrap());
    assert_eq!(ids(&world.get(&at(&zone, &next)).await.is(200)), ["a3", "a2"]);
    for query in ["?state=weird", "?tier=", "?limit=0", "?since=today", &format!("?principal={}", "x".repeat(129))] {
        world.get(&at(&zone, query)).await.is_refused(400, "invalid_query");
    }
    let empty = world.zone("Empty").await;
    let none = world.get(&at(&empty, "/counts")).await.is(200);
    assert_eq!(none, json!({"pending": 0, "approved": 0, "rejected": 0, "expired": 0, "consumed": 0}));
}

#[tokio::test]
async fn a_workloads_hold_is_shown_and_decided_like_any_other() {
    let world = World::new().await;
    let zone = world.zone("Ops").await;
    let id = hold(&world, &zone, "0a", |row| {
        row.principal_id = "w-1".to_owned();
        row.principal_kind = "workload".to_owned();
        row.application_id = None;
        row.agent_session_id = None;
        row.delegation_edge_id = None;
        row.metadata.insert("workload_name".to_owned(), json!("nightly"));
    })
    .await;
    let listed = world.get(&at(&zone, "?principal=w-1&state=pending")).await.is(200);
    let shown = &listed["items"][0];
    assert_eq!((&shown["id"], &shown["principal_id"]), (&json!(id), &json!("w-1")));
    assert_eq!((&shown["application_id"], &shown["session_id"]), (&Value::Null, &Value::Null));
    assert_eq!((&shown["principal_federated"], &shown["state"]), (&json!(false), &json!("pending")));
    assert_eq!(shown["metadata_json"]["workload_name"], "nightly");
    world.call("POST", &at(&zone, &format!("/{id}/approve")), None).await.is(200);
    assert_eq!(world.get(&at(&zone, &format!("/{id}"))).await.is(200)["state"], "approved");
}
