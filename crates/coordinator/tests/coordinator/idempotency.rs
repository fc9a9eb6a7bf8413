//! One key, at most one effect (contract: coordinator.md §10, README D29).

use serde_json::{Value, json};

use crate::support::{House, Reply, delegation, hmac, request, send};

fn is_replay(reply: &Reply) -> bool {
    reply.headers.get("idempotency-replayed").is_some_and(|value| value == "true")
}

fn task() -> Value {
    json!({"application_id": "app-1", "labels": ["a"]})
}

async fn start_generated(house: &House, token: &str, key: &str) -> Reply {
    let headers = [("idempotency-key", key), ("idempotency-key-kind", "generated")];
    house.send(request("POST", "/zones/z-1/agents", token, Some(task()), &headers)).await
}

#[tokio::test]
async fn a_repeated_request_gets_the_first_answer_and_has_no_effect_of_its_own() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    let first = house.start_keyed(&token, "key-1", task()).await.expect(201);
    assert!(!is_replay(&first));
    house.messages();
    // Defaults spelt out and untrimmed labels are the same request.
    let spelt_out = json!({
        "application_id": "app-1", "labels": ["  a "], "ttl_seconds": 3600, "lifecycle": "task",
        "parent_id": null, "parent_authority": "inherit", "metadata": {}, "subject_session_id": "rec-1", "other": 1,
    });
    house.clock.advance(60);
    let again = house.start_keyed(&token, "key-1", spelt_out).await.expect(201);
    assert!(is_replay(&again));
    assert_eq!(again.body, first.body);
    assert_eq!(house.holding().await, 1);
    assert!(house.messages().is_empty());
}

#[tokio::test]
async fn a_different_request_under_the_key_is_refused_and_never_executed() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    let body = json!({"application_id": "app-1", "labels": ["a", "b"], "metadata": {"n": 1}});
    house.start_keyed(&token, "key-1", body.clone()).await.expect(201);
    let with = |name: &str, value: Value| {
        let mut body = body.clone();
        body[name] = value;
        body
    };
    for other in [
        with("labels", json!(["b", "a"])),
        with("metadata", json!({"n": 2})),
        with("ttl_seconds", json!(60)),
        with("parent_authority", json!("none")),
        with("inherit_parent_edge_id", json!("e-1")),
        with("lifecycle", json!("service")),
        // Decided before anything is looked up.
        with("parent_id", json!("unknown")),
        with("subject_session_id", json!("unknown")),
    ] {
        let reply = house.start_keyed(&token, "key-1", other.clone()).await;
        assert_eq!(reply.refusal(), (409, "idempotency_key_conflict"), "{other}");
        assert!(reply.body["message"].is_string());
    }
    let mut claims = house.claims("app-1");
    claims["sub"] = json!("someone-else");
    let other_subject = house.sign(&claims).await;
    house.start_keyed(&other_subject, "key-1", body.clone()).await.refused(409, "idempotency_key_conflict");
    assert_eq!(house.holding().await, 1);
    // The key of another application, and another key, are other keys.
    let theirs = house.mandate("app-2").await;
    house.start_keyed(&theirs, "key-1", json!({"application_id": "app-2"})).await.expect(201);
    house.start_keyed(&token, "Key-1", body).await.expect(201);
}

#[tokio::test]
async fn ownership_and_schema_are_judged_before_any_receipt() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    house.start_keyed(&token, "key-1", task()).await.expect(201);
    let stranger = house.mandate("app-2").await;
    house.start_keyed(&stranger, "key-1", task()).await.refused(403, "application_ownership_required");
    house.start_keyed(&token, "key-1", json!({})).await.refused(400, "invalid_body");
}

#[tokio::test]
async fn a_refused_request_leaves_no_receipt() {
    let house = House::with(|config| config.max_sessions_per_application = 1).await;
    let token = house.mandate("app-1").await;
    let id = house.task().await;
    house.start_keyed(&token, "key-1", task()).await.refused(429, "session_limit_exceeded");
    house.terminate(&token, &id).await.expect(204);
    let reply = house.start_keyed(&token, "key-1", task()).await.expect(201);
    assert!(!is_replay(&reply));
}

#[tokio::test]
async fn keys_have_a_form_and_come_alone() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    for key in ["", &"x".repeat(256), "\u{a0}x", "a\tb"] {
        let reply = house.start_keyed(&token, key, task()).await;
        assert_eq!(reply.refusal(), (400, "idempotency_key_invalid"), "{key:?}");
        assert!(reply.body["message"].is_string() && reply.body["request_id"].is_string());
    }
    let twice = [("idempotency-key", "a"), ("idempotency-key", "a")];
    let reply = house.send(request("POST", "/zones/z-1/agents", &token, Some(task()), &twice)).await;
    reply.refused(400, "idempotency_key_multiple");
    // Whose application it is comes first.
    let stranger = house.mandate("app-2").await;
    house.start_keyed(&stranger, "", task()).await.refused(403, "application_ownership_required");
    assert_eq!(house.holding().await, 0);
}

mod t04_state_receipts {
    use super::*;

    #[tokio::test]
    async fn a_dead_result_is_never_replayed() {
        let house = House::open().await;
        let token = house.mandate("app-1").await;
        let ended = house.start_keyed(&token, "key-1", task()).await.expect(201).text("agent_session_id");
        house.terminate(&token, &ended).await.expect(204);
        let reply = house.start_keyed(&token, "key-1", task()).await;
        reply.refused(409, "idempotency_result_inactive");
        assert!(reply.body["message"].is_string());
        house.start_keyed(&token, "key-2", task()).await.expect(201);
        house.clock.advance(3_600);
        house
            .start_keyed(&house.mandate("app-1").await, "key-2", task())
            .await
            .refused(409, "idempotency_result_inactive");
        assert_eq!(house.holding().await, 0);
    }

    #[tokio::test]
    async fn only_explicit_keys_count_against_the_cap_and_replays_do_not() {
        let house = House::with(|config| config.idempotency_max_receipts = 2).await;
        let token = house.mandate("app-1").await;
        for number in 0..5 {
            start_generated(&house, &token, &format!("generated-{number}")).await.expect(201);
        }
        house.start_keyed(&token, "key-1", task()).await.expect(201);
        house.start_keyed(&token, "key-2", task()).await.expect(201);
        house.start_keyed(&token, "key-3", task()).await.refused(429, "idempotency_receipt_limit_exceeded");
        assert!(is_replay(&house.start_keyed(&token, "key-1", task()).await.expect(201)));
        start_generated(&house, &token, "generated-9").await.expect(201);
        house.start(&token, task()).await.expect(201);
        let theirs = house.mandate("app-2").await;
        house.start_keyed(&theirs, "key-3", json!({"application_id": "app-2"})).await.expect(201);
        // Delegations have a cap of their own.
        let (a, b) = (house.task().await, house.task().await);
        let keyed = |key: &'static str| {
            request("POST", "/zones/z-1/delegations", &token, Some(delegation(&a, &b)), &[("idempotency-key", key)])
        };
        house.send(keyed("key-1")).await.expect(201);
        house.send(keyed("key-2")).await.expect(201);
        house.send(keyed("key-3")).await.refused(429, "idempotency_receipt_limit_exceeded");
        assert!(is_replay(&house.send(keyed("key-2")).await.expect(201)));
    }

    #[tokio::test]
    async fn a_made_up_key_counts_for_a_day_and_an_explicit_one_for_a_week() {
        let house = House::open().await;
        let body = json!({"application_id": "app-1", "ttl_seconds": 86_400});
        let generated = [("idempotency-key", "made-up"), ("idempotency-key-kind", "generated")];
        let send_generated =
            |token: String| house.send(request("POST", "/zones/z-1/agents", &token, Some(body.clone()), &generated));
        let first = send_generated(house.mandate("app-1").await).await.expect(201).body;
        house.clock.advance(86_399);
        let again = send_generated(house.mandate("app-1").await).await.expect(201);
        assert!(is_replay(&again));
        assert_eq!(again.body, first);
        house.clock.advance(1);
        assert!(!is_replay(&send_generated(house.mandate("app-1").await).await.expect(201)));
        let token = house.mandate("app-1").await;
        house.start_keyed(&token, "explicit", body.clone()).await.expect(201);
        house.clock.advance(6 * 86_400 - 2);
        // The result is gone, and within the week the key says so.
        let token = house.mandate("app-1").await;
        house.start_keyed(&token, "explicit", body.clone()).await.refused(409, "idempotency_result_inactive");
    }

    #[tokio::test]
    async fn rotating_the_digest_key_loses_no_receipt() {
        let house = House::open().await;
        let token = house.mandate("app-1").await;
        let first = house.start_keyed(&token, "key-1", task()).await.expect(201);
        let rotated = house.reconfigured(|config| {
            config.idempotency_hmac_key = hmac(50);
            config.idempotency_hmac_key_previous = Some(hmac(0));
        });
        let keyed = |key| request("POST", "/zones/z-1/agents", &token, Some(task()), &[("idempotency-key", key)]);
        let again = send(&rotated, keyed("key-1")).await.expect(201);
        assert!(is_replay(&again));
        assert_eq!(again.body, first.body);
        // What is new is written under the new key alone.
        send(&rotated, keyed("key-2")).await.expect(201);
        let later = house.reconfigured(|config| config.idempotency_hmac_key = hmac(50));
        assert!(is_replay(&send(&later, keyed("key-2")).await.expect(201)));
        assert!(!is_replay(&send(&later, keyed("key-1")).await.expect(201)));
    }

    #[tokio::test]
    async fn a_delegation_is_replayed_while_it_is_live() {
        let house = House::open().await;
        let token = house.mandate("app-1").await;
        let (a, b) = (house.task().await, house.task().await);
        let keyed = |body: Value| {
            request("POST", "/zones/z-1/delegations", &token, Some(body), &[("idempotency-key", "key-1")])
        };
        let body = |change: &dyn Fn(&mut Value)| {
            let mut body = delegation(&a, &b);
            body["scopes"] = json!(["read", "write"]);
            change(&mut body);
            body
        };
        let first = house.send(keyed(body(&|_| ()))).await.expect(201);
        // The order of scopes says nothing, the spelling of the resource does.
        let again = house.send(keyed(body(&|body| body["scopes"] = json!(["write", "read"])))).await.expect(201);
        assert!(is_replay(&again));
        assert_eq!(again.body, first.body);
        for change in [
            &(|body: &mut Value| body["resource_id"] = json!("res-docs")) as &dyn Fn(&mut Value),
            &|body| body["ttl_seconds"] = json!(601),
            &|body| body["scopes"] = json!(["read"]),
            &|body| body["constraints"] = json!({"max_hops": 2}),
            &|body| body["target_session_id"] = json!("unknown"),
        ] {
            house.send(keyed(body(change))).await.refused(409, "idempotency_key_conflict");
        }
        house.revoke(&token, &first.text("delegation_edge_id")).await.expect(200);
        house.send(keyed(body(&|_| ()))).await.refused(409, "idempotency_result_inactive");
    }

    #[tokio::test]
    async fn an_answer_too_large_to_remember_leaves_nothing_behind() {
        let house = House::open().await;
        let scopes: Vec<String> = (0..2_000).map(|number| format!("scope:{number:030}")).collect();
        let known: Vec<&str> = scopes.iter().map(String::as_str).collect();
        house.add_resource("res-wide", "resource://wide", &known).await;
        let (a, b) = (house.task().await, house.task().await);
        let token = house.mandate("app-1").await;
        house.messages();
        let mut body = delegation(&a, &b);
        body["resource_id"] = json!("resource://wide");
        body["scopes"] = json!(scopes);
        let keyed = request("POST", "/zones/z-1/delegations", &token, Some(body), &[("idempotency-key", "key-1")]);
        house.send(keyed).await.expect(413);
        assert!(house.messages().is_empty());
        let inbound = house.get(&format!("/zones/z-1/delegations/inbound/{b}"), &token).await.expect(200);
        assert_eq!(inbound.body["items"], json!([]));
    }

    #[tokio::test]
    async fn what_a_session_was_given_is_in_no_record_message_or_receipt() {
        let house = House::open().await;
        let token = house.mandate("app-1").await;
        let given = "given-in-clear-0123456789";
        let body = |more: Value| {
            let mut body = json!({"application_id": "app-1", "metadata": {given: [given]}});
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            body
        };
        let session = house.start_keyed(&token, "key-1", body(json!({}))).await.expect(201).text("agent_session_id");
        let replay = house.start_keyed(&token, "key-1", body(json!({}))).await.expect(201);
        assert!(is_replay(&replay) && !replay.body.to_string().contains(given));
        house.start_keyed(&token, "key-1", body(json!({"ttl_seconds": 1}))).await.expect(409);
        let service = house.start(&token, body(json!({"lifecycle": "service"}))).await.expect(201);
        let beat = json!({"lease_generation": 1, "metadata": {"x": given}});
        let path = format!("/zones/z-1/agents/{}/heartbeat", service.text("agent_session_id"));
        house.post(&path, &token, beat).await.expect(200);
        house.terminate(&token, &session).await.expect(204);
        let (records, messages) = (house.changes("z-1").await, house.messages());
        assert!(records.len() >= 4 && messages.len() >= 4, "{records:?} {messages:?}");
        assert!(!format!("{records:?} {messages:?}").contains(given));
        // It is there where it belongs.
        assert_eq!(house.session(&session).await.metadata[given], json!([given]));
    }

    #[tokio::test]
    async fn neither_keys_nor_tokens_nor_proofs_are_stored_in_clear() {
        let house = House::open().await;
        let token = house.mandate("app-1").await;
        let proof = "subject-proof-in-clear";
        let body = json!({"application_id": "app-1", "subject_token": proof});
        house.start_keyed(&token, "key-in-clear-0123456789", body.clone()).await.expect(201);
        house.start_keyed(&token, "key-in-clear-0123456789", json!({"application_id": "app-2"})).await.expect(403);
        house.store.close().await;
        let stored = house.directory.everything_stored();
        let contains = |needle: &str| stored.windows(needle.len()).any(|window| window == needle.as_bytes());
        assert!(contains("session.start.v2"), "the store was looked at");
        for secret in ["key-in-clear-0123456789", proof, &token] {
            assert!(!contains(secret), "{secret}");
        }
    }
}
