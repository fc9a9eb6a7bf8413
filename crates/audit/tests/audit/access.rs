//! Who gets in, and what everybody sees (contract: audit-and-streams.md §7; README D11, D28).

use axum::body::Body;
use caracal_audit::AuditConfig;
use caracal_crypto::Secret;
use caracal_http::PeerAddr;
use caracal_store::admin_evidence::{self, ZONELESS_CHAIN};
use caracal_store::evidence::ChainRow;
use http::Request;
use serde_json::{Value, json};

use crate::world::{BEARER, TOKEN, World, configured, event};

const SEARCH: &str = "/api/audit/search";

mod t01_control_plane_search {
    use super::*;

    #[tokio::test]
    async fn the_token_is_asked_for_before_the_parameters() {
        let world = World::new().await;
        for line in [
            None,
            Some("Bearer wrong"),
            Some("wrong"),
            Some(""),
            Some("Bearer "),
            Some("Basic audit-secret-0123456789"),
            Some("bearer audit-secret-0123456789"),
            Some("Bearer audit-secret-012345678"),
            Some("Bearer audit-secret-01234567890"),
            Some("Bearer Bearer audit-secret-0123456789"),
        ] {
            let answer = world.ask("GET", SEARCH, line).await;
            answer.is_refused(401, "unauthorized");
            assert_eq!(answer.headers["www-authenticate"], "Bearer realm=\"caracal-audit\"", "{line:?}");
        }
        world.search("").await.is_refused(400, "invalid_query");
        world.search("zone_id=").await.is_refused(400, "invalid_query");
        world.search("zone_id=a%20b").await.is_refused(400, "invalid_query");
        world.search("zone_id=z-1").await.is(200);
    }

    #[tokio::test]
    async fn a_bare_token_opens_too() {
        let world = World::new().await;
        world.ask("GET", "/api/audit/search?zone_id=z-1", Some(TOKEN)).await.is(200);
    }

    #[tokio::test]
    async fn two_authorization_lines_open_nothing() {
        let world = World::new().await;
        for lines in [[TOKEN, TOKEN], [TOKEN, "wrong"], ["wrong", TOKEN]] {
            let request = Request::get("/api/audit/search?zone_id=z-1");
            let request = request.header("authorization", lines[0]).header("authorization", lines[1]);
            world.send(request.body(Body::empty()).unwrap()).await.is_refused(401, "unauthorized");
        }
    }

    #[tokio::test]
    async fn without_a_token_there_is_no_search() {
        for admin_token in [None, Some(Secret::new(String::new()))] {
            let world = World::with(AuditConfig { admin_token, ..configured() }).await;
            for line in [None, Some(""), Some("Bearer "), Some(TOKEN)] {
                for method in ["GET", "POST", "HEAD"] {
                    let answer = world.ask(method, "/api/audit/search?zone_id=z-1", line).await;
                    assert_eq!(answer.status, 404, "{method} {line:?}");
                }
                let nowhere = world.ask("GET", "/nowhere", line).await;
                let search = world.ask("GET", SEARCH, line).await;
                assert_eq!(nowhere.json()["error"], search.json()["error"], "nothing tells the two apart");
            }
        }
    }

    #[tokio::test]
    async fn no_spelling_of_the_target_gets_around_the_token() {
        let world = World::new().await;
        for target in [
            "http://elsewhere/api/audit/search?zone_id=z-1",
            "/api/audit/%73earch?zone_id=z-1",
            "//api/audit/search?zone_id=z-1",
            "/api//audit/search?zone_id=z-1",
            "/api/audit/search/?zone_id=z-1",
            "/API/audit/search?zone_id=z-1",
        ] {
            let answer = world.ask("GET", target, None).await;
            assert!(matches!(answer.status.as_u16(), 401 | 404), "{target}: {}", answer.status);
        }
    }
}

#[tokio::test]
async fn t08_availability_guessing_the_token_is_made_to_wait_for_and_counted() {
    let world = World::new().await;
    let from = |address: [u8; 4], token: &str| {
        let request = Request::get("/api/audit/search?zone_id=z-1").header("authorization", token);
        let mut request = request.body(Body::empty()).unwrap();
        request.extensions_mut().insert(PeerAddr((address, 1).into()));
        request
    };
    let (guesser, other) = ([192, 0, 2, 1], [192, 0, 2, 2]);
    for _ in 0..60 {
        world.send(from(guesser, "guess")).await.is_refused(401, "unauthorized");
    }
    for token in ["guess", TOKEN] {
        let answer = world.send(from(guesser, token)).await;
        answer.is_refused(429, "rate_limited");
        assert_eq!(answer.headers["retry-after"], "60");
    }
    world.send(from(other, TOKEN)).await.is(200);
    world.clock.advance(61);
    world.send(from(guesser, TOKEN)).await.is(200);

    world.denials.summarise(&world.store, &world.ledger).await.unwrap();
    let mut snapshot = world.store.snapshot().await.unwrap();
    let rows = admin_evidence::list_chain(&mut snapshot.deployment(), ZONELESS_CHAIN, 0, 10).await.unwrap();
    let [ChainRow::Read(row)] = &rows[..] else { panic!("one row sums up a flood: {rows:?}") };
    let told: Value = serde_json::from_str(row.payload.as_deref().unwrap()).unwrap();
    assert_eq!(told, json!({"audit": {"invalid_admin_token": 60, "rate_limited": 2}}));
}

#[tokio::test]
async fn t08_availability_behind_a_proxy_only_the_guesser_waits() {
    let world = World::with(AuditConfig { trust_proxy: true, ..configured() }).await;
    let forwarded = |line: &str, token: &str| {
        let request = Request::get("/api/audit/search?zone_id=z-1").header("authorization", token);
        let mut request = request.header("x-forwarded-for", line).body(Body::empty()).unwrap();
        request.extensions_mut().insert(PeerAddr(([10, 0, 0, 1], 1).into()));
        request
    };
    for number in 0..60 {
        // What the caller claims before it does not make it somebody else.
        let line = format!("198.51.100.{number}, 192.0.2.1");
        world.send(forwarded(&line, "guess")).await.is_refused(401, "unauthorized");
    }
    world.send(forwarded("192.0.2.1", "guess")).await.is_refused(429, "rate_limited");
    world.send(forwarded("192.0.2.2", TOKEN)).await.is(200);
}

mod t05_secrets_metrics {
    use super::*;

    #[tokio::test]
    async fn metrics_open_to_the_exact_bearer_only() {
        let world = World::new().await;
        for path in ["/metrics", "/metrics.json"] {
            for line in [None, Some(BEARER), Some("bearer metrics-bearer"), Some("Bearer metrics-bearer "), Some(TOKEN)]
            {
                let answer = world.ask("GET", path, line).await;
                answer.is_refused(401, "unauthorized");
                assert_eq!(answer.headers["x-content-type-options"], "nosniff");
            }
            assert_eq!(world.ask("GET", path, Some("Bearer metrics-bearer")).await.status, 200);
        }
    }

    #[tokio::test]
    async fn without_a_bearer_they_are_open_in_dev_and_closed_when_published() {
        for metrics_bearer in [None, Some(Secret::new(String::new()))] {
            let world = World::with(AuditConfig { metrics_bearer, open_metrics: false, ..configured() }).await;
            for line in [None, Some(""), Some("Bearer "), Some("Bearer")] {
                world.ask("GET", "/metrics", line).await.is_refused(401, "unauthorized");
            }
        }
        let dev = World::with(AuditConfig { metrics_bearer: None, open_metrics: true, ..configured() }).await;
        assert_eq!(dev.ask("GET", "/metrics", None).await.status, 200);
    }
}

#[tokio::test]
async fn health_is_empty_and_asks_nobody() {
    let world = World::new().await;
    world.store.close().await;
    let health = world.ask("GET", "/health", None).await;
    assert_eq!((health.status.as_u16(), health.text.as_str()), (200, ""));
    assert!(health.headers.contains_key("x-request-id"));
}

#[tokio::test]
async fn readiness_follows_the_store() {
    let world = World::new().await;
    let ready = world.ask("GET", "/ready", None).await;
    assert_eq!((ready.is(200), ready.text.ends_with('\n')), (json!({"ready": true}), true));
    world.store.close().await;
    let answer = world.ask("GET", "/ready", None).await;
    let body = answer.is(503);
    assert_eq!(
        (&body["ok"], &body["ready"], &body["reason"]),
        (&json!(false), &json!(false), &json!("postgres_unreachable"))
    );
    assert_eq!(body["requestId"].as_str(), answer.headers["x-request-id"].to_str().ok());
    assert!(answer.headers.contains_key("retry-after"));
}

#[tokio::test]
async fn a_search_without_a_store_fails_and_says_nothing_of_why() {
    let world = World::new().await;
    world.store.close().await;
    let answer = world.search("zone_id=z-1").await;
    answer.is_refused(500, "internal_error");
    assert_eq!(answer.json()["error_description"], "search failed");
}

#[tokio::test]
async fn other_methods_and_other_paths_are_refused_in_the_one_form() {
    let world = World::new().await;
    for path in ["/health", "/ready", "/metrics", "/metrics.json", SEARCH] {
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"] {
            world.ask(method, path, Some(TOKEN)).await.is_refused(405, "method_not_allowed");
        }
    }
    for path in ["/", "/nowhere", "/health/", "/api/audit", "/api/audit/dlq/", "/v1/zones", "/%68ealth/x"] {
        world.ask("GET", path, Some(TOKEN)).await.is_refused(404, "resource_not_found");
    }
}

#[tokio::test]
async fn a_request_id_is_kept_when_well_formed_and_replaced_otherwise() {
    let world = World::new().await;
    world.record(vec![event("z-1", "e-1", 0)]).await;
    let ask = |id: &str| {
        let request = Request::get("/nowhere").header("x-request-id", id).body(Body::empty()).unwrap();
        world.send(request)
    };
    assert_eq!(ask("trace-1:a.b_c").await.headers["x-request-id"], "trace-1:a.b_c");
    let replaced = ask("bad id!").await;
    assert_eq!(replaced.headers["x-request-id"].len(), 36);
    replaced.is_refused(404, "resource_not_found");
}
