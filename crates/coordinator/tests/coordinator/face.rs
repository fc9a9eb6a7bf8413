//! How requests are processed and answered, whatever they are about (contract: coordinator.md §1, §3, README D28).

use axum::body::Body;
use axum::http::Request;
use caracal_coordinator::ROUTES;
use serde_json::{Value, json};

use crate::support::{House, OPERATOR, request};

fn concrete(path: &str) -> String {
    path.replace(":zoneId", "z-1").replace(":sessionId", "s-1").replace(":id", "x-1")
}

fn raw(method: &str, path: &str, token: &str, content_type: Option<&str>, body: impl Into<Body>) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    if !token.is_empty() {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    if let Some(content_type) = content_type {
        request = request.header("content-type", content_type);
    }
    request.body(body.into()).unwrap()
}

#[tokio::test]
async fn every_route_but_liveness_readiness_and_verification_needs_a_bearer() {
    let house = House::open().await;
    for (method, path) in ROUTES {
        let reply = house.call(method, &concrete(path), "", None).await;
        let expected = match *path {
            "/v1/verify" => 400,
            "/health" | "/ready" => 200,
            _ => 401,
        };
        assert_eq!(reply.status.as_u16(), expected, "{method} {path}");
    }
}

#[tokio::test]
async fn every_answer_carries_its_request_id_and_every_refusal_has_it_twice() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    for (method, path, token, body) in [
        ("GET", "/health", "", None),
        ("GET", "/zones/z-1/agents/x", "", None),
        ("GET", "/zones/z-1/agents/x", token.as_str(), None),
        ("POST", "/zones/z-1/agents", token.as_str(), Some(json!({}))),
        ("POST", "/zones/z-1/agents", token.as_str(), Some(json!({"application_id": "app-1"}))),
        ("DELETE", "/zones/z-1/agents/x", token.as_str(), Some(json!([]))),
        ("GET", "/nowhere", token.as_str(), None),
    ] {
        let reply = house.send(request(method, path, token, body, &[("x-request-id", "req-7")])).await;
        assert_eq!(reply.headers["x-request-id"], "req-7", "{method} {path}");
        if reply.status.is_client_error() {
            assert_eq!(reply.body["requestId"], "req-7", "{method} {path}");
            assert_eq!(reply.body["request_id"], "req-7", "{method} {path}");
            assert_eq!(reply.headers["content-type"], "application/json; charset=utf-8");
        }
        let own = house.call(method, path, "", None).await;
        assert_eq!(own.headers["x-request-id"].len(), 36);
    }
}

#[tokio::test]
async fn a_request_is_judged_in_the_contracts_order() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    let json = Some("application/json");
    for (request, status, code) in [
        // A malformed body without credentials, then no credentials on an unknown path.
        (raw("POST", "/zones/z-1/agents", "", json, "{"), 400, "internal_error"),
        (raw("POST", "/nowhere", "", json, "{"), 400, "internal_error"),
        (raw("GET", "/nowhere", "", None, ""), 401, "missing_token"),
        (raw("GET", "/nowhere", &token, None, ""), 404, "Not Found"),
        (raw("PUT", "/zones/z-1/agents/x", &token, None, ""), 404, "Not Found"),
        (raw("OPTIONS", "/zones/z-1/agents", "", None, ""), 401, "missing_token"),
        // The zone before the unknown route, the route before the ids, the ids before the route's own checks.
        (raw("GET", "/zones/z-2/nowhere", &token, None, ""), 403, "zone_mismatch"),
        (raw("GET", "/zones/z-1/agents/", &token, None, ""), 400, "invalid_params"),
        (raw("GET", "/zones//z-1/agents/x", &token, None, ""), 403, "zone_mismatch"),
        (raw("GET", "/zones/z-1/agents/a%20b", &token, None, ""), 400, "invalid_params"),
        (raw("GET", "/zones/z-1/agents/%ff", &token, None, ""), 400, "invalid_params"),
        (raw("GET", "/zones/z-1/agents/%00", &token, None, ""), 400, "invalid_params"),
        (raw("DELETE", "/zones/z-1/agents/a%2Fb?reason=", &token, None, ""), 400, "invalid_params"),
        (raw("DELETE", "/zones/z-1/agents/x?reason=", &token, json, "[]"), 400, "invalid_query"),
        (raw("DELETE", "/zones/z-1/agents/x", &token, json, "[]"), 400, "invalid_body"),
    ] {
        let line = format!("{} {}", request.method(), request.uri());
        let reply = house.send(request).await;
        assert_eq!(reply.refusal(), (status, code), "{line}");
    }
    let unknown = house.get("/nowhere", &token).await;
    assert_eq!(unknown.body["statusCode"], 404);
    assert!(unknown.body["message"].is_string());
}

#[tokio::test]
async fn bodies_are_json_or_refused_by_their_kind() {
    let house = House::with(|config| config.body_limit = 1_024).await;
    let token = house.mandate("app-1").await;
    let path = "/zones/z-1/agents";
    let json = Some("application/json");
    let long = format!("{{\"application_id\":\"{}\"}}", "x".repeat(1_024));
    for (request, status, code) in [
        (raw("POST", path, &token, json, ""), 400, "internal_error"),
        (raw("POST", path, &token, json, "{\"a\":1,\"a\":2}"), 400, "internal_error"),
        (raw("POST", path, &token, json, "{\"__proto__\":{}}"), 400, "internal_error"),
        (raw("POST", path, &token, json, "{\"metadata\":{\"constructor\":{\"prototype\":1}}}"), 400, "internal_error"),
        (raw("POST", path, &token, json, long), 413, "internal_error"),
        (raw("POST", path, &token, Some("text/plain"), "{}"), 400, "invalid_body"),
        (raw("POST", path, &token, Some("application/x-www-form-urlencoded"), "a=b"), 415, "internal_error"),
        (raw("POST", path, &token, None, "{}"), 415, "internal_error"),
        (raw("POST", path, &token, None, ""), 400, "invalid_body"),
        (raw("POST", path, &token, Some("application/json; charset=utf-8"), "{}"), 400, "invalid_body"),
    ] {
        let reply = house.send(request).await;
        assert_eq!(reply.refusal(), (status, code), "{}", reply.body);
    }
}

#[tokio::test]
async fn a_body_that_says_nothing_is_fine_where_none_is_needed() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    let json = Some("application/json");
    // The Go client sends `null`, the console `{}`, others nothing at all.
    for (content_type, body) in [(None, ""), (json, "null"), (json, "{}"), (json, "{\"lease_generation\":1}")] {
        let id = house.task().await;
        let request = raw("DELETE", &format!("/zones/z-1/agents/{id}"), &token, content_type, body);
        house.send(request).await.expect(204);
    }
    for (content_type, body) in [(None, ""), (json, "null"), (json, "{}"), (Some("text/plain"), "x")] {
        let (a, b) = (house.task().await, house.task().await);
        let edge = house.edge(&a, &b, |_| ()).await;
        let request = raw("PATCH", &format!("/zones/z-1/delegations/{edge}/revoke"), &token, content_type, body);
        house.send(request).await.expect(200);
    }
    let bare = house.call("DELETE", "/zones/z-1/agents/x", &token, Some(json!({"lease_generation": 0}))).await;
    bare.refused(400, "invalid_body");
    assert_eq!(bare.body.get("details"), None);
}

#[tokio::test]
async fn a_schema_failure_lists_every_issue_with_its_path() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    let reply = house.start(&token, json!({"labels": ["ok", 1], "ttl_seconds": 0})).await;
    reply.refused(400, "invalid_body");
    let paths: Vec<&Value> =
        reply.body["details"]["issues"].as_array().unwrap().iter().map(|issue| &issue["path"]).collect();
    assert_eq!(json!(paths), json!([["application_id"], ["labels", "1"], ["ttl_seconds"]]));
    assert!(reply.body["error_description"].is_string());
    let whole = house.start(&token, json!([])).await;
    assert_eq!(whole.body["details"]["issues"][0]["path"], json!([]));
}

/// No database takes it in a text, so it is the caller's mistake wherever it stands, and never a failure of ours.
#[tokio::test]
async fn a_nul_in_any_text_is_the_callers_mistake() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    let (a, b) = (house.task().await, house.task().await);
    let endpoint = json!({"application_id": "app-1", "endpoint_url": "https://worker.example"});
    let service = house.post("/zones/z-1/agent-services", &token, endpoint.clone()).await.expect(201).text("id");
    let invocation = json!({"service_id": service, "idempotency_key": "k", "method": "m"});
    let id = house.post("/zones/z-1/invocations", &token, invocation.clone()).await.expect(201).text("id");
    let before = (house.holding().await, house.changes("z-1").await.len());
    let zone = "/zones/z-1";
    for (method, path, whole, members) in [
        (
            "POST",
            format!("{zone}/agents"),
            json!({"application_id": "app-1"}),
            "application_id subject_session_id subject_token parent_id lifecycle labels parent_authority \
             inherit_parent_edge_id metadata other",
        ),
        (
            "POST",
            format!("{zone}/delegations"),
            crate::support::delegation(&a, &b),
            "source_session_id target_session_id issuer_application_id receiver_application_id parent_edge_id \
             resource_id scopes constraints constraints_json expires_at",
        ),
        (
            "POST",
            format!("{zone}/agent-services"),
            endpoint,
            "application_id endpoint_url protocol_versions framework capabilities metadata",
        ),
        (
            "POST",
            format!("{zone}/invocations"),
            invocation,
            "service_id idempotency_key method source_session_id target_session_id params metadata",
        ),
        ("PATCH", format!("{zone}/invocations/{id}/cancel"), json!({}), "reason"),
        ("PATCH", format!("{zone}/invocations/{id}/complete"), json!({"status": "failed"}), "status error metadata"),
        (
            "POST",
            format!("{zone}/agents/{a}/heartbeat"),
            json!({"lease_generation": 1}),
            "lease_generation status metadata service_id",
        ),
        ("POST", "/v1/verify".to_owned(), json!({"zone_id": "z-1"}), "zone_id token authorization required_scope"),
    ] {
        for member in members.split_whitespace() {
            for value in [json!("x\u{0}"), json!(["x\u{0}"]), json!({"x\u{0}": 1}), json!({"x": ["\u{0}"]})] {
                let mut body = whole.clone();
                body[member] = value.clone();
                let reply = house.call(method, &path, &token, Some(body)).await;
                // What is no mandate is 401, whatever it is made of; it is kept nowhere.
                let is_mandate = matches!(member, "token" | "authorization") && value.is_string();
                let refused = if is_mandate { 401 } else { 400 };
                assert_eq!(reply.status.as_u16(), refused, "{method} {path} {member} {value}: {}", reply.body);
            }
        }
    }
    for query in ["agents?label=%00", "agents?application_id=%00", "agents?cursor=%00", "invocations?service_id=%00"] {
        let reply = house.get(&format!("{zone}/{query}"), &token).await;
        assert!((200..500).contains(&reply.status.as_u16()), "{query}: {}", reply.body);
    }
    let reasoned = format!("{zone}/agents/{a}?reason=%00");
    house.call("DELETE", &reasoned, &token, None).await.refused(400, "invalid_query");
    assert_eq!((house.holding().await, house.changes("z-1").await.len()), before);
}

#[tokio::test]
async fn head_is_a_get_without_its_body() {
    let house = House::open().await;
    let token = house.mandate("app-1").await;
    let id = house.task().await;
    let reply = house.call("HEAD", &format!("/zones/z-1/agents/{id}"), &token, None).await.expect(200);
    assert_eq!(reply.body, Value::Null);
    house.call("HEAD", "/health", "", None).await.expect(200);
    house.call("HEAD", "/zones/z-1/agents/unknown", &token, None).await.expect(404);
    house.call("HEAD", &format!("/zones/z-1/agents/{id}"), OPERATOR, None).await.expect(401);
}

#[tokio::test]
async fn readiness_says_so_as_soon_as_a_shutdown_begins() {
    let house = House::open().await;
    assert_eq!(house.get("/ready", "").await.expect(200).body, json!({"ok": true}));
    house.coordinator.start_draining();
    let reply = house.get("/ready", "").await.expect(503);
    assert_eq!((&reply.body["ok"], &reply.body["draining"]), (&json!(false), &json!(true)));
    assert_eq!(house.get("/health", "").await.expect(200).body, json!({"ok": true}));
}

mod t08_availability_limits {
    use std::pin::Pin;
    use std::sync::Arc;
    use std::time::Duration;

    use caracal_http::health::{Objections, Probe};
    use caracal_http::rate::SharedWindows;

    use super::*;

    /// Counters on a server that is away.
    struct Unreachable;

    impl SharedWindows for Unreachable {
        fn hit<'a>(&'a self, _: &'a str, _: Duration) -> Pin<Box<dyn Future<Output = Option<u64>> + Send + 'a>> {
            Box::pin(std::future::ready(None))
        }
    }

    /// Difference D7, and why it is not the whole answer: taking authority away must never wait for a counter.
    #[tokio::test]
    async fn while_requests_cannot_be_counted_sessions_still_end_and_delegations_are_still_revoked() {
        let house = House::with(|config| config.rate_limit_per_minute = 100).await;
        let token = house.mandate("app-1").await;
        let (root, peer) = (house.task().await, house.task().await);
        let edge = house.edge(&root, &peer, |_| ()).await;
        let unreachable: Arc<dyn SharedWindows> = Arc::new(Unreachable);
        house.coordinator.count_with(&unreachable);
        let started = house.start(&token, json!({})).await;
        started.refused(503, "rate_limit_unavailable");
        assert!(started.headers.contains_key("retry-after"));
        house.get(&format!("/zones/z-1/agents/{root}"), &token).await.refused(503, "rate_limit_unavailable");
        house.call("PATCH", &format!("/zones/z-1/agents/{peer}/suspend"), &token, None).await.expect(200);
        house.revoke(&token, &edge).await.expect(200);
        house.terminate(&token, &root).await.expect(204);
    }

    /// Whoever adds a route decides here whether it may go on without a counter.
    #[tokio::test]
    async fn while_requests_cannot_be_counted_every_route_is_closed_but_those_that_only_take_away() {
        let house = House::with(|config| config.rate_limit_per_minute = 100).await;
        let token = house.mandate_with("app-1", "coordinator.admin").await;
        let unreachable: Arc<dyn SharedWindows> = Arc::new(Unreachable);
        house.coordinator.count_with(&unreachable);
        for (method, path) in ROUTES {
            let reply = house.call(method, &concrete(path), &token, None).await;
            let expected = match (*method, *path) {
                // What answers of this process alone.
                ("GET", "/health" | "/ready") => (200, ""),
                ("DELETE", "/zones/:zoneId/agents/:id") | ("PATCH", "/zones/:zoneId/agents/:id/suspend") => {
                    (404, "session_not_found")
                }
                ("PATCH", "/zones/:zoneId/delegations/:id/revoke") => (404, "delegation_not_found"),
                _ => (503, "rate_limit_unavailable"),
            };
            assert_eq!(reply.refusal(), expected, "{method} {path}");
            assert_eq!(reply.headers.contains_key("retry-after"), expected.0 == 503, "{method} {path}");
        }
        for closed in ["/health?x", "/nowhere", "/zones/z-1/nowhere"] {
            house.get(closed, &token).await.refused(503, "rate_limit_unavailable");
        }
    }

    /// What lies beside the store, as it is.
    struct Beside(Objections);

    impl Probe for Beside {
        fn objections(&self) -> Pin<Box<dyn Future<Output = Objections> + Send + '_>> {
            Box::pin(std::future::ready(self.0))
        }
    }

    #[tokio::test]
    async fn readiness_names_what_is_wrong_beside_the_store_and_dead_messages_first() {
        for (redis_unreachable, outbox_dead, code, dependency) in [
            (false, 1, "outbox_dead", "outbox"),
            (true, 0, "redis_unreachable", "redis"),
            (true, 1, "outbox_dead", "outbox"),
        ] {
            let house = House::open().await;
            house.coordinator.probe_with(Arc::new(Beside(Objections { redis_unreachable, outbox_dead })));
            let reply = house.get("/ready", "").await;
            reply.refused(503, code);
            assert_eq!((&reply.body["ok"], &reply.body["dependency"]), (&json!(false), &json!(dependency)));
            assert!(reply.headers.contains_key("retry-after"));
            house.get("/health", "").await.expect(200);
            // The store comes before all of it.
            house.store.close().await;
            house.get("/ready", "").await.refused(503, "postgres_unreachable");
        }
    }

    #[tokio::test]
    async fn a_caller_has_so_many_requests_a_minute_and_liveness_is_free() {
        let house = House::with(|config| config.rate_limit_per_minute = 3).await;
        for _ in 0..3 {
            house.get("/zones/z-1/agents/x", "").await.refused(401, "missing_token");
        }
        let limited = house.get("/zones/z-1/agents/x", "").await;
        limited.refused(429, "rate_limited");
        assert_eq!(limited.headers["retry-after"], "60");
        house.get("/nowhere", "").await.refused(429, "rate_limited");
        house.get("/health?x", "").await.refused(429, "rate_limited");
        house.get("/health", "").await.expect(200);
        house.clock.advance(60);
        house.get("/zones/z-1/agents/x", "").await.refused(401, "missing_token");
    }

    #[tokio::test]
    async fn readiness_has_a_budget_of_its_own_within_the_general_one() {
        let house = House::with(|config| {
            config.rate_limit_per_minute = 5;
            config.ready_rate_limit_per_minute = 2;
        })
        .await;
        house.get("/ready", "").await.expect(200);
        house.get("/ready", "").await.expect(200);
        house.get("/ready", "").await.refused(429, "rate_limited");
        house.get("/nowhere", "").await.refused(401, "missing_token");
    }

    #[tokio::test]
    async fn callers_are_told_apart_by_address_and_a_forwarded_one_only_behind_a_trusted_proxy() {
        let house = House::with(|config| config.rate_limit_per_minute = 1).await;
        let from = |forwarded: &str| request("GET", "/nowhere", "", None, &[("x-forwarded-for", forwarded)]);
        house.send(from("192.0.2.1")).await.refused(401, "missing_token");
        house.send(from("192.0.2.2")).await.refused(429, "rate_limited");
        let trusting = house.reconfigured(|config| {
            config.rate_limit_per_minute = 1;
            config.trust_proxy = true;
        });
        for (forwarded, status) in [("192.0.2.1", 401), ("10.0.0.1, 192.0.2.2", 401), ("10.9.9.9, 192.0.2.1", 429)] {
            let reply = crate::support::send(&trusting, from(forwarded)).await;
            assert_eq!(reply.status.as_u16(), status, "{forwarded}");
        }
    }
}
