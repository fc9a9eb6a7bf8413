//! What operators watch (contract: coordinator.md §8).

use caracal_crypto::Secret;
use serde_json::{Value, json};

use crate::support::{House, OPERATOR, request};

const BEARER: &str = "metrics-bearer-0123456789";

/// The text of the metrics.
async fn metrics(house: &House, token: &str) -> String {
    use http_body_util::BodyExt;
    use tower::ServiceExt;
    let response = house.router.clone().oneshot(request("GET", "/metrics", token, None, &[])).await.unwrap();
    assert_eq!(response.status().as_u16(), 200);
    assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

async fn busy() -> House {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    let start = |label: &str| json!({"application_id": "app-1", "labels": [label]});
    house.start_keyed(&token, "k", start("a")).await.expect(201);
    house.start_keyed(&token, "k", start("a")).await.expect(201);
    house.start_keyed(&token, "k", start("b")).await.expect(409);
    house.start_keyed(&token, "", start("b")).await.expect(400);
    let ended = house.start_keyed(&token, "l", start("a")).await.expect(201).text("agent_session_id");
    house.terminate(&token, &ended).await.expect(204);
    house.start_keyed(&token, "l", start("a")).await.expect(409);
    house.start(&token, start("c")).await.expect(201);
    house
}

#[tokio::test]
async fn stats_say_what_the_deployment_holds_and_what_became_of_keys() {
    let house = busy().await;
    house.clock.advance(7);
    let stats = house.get("/stats", OPERATOR).await.expect(200).body;
    let outcomes = json!({"created": 2, "replayed": 1, "conflicts": 1, "invalid": 1, "expired": 1});
    assert_eq!(stats["idempotency"], json!({"rows": 2, "oldestSeconds": 7, "outcomes": outcomes}));
    assert_eq!(stats["outbox"]["dead"], 0);
    assert!(stats["outbox"]["pending"].as_i64().unwrap() > 0);
    assert_eq!(stats["invocations"], json!({}));
    assert!(["emitted", "dropped", "sampled"].iter().all(|name| stats["log"][name].is_u64()), "{}", stats["log"]);
    for job in ["ttl_sweeper", "service_lease_sweeper", "deadline_enforcer", "heartbeat_records", "retention_cleaner"] {
        assert_eq!((&stats[job]["runs"], &stats[job]["failures"]), (&json!(0), &json!(0)), "{job}");
    }
}

#[tokio::test]
async fn stats_name_what_others_remove_for_the_coordinator() {
    let house = House::open().await;
    let removed = async || house.get("/stats", OPERATOR).await.expect(200).body["retention_cleaner"].clone();
    let before = removed().await;
    assert_eq!((&before["deleted_outbox"], &before["deleted_idempotency_receipts"]), (&json!(0), &json!(0)));
    house.coordinator.count_removals_with(|| caracal_coordinator::Removed { messages: 7, receipts: 3 });
    let after = removed().await;
    assert_eq!((&after["deleted_outbox"], &after["deleted_idempotency_receipts"]), (&json!(7), &json!(3)));
}

#[tokio::test]
async fn counts_of_the_store_are_repeated_for_a_quarter_of_a_minute() {
    let house = House::open().await;
    let rows = async || house.get("/stats", OPERATOR).await.expect(200).body["idempotency"]["rows"].clone();
    assert_eq!(rows().await, 0);
    let token = house.mandate("app-1").await;
    house.start_keyed(&token, "k", json!({"application_id": "app-1"})).await.expect(201);
    house.clock.advance(14);
    assert_eq!(rows().await, 0);
    house.clock.advance(1);
    assert_eq!(rows().await, 1);
}

#[tokio::test]
async fn metrics_are_the_same_counts_with_one_sample_per_status_that_occurs() {
    let house = busy().await;
    let text = metrics(&house, OPERATOR).await;
    for line in [
        "# TYPE caracal_invocations_total counter",
        "caracal_outbox_total{status=\"dead\"} 0",
        "caracal_idempotency_requests_total{outcome=\"replayed\"} 1",
        "# TYPE caracal_log_emitted_total counter",
        "# TYPE caracal_idempotency_receipts gauge",
        "caracal_idempotency_receipts 2",
        "caracal_idempotency_oldest_seconds 0",
        "caracal_ttl_sweeper_runs_total 0",
        "caracal_deadline_enforcer_runs_total 0",
        "caracal_service_lease_sweeper_runs_total 0",
        "caracal_retention_cleaner_runs_total 0",
        "caracal_retention_sessions_deleted_total 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
    assert!(!text.contains("caracal_invocations_total{"));
}

mod t01_control_plane {
    use super::*;

    #[tokio::test]
    async fn what_speaks_of_all_zones_is_for_the_operator_alone() {
        let house = House::open().await;
        let (own, admin) = (house.mandate("app-1").await, house.mandate_with("app-1", "coordinator.admin").await);
        for path in ["/stats", "/metrics"] {
            house.get(path, "").await.refused(401, "missing_token");
            for token in [own.as_str(), &admin, "x", BEARER] {
                house.get(path, token).await.refused(403, "operator_token_required");
            }
            house.call("HEAD", path, OPERATOR, None).await.expect(401);
            house.call("POST", path, OPERATOR, None).await.refused(401, "invalid_token");
        }
        assert_eq!(house.get("/stats", OPERATOR).await.expect(200).body["error"], Value::Null);
    }

    #[tokio::test]
    async fn metrics_open_to_their_own_bearer_where_one_is_configured() {
        let house = House::with(|config| config.metrics_bearer = Some(Secret::new(BEARER.to_owned()))).await;
        house.get("/metrics", OPERATOR).await.refused(403, "operator_token_required");
        house.get("/stats", BEARER).await.refused(403, "operator_token_required");
        assert!(metrics(&house, BEARER).await.contains("caracal_outbox_total"));
    }
}

mod t08_availability_overload {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use axum::body::Body;
    use axum::http::Request;
    use caracal_http::RequestId;
    use caracal_http::admission::{Admission, Class, Gate};
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn when_there_is_too_much_sessions_are_ended_and_none_is_started() {
        let house = House::open().await;
        let token = house.mandate("app-1").await;
        let start = json!({"application_id": "app-1", "labels": ["a"]});
        let session = house.start_keyed(&token, "k", start.clone()).await.expect(201).text("agent_session_id");
        let (time, denials) = (Arc::new(AtomicU64::new(0)), house.denials.clone());
        let clock = time.clone();
        let admission = Admission::new(1, move || Duration::from_millis(clock.load(Ordering::SeqCst)));
        let gate = Gate::new(admission, move || denials.count("coordinator", "overloaded"));
        let service = house.coordinator.clone().guarded(&gate);
        let ask = async |mut request: Request<Body>| {
            request.extensions_mut().insert(RequestId::parse(b"r-1").unwrap());
            let (parts, body) = service.clone().oneshot(request).await.unwrap().into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            (parts, String::from_utf8(body.to_vec()).unwrap())
        };
        let places: Vec<_> = (0..40).map(|_| gate.ask(Class::Begins).unwrap()).collect();
        time.store(400, Ordering::SeqCst);
        let keyed = || request("POST", "/zones/z-1/agents", &token, Some(start.clone()), &[("idempotency-key", "l")]);
        let (parts, body) = ask(keyed()).await;
        assert_eq!((parts.status.as_u16(), &parts.headers["retry-after"]), (503, &"1".parse().unwrap()));
        assert_eq!(
            (&parts.headers["x-request-id"], &parts.headers["content-type"]),
            (&"r-1".parse().unwrap(), &"application/json; charset=utf-8".parse().unwrap(),)
        );
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((&body["error"], &body["requestId"]), (&json!("internal_error"), &json!("r-1")));
        let read = ask(request("GET", &format!("/zones/z-1/agents/{session}"), &token, None, &[])).await;
        assert_eq!(read.0.status.as_u16(), 200);
        let ended = ask(request("DELETE", &format!("/zones/z-1/agents/{session}"), &token, None, &[])).await;
        assert_eq!(ended.0.status.as_u16(), 204);
        // Its key is as good as new.
        drop(places);
        assert_eq!(ask(keyed()).await.0.status.as_u16(), 201);
        assert_eq!((gate.counts().shed, gate.counts().in_progress), (1, 0));
    }
}
