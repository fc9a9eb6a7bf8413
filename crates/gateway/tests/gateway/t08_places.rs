//! Tenants at one upstream (gateway.md §16; "no per-tenant isolation" among its weaknesses).

use caracal_gateway::GatewayConfig;
use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::caller::{Answer, Caller};
use crate::sts::Said;
use crate::upstream::{Upstream, read_head};
use crate::world::{World, config, request, to};

/// `/stream` begins an event stream that never ends; everything else is answered.
async fn streaming() -> Upstream {
    Upstream::raw(|mut stream| async move {
        while let head = read_head(&mut stream).await
            && !head.is_empty()
        {
            if head.starts_with("GET /stream") {
                let begun = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
                let _ = stream.write_all(begun).await;
                let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
                return;
            }
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        }
    })
    .await
}

async fn with_places(upstream: &Upstream, most: usize) -> World {
    let url = upstream.url("");
    let config = GatewayConfig { max_upstream_connections: most, ..config() };
    World::with(config, move |_| Said::Go(to(url.clone()))).await
}

async fn opened(world: &World) -> Caller {
    let mut caller = world.caller().await;
    caller.send(world.request("GET", "/stream", "").await).await;
    assert_eq!(caller.head().await.status, 200);
    caller
}

#[tokio::test]
async fn streams_of_one_tenant_stall_no_other_and_end_in_turn() {
    let upstream = streaming().await;
    let world = with_places(&upstream, 2).await;
    let stream = opened(&world).await;
    // Its share is taken: its next call waits.
    let mut waits = world.caller().await;
    waits.send(world.request("GET", "/x", "").await).await;
    let mut claims = world.claims();
    claims["zone_id"] = json!("z-2");
    let other = world.sign("z-2", &claims).await;
    assert_eq!(world.ask(&request("GET", "/x", &other, "")).await.status(), 200);
    drop(stream);
    assert_eq!(waits.answer(true).await.status(), 200);
    // Answered calls have given their places back.
    for _ in 0..5 {
        assert_eq!(world.get("/x").await.status(), 200);
    }
}

/// Of two calls for which there is no place, one waits, and its id is the last; the other has its answer.
async fn one_waits(world: &World) -> (Answer, &'static str, Caller, &'static str) {
    let (mut first, mut second) = (world.caller().await, world.caller().await);
    first.send(world.request("GET", "/x", "X-Request-Id: r-1\r\n").await).await;
    second.send(world.request("GET", "/x", "X-Request-Id: r-2\r\n").await).await;
    // Which is which is settled by who comes first.
    tokio::select! {
        answer = first.answer(true) => (answer, "r-1", second, "r-2"),
        answer = second.answer(true) => (answer, "r-2", first, "r-1"),
    }
}

#[tokio::test]
async fn an_upstream_that_too_many_wait_for_is_said_to_be_busy() {
    let upstream = streaming().await;
    let world = with_places(&upstream, 1).await;
    let stream = opened(&world).await;
    let (answer, id, mut waits, _) = one_waits(&world).await;
    assert_eq!(answer.refusal(), (503, "internal_error".to_owned(), "upstream busy".to_owned()));
    assert_eq!(answer.get("retry-after"), Some("1"));
    let (_, status, metadata) = world.event(id).await;
    assert_eq!((status.as_str(), &metadata["error_kind"]), ("upstream_error", &json!("transport_error")));
    drop(stream);
    assert_eq!(waits.answer(true).await.status(), 200);
}

#[tokio::test]
async fn what_is_revoked_while_it_waits_for_a_place_is_not_begun() {
    let upstream = streaming().await;
    let world = with_places(&upstream, 1).await;
    let mut claims = world.claims();
    claims["agent_session_id"] = json!("s-other");
    let mandate = world.sign("z-1", &claims).await;
    let mut stream = world.caller().await;
    stream.send(request("GET", "/stream", &mandate, "")).await;
    assert_eq!(stream.head().await.status, 200);
    let (_, _, mut waits, id) = one_waits(&world).await;
    world.revoke("agent_session_id", "s-1").await;
    drop(stream);
    let refused = (401, "invalid_token".to_owned(), "session revoked".to_owned());
    assert_eq!(waits.answer(true).await.refusal(), refused);
    assert_eq!(world.event(id).await.1, "upstream_rejected");
    assert_eq!(upstream.connections(), 1);
}
