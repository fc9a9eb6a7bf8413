//! Limits of one resource beside the Gateway's own (gateway.md §15.5, §16, §17.2).

use std::time::Duration;

use caracal_gateway::{Directive, GatewayConfig};
use caracal_store::resources::CallLimits;
use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::sts::Said;
use crate::upstream::{Upstream, read_head};
use crate::world::{World, config, to};

async fn limited(upstream: &Upstream, config: GatewayConfig, limits: CallLimits) -> World {
    let url = upstream.url("");
    World::with(config, move |_| Said::Go(Directive { limits, ..to(url.clone()) })).await
}

/// Says `bytes` after `pause`, and then nothing more.
async fn slow(pause: Duration, bytes: &'static [u8]) -> Upstream {
    Upstream::raw(move |mut stream| async move {
        read_head(&mut stream).await;
        tokio::time::sleep(pause).await;
        let _ = stream.write_all(bytes).await;
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    })
    .await
}

const SOON: Option<u32> = Some(50);
const NEVER: Duration = Duration::from_secs(600);

#[tokio::test]
async fn a_resource_may_give_its_upstream_less_time_or_more() {
    let silent = slow(NEVER, b"").await;
    let hasty = CallLimits { upstream_timeout_ms: SOON, ..CallLimits::default() };
    let world = limited(&silent, config(), hasty).await;
    let timeout = (504, "internal_error".to_owned(), "upstream timeout".to_owned());
    assert_eq!(world.get("/x").await.refusal(), timeout);
    let thinking = slow(Duration::from_millis(100), b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let own = GatewayConfig { upstream_timeout: Duration::from_millis(50), ..config() };
    let patient = CallLimits { upstream_timeout_ms: Some(10_000), ..CallLimits::default() };
    assert_eq!(limited(&thinking, own, patient).await.get("/x").await.status(), 200);
}

#[tokio::test]
async fn a_resource_says_how_long_its_responses_may_be_silent_or_take() {
    let stream = slow(Duration::ZERO, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n").await;
    let silence = CallLimits { stream_idle_timeout_ms: SOON, ..CallLimits::default() };
    assert!(!limited(&stream, config(), silence).await.get("/x").await.whole);
    let known = slow(Duration::ZERO, b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nok").await;
    let total = CallLimits { write_timeout_ms: SOON, ..CallLimits::default() };
    assert!(!limited(&known, config(), total).await.get("/x").await.whole);
}

#[tokio::test]
async fn a_body_too_large_for_its_resource_is_not_sent() {
    let upstream = Upstream::ok().await;
    let small = CallLimits { max_request_bytes: Some(16), ..CallLimits::default() };
    let world = limited(&upstream, config(), small).await;
    let too_large = (413, "payload_too_large".to_owned(), "request body too large".to_owned());
    let head = world.request("POST", "/x", "Content-Length: 17\r\nX-Request-Id: r-1\r\n").await;
    assert_eq!(world.ask(&format!("{head}{}", "x".repeat(17))).await.refusal(), too_large);
    assert_eq!(world.event("r-1").await.2["gateway_status"], json!(413));
    assert_eq!(upstream.connections(), 0);
    let chunked = world.request("POST", "/x", "Transfer-Encoding: chunked\r\n").await;
    let body = format!("11\r\n{}\r\n0\r\n\r\n", "x".repeat(17));
    assert_eq!(world.ask(&format!("{chunked}{body}")).await.refusal(), too_large);
    assert!(upstream.received().iter().all(|received| !received.whole));
    let fits = world.request("POST", "/fits", "Content-Length: 16\r\n").await;
    assert_eq!(world.ask(&format!("{fits}{}", "x".repeat(16))).await.status(), 200);
    // None at all for a resource that takes no bodies.
    let none = CallLimits { max_request_bytes: Some(0), ..CallLimits::default() };
    let world = limited(&upstream, config(), none).await;
    let head = world.request("POST", "/x", "Content-Length: 1\r\n").await;
    assert_eq!(world.ask(&format!("{head}x")).await.refusal(), too_large);
    assert_eq!(world.get("/x").await.status(), 200);
}

#[tokio::test]
async fn a_resource_cannot_raise_the_gateways_own_limit_of_bodies() {
    let upstream = Upstream::ok().await;
    let large = CallLimits { max_request_bytes: Some(u64::MAX), ..CallLimits::default() };
    let world = limited(&upstream, GatewayConfig { max_request_bytes: 16, ..config() }, large).await;
    let chunked = world.request("POST", "/x", "Transfer-Encoding: chunked\r\n").await;
    let body = format!("11\r\n{}\r\n0\r\n\r\n", "x".repeat(17));
    assert_eq!(world.ask(&format!("{chunked}{body}")).await.status(), 413);
}
