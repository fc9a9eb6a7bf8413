//! Load and failure neither switch enforcement off nor let one tenant starve another (gateway.md §2, §12; README D8).

use std::sync::atomic::Ordering;
use std::time::Duration;

use caracal_gateway::{ExchangeRefusal, GatewayConfig};
use http::StatusCode;
use serde_json::{Value, json};

use crate::sts::Said;
use crate::upstream::Upstream;
use crate::world::{World, config, request, to};

fn down() -> Said {
    Said::Unable(ExchangeRefusal::undecided(StatusCode::BAD_GATEWAY, "sts unavailable"))
}

#[tokio::test]
async fn after_three_outages_a_zone_is_turned_away_at_once_and_keeps_its_mandates() {
    let upstream = Upstream::ok().await;
    let world = World::before(&upstream).await;
    world.sts.says(|_| down());
    for _ in 0..3 {
        assert_eq!(world.get("/x").await.refusal().0, 502);
    }
    let mandate = world.mandate(json!({})).await;
    let held = request("GET", "/x", &mandate, "X-Request-Id: r-1\r\n");
    let answer = world.ask(&held).await;
    assert_eq!(answer.refusal(), (503, "sts_unavailable".to_owned(), "sts unavailable".to_owned()));
    assert!((1..=10).contains(&answer.get("retry-after").unwrap().parse::<u64>().unwrap()));
    assert_eq!(world.sts.times_asked(), 3);
    assert_eq!(world.event("r-1").await.1, "sts_circuit_open");
    for (key, expected) in [("sts_circuit_open", 1), ("sts_circuit_opened", 1), ("sts_circuit_fast_fail", 1)] {
        assert_eq!(world.metric(key).await, expected, "{key}");
    }
    // Another tenant does not notice.
    let url = upstream.url("");
    world.sts.says(move |_| Said::Go(to(url.clone())));
    // Whoever was turned away can come again, here by way of a Gateway whose circuit is closed.
    let second = World::join(world.deployment.clone(), config()).await;
    assert_eq!(second.ask(&held).await.status(), 200);
    let mut claims = world.claims();
    claims["zone_id"] = json!("z-2");
    let other = world.sign("z-2", &claims).await;
    assert_eq!(world.ask(&request("GET", "/x", &other, "")).await.status(), 200);
}

#[tokio::test]
async fn denials_are_no_outages_whatever_their_status() {
    let world = World::scripted(|_| Said::Hang).await;
    for (status, code) in [
        (403, "access_denied"),
        (503, "policy_eval_failed"),
        (502, "http_request_failed"),
        (429, "x"),
        (401, "sts_unavailable"),
    ] {
        world.sts.says(move |_| Said::No(ExchangeRefusal::denied(StatusCode::from_u16(status).unwrap(), code, "")));
        for _ in 0..4 {
            assert_eq!(world.get("/x").await.refusal(), (status, code.to_owned(), String::new()));
        }
    }
    assert_eq!(world.sts.times_asked(), 20);
}

#[tokio::test]
async fn a_success_forgets_two_outages() {
    let upstream = Upstream::ok().await;
    let world = World::before(&upstream).await;
    let url = upstream.url("");
    for _ in 0..2 {
        world.sts.says(|_| down());
        for _ in 0..2 {
            assert_eq!(world.get("/x").await.refusal().0, 502);
        }
        let url = url.clone();
        world.sts.says(move |_| Said::Go(to(url.clone())));
        assert_eq!(world.get("/x").await.status(), 200);
    }
}

/// 499 "client cancelled" (§11.2): there is nobody to be told, and somebody may want to know.
#[tokio::test]
async fn a_caller_who_goes_away_while_the_sts_decides_leaves_its_evidence_and_its_mandate() {
    let upstream = Upstream::ok().await;
    let world = World::scripted(|_| Said::Hang).await;
    let mandate = world.mandate(json!({})).await;
    let mut caller = world.caller().await;
    caller.send(request("GET", "/x", &mandate, "X-Request-Id: r-1\r\n")).await;
    world.sts.arrived.notified().await;
    drop(caller);
    let [event] = world.events("r-1", 1).await.try_into().unwrap();
    assert_eq!((event.decision.as_str(), event.evaluation_status.as_str()), ("deny", "sts_outcome_unknown"));
    let metadata: Value = serde_json::from_str(&event.metadata).unwrap();
    assert_eq!((&metadata["gateway_status"], &metadata["ended_by"]), (&json!(499), &json!("caller")));
    assert_eq!(world.sts.under_way.load(Ordering::SeqCst), 0, "the STS is not kept waiting");
    assert_eq!(world.metric("requests_denied").await, 1);
    let url = upstream.url("");
    world.sts.says(move |_| Said::Go(to(url.clone())));
    // The mandate was not used.
    assert_eq!(world.ask(&request("GET", "/x", &mandate, "X-Request-Id: r-2\r\n")).await.status(), 200);
    assert_eq!((upstream.received().len(), world.event("r-2").await.1), (1, "executed".to_owned()));
}

#[tokio::test]
async fn a_head_that_does_not_come_and_an_idle_connection_are_given_up() {
    let upstream = Upstream::ok().await;
    let url = upstream.url("");
    let config = GatewayConfig {
        read_header_timeout: Duration::from_millis(150),
        idle_timeout: Duration::from_millis(450),
        ..config()
    };
    let world = World::with(config, move |_| Said::Go(to(url.clone()))).await;
    let mut silent = world.caller().await;
    assert!(silent.is_closed().await);
    let mut slow = world.caller().await;
    slow.send("GET /x HTTP/1.1\r\nHost:").await;
    assert!(slow.is_closed().await);
    // Made first: a connection that waits for its making is one whose head does not come.
    let request = world.request("GET", "/x", "").await;
    let mut idle = world.caller().await;
    assert_eq!(idle.ask(&request).await.status(), 200);
    let begun = std::time::Instant::now();
    assert!(idle.is_closed().await);
    assert!(begun.elapsed() >= Duration::from_millis(300), "idle is not a head that does not come");
}

#[tokio::test]
async fn a_caller_who_takes_nothing_is_given_up() {
    let upstream = Upstream::answering(|_| http::Response::new(crate::upstream::full(vec![b'x'; 64 << 20]))).await;
    let url = upstream.url("");
    let config = GatewayConfig { stream_idle_timeout: Duration::from_millis(100), ..config() };
    let world = World::with(config, move |_| Said::Go(to(url.clone()))).await;
    let mut caller = world.caller().await;
    caller.send(world.request("GET", "/x", "X-Request-Id: r-1\r\n").await).await;
    let (_, status, metadata) = world.event("r-1").await;
    assert_eq!((status.as_str(), &metadata["error_kind"]), ("upstream_error", &json!("response_copy_failed")));
    assert!(caller.rest().await.len() < 64 << 20);
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_their_turn() {
    let upstream = Upstream::ok().await;
    let url = upstream.url("");
    let config = GatewayConfig { max_connections: 1, ..config() };
    let world = World::with(config, move |_| Said::Go(to(url.clone()))).await;
    let mut first = world.caller().await;
    assert_eq!(first.ask(&world.request("GET", "/x", "").await).await.status(), 200);
    let mut second = world.caller().await;
    second.send(world.request("GET", "/x", "").await).await;
    assert_eq!(first.ask(&world.request("GET", "/x", "").await).await.status(), 200);
    drop(first);
    assert_eq!(second.answer(true).await.status(), 200);
}

#[tokio::test]
async fn a_mandate_that_is_refused_again_and_again_fills_no_chain() {
    let world = World::scripted(|_| Said::Hang).await;
    world.revoke("session_id", "r-1").await;
    let mandate = world.mandate(json!({})).await;
    let refused = request("GET", "/x", &mandate, "X-Request-Id: r-1\r\n");
    let mut caller = world.caller().await;
    for _ in 0..30 {
        assert_eq!(caller.ask(&refused).await.status(), 401);
    }
    world.events("r-1", 10).await;
    let served = world.deployment.clone();
    world.stop().await;
    assert_eq!(served.events_now("r-1").await.len(), 10);
}
