//! Services: taking one over, going on running it, and what happens when nobody does (contract: coordinator.md §5, §9, §13).

use std::time::Duration;

use caracal_authority::AuthorityRecordId;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::support::{House, LIFECYCLE, OPERATOR, REVOKE, Reply, about};

/// Starts a service of `app-1` and returns its id.
async fn service(house: &House) -> String {
    let token = house.mandate("app-1").await;
    let body = json!({"application_id": "app-1", "lifecycle": "service"});
    house.start(&token, body).await.expect(201).text("agent_session_id")
}

async fn lease(house: &House, token: &str, id: &str) -> Reply {
    house.call("POST", &format!("/zones/z-1/agents/{id}/lease"), token, None).await
}

async fn beat(house: &House, token: &str, id: &str, body: Value) -> Reply {
    house.post(&format!("/zones/z-1/agents/{id}/heartbeat"), token, body).await
}

async fn generation(house: &House, token: &str, id: &str, generation: u64) -> Reply {
    beat(house, token, id, json!({"lease_generation": generation})).await
}

fn deadline(house: &House, seconds: u64) -> Value {
    house.store.now().plus(Duration::from_secs(seconds)).to_millis_text().into()
}

#[tokio::test]
async fn a_heartbeat_prolongs_the_lease_and_answers_as_typed_clients_expect() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    let id = service(&house).await;
    house.clock.advance(100);
    let body =
        json!({"lease_generation": 1, "status": "degraded", "active_invocations": 3, "metadata": {"x": 1}, "y": 2});
    let reply = beat(&house, &token, &id, body).await.expect(200);
    let now = deadline(&house, 0);
    let agent = json!({
        "id": id, "zone_id": "z-1", "application_id": "app-1", "status": "active", "last_active_at": now,
        "last_heartbeat_at": now, "heartbeat_deadline_at": deadline(&house, 120), "lease_generation": 1,
    });
    assert_eq!(reply.body, json!({"agent": agent, "service": null, "active_invocations": 3}));
    let read = house.get(&format!("/zones/z-1/agents/{id}"), &token).await.expect(200).body;
    assert_eq!(read["heartbeat_deadline_at"], deadline(&house, 120));
    assert_eq!((&read["last_heartbeat_at"], &read["metadata"]), (&now, &json!({})));
    house.clock.advance(119);
    assert_eq!(house.holding().await, 1);
    house.clock.advance(1);
    assert_eq!(house.holding().await, 0);
}

#[tokio::test]
async fn a_take_over_fences_off_whoever_held_the_lease() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    let id = service(&house).await;
    house.clock.advance(10);
    let reply = lease(&house, &token, &id).await.expect(200);
    let taken = json!({"status": "active", "heartbeat_deadline_at": deadline(&house, 120), "lease_generation": 2});
    assert_eq!(reply.body, taken);
    generation(&house, &token, &id, 1).await.refused(409, "session_lease_fenced");
    generation(&house, &token, &id, 3).await.refused(409, "session_lease_fenced");
    generation(&house, &token, &id, 2).await.expect(200);
    assert_eq!(lease(&house, &token, &id).await.expect(200).body["lease_generation"], 3);
    // Nor can the old holder retire the session.
    let path = format!("/zones/z-1/agents/{id}");
    for (generation, status) in [(2, 409), (3, 204)] {
        house.call("DELETE", &path, &token, Some(json!({"lease_generation": generation}))).await.expect(status);
    }
}

#[tokio::test]
async fn a_heartbeat_of_the_wrong_shape_is_refused_and_nothing_is_renewed() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    let id = service(&house).await;
    let before = house.session(&id).await;
    house.clock.advance(1);
    for body in [
        json!({}),
        json!([]),
        json!({"lease_generation": 0}),
        json!({"lease_generation": "1"}),
        json!({"lease_generation": 1.5}),
        json!({"lease_generation": null}),
        json!({"lease_generation": 1, "status": "fine"}),
        json!({"lease_generation": 1, "active_invocations": -1}),
        json!({"lease_generation": 1, "metadata": []}),
        json!({"lease_generation": 1, "service_id": null}),
        json!({"lease_generation": 1, "metadata": {"x": "\u{0}"}}),
    ] {
        beat(&house, &token, &id, body.clone()).await.refused(400, "invalid_body");
        // The body comes before the session.
        beat(&house, &token, "unknown", body).await.refused(400, "invalid_body");
    }
    let path = format!("/zones/z-1/agents/{id}/heartbeat");
    house.call("POST", &path, &token, None).await.refused(400, "invalid_body");
    let named = json!({"lease_generation": 1, "service_id": "unknown"});
    beat(&house, &token, &id, named).await.refused(404, "agent_service_not_found");
    assert_eq!(format!("{:?}", house.session(&id).await), format!("{before:?}"));
}

#[tokio::test]
async fn only_the_holder_of_a_live_record_of_the_sessions_application_holds_a_lease() {
    let house = House::open().await;
    let id = service(&house).await;
    let before = house.session(&id).await.heartbeat_deadline_at;
    house.clock.advance(1);
    let foreign = house.mandate_with("app-2", "coordinator.admin").await;
    let starter = house.mandate_with("app-2", "coordinator.spawn_for:app-1").await;
    house.add_record("rec-user", "user", "app-1", "app-1").await;
    let mut claims = house.claims("app-1");
    (claims["sid"], claims["sub_type"]) = (json!("rec-user"), json!("user"));
    let user = house.sign(&claims).await;
    claims.as_object_mut().unwrap().remove("sid");
    let nobody = house.sign(&claims).await;
    for (token, status, code) in [
        (foreign.as_str(), 403, "application_ownership_required"),
        (&starter, 401, "identity_revoked"),
        (&user, 401, "identity_revoked"),
        // The reference hears such a mandate and answers 401 `authority_record_required`; we hear none without a record.
        (&nobody, 401, "invalid_token"),
        (OPERATOR, 401, "invalid_token"),
    ] {
        generation(&house, token, &id, 1).await.refused(status, code);
        lease(&house, token, &id).await.refused(status, code);
    }
    let owner = house.mandate("app-1").await;
    for id in ["unknown", "s-elsewhere"] {
        let other = caracal_authority::ZoneId::parse("z-2").unwrap();
        if id != "unknown" {
            house.add_session_in(&other, id, |_| ()).await;
        }
        generation(&house, &owner, id, 1).await.refused(404, "session_not_found");
        lease(&house, &owner, id).await.refused(404, "session_not_found");
    }
    let session = house.session(&id).await;
    assert_eq!((session.heartbeat_deadline_at, session.lease_generation), (before, 1));
}

#[tokio::test]
async fn tasks_and_ended_sessions_have_no_lease() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    let task = house.task().await;
    generation(&house, &token, &task, 1).await.refused(409, "session_not_service");
    lease(&house, &token, &task).await.refused(409, "session_not_service");
    house.terminate(&token, &task).await.expect(204);
    generation(&house, &token, &task, 1).await.refused(409, "session_not_live");
    lease(&house, &token, &task).await.refused(409, "session_not_service");
    let id = service(&house).await;
    house.terminate(OPERATOR, &id).await.expect(204);
    generation(&house, &token, &id, 1).await.refused(409, "session_not_live");
    lease(&house, &token, &id).await.refused(409, "session_not_live");
}

#[tokio::test]
async fn a_suspended_service_is_heard_and_stays_suspended() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    let id = service(&house).await;
    house.call("PATCH", &format!("/zones/z-1/agents/{id}/suspend"), &token, None).await.expect(200);
    house.clock.advance(500);
    let reply = generation(&house, &token, &id, 1).await.expect(200);
    assert_eq!(reply.body["agent"]["status"], "suspended");
    assert_eq!(reply.body["agent"]["heartbeat_deadline_at"], deadline(&house, 120));
    assert_eq!(house.holding().await, 1);
    generation(&house, &token, &id, 2).await.refused(409, "session_lease_fenced");
    lease(&house, &token, &id).await.refused(409, "session_suspended");
}

#[tokio::test]
async fn a_heartbeat_that_comes_too_late_finds_its_service_suspended_with_all_below() {
    for late in ["heartbeat", "lease"] {
        let house = House::open().await;
        let token = house.mandate("app-1").await;
        let id = service(&house).await;
        let child = house.child(&id).await;
        house.clock.advance(120);
        house.messages();
        match late {
            "heartbeat" => generation(&house, &token, &id, 1).await,
            _ => lease(&house, &token, &id).await,
        }
        .refused(409, "session_lease_expired");
        assert_eq!(house.session(&id).await.status, "suspended", "{late}");
        assert_eq!(house.session(&child).await.status, "suspended", "{late}");
        let messages = house.messages();
        let told = about(&messages, LIFECYCLE, "reason", "service_heartbeat_lost");
        assert_eq!((told.len(), messages.len()), (2, 2), "{late}");
        // The next heartbeat says so, and the client stops.
        assert_eq!(generation(&house, &token, &id, 1).await.expect(200).body["agent"]["status"], "suspended");
        house.call("PATCH", &format!("/zones/z-1/agents/{id}/resume"), &token, None).await.expect(200);
        generation(&house, &token, &id, 1).await.expect(200);
    }
}

#[tokio::test]
async fn a_service_whose_user_is_gone_ends_at_its_next_heartbeat_with_all_below() {
    for request in ["heartbeat", "lease"] {
        let house = House::open().await;
        let token = house.mandate("app-1").await;
        house.add_record("rec-user", "user", "alice", "app-1").await;
        let until = house.store.now().plus(Duration::from_secs(60));
        let serves = |session: &mut caracal_store::sessions::SessionRow| {
            session.subject_record_id = AuthorityRecordId::parse("rec-user").unwrap();
            (session.lifecycle, session.ttl_seconds, session.lease_generation) = ("service".to_owned(), None, 1);
            session.heartbeat_deadline_at = Some(until);
        };
        house.add_session("s-user", serves).await;
        let child = house.child("s-user").await;
        generation(&house, &token, "s-user", 1).await.expect(200);
        house.revoke_record("rec-user").await;
        house.messages();
        match request {
            "heartbeat" => generation(&house, &token, "s-user", 7).await,
            _ => lease(&house, &token, "s-user").await,
        }
        .refused(409, "session_subject_inactive");
        let session = house.session("s-user").await;
        let ended = (session.status.as_str(), session.termination_reason.as_deref());
        assert_eq!(ended, ("terminated", Some("subject_authority_inactive")), "{request}");
        assert_eq!(house.session(&child).await.termination_reason.as_deref(), Some("parent_terminated"));
        let messages = house.messages();
        assert_eq!(about(&messages, REVOKE, "agent_session_id", "s-user").len(), 1);
        generation(&house, &token, "s-user", 1).await.refused(409, "session_not_live");
    }
}

#[tokio::test]
async fn a_missed_lease_stops_a_service_before_any_sweep() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    let id = service(&house).await;
    let other = house.task().await;
    house.clock.advance(120);
    let body = json!({"application_id": "app-1", "parent_id": id});
    house.start(&token, body).await.refused(404, "parent_not_found");
    let lent = crate::support::delegation(&id, &other);
    house.delegate(lent).await.refused(404, "delegation_endpoint_not_found");
    assert_eq!(house.session(&id).await.status, "active", "nobody has swept");
}

#[tokio::test]
async fn a_heartbeat_speaks_for_a_service_of_its_own_application() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    let id = service(&house).await;
    let register = async |application: &str| {
        let token = house.mandate(application).await;
        let body =
            json!({"application_id": application, "endpoint_url": "https://a.example/x", "metadata": {"a": 1, "b": 1}});
        house.post("/zones/z-1/agent-services", &token, body).await.expect(201).text("id")
    };
    let (own, foreign) = (register("app-1").await, register("app-2").await);
    house.clock.advance(5);
    let reply = beat(&house, &token, &id, json!({"lease_generation": 1, "service_id": own})).await.expect(200);
    assert_eq!(reply.body["service"]["health"], "healthy");
    assert_eq!(reply.body["service"]["last_heartbeat_at"], deadline(&house, 0));
    assert_eq!(reply.body["service"]["metadata_json"], json!({"a": 1, "b": 1}));
    let said =
        json!({"lease_generation": 1, "service_id": own, "status": "degraded", "metadata": {"b": {"c": null}, "d": 2}});
    let reply = beat(&house, &token, &id, said).await.expect(200);
    assert_eq!(reply.body["service"]["metadata_json"], json!({"a": 1, "b": {"c": null}, "d": 2}));
    let listed = house.get("/zones/z-1/agent-services", &token).await.expect(200).body;
    assert_eq!(listed["items"][0], reply.body["service"]);
    let before = house.session(&id).await.heartbeat_deadline_at;
    house.clock.advance(1);
    for unknown in [foreign.as_str(), "unknown", "a/b"] {
        for metadata in [json!({}), json!({"x": 1})] {
            let body = json!({"lease_generation": 1, "service_id": unknown, "metadata": metadata});
            beat(&house, &token, &id, body).await.refused(404, "agent_service_not_found");
        }
    }
    assert_eq!(house.session(&id).await.heartbeat_deadline_at, before, "nothing is renewed");
}

/// Runs the lease sweeper until `done` says so.
async fn sweep_until(house: &House, done: impl AsyncFn() -> bool) {
    let (stop, stopped) = watch::channel(false);
    let job = tokio::spawn(house.coordinator.clone().run_lease_sweeper(stopped));
    let swept = async {
        while !done().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), swept).await.unwrap();
    stop.send(true).unwrap();
    job.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sweep_suspends_what_missed_its_lease_and_nothing_else() {
    let house = House::with(|config| config.lease_sweep_interval = Duration::from_millis(1)).await;
    let token = house.mandate("app-1").await;
    let (missed, kept) = (service(&house).await, service(&house).await);
    let child = house.child(&missed).await;
    let lapsed = json!({"application_id": "app-1", "ttl_seconds": 60});
    let lapsed = house.start(&token, lapsed).await.expect(201).text("agent_session_id");
    house.clock.advance(119);
    generation(&house, &token, &kept, 1).await.expect(200);
    house.clock.advance(1);
    house.messages();
    sweep_until(&house, async || house.session(&child).await.status == "suspended").await;
    assert_eq!(house.session(&missed).await.status, "suspended");
    assert_eq!(house.session(&missed).await.lease_generation, 1);
    assert_eq!(house.session(&kept).await.status, "active");
    assert_eq!(house.session(&lapsed).await.status, "active", "that is another job's");
    assert_eq!(house.messages().len(), 2, "each is told once, and nothing is revoked");
    let counts = &house.coordinator.jobs().leases;
    assert_eq!(counts.ended.load(std::sync::atomic::Ordering::Relaxed), 2);
    assert_eq!(counts.failures.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_heartbeat_is_on_record_once_and_the_chain_holds() {
    let house = House::with(|config| config.record_interval = Duration::from_millis(1)).await;
    let token = house.mandate("app-1").await;
    let id = service(&house).await;
    let before = house.changes("z-1").await.len();
    for _ in 0..3 {
        house.clock.advance(1);
        generation(&house, &token, &id, 1).await.expect(200);
    }
    generation(&house, &token, &id, 9).await.refused(409, "session_lease_fenced");
    assert_eq!(house.changes("z-1").await.len(), before, "a heartbeat extends no chain");
    lease(&house, &token, &id).await.expect(200);
    // Two at once, as after an election that nobody noticed was lost.
    let (stop, stopped) = watch::channel(false);
    let jobs = [stopped.clone(), stopped].map(|on| tokio::spawn(house.coordinator.clone().run_heartbeat_records(on)));
    let chained = async {
        while house.changes("z-1").await.len() < before + 4 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), chained).await.unwrap();
    stop.send(true).unwrap();
    for job in jobs {
        job.await.unwrap();
    }
    let changes = house.changes("z-1").await;
    assert_eq!(changes.len(), before + 4);
    let beats = changes.iter().filter(|change| change.path.ends_with("/heartbeat"));
    let beats: Vec<_> =
        beats.map(|change| (change.status_code, change.entity_id.clone(), change.actor_name.clone())).collect();
    assert_eq!(beats, vec![(200, Some(id), Some("app-1".to_owned())); 3]);
    for pair in changes.windows(2) {
        assert_eq!(pair[1].prev_content_sha256.as_ref(), Some(&pair[0].content_sha256));
    }
}
