//! WebSockets: governed like any call, passed untouched, and cut when authority ends (gateway.md "Not supported there",
//! §10; properties 1, 2, 14, 21).

use std::time::Duration;

use caracal_gateway::GatewayConfig;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::caller::Caller;
use crate::sts::Said;
use crate::upstream::{Upstream, read_head};
use crate::world::{NOW, World, config, request, to};

/// The handshake of RFC 6455 §1.3, and the answer to it.
const ASK: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nX-Request-Id: r-1\r\n";
const AGREED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                      Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\
                      X-Caracal-Identity: forged\r\n\r\n";

/// An upstream that agrees and then says everything back. Its heads, and a word for each connection that ended.
async fn echo() -> (Upstream, mpsc::Receiver<String>, mpsc::Receiver<()>) {
    let (heads, seen) = mpsc::channel(8);
    let (gone, is_gone) = mpsc::channel(8);
    let upstream = Upstream::raw(move |mut stream| {
        let (heads, gone) = (heads.clone(), gone.clone());
        async move {
            heads.send(read_head(&mut stream).await).await.unwrap();
            stream.write_all(AGREED.as_bytes()).await.unwrap();
            let (mut from, mut to) = stream.split();
            let _ = tokio::io::copy(&mut from, &mut to).await;
            gone.send(()).await.unwrap();
        }
    })
    .await;
    (upstream, seen, is_gone)
}

/// A caller whose socket is open.
async fn opened(world: &World) -> Caller {
    let mut caller = world.caller().await;
    caller.send(world.request("GET", "/chat?x=1", ASK).await).await;
    let head = caller.head().await;
    assert_eq!(head.status, 101);
    caller
}

async fn says_back(caller: &mut Caller, bytes: &[u8]) {
    caller.send(bytes).await;
    assert_eq!(caller.exactly(bytes.len()).await, bytes);
}

#[tokio::test]
async fn a_websocket_is_governed_like_any_call_and_its_bytes_are_passed_untouched() {
    let (upstream, mut heads, mut gone) = echo().await;
    let world = World::before(&upstream).await;
    let mut caller = world.caller().await;
    // What is sent ahead of the answer belongs to the socket, too.
    let asking = world.request("GET", "/chat?x=1", &format!("{ASK}Sec-WebSocket-Protocol: chat\r\n")).await;
    caller.send([asking.as_bytes(), &[0x81, 0x00, 0xff]].concat()).await;
    let head = caller.head().await;
    assert_eq!((head.status, head.get("connection"), head.get("upgrade")), (101, Some("Upgrade"), Some("websocket")));
    assert_eq!(head.get("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!((head.get("sec-websocket-protocol"), head.get("x-request-id")), (Some("chat"), Some("r-1")));
    assert_eq!((head.get("x-caracal-identity"), head.get("trailer")), (None, None));
    assert_eq!(head.get("x-caracal-token-expires-in"), Some("300"));
    assert_eq!(caller.exactly(3).await, [0x81, 0x00, 0xff]);
    says_back(&mut caller, b"\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n").await;
    let sent = heads.recv().await.unwrap().to_ascii_lowercase();
    assert!(sent.starts_with("get /chat?x=1 http/1.1\r\n"), "{sent}");
    for line in
        ["connection: upgrade", "upgrade: websocket", "sec-websocket-version: 13", "sec-websocket-protocol: chat"]
    {
        assert!(sent.contains(&format!("\r\n{line}\r\n")), "{line}: {sent}");
    }
    assert!(sent.contains("\r\nauthorization: bearer minted.for.resource\r\n"), "{sent}");
    assert!(!sent.contains("x-caracal"), "{sent}");
    let asked = world.sts.asked();
    assert_eq!((asked.len(), asked[0].method.as_str(), asked[0].path.as_str()), (1, "GET", "/chat"));
    assert_eq!(world.metric("websockets_open").await, 1);
    drop(caller);
    gone.recv().await.unwrap();
    let (decision, status, metadata) = world.event("r-1").await;
    assert_eq!((decision.as_str(), status.as_str()), ("allow", "executed"));
    let said = 3 + 30;
    assert_eq!((&metadata["gateway_status"], &metadata["ended_by"]), (&json!(101), &json!("caller")));
    assert_eq!((&metadata["request_bytes"], &metadata["response_bytes"]), (&json!(said), &json!(said)));
    assert_eq!(world.metric("websockets_open").await, 0);
    assert_eq!(world.metric("calls_open").await, 0);
}

#[tokio::test]
async fn without_authority_no_socket_is_opened() {
    let (upstream, _heads, _gone) = echo().await;
    let world = World::before(&upstream).await;
    let used = world.mandate(json!({})).await;
    let answer = world.ask(&request("GET", "/x", "none", ASK)).await;
    assert_eq!(answer.status(), 401);
    let mut caller = world.caller().await;
    caller.send(request("GET", "/x", &used, ASK)).await;
    assert_eq!(caller.head().await.status, 101);
    let again = world.ask(&request("GET", "/x", &used, &ASK.replace("r-1", "r-2"))).await;
    assert_eq!(again.refusal(), (401, "invalid_token".to_owned(), "token replay detected".to_owned()));
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn a_revocation_cuts_an_open_socket_also_when_nobody_speaks() {
    for (field, id) in
        [("session_id", "r-1"), ("session_id", "r-0"), ("agent_session_id", "s-1"), ("delegation_edge_id", "e-1")]
    {
        let (upstream, _heads, mut gone) = echo().await;
        let world = World::before(&upstream).await;
        let mut caller = opened(&world).await;
        says_back(&mut caller, b"hello").await;
        world.revoke(field, id).await;
        assert!(tokio::time::timeout(Duration::from_secs(1), caller.is_closed()).await.unwrap());
        gone.recv().await.unwrap();
        let (_, status, metadata) = world.event("r-1").await;
        assert_eq!((status.as_str(), &metadata["revocation_interrupted"]), ("executed", &json!(true)), "{field}");
        assert_eq!((&metadata["ended_by"], &metadata["response_bytes"]), (&json!("revocation"), &json!(5)));
    }
}

#[tokio::test]
async fn the_end_of_the_mandate_ends_the_socket_that_it_opened() {
    let (upstream, _heads, mut gone) = echo().await;
    let url = upstream.url("");
    let world = World::scripted(move |_| Said::Wait(to(url.clone()))).await;
    let mandate = world.mandate(json!({"exp": NOW + 40})).await;
    let mut caller = world.caller().await;
    caller.send(request("GET", "/chat", &mandate, ASK)).await;
    world.sts.arrived.notified().await;
    world.clock.advance(39);
    world.sts.go_on.notify_one();
    let head = caller.head().await;
    assert_eq!((head.status, head.get("x-caracal-token-expires-in")), (101, Some("1")));
    says_back(&mut caller, b"hello").await;
    assert!(caller.is_closed().await);
    gone.recv().await.unwrap();
    let (_, status, metadata) = world.event("r-1").await;
    assert_eq!((status.as_str(), &metadata["ended_by"]), ("executed", &json!("expiry")));
}

async fn impatient(upstream: &Upstream, idle: Duration) -> World {
    let url = upstream.url("");
    let config = GatewayConfig { stream_idle_timeout: idle, ..config() };
    World::with(config, move |_| Said::Go(to(url.clone()))).await
}

#[tokio::test]
async fn silence_ends_a_socket_and_words_in_one_direction_keep_it() {
    let idle = Duration::from_millis(150);
    let upstream = Upstream::raw(move |mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(AGREED.as_bytes()).await.unwrap();
        for _ in 0..8 {
            tokio::time::sleep(idle / 3).await;
            stream.write_all(b".").await.unwrap();
        }
        let _ = stream.read_u8().await;
    })
    .await;
    let world = impatient(&upstream, idle).await;
    let mut caller = opened(&world).await;
    assert_eq!(caller.rest().await, b"........");
    let (_, status, metadata) = world.event("r-1").await;
    assert_eq!((status.as_str(), &metadata["ended_by"]), ("upstream_error", &json!("silence")));
}

/// Neither side's bytes are held here: who takes nothing stops the other, and is given up like who says nothing.
#[tokio::test]
async fn a_caller_who_takes_nothing_stops_the_upstream_and_is_given_up() {
    let (stuck, mut is_stuck) = mpsc::channel(1);
    let upstream = Upstream::raw(move |mut stream| {
        let stuck = stuck.clone();
        async move {
            read_head(&mut stream).await;
            stream.write_all(AGREED.as_bytes()).await.unwrap();
            while stream.write_all(&[0; 64 * 1024]).await.is_ok() {}
            stuck.send(()).await.unwrap();
        }
    })
    .await;
    let world = impatient(&upstream, Duration::from_millis(200)).await;
    let _caller = opened(&world).await;
    is_stuck.recv().await.unwrap();
    assert_eq!(world.event("r-1").await.2["ended_by"], "silence");
}

#[tokio::test]
async fn an_answer_that_is_none_to_the_handshake_opens_nothing() {
    for answer in [
        &b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"[..],
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
    ] {
        let upstream = Upstream::saying(answer).await;
        let world = World::before(&upstream).await;
        let mut caller = world.caller().await;
        caller.send(world.request("GET", "/x", ASK).await).await;
        let refused = caller.answer(true).await;
        assert_eq!(refused.refusal(), (502, "internal_error".to_owned(), "upstream unreachable".to_owned()));
        // It is still HTTP, and the next request is judged like any other.
        caller.send("GET /y HTTP/1.1\r\nHost: g\r\n\r\n").await;
        assert_eq!(caller.answer(true).await.status(), 401);
    }
    // A refusal of the upstream's is the caller's to read.
    let refusing = b"HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 14\r\nContent-Length: 2\r\n\r\nno";
    let upstream = Upstream::saying(refusing).await;
    let world = World::before(&upstream).await;
    let request = world.request("GET", "/x", ASK).await;
    let answer = world.ask(&request).await;
    assert_eq!((answer.status(), answer.text().as_str(), answer.get("upgrade")), (426, "no", None));
}

#[tokio::test]
async fn less_than_a_whole_handshake_goes_upstream_as_a_plain_request() {
    let upstream = Upstream::ok().await;
    let world = World::before(&upstream).await;
    for less in [
        ASK.replace("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 12"),
        ASK.replace("dGhlIHNhbXBsZSBub25jZQ==", "short"),
        ASK.replace("Upgrade: websocket", "Upgrade: h2c"),
        ASK.replace("Connection: Upgrade", "Connection: close"),
        format!("{ASK}Transfer-Encoding: chunked\r\n"),
    ] {
        let asking = world.request("GET", "/x", &less).await;
        let answer = world.ask(&format!("{asking}0\r\n\r\n")).await;
        assert_eq!(answer.status(), 200, "{less}");
        let received = upstream.received().pop().unwrap();
        assert_eq!((received.get("upgrade"), received.get("connection")), (None, None), "{less}");
    }
}

#[tokio::test]
async fn a_stop_ends_open_sockets_at_once() {
    let (upstream, _heads, mut gone) = echo().await;
    let world = World::before(&upstream).await;
    let mut caller = opened(&world).await;
    says_back(&mut caller, b"hello").await;
    let deployment = world.deployment.clone();
    assert_eq!(world.stop().await.connections, caracal_http::server::Ended::Drained);
    assert!(caller.is_closed().await);
    gone.recv().await.unwrap();
    let metadata = deployment.event("r-1").await.2;
    assert_eq!((&metadata["ended_by"], &metadata["request_bytes"]), (&json!("stop"), &json!(5)));
}
