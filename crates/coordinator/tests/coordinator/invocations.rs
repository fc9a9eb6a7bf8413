//! What agents ask of services, and what becomes of it (contract: coordinator.md §7).

use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;

use crate::support::{House, OPERATOR, Reply, about};

const PATH: &str = "/zones/z-1/invocations";
const TOPIC: &str = "caracal.invocations.lifecycle";

/// Registers a service of `app-1` and returns its id.
async fn service(house: &House) -> String {
    let token = house.mandate("app-1").await;
    let body = json!({"application_id": "app-1", "endpoint_url": "https://worker.example"});
    house.post("/zones/z-1/agent-services", &token, body).await.expect(201).text("id")
}

fn asking(service: &str, key: &str) -> Value {
    json!({"service_id": service, "idempotency_key": key, "method": "summarise"})
}

/// Asks something of a fresh service of `app-1` and returns the invocation's id.
async fn asked(house: &House, change: impl FnOnce(&mut Value)) -> String {
    let token = house.mandate("app-1").await;
    let mut body = asking(&service(house).await, "k");
    change(&mut body);
    house.post(PATH, &token, body).await.expect(201).text("id")
}

async fn step(house: &House, token: &str, id: &str, step: &str, body: Option<Value>) -> Reply {
    house.call("PATCH", &format!("{PATH}/{id}/{step}"), token, body).await
}

fn done(status: &str) -> Option<Value> {
    Some(json!({"status": status}))
}

#[tokio::test]
async fn an_invocation_is_asked_started_and_completed() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    let (service, source) = (service(&house).await, house.task().await);
    house.messages();
    let mut body = asking(&service, "k");
    body["source_session_id"] = json!(source);
    body["params"] = json!({"secret": "in clear"});
    let created = house.post(PATH, &token, body).await.expect(201);
    let id = created.text("id");
    let expected = json!({
        "id": id, "zone_id": "z-1", "service_id": service, "source_session_id": source, "target_session_id": null,
        "method": "summarise", "status": "pending", "attempts": 0, "max_attempts": 3, "timeout_ms": 30000,
        "retry_policy_json": {"max_attempts": 3, "backoff_ms": 1000}, "deadline_at": null,
        "cancel_requested_at": null, "started_at": null, "completed_at": null, "created_at": "2027-01-15T08:00:00.000Z",
    });
    assert_eq!(created.body, expected);
    house.clock.advance(1);
    let started = step(&house, &token, &id, "start", None).await.expect(200).body;
    assert_eq!((&started["status"], &started["attempts"]), (&json!("running"), &json!(1)));
    assert_eq!(started["deadline_at"], "2027-01-15T08:00:31.000Z");
    let completion = json!({"status": "succeeded", "metadata": {"tokens": 7}});
    let completed = step(&house, &token, &id, "complete", Some(completion)).await.expect(200).body;
    assert_eq!(
        (&completed["status"], &completed["completed_at"]),
        (&json!("succeeded"), &json!("2027-01-15T08:00:01.000Z"))
    );
    assert_eq!(house.get(&format!("{PATH}/{id}"), &token).await.expect(200).body, completed);
    let messages = house.messages();
    let events: Vec<_> = about(&messages, TOPIC, "invocation_id", &id)
        .iter()
        .map(|message| (message.field("event").unwrap().to_owned(), message.dedupe_key.clone()))
        .collect();
    let event = |name: &str, attempt: u32| (name.to_owned(), format!("{name}:{id}:{attempt}"));
    assert_eq!(
        events,
        [event("invocation.created", 0), event("invocation.started", 1), event("invocation.succeeded", 1)]
    );
    assert!(messages.iter().all(|message| message.fields.iter().all(|(_, value)| !value.contains("in clear"))));
}

#[tokio::test]
async fn what_is_named_must_exist_and_a_session_must_be_a_task_at_work() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    let (service, task, ended) = (service(&house).await, house.task().await, house.task().await);
    house.terminate(&token, &ended).await.expect(204);
    house
        .add_session("s-service", |session| {
            session.lifecycle = "service".to_owned();
            session.ttl_seconds = None;
            session.lease_generation = 1;
            session.heartbeat_deadline_at = Some(house.store.now().plus(Duration::from_secs(60)));
        })
        .await;
    house.add_session("s-lapsed", |session| session.ttl_seconds = Some(0)).await;
    for (source, target) in [
        (json!("unknown"), json!(null)),
        (json!(""), json!(null)),
        (json!(ended), json!(null)),
        (json!("s-lapsed"), json!(null)),
        (json!("s-service"), json!(null)),
        (json!(task), json!("s-service")),
        (json!(task), json!(task)),
    ] {
        let mut body = asking(&service, "k");
        (body["source_session_id"], body["target_session_id"]) = (source.clone(), target.clone());
        house.post(PATH, &token, body).await.refused(404, "session_not_found");
    }
    house.post(PATH, &token, asking("unknown", "k")).await.refused(404, "agent_service_not_found");
    house.post(PATH, &token, asking("a b", "k")).await.refused(404, "agent_service_not_found");
    house.post(PATH, &token, asking(&service, " x")).await.refused(400, "idempotency_key_invalid");
    house.post(PATH, &token, json!({})).await.refused(400, "invalid_body");
}

#[tokio::test]
async fn who_acts_is_the_source_sessions_application_else_the_services() {
    let house = House::open().await;
    let (service, source) = (service(&house).await, house.task().await);
    let other = house.mandate("app-2").await;
    let with_source = |key: &str, source: &str| {
        let mut body = asking(&service, key);
        body["source_session_id"] = json!(source);
        body
    };
    house.post(PATH, &other, asking(&service, "k")).await.refused(403, "invoker_ownership_required");
    house.post(PATH, &other, with_source("k", &source)).await.refused(403, "invoker_ownership_required");
    // With a session of its own anybody may ask of any service of the zone.
    let own = house.start(&other, json!({"application_id": "app-2"})).await.expect(201).text("agent_session_id");
    house.post(PATH, &other, with_source("k", &own)).await.expect(201);
    for (scopes, key) in [("coordinator.invoke_from:app-1", "a"), ("coordinator.admin", "b")] {
        let token = house.mandate_with("app-2", scopes).await;
        house.post(PATH, &token, with_source(key, &source)).await.expect(201);
    }
}

#[tokio::test]
async fn only_the_services_application_moves_an_invocation() {
    let house = House::open().await;
    let service = service(&house).await;
    let other = house.mandate("app-2").await;
    let own = house.start(&other, json!({"application_id": "app-2"})).await.expect(201).text("agent_session_id");
    let mut body = asking(&service, "k");
    body["source_session_id"] = json!(own);
    let id = house.post(PATH, &other, body).await.expect(201).text("id");
    for (what, body) in [("start", None), ("cancel", None), ("complete", done("failed"))] {
        step(&house, &other, &id, what, body).await.refused(403, "invoker_ownership_required");
    }
    let acting = house.mandate_with("app-2", "coordinator.invoke_from:app-1").await;
    step(&house, &acting, &id, "start", None).await.expect(200);
    let admin = house.mandate_with("app-2", "coordinator.admin").await;
    step(&house, &admin, &id, "complete", done("succeeded")).await.expect(200);
    step(&house, &admin, "unknown", "start", None).await.refused(404, "invocation_not_found");
    step(&house, &admin, &id, "complete", Some(json!({}))).await.refused(400, "invalid_body");
}

#[tokio::test]
async fn a_failed_attempt_is_followed_by_another_until_none_is_left() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    let id = asked(&house, |body| body["retry_policy"] = json!({"max_attempts": 2})).await;
    step(&house, &token, &id, "complete", done("failed")).await.refused(409, "invocation_not_completable");
    step(&house, &token, &id, "start", None).await.expect(200);
    step(&house, &token, &id, "start", None).await.refused(409, "invocation_not_startable");
    let failed = step(&house, &token, &id, "complete", done("failed")).await.expect(200).body;
    assert_eq!((&failed["status"], failed["completed_at"].is_null()), (&json!("failed"), false));
    step(&house, &token, &id, "cancel", None).await.refused(409, "invocation_not_cancelable");
    let again = step(&house, &token, &id, "start", None).await.expect(200).body;
    assert_eq!((&again["attempts"], &again["completed_at"]), (&json!(2), &Value::Null));
    step(&house, &token, &id, "complete", done("failed")).await.expect(200);
    step(&house, &token, &id, "start", None).await.refused(409, "invocation_not_startable");
}

#[tokio::test]
async fn what_is_pending_is_withdrawn_and_what_runs_is_asked_to_stop() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    let id = asked(&house, |_| ()).await;
    let canceled =
        step(&house, &token, &id, "cancel", Some(json!({"reason": "changed my mind"}))).await.expect(200).body;
    assert_eq!((&canceled["status"], canceled["cancel_requested_at"].is_null()), (&json!("canceled"), false));
    step(&house, &token, &id, "cancel", None).await.refused(409, "invocation_not_cancelable");
    let id = asked(&house, |body| body["idempotency_key"] = json!("k2")).await;
    step(&house, &token, &id, "start", None).await.expect(200);
    house.messages();
    for _ in 0..2 {
        let asked = step(&house, &token, &id, "cancel", None).await.expect(200).body;
        assert_eq!(asked["status"], "cancel_requested");
        house.clock.advance(1);
    }
    assert_eq!(about(&house.messages(), TOPIC, "event", "invocation.cancel_requested").len(), 1);
    let read = house.get(&format!("{PATH}/{id}"), &token).await.expect(200).body;
    assert_eq!(read["cancel_requested_at"], "2027-01-15T08:00:01.000Z", "the later of the two");
    step(&house, &token, &id, "complete", done("succeeded")).await.expect(200);
    step(&house, &token, &id, "cancel", Some(json!({"reason": ""}))).await.refused(400, "invalid_body");
}

mod t04_state_evidence {
    use super::*;

    #[tokio::test]
    async fn every_move_is_on_record_with_the_invocation_it_was_about_and_nothing_it_was_given() {
        let house = House::open().await;
        let token = house.mandate("app-1").await;
        let id = asked(&house, |body| body["params"] = json!({"secret": "in clear"})).await;
        step(&house, &token, &id, "start", None).await.expect(200);
        step(&house, &token, &id, "complete", Some(json!({"status": "failed", "error": {"m": "in clear"}}))).await;
        let records = house.changes("z-1").await;
        let about = |record: &caracal_store::admin_evidence::AdminEvidenceRow| {
            (record.action.clone(), record.entity_id.clone(), record.status_code)
        };
        let path = |step: &str| format!("PATCH {PATH}/{id}/{step}");
        let expected = [
            ("POST /zones/z-1/agent-services".to_owned(), None, 201),
            (format!("POST {PATH}"), None, 201),
            (path("start"), Some(id.clone()), 200),
            (path("complete"), Some(id.clone()), 200),
        ];
        assert_eq!(records.iter().map(about).collect::<Vec<_>>(), expected);
        assert!(!format!("{records:?}").contains("in clear"));
    }
}

/// Runs the job until the invocation has this status.
async fn until(house: &House, id: &str, status: &str) -> Value {
    let (stop, stopped) = watch::channel(false);
    let job = tokio::spawn(house.coordinator.clone().run_invocation_deadlines(stopped));
    let admin = house.mandate_with("app-2", "coordinator.admin").await;
    let over = async {
        loop {
            let read = house.get(&format!("{PATH}/{id}"), &admin).await.expect(200).body;
            if read["status"] == status {
                return read;
            }
            tokio::task::yield_now().await;
        }
    };
    let read = tokio::time::timeout(Duration::from_secs(10), over).await.unwrap();
    stop.send(true).unwrap();
    job.await.unwrap();
    read
}

async fn impatient() -> House {
    House::with(|config| config.deadline_sweep_interval = Duration::from_millis(1)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_nobody_answers_fails_and_the_last_one_times_out() {
    let house = impatient().await;
    let token = house.mandate("app-1").await;
    let id = asked(&house, |body| {
        body["retry_policy"] = json!({"max_attempts": 2});
        body["timeout_ms"] = json!(1_500);
    })
    .await;
    step(&house, &token, &id, "start", None).await.expect(200);
    house.clock.advance(2);
    let failed = until(&house, &id, "failed").await;
    assert_eq!(failed["completed_at"], "2027-01-15T08:00:02.000Z");
    step(&house, &token, &id, "complete", done("succeeded")).await.refused(409, "invocation_not_completable");
    let token = house.mandate("app-1").await;
    step(&house, &token, &id, "start", None).await.expect(200);
    house.clock.advance(2);
    until(&house, &id, "timed_out").await;
    let messages = house.messages();
    let events: Vec<_> =
        about(&messages, TOPIC, "invocation_id", &id).iter().map(|message| message.dedupe_key.clone()).collect();
    assert!(events.contains(&format!("invocation.failed:{id}:1")), "{events:?}");
    assert!(events.contains(&format!("invocation.timed_out:{id}:2")), "{events:?}");
    step(&house, &token, &id, "start", None).await.refused(409, "invocation_not_startable");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_was_asked_to_stop_and_says_nothing_is_over_and_not_tried_again() {
    let house = impatient().await;
    let token = house.mandate("app-1").await;
    let id = asked(&house, |body| body["timeout_ms"] = json!(1_000)).await;
    step(&house, &token, &id, "start", None).await.expect(200);
    step(&house, &token, &id, "cancel", None).await.expect(200);
    house.clock.advance(1);
    until(&house, &id, "timed_out").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_begins_in_time_is_over_and_nobody_may_begin_it_any_more() {
    let house = House::with(|config| {
        config.deadline_sweep_interval = Duration::from_millis(1);
        config.pending_invocations = Duration::from_secs(60);
    })
    .await;
    let token = house.mandate("app-1").await;
    let id = asked(&house, |_| ()).await;
    house.clock.advance(59);
    let later = asked(&house, |body| body["idempotency_key"] = json!("k2")).await;
    house.clock.advance(1);
    // Its time is what ends it; the job says so.
    step(&house, &token, &id, "start", None).await.refused(409, "invocation_not_startable");
    let over = until(&house, &id, "timed_out").await;
    assert_eq!((&over["attempts"], &over["completed_at"]), (&json!(0), &json!("2027-01-15T08:01:00.000Z")));
    for what in ["start", "cancel"] {
        step(&house, &token, &id, what, None).await.refused(409, &format!("invocation_not_{what}able"));
    }
    let messages = house.messages();
    let ended = about(&messages, TOPIC, "event", "invocation.timed_out");
    assert_eq!(ended.len(), 1);
    assert_eq!(ended[0].dedupe_key, format!("invocation.timed_out:{id}:0"));
    step(&house, &token, &later, "start", None).await.expect(200);
}

#[tokio::test]
async fn the_pause_between_two_attempts_is_kept_where_it_was_asked_for() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    let paused = asked(&house, |body| body["retry_policy"] = json!({"backoff_ms": 5_000})).await;
    let eager = asked(&house, |body| {
        body["idempotency_key"] = json!("k2");
        body["retry_policy"] = json!({"backoff_ms": 0});
    })
    .await;
    for id in [&paused, &eager] {
        step(&house, &token, id, "start", None).await.expect(200);
        step(&house, &token, id, "complete", done("failed")).await.expect(200);
    }
    step(&house, &token, &eager, "start", None).await.expect(200);
    house.clock.advance(4);
    let early = step(&house, &token, &paused, "start", None).await;
    early.refused(409, "invocation_not_startable");
    let unchanged = house.get(&format!("{PATH}/{paused}"), &token).await.expect(200).body;
    assert_eq!((&unchanged["status"], &unchanged["attempts"]), (&json!("failed"), &json!(1)));
    house.clock.advance(1);
    let again = step(&house, &token, &paused, "start", None).await.expect(200).body;
    assert_eq!(again["attempts"], 2);
}

#[tokio::test]
async fn a_list_shows_what_an_application_asked_or_works_for_and_filters_it() {
    let house = House::open().await;
    let (one, two) = (house.mandate("app-1").await, house.mandate("app-2").await);
    let (service, source) = (service(&house).await, house.task().await);
    let foreign = house.start(&two, json!({"application_id": "app-2"})).await.expect(201).text("agent_session_id");
    let mut ids = Vec::new();
    for (key, session) in [("a", None), ("b", Some(&source)), ("c", Some(&foreign))] {
        let mut body = asking(&service, key);
        body["source_session_id"] = json!(session);
        let token = if session == Some(&foreign) { &two } else { &one };
        ids.insert(0, house.post(PATH, token, body).await.expect(201).text("id"));
        house.clock.advance(1);
    }
    step(&house, &one, &ids[1], "start", None).await.expect(200);
    let of = |body: &Value| -> Vec<String> {
        body["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
    };
    let [c, b, a] = [&ids[0], &ids[1], &ids[2]];
    for (token, query, shown) in [
        (&one, String::new(), vec![c, b, a]),
        (&one, "?limit=2".to_owned(), vec![c, b]),
        (&one, format!("?cursor={b}"), vec![a]),
        (&one, "?status=running".to_owned(), vec![b]),
        (&one, "?status=dead".to_owned(), vec![]),
        (&one, format!("?session_id={foreign}"), vec![c]),
        (&one, format!("?service_id={service}&status=pending"), vec![c, a]),
        (&one, "?service_id=unknown".to_owned(), vec![]),
        (&one, "?service_id=a%20b".to_owned(), vec![]),
        (&two, String::new(), vec![c]),
    ] {
        let body = house.get(&format!("{PATH}{query}"), token).await.expect(200).body;
        assert_eq!(of(&body), shown.into_iter().cloned().collect::<Vec<_>>(), "{query}");
    }
    assert_eq!(of(&house.get(PATH, OPERATOR).await.expect(200).body).len(), 3);
    let row = &house.get(PATH, &two).await.expect(200).body["items"][0];
    assert!(row.get("retry_policy_json").is_none() && row.get("cancel_requested_at").is_none(), "{row}");
    for query in ["status=unknown", "status=", "status=running&status=running", "limit=0"] {
        house.get(&format!("{PATH}?{query}"), &one).await.refused(400, "invalid_query");
    }
    house.get(&format!("{PATH}?cursor={a}"), &two).await.refused(400, "invalid_cursor");
}

mod t04_state_readers {
    use super::*;

    #[tokio::test]
    async fn an_invocation_of_others_does_not_exist_for_the_caller() {
        let house = House::open().await;
        let id = asked(&house, |_| ()).await;
        let path = format!("{PATH}/{id}");
        house.get(&path, &house.mandate("app-2").await).await.refused(404, "invocation_not_found");
        house.get(&path, &house.mandate_with("app-2", "coordinator.admin").await).await.expect(200);
        house.get(&format!("{PATH}/unknown"), &house.mandate("app-1").await).await.refused(404, "invocation_not_found");
    }
}

mod t04_state_receipts {
    use super::*;

    #[tokio::test]
    async fn the_same_key_brings_about_one_invocation_whatever_became_of_it() {
        let house = House::open().await;
        let token = house.mandate("app-1").await;
        let service = service(&house).await;
        let first = house.post(PATH, &token, asking(&service, "k")).await.expect(201);
        let mut spelt_out = asking(&service, "k");
        spelt_out["params"] = json!({});
        spelt_out["timeout_ms"] = json!(30_000);
        step(&house, &token, &first.text("id"), "cancel", None).await.expect(200);
        let second = house.post(PATH, &token, spelt_out).await.expect(201);
        assert_eq!(second.body, first.body, "as it was answered then");
        assert_eq!(second.headers["idempotency-replayed"], "true");
        let mut other = asking(&service, "k");
        other["params"] = json!({"a": 1});
        house.post(PATH, &token, other).await.refused(409, "idempotency_key_conflict");
        house.post(PATH, &token, asking(&service, "K")).await.expect(201);
    }

    #[tokio::test]
    async fn explicit_keys_are_remembered_up_to_their_cap() {
        let house = House::with(|config| config.idempotency_max_receipts = 2).await;
        let token = house.mandate("app-1").await;
        let service = service(&house).await;
        for key in ["a", "b", "a"] {
            house.post(PATH, &token, asking(&service, key)).await.expect(201);
        }
        house.post(PATH, &token, asking(&service, "c")).await.refused(429, "idempotency_receipt_limit_exceeded");
    }
}

mod t04_state_races {
    use super::*;
    use crate::support::{delegation, request};
    use crate::t04_state_races::{count, together};

    fn ids(replies: &[Reply], name: &str) -> std::collections::BTreeSet<String> {
        replies.iter().map(|reply| reply.text(name)).collect()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn clients_that_ask_under_one_key_at_once_get_one_invocation_and_are_counted_once_each_at_most() {
        let house = House::open().await;
        let token = house.mandate("app-1").await;
        let service = service(&house).await;
        let requests = (0..16).map(|_| request("POST", PATH, &token, Some(asking(&service, "k")), &[])).collect();
        let replies = together(&house, requests).await;
        assert_eq!((count(&replies, 201), ids(&replies, "id").len()), (16, 1));
        let first = replies.iter().filter(|reply| !reply.headers.contains_key("idempotency-replayed"));
        assert_eq!(first.count(), 1);
        assert_eq!(about(&house.messages(), TOPIC, "event", "invocation.created").len(), 1);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn clients_that_delegate_under_one_key_at_once_make_one_delegation() {
        let house = House::open().await;
        let token = house.mandate("app-1").await;
        let (a, b) = (house.task().await, house.task().await);
        let path = "/zones/z-1/delegations";
        let headers = [("idempotency-key", "k")];
        let requests = (0..16).map(|_| request("POST", path, &token, Some(delegation(&a, &b)), &headers)).collect();
        let replies = together(&house, requests).await;
        assert_eq!((count(&replies, 201), ids(&replies, "delegation_edge_id").len()), (16, 1));
        assert_eq!(about(&house.messages(), crate::support::INVALIDATE, "event", "edge_create").len(), 1);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn of_workers_that_start_an_invocation_at_once_one_does() {
        let house = House::open().await;
        let token = house.mandate("app-1").await;
        let id = asked(&house, |_| ()).await;
        let path = format!("{PATH}/{id}/start");
        let replies = together(&house, (0..16).map(|_| request("PATCH", &path, &token, None, &[])).collect()).await;
        assert_eq!((count(&replies, 200), count(&replies, 409)), (1, 15));
        let read = house.get(&format!("{PATH}/{id}"), &token).await.expect(200).body;
        assert_eq!(read["attempts"], 1);
    }

    /// Whichever comes first, the other sees it: no delegation lives under one that was revoked, and what a reader is told
    /// of the graph never holds one without the other.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn what_is_built_while_its_ground_is_revoked_is_refused_or_falls_with_it() {
        let house = House::open().await;
        let token = house.mandate("app-1").await;
        let (a, b) = (house.task().await, house.task().await);
        let first = house.edge(&a, &b, |body| body["constraints"] = json!({"max_hops": 2})).await;
        let mut requests = Vec::new();
        for _ in 0..8 {
            let target = house.task().await;
            requests.push(request("POST", "/zones/z-1/delegations", &token, Some(delegation(&b, &target)), &[]));
        }
        let revoke = format!("/zones/z-1/delegations/{first}/revoke");
        requests.insert(4, request("PATCH", &revoke, &token, None, &[]));
        let replies = together(&house, requests).await;
        assert_eq!(count(&replies, 200), 1);
        for made in replies.iter().filter(|reply| reply.status.as_u16() == 201) {
            assert_eq!(house.edge_row(&made.text("delegation_edge_id")).await.status, "revoked");
        }
        let active = house.get("/zones/z-1/delegations/active", OPERATOR).await.expect(200).body;
        assert_eq!(active["items"], json!([]));
    }
}

mod t08_availability {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn an_invocation_that_is_damaged_keeps_no_other_zone_from_its_deadlines() {
        use caracal_authority::{ApplicationId, InvocationId, ServiceId, ZoneId};
        use caracal_store::{StoreError, invocations};
        let house = impatient().await;
        let token = house.mandate("app-1").await;
        let id = asked(&house, |body| body["timeout_ms"] = json!(1_000)).await;
        step(&house, &token, &id, "start", None).await.expect(200);
        let now = house.store.now();
        let damaged = invocations::Invocation {
            zone_id: ZoneId::parse("a-1").unwrap(),
            id: InvocationId::parse("n-1").unwrap(),
            service_id: ServiceId::parse("v-1").unwrap(),
            service_application_id: ApplicationId::parse("app-1").unwrap(),
            acting_application_id: ApplicationId::parse("app-1").unwrap(),
            source_session_id: None,
            target_session_id: None,
            method: "m".to_owned(),
            params: json!({}),
            metadata: serde_json::Map::new(),
            status: caracal_authority::invocation::InvocationStatus::Running,
            attempts: -1,
            max_attempts: 1,
            backoff_ms: 0,
            backoff_named: false,
            timeout_ms: 1,
            deadline_at: Some(now),
            cancel_requested_at: None,
            started_at: Some(now),
            completed_at: None,
            error: None,
            created_at: now,
            updated_at: now,
        };
        let zone = damaged.zone_id.clone();
        let added: Result<(), StoreError> =
            house.store.commit(&zone, damaged, |tx, row| Box::pin(invocations::add(tx, row))).await;
        added.unwrap();
        house.clock.advance(1);
        until(&house, &id, "failed").await;
    }

    #[tokio::test]
    async fn requests_are_counted_per_application_and_a_repetition_is_not() {
        let house = House::with(|config| config.invocation_rate_limit_per_minute = 2).await;
        let token = house.mandate("app-1").await;
        let service = service(&house).await;
        let id = house.post(PATH, &token, asking(&service, "a")).await.expect(201).text("id");
        step(&house, &token, &id, "start", None).await.expect(200);
        let limited = house.post(PATH, &token, asking(&service, "b")).await;
        limited.refused(429, "rate_limited");
        assert_eq!(limited.headers["retry-after"], "60");
        step(&house, &token, &id, "complete", Some(json!([]))).await.refused(429, "rate_limited");
        house.post(PATH, &token, asking(&service, "a")).await.expect(201);
        let mut conflicting = asking(&service, "a");
        conflicting["method"] = json!("other");
        house.post(PATH, &token, conflicting).await.refused(409, "idempotency_key_conflict");
        house.get(PATH, &token).await.expect(200);
        // Another application has a budget of its own.
        let other = house.mandate("app-2").await;
        step(&house, &other, &id, "start", None).await.refused(403, "invoker_ownership_required");
        house.clock.advance(60);
        house.post(PATH, &token, asking(&service, "b")).await.expect(201);
    }
}
