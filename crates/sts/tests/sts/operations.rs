//! What operators and load balancers see, and what lies beside the routes (contract: sts.md §1, §15).

use axum::body::Body;
use http::Request;
use http::header::AUTHORIZATION;
use serde_json::json;

use crate::support::*;

async fn with_bearer(world: &World, path: &str, value: &str) -> Answer {
    world.send(Request::get(path).header(AUTHORIZATION, value).body(Body::empty()).unwrap()).await
}

async fn by(world: &World, method: &str, path: &str) -> Answer {
    world.send(Request::builder().method(method).uri(path).body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn alive_is_always_said_and_ready_while_the_store_answers() {
    let world = World::new().await;
    let alive = world.get("/health").await;
    assert_eq!((alive.status, alive.body.len()), (200, 0));
    let ready = world.get("/ready").await;
    assert_eq!((ready.status, ready.json), (200, json!({"ok": true, "ready": true})));
    world.store.close().await;
    assert_eq!(world.get("/health").await.status, 200);
    let not_ready = world.get("/ready").await;
    assert_eq!((not_ready.status, not_ready.header("retry-after")), (503, "1"));
    assert_eq!((&not_ready.json["ok"], &not_ready.json["ready"]), (&json!(false), &json!(false)));
    assert_eq!(not_ready.text("reason"), "postgres_unreachable");
}

#[tokio::test]
async fn an_unknown_path_is_404_and_a_wrong_method_405_with_the_right_ones() {
    let world = World::new().await;
    for (method, path, status, allow) in [
        ("GET", "/", 404, ""),
        ("GET", "/oauth/2", 404, ""),
        ("POST", "/oauth/2/token/", 404, ""),
        ("GET", "/oauth/2/token", 405, "POST"),
        ("HEAD", "/oauth/2/token", 405, "POST"),
        ("PUT", "/oauth/2/token", 405, "POST"),
        ("POST", "/.well-known/jwks.json", 405, "GET,HEAD"),
        ("POST", "/zones/z-1/.well-known/oauth-authorization-server", 405, "GET,HEAD"),
        ("GET", "/zones/z-1/oauth/2/token", 405, "POST"),
        ("GET", "/zones/z-1/oauth/2/introspect", 405, "POST"),
        ("GET", "/zones/z-1/oauth/2/revoke", 405, "POST"),
        ("GET", "/zones/z-1/oauth/2/revocations", 405, "POST"),
        ("GET", "/zones/z-1", 404, ""),
        ("DELETE", "/health", 405, "GET,HEAD"),
        ("POST", "/metrics", 405, "GET,HEAD"),
    ] {
        let answer = by(&world, method, path).await;
        assert_eq!((answer.status, answer.header("allow")), (status, allow), "{method} {path}");
        assert!(!answer.header("x-request-id").is_empty());
    }
}

#[tokio::test]
async fn head_is_answered_wherever_get_is() {
    let world = World::new().await;
    Ask::bootstrap().send(&world).await;
    for (path, status) in [
        ("/health", 200),
        ("/ready", 200),
        ("/.well-known/jwks.json?zone_id=z-1", 200),
        ("/.well-known/jwks.json", 400),
        ("/.well-known/oauth-authorization-server/zones/z-1", 200),
        ("/metrics", 401),
        ("/metrics.json", 401),
    ] {
        let answer = by(&world, "HEAD", path).await;
        assert_eq!((answer.status, answer.body.len()), (status, 0), "{path}");
    }
}

#[tokio::test]
async fn a_request_id_is_kept_or_made_and_never_believed_further() {
    let world = World::new().await;
    let mut request = Ask::bootstrap().request();
    request.headers_mut().insert("x-request-id", "mine-1".parse().unwrap());
    assert_eq!(world.send(request).await.header("x-request-id"), "mine-1");
    let event = world.last_event().await;
    assert_eq!(event.row.request_id, "mine-1");
    assert_ne!(event.row.id, "mine-1");
    let mut request = Ask::bootstrap().request();
    request.headers_mut().insert("x-request-id", "a b".parse().unwrap());
    let made = world.send(request).await.header("x-request-id").to_owned();
    assert_eq!((made.len(), made.as_bytes()[14]), (36, b'7'), "{made}");
}

mod t12_foothold_metrics {
    use super::*;

    #[tokio::test]
    async fn metrics_are_for_whoever_holds_the_bearer_exactly() {
        let world = World::new().await;
        Ask::mint().send(&world).await;
        let bearer = format!("Bearer {METRICS_BEARER}");
        for path in ["/metrics", "/metrics.json"] {
            for wrong in ["", METRICS_BEARER, &bearer.to_lowercase(), &format!("{bearer} "), &"x".repeat(bearer.len())]
            {
                let answer = with_bearer(&world, path, wrong).await;
                assert_eq!((answer.status, &answer.body[..]), (401, &b"unauthorized\n"[..]), "{wrong:?}");
                assert_eq!(answer.header("x-content-type-options"), "nosniff");
                assert_eq!(answer.header("www-authenticate"), r#"Bearer realm="caracal-sts""#);
                assert!(answer.header("content-type").starts_with("text/plain"));
            }
            assert_eq!(world.get(path).await.status, 401);
            assert_eq!(with_bearer(&world, path, &bearer).await.status, 200);
        }
        let text = with_bearer(&world, "/metrics", &bearer).await;
        assert_eq!(text.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
        let text = String::from_utf8(text.body).unwrap();
        for line in [
            "caracal_sts_graph_traversals_total 1",
            "caracal_sts_exchanges_granted_total 1",
            "caracal_sts_opa_eval_total 1",
            "caracal_sts_opa_eval_errors_total 0",
            "caracal_sts_opa_compile_total 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        let json = with_bearer(&world, "/metrics.json", &bearer).await.json;
        assert_eq!((&json["opa"]["eval_total"], &json["sts"]["graph_traversals"]), (&json!(1), &json!(1)));
        assert_eq!(json["opa"]["decision_contract_version"], caracal_policy::DECISION_CONTRACT_VERSION);
        assert_eq!(json["audit_dropped"], 0);
    }

    /// Alerts and dashboards name them.
    #[tokio::test]
    async fn every_series_of_the_contract_is_there_under_its_name_and_kind() {
        let world = World::new().await;
        let bearer = format!("Bearer {METRICS_BEARER}");
        let text = String::from_utf8(with_bearer(&world, "/metrics", &bearer).await.body).unwrap();
        let json = with_bearer(&world, "/metrics.json", &bearer).await.json;
        let counters = "graph_traversals_total graph_traversal_errors_total audit_dropped_total \
                        audit_replay_replayed_total audit_sink_errors_total jwks_invalid_keys_total \
                        secret_backend_reads_total secret_backend_errors_total provider_refresh_shared_total \
                        provider_refresh_leased_total provider_refresh_waited_total provider_refresh_errors_total \
                        provider_circuit_open_total opa_eval_total opa_eval_errors_total \
                        opa_eval_duration_seconds_total opa_compile_total opa_compile_errors_total \
                        opa_compile_duration_seconds_total";
        let gauges = "audit_replay_pending audit_replay_files audit_replay_bytes audit_replay_oldest_age_seconds \
                      opa_max_policy_age_seconds opa_poll_interval_seconds";
        for (kind, names) in [("counter", counters), ("gauge", gauges)] {
            for name in names.split_whitespace() {
                let declared = format!("# TYPE caracal_sts_{name} {kind}\ncaracal_sts_{name} ");
                assert_eq!(text.matches(&declared).count(), 1, "{name} in {text}");
                if !name.starts_with("opa_") {
                    assert!(json["sts"][name.trim_end_matches("_total")].is_number(), "{name} in {json}");
                }
            }
        }
        for name in "eval_total eval_errors eval_duration_ns compile_total compile_errors compile_duration_ns \
                     max_policy_age_seconds poll_interval_seconds"
            .split_whitespace()
        {
            assert!(json["opa"][name].is_number(), "{name} in {json}");
        }
        assert!(json["opa"]["decision_contract_version"].is_string());
        assert_eq!(json["opa"]["decision_contract_sha256"].as_str().map(str::len), Some(64));
        assert!(json["audit_dropped"].is_number());
    }

    #[tokio::test]
    async fn without_a_bearer_they_are_closed_unless_opened_for_development() {
        let closed = World::configured(|config| config.metrics_bearer = None).await;
        assert_eq!(closed.get("/metrics").await.status, 401);
        let open = World::configured(|config| {
            config.metrics_bearer = None;
            config.open_metrics = true;
        })
        .await;
        assert_eq!(open.get("/metrics").await.status, 200);
        let both = World::configured(|config| config.open_metrics = true).await;
        assert_eq!(both.get("/metrics").await.status, 401);
    }
}
